package ingress

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/redistest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

func redisDedup(url string) string { return fmt.Sprintf(", dedup: {store: redis, url: %q}", url) }

// answer sends one signed sample and returns the status of its answer's body.
func (h *harness) answer(source, preset, secret string, s provider.Sample) string {
	h.t.Helper()
	resp, body := h.call(h.signed(source, preset, secret, time.Now(), s))
	require.Equal(h.t, http.StatusOK, resp.StatusCode, body)
	switch {
	case strings.Contains(body, `"accepted"`):
		return "accepted"
	case strings.Contains(body, `"duplicate"`):
		return "duplicate"
	}
	return body
}

// TestSharedLookup: what one ingress has got acknowledged is a duplicate at the other, and nothing is once Kafka may
// have lost it.
func TestSharedLookup(t *testing.T) {
	url := redistest.New(t)
	if url == "" {
		return // said, and a failure where real parts are required
	}
	cluster := kafkatest.New(t)
	topic := cluster.Topic(t, 3)
	a := startOn(t, cluster, topic, "20s", redisDedup(url), "")
	b := startOn(t, cluster, topic, "20s", redisDedup(url), "")
	a.ready()
	b.ready()
	s := sampleOf("stripe", 1)
	require.Equal(t, "accepted", a.answer("stripe", "stripe", stripeSecret, s))
	require.Equal(t, "duplicate", b.answer("stripe", "stripe", stripeSecret, s))
	require.Equal(t, "duplicate", a.answer("stripe", "stripe", stripeSecret, s))
	other := s
	other.Body = append([]byte(nil), append(s.Body, ' ')...)
	require.Equal(t, "accepted", b.answer("stripe", "stripe", stripeSecret, other), "the same ID with other bytes")

	elsewhere := startOn(t, cluster, cluster.Topic(t, 3), "20s", redisDedup(url), "")
	elsewhere.ready()
	require.Equal(t, "accepted", elsewhere.answer("stripe", "stripe", stripeSecret, s), "another topic")

	b.forget()
	require.Eventually(t, func() bool { return b.lookup.(*shared).restTill.Load() == 0 }, 30*time.Second, 5*time.Millisecond)
	require.Equal(t, "accepted", a.answer("stripe", "stripe", stripeSecret, s), "what was acknowledged may be gone")
	require.Equal(t, "duplicate", b.answer("stripe", "stripe", stripeSecret, s))

	// A body under another ID is a suspect at the other ingress as well, and is not refused.
	g := sampleOf("github", 1)
	require.Equal(t, "accepted", a.answer("github", "github", githubSecret, g))
	twin := g
	twin.ID = "00000000-0000-4000-8000-000000000001"
	require.Equal(t, "accepted", b.answer("github", "github", githubSecret, twin))
	got := a.deliveries()
	require.False(t, got["github "+g.ID][0].Verdict.Has(event.FlagReplaySuspect))
	require.True(t, got["github 00000000-0000-4000-8000-000000000001"][0].Verdict.Has(event.FlagReplaySuspect))
}

// TestRedisKilled kills, stops and restarts Redis while webhooks come in twice each: every answer is 200, soon, and
// what was answered is in the log.
func TestRedisKilled(t *testing.T) {
	server := redistest.Start(t)
	if server == nil {
		return // said, and a failure where real parts are required
	}
	h := start(t, kafkatest.New(t), "20s", redisDedup(server.URL))
	h.ready()
	var n atomic.Int64
	var acked sync.Map
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				s := sampleOf("stripe", w*1_000_000+i)
				for range 2 {
					began := time.Now()
					resp, err := http.DefaultClient.Do(h.signed("stripe", "stripe", stripeSecret, time.Now(), s))
					if err != nil {
						t.Error(err)
						return
					}
					_ = resp.Body.Close()
					if resp.StatusCode != http.StatusOK || time.Since(began) > 10*time.Second {
						t.Errorf("answered %d after %s", resp.StatusCode, time.Since(began))
					}
				}
				acked.Store("stripe "+s.ID, true)
				n.Add(1)
			}
		})
	}
	after := func(more int64) {
		t.Helper()
		target := n.Load() + more
		require.Eventually(t, func() bool { return n.Load() >= target }, time.Minute, 5*time.Millisecond)
	}
	count := func(result string) float64 { return testutil.ToFloat64(h.metrics.lookups.WithLabelValues(result)) }
	seenAgain := func() {
		t.Helper()
		before := count(lookupSeen)
		require.Eventually(t, func() bool { return count(lookupSeen) > before+10 }, 30*time.Second, 5*time.Millisecond)
	}
	seenAgain()
	server.Kill()
	after(100)
	require.Positive(t, count(lookupSkipped), "a dead Redis is left alone")
	server.Restart()
	seenAgain()
	server.Signal(syscall.SIGSTOP)
	after(100)
	server.Signal(syscall.SIGCONT)
	seenAgain()
	close(stop)
	wg.Wait()
	got := h.deliveries()
	acked.Range(func(id, _ any) bool { require.Contains(t, got, id); return true })
}

func TestRedisConfiguration(t *testing.T) {
	for name, c := range map[string]struct{ dedup, want string }{
		"no URL":        {"{store: redis}", "catchment.yaml:2:41: ingress.dedup.url: store redis needs a URL"},
		"another's URL": {"{store: redis, url: \"postgres://u:canary@h/d\"}", "ingress.dedup.url: store redis needs a URL"},
		"option":        {"{store: redis, url: \"redis://u:canary@h:1/0?nope=1\"}", "ingress.dedup.url: expected a URL such as"},
		"database":      {"{store: redis, url: \"redis://u:canary@h:1/zero\"}", "ingress.dedup.url: expected a URL such as"},
		"CA":            {"{store: redis, url: \"rediss://h:1\", tls: {ca_file: nowhere.pem}}", "ingress.dedup.tls: open "},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, err := settings.Parse("catchment.yaml", []byte("kafka: {brokers: [\"127.0.0.1:1\"]}\ningress: {listen: \"127.0.0.1:0\", dedup: "+c.dedup+"}\n"), settings.NeedKafka, settings.NeedIngress)
			if err == nil {
				_, err = New(cfg, discard(), registry())
			}
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "canary")
		})
	}
}
