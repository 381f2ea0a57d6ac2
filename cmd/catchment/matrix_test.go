package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/ingress"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
)

// The look-up is off: what is shown must not rest on it. The operation's effect cannot hide a repetition.
const replicasConfig = `
kafka: {brokers: ["%s"], topic: %s, create_topic: false}
postgres: {url: "%s"}
ingress: {listen: "127.0.0.1:0", dedup: {store: "off"}}
processor: {group: "%[2]s.processor"}
sources:
  stripe: {provider: stripe, secrets: ["whsec_end_to_end"]}
  stripe-two: {provider: stripe, secrets: ["whsec_end_to_end"]}
operations:
  - name: ledger
    on: {source: stripe}
    sql: INSERT INTO ledger (source, event_id) VALUES (@source, @id)
  - name: ledger-two
    on: {source: stripe-two}
    sql: INSERT INTO ledger (source, event_id) VALUES (@source, @id)
`

// replicas is a processor and some ingresses on one topic and one database, all in this process.
type replicas struct {
	t       *testing.T
	cfg     *settings.File
	cluster *kafkatest.Cluster
	topic   string
	db      *pgx.Conn
}

func newReplicas(t *testing.T, partitions int) *replicas {
	t.Helper()
	r := &replicas{t: t, cluster: kafkatest.New(t)}
	r.topic = r.cluster.Topic(t, partitions)
	url := pgtest.New(t)
	require.NoError(t, processor.Migrate(t.Context(), url))
	var err error
	r.cfg, err = settings.Parse("catchment.yaml", fmt.Appendf(nil, replicasConfig, strings.Join(r.cluster.Brokers, `", "`), r.topic, url),
		settings.NeedKafka, settings.NeedIngress, settings.NeedSources, settings.NeedProcessor, settings.NeedPostgres, settings.NeedOperations)
	require.NoError(t, err)
	r.db, err = pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.db.Close(context.Background()) })
	_, err = r.db.Exec(t.Context(), "CREATE TABLE ledger (source text, event_id text)")
	require.NoError(t, err)
	p, err := processor.New(r.cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(t, err)
	r.start(p)
	return r
}

// start runs a service until stop, or the test's end.
func (r *replicas) start(s run.Service) (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); require.NoError(r.t, <-done) })
	r.t.Cleanup(stop)
	require.True(r.t, await(r.t, 60*time.Second, func() bool { return s.Ready() == nil }), "%s is not ready: %v", s.Name(), s.Ready())
	return stop
}

// ingress starts one more replica and returns its URL.
func (r *replicas) ingress() (url string, stop func()) {
	r.t.Helper()
	s, err := ingress.New(r.cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(r.t, err)
	stop = r.start(s)
	return "http://" + s.Addr(), stop
}

// eventually waits until a query gives a number.
func (r *replicas) eventually(want int, sql string) {
	r.t.Helper()
	got := -1
	require.True(r.t, await(r.t, 90*time.Second, func() bool {
		require.NoError(r.t, r.db.QueryRow(r.t.Context(), sql).Scan(&got), sql)
		return got == want
	}), "expected %d, found %d: %s", want, got, sql)
}

// post sends a genuine event and says whether it was taken.
func (r *replicas) post(client *http.Client, base, source string, s provider.Sample) (bool, error) {
	stripe, _ := provider.ByName("stripe")
	url := base + "/webhooks/" + source
	signed, err := stripe.Sign(&provider.SignInput{Secret: e2eSecret, Method: http.MethodPost, URL: url, Body: s.Body, Now: time.Now(), Sample: s})
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, url, bytes.NewReader(s.Body))
	if err != nil {
		return false, err
	}
	req.Header = signed.Header
	resp, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK, err
}

func (r *replicas) deliver(base, source string, s provider.Sample) {
	r.t.Helper()
	require.True(r.t, await(r.t, 60*time.Second, func() bool {
		taken, err := r.post(http.DefaultClient, base, source, s)
		require.NoError(r.t, err)
		return taken
	}))
}

func stripeSample(seq int) provider.Sample {
	stripe, _ := provider.ByName("stripe")
	return stripe.Sample(rand.New(rand.NewPCG(14, uint64(seq))), provider.SampleInput{Seq: seq, Now: time.Unix(1_790_000_000, 0), Run: uint32(os.Getpid())})
}

// R14: the topic gets more partitions while senders try again. The same event is then in the log on two partitions,
// and takes effect once.
func TestR14MorePartitions(t *testing.T) {
	const events = 60
	r := newReplicas(t, 12)
	url, stop := r.ingress()
	for seq := range events {
		r.deliver(url, "stripe", stripeSample(seq))
	}
	client := r.cluster.Client(t)
	_, err := kadm.NewClient(client).UpdatePartitions(t.Context(), 24, r.topic)
	require.NoError(t, err)
	require.True(t, await(t, 30*time.Second, func() bool {
		details, err := kadm.NewClient(client).ListTopics(t.Context(), r.topic)
		return err == nil && len(details[r.topic].Partitions) == 24 && details[r.topic].Partitions[23].Leader >= 0
	}))
	stop() // a new replica sees the new partitions at once, an old one within a minute
	url, _ = r.ingress()
	for seq := range events {
		r.deliver(url, "stripe", stripeSample(seq))
	}
	r.eventually(2*events, `SELECT coalesce(sum(deliveries), 0)::int FROM catchment.events`)
	r.eventually(events, `SELECT count(*)::int FROM ledger`)
	r.eventually(events, `SELECT count(DISTINCT event_id)::int FROM ledger`)
	r.eventually(0, `SELECT count(*)::int FROM catchment.conflicts`)

	places := map[string]map[int32]bool{}
	reader := r.cluster.Client(t, kgo.ConsumeTopics(r.topic))
	for seen := 0; seen < 2*events; {
		for _, rec := range reader.PollFetches(t.Context()).Records() {
			seen++
			d, err := event.Decode(rec)
			require.NoError(t, err)
			if places[d.ID] == nil {
				places[d.ID] = map[int32]bool{}
			}
			places[d.ID][rec.Partition] = true
		}
	}
	moved := 0
	for _, p := range places {
		if len(p) == 2 {
			moved++
		}
	}
	require.Greater(t, moved, events/5, "events on two partitions")
}

// R33: one event is sent ten thousand times at once to two replicas, with other bytes in between, and under the same
// ID to another source. It takes effect once in each source, and the other bytes are recorded as a conflict.
func TestR33SameIDAtOnce(t *testing.T) {
	const times, senders = 10_000, 64
	r := newReplicas(t, 3)
	first, _ := r.ingress()
	second, _ := r.ingress()
	s := stripeSample(33)
	other := s
	other.Body = bytes.Replace(s.Body, []byte("{"), []byte("{ "), 1)
	r.deliver(first, "stripe", s) // the first bytes win: these

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: senders}, Timeout: time.Minute}
	t.Cleanup(client.CloseIdleConnections)
	var next, taken, conflicts, two atomic.Int64
	taken.Add(1)
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for i := next.Add(1); i < times; i = next.Add(1) {
				sample, source, count := s, "stripe", &taken
				switch {
				case i%1000 == 500:
					sample, count = other, &conflicts
				case i%10 == 0:
					source, count = "stripe-two", &two
				}
				ok, err := r.post(client, []string{first, second}[i%2], source, sample)
				if err != nil {
					t.Error(err)
					return
				}
				if ok {
					count.Add(1)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d taken, %d with other bytes, %d of the other source", taken.Load(), conflicts.Load(), two.Load())
	require.Greater(t, taken.Load(), int64(times/2))
	require.Equal(t, int64(times/1000), conflicts.Load())
	r.eventually(int(taken.Load()+conflicts.Load()), `SELECT coalesce(sum(deliveries), 0)::int FROM catchment.events WHERE source = 'stripe'`)
	r.eventually(int(two.Load()), `SELECT coalesce(sum(deliveries), 0)::int FROM catchment.events WHERE source = 'stripe-two'`)
	r.eventually(1, `SELECT count(*)::int FROM ledger WHERE source = 'stripe'`)
	r.eventually(1, `SELECT count(*)::int FROM ledger WHERE source = 'stripe-two'`)
	r.eventually(int(conflicts.Load()), `SELECT count(*)::int FROM catchment.conflicts WHERE source = 'stripe'`)
	r.eventually(0, `SELECT count(*)::int FROM catchment.conflicts WHERE source = 'stripe-two'`)
}
