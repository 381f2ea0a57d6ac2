package ingress

import (
	"bytes"
	"compress/gzip"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// TestEvidence sends one webhook of each kind and reads from Kafka exactly what was sent.
func TestEvidence(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", "")
	h.ready()
	type sent struct {
		id, typ string
		req     *http.Request
		body    []byte
	}
	want := map[string]sent{}
	for _, c := range []struct{ source, preset, secret string }{
		{"stripe", "stripe", stripeSecret}, {"github", "github", githubSecret}, {"slack", "slack", slackSecret},
	} {
		s := sampleOf(c.preset, 7)
		req := h.signed(c.source, c.preset, c.secret, time.Now(), s)
		req.Header["X-Twice"] = []string{"one", "caf\xe9"}
		req.Header.Set("Authorization", "Bearer canary-token")
		req.Header.Set("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		req.URL.RawQuery = "a=%2F&b=1"
		want[c.source] = sent{s.ID, s.Type, req, s.Body}
	}
	raw := []byte("{\"id\": \"ev-1\",\r\n\t\"kind\":\"\xff\x00 bytes\"}")
	want["partner2"] = sent{"", "", hmacRequest(h.url+"/webhooks/partner2", raw, "x-signature", ""), raw}
	before := time.Now()
	for source, s := range want {
		resp, body := h.call(s.req)
		id := s.id
		if id == "" {
			id = fmt.Sprintf("sha256:%x", sha(raw))
		}
		requireAccepted(t, resp, body, "accepted", id, source)
		ds := h.deliveries()[source+" "+id]
		require.Len(t, ds, 1)
		d := ds[0]
		require.Equal(t, string(s.body), string(d.Body))
		require.Equal(t, s.typ, d.Type)
		require.Equal(t, resp.Header.Get(headerDeliveryID), d.DeliveryID)
		require.Equal(t, uuid.Version(7), uuid.MustParse(d.DeliveryID).Version())
		require.WithinRange(t, d.ReceivedAt, before.Add(-time.Second), time.Now().Add(time.Second))
		require.Equal(t, "POST", d.Method)
		require.Equal(t, "/webhooks/"+source, d.Path)
		require.Equal(t, s.req.URL.RawQuery, d.Query)
		require.Equal(t, "127.0.0.1", d.RemoteAddr)
		require.NotEmpty(t, d.SecretID)
		require.True(t, d.Verdict.Has(event.FlagVerified))
		require.Equal(t, source == "partner2", d.Verdict.Has(event.FlagIDDigest))
		hm := d.HeaderMap()
		require.Equal(t, []string{s.req.URL.Host}, hm["host"])
		for name, values := range s.req.Header {
			if name == "Authorization" {
				values = []string{redacted}
			}
			require.Equal(t, values, hm[strings.ToLower(name)], name)
		}
		require.Equal(t, s.req.Header.Get("Traceparent"), d.TraceParent)
	}
	for _, r := range h.records() {
		for _, rh := range r.Headers {
			require.NotContains(t, string(rh.Value), "canary-token")
		}
	}
	require.NotContains(t, h.log.String(), "canary-token")
}

// TestEveryRefusal holds the table of answers, and that a refused request leaves nothing in Kafka.
func TestEveryRefusal(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", "")
	h.ready()
	good := sampleOf("stripe", 1)
	at := func(d time.Duration) *http.Request {
		return h.signed("stripe", "stripe", stripeSecret, time.Now().Add(d), good)
	}
	edit := func(req *http.Request, f func(*http.Request)) *http.Request { f(req); return req }
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, _ = zw.Write(good.Body)
	require.NoError(t, zw.Close())
	tampered := bytes.Replace(good.Body, []byte("payment_intent"), []byte("payment_intenT"), 1)
	big := bytes.Repeat([]byte("a"), 1<<20+1)
	for name, c := range map[string]struct {
		req    *http.Request
		status int
		slug   string
	}{
		"wrong signature": {edit(at(0), func(r *http.Request) {
			sig := []byte(r.Header.Get("Stripe-Signature"))
			sig[20] = map[bool]byte{true: '1', false: '0'}[sig[20] == '0']
			r.Header.Set("Stripe-Signature", string(sig))
		}), 401, "unauthenticated"},
		"no signature":      {post(h.url+"/webhooks/stripe", nil, good.Body), 401, "unauthenticated"},
		"tampered body":     {edit(at(0), func(r *http.Request) { r.Body = io.NopCloser(bytes.NewReader(tampered)) }), 401, "unauthenticated"},
		"other's signature": {h.signed("stripe", "stripe", "whsec_another_secret", time.Now(), good), 401, "unauthenticated"},
		"stale":             {at(-time.Hour), 401, "unauthenticated"},
		"future":            {at(time.Hour), 401, "unauthenticated"},
		"repeated header":   {edit(at(0), func(r *http.Request) { r.Header.Add("Stripe-Signature", "t=1,v1=00") }), 400, "malformed"},
		"duplicate id": {h.signed("stripe", "stripe", stripeSecret, time.Now(), provider.Sample{
			Header: good.Header, Body: []byte(`{"id":"evt_1","id":"evt_2","type":"a"}`),
		}), 400, "malformed"},
		"missing id":         {hmacRequest(h.url+"/webhooks/partner", []byte(`{"kind":"a"}`), "x-signature", "sha256="), 400, "missing-id"},
		"unknown source":     {post(h.url+"/webhooks/nobody", nil, good.Body), 404, "unknown-source"},
		"no source":          {post(h.url+"/webhooks/", nil, good.Body), 404, "unknown-source"},
		"other path":         {post(h.url+"/", nil, good.Body), 404, "unknown-source"},
		"wrong method":       {edit(at(0), func(r *http.Request) { r.Method = http.MethodPut }), 405, "method-not-allowed"},
		"unknown method":     {edit(at(0), func(r *http.Request) { r.Method = "FOO" }), 405, "method-not-allowed"},
		"get":                {must(http.NewRequest(http.MethodGet, h.url+"/webhooks/stripe", nil)), 405, "method-not-allowed"},
		"too large":          {post(h.url+"/webhooks/stripe", nil, big), 413, "too-large"},
		"too large, chunked": {edit(post(h.url+"/webhooks/stripe", nil, nil), func(r *http.Request) { r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(big)), -1 }), 413, "too-large"},
		"gzip":               {edit(post(h.url+"/webhooks/stripe", nil, zipped.Bytes()), func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }), 415, "unsupported-encoding"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := h.call(c.req)
			requireProblem(t, resp, body, c.status, c.slug)
			require.Contains(t, h.log.String(), resp.Header.Get(headerDeliveryID), "every refusal is logged with its delivery ID")
		})
	}
	require.Empty(t, h.records())
	require.NotContains(t, h.log.String(), "payment_intent", "no body in the log")
	require.NotContains(t, h.log.String(), stripeSecret)
	resp, _ := h.call(must(http.NewRequest(http.MethodGet, h.url+"/webhooks/stripe", nil)))
	require.Equal(t, "POST", resp.Header.Get("Allow"))
}

func must(r *http.Request, err error) *http.Request {
	if err != nil {
		panic(err)
	}
	return r
}

// TestOneAnswerForEveryBadSignature: nothing in the answer tells one reason from another.
func TestOneAnswerForEveryBadSignature(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", "")
	h.ready()
	s := sampleOf("stripe", 1)
	var first string
	for _, req := range []*http.Request{
		post(h.url+"/webhooks/stripe", nil, s.Body),
		h.signed("stripe", "stripe", "whsec_another_secret", time.Now(), s),
		h.signed("stripe", "stripe", stripeSecret, time.Now().Add(-time.Hour), s),
	} {
		resp, body := h.call(req)
		body = strings.ReplaceAll(body, resp.Header.Get(headerDeliveryID), "ID")
		if first == "" {
			first = body
		}
		require.Equal(t, first, body)
	}
}

func TestHandshakeIsAnsweredAndNotEnqueued(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", "")
	h.ready()
	s := provider.Sample{Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV","type":"url_verification"}`)}
	resp, body := h.call(h.signed("slack", "slack", slackSecret, time.Now(), s))
	require.Equal(t, 200, resp.StatusCode)
	require.Equal(t, "3eZbrw1aBm2rZgRNFdxV", body)
	resp, _ = h.call(h.signed("slack", "slack", "another secret", time.Now(), s))
	require.Equal(t, 401, resp.StatusCode)
	require.Empty(t, h.records())
}

func TestDuplicate(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", "")
	h.ready()
	s := sampleOf("stripe", 3)
	send := func(s provider.Sample) (*http.Response, string) {
		return h.call(h.signed("stripe", "stripe", stripeSecret, time.Now(), s))
	}
	resp, body := send(s)
	requireAccepted(t, resp, body, "accepted", s.ID, "stripe")
	resp, body = send(s)
	requireAccepted(t, resp, body, "duplicate", s.ID, "stripe")
	other := s
	other.Body = append(bytes.Clone(s.Body), ' ') // same ID, other bytes: never dropped
	resp, body = send(other)
	requireAccepted(t, resp, body, "accepted", s.ID, "stripe")
	require.Len(t, h.deliveries()["stripe "+s.ID], 2)
	require.InDelta(t, 1, testutil.ToFloat64(h.metrics.requests.WithLabelValues("stripe", "duplicate")), 0)
	h.forget() // as after a data loss: what was acknowledged may be gone
	resp, body = send(s)
	requireAccepted(t, resp, body, "accepted", s.ID, "stripe")
}

// TestHonest200 breaks each produce in turn: an error, and an answer that never comes.
func TestHonest200(t *testing.T) {
	cluster := kafkatest.New(t)
	if cluster.Fake() == nil {
		cluster = kafkatest.NewFake(t) // errors are injected, which real brokers do not let us do
	}
	h := start(t, cluster, "400ms", "")
	h.ready()
	for name, fault := range map[string]kfake.Fault{
		"not enough replicas":   {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1},
		"message too large":     {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.MessageTooLarge, Count: -1},
		"authorization revoked": {Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.TopicAuthorizationFailed, Count: -1},
	} {
		t.Run(name, func(t *testing.T) {
			f := cluster.Fake().Fault(fault)
			s := sampleOf("stripe", len(name))
			began := time.Now()
			resp, body := h.call(h.signed("stripe", "stripe", stripeSecret, time.Now(), s))
			requireProblem(t, resp, body, 503, "not-acknowledged")
			require.Less(t, time.Since(began), 10*time.Second)
			f.Remove()
			// What was not acknowledged is not remembered: the retry is enqueued or was, and is never a false duplicate.
			require.Eventually(t, func() bool {
				resp, _ := h.call(h.signed("stripe", "stripe", stripeSecret, time.Now(), s))
				return resp.StatusCode == 200
			}, 30*time.Second, 50*time.Millisecond)
			require.NotEmpty(t, h.deliveries()["stripe "+s.ID])
		})
	}
}

// TestBodyStaysUntouchedAfterTheAnswer lets records arrive long after their senders got a 503, while other bodies
// are read: what Kafka then stores must still be the first bytes.
func TestBodyStaysUntouchedAfterTheAnswer(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.NewFake(t)
	h := start(t, cluster, "150ms", "")
	h.ready()
	f := cluster.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	bodies := map[string][]byte{}
	for i := range 30 {
		s := sampleOf("stripe", i)
		bodies["stripe "+s.ID] = s.Body
		resp, _ := h.call(h.signed("stripe", "stripe", stripeSecret, time.Now(), s))
		require.Equal(t, 503, resp.StatusCode)
	}
	require.Positive(t, h.budget.used.Load(), "what the producer still holds counts")
	f.Remove()
	require.Eventually(t, func() bool { return len(h.records()) == len(bodies) }, 30*time.Second, 50*time.Millisecond)
	for id, ds := range h.deliveries() {
		require.Equal(t, string(bodies[id]), string(ds[0].Body))
	}
	require.Eventually(t, func() bool { return h.budget.used.Load() == 0 }, 30*time.Second, 5*time.Millisecond)
}

// R4: the promise of the 200 on brokers that are really gone.
func TestR04WithoutQuorum(t *testing.T) {
	t.Parallel()
	const ackTimeout = 2 * time.Second
	cluster := kafkatest.Breakable(t)
	h := start(t, cluster, ackTimeout.String(), "")
	h.ready()
	require.Eventually(t, func() bool { // the first record of a new topic may have to wait for its leader
		resp, _ := h.call(h.stripe(0))
		return resp.StatusCode == 200
	}, time.Minute, 100*time.Millisecond)
	cluster.Kill(0)
	cluster.Kill(1)
	heal := sync.OnceFunc(func() { cluster.StartAll(0, 1) })
	defer heal()
	seq := 0
	slowest := time.Hour
	for wave := 0; wave < 10 && slowest > ackTimeout+500*time.Millisecond; wave++ { // others may have the machine meanwhile
		slowest = h.wave(seq+1, 20)
		seq += 20
	}
	require.LessOrEqual(t, slowest, ackTimeout+500*time.Millisecond, "no wave was answered in time")
	require.NoError(t, h.Ready(), "an outage of Kafka is no reason to leave the load balancer")
	heal()
	require.Eventually(t, func() bool {
		resp, _ := h.call(h.stripe(1000))
		return resp.StatusCode == 200
	}, time.Minute, 100*time.Millisecond)
}

// wave sends n events at once, wants a 503 for each, and returns how long the slowest answer took. None of them waits for
// the producer's own time-outs, which are longer.
func (h *harness) wave(from, n int) (slowest time.Duration) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range n {
		wg.Go(func() {
			began := time.Now()
			resp, err := http.DefaultClient.Do(h.stripe(from + i))
			if err != nil {
				h.t.Error(err)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			took := time.Since(began)
			if resp.StatusCode != 503 {
				h.t.Errorf("answered %d without a quorum", resp.StatusCode)
			}
			if took > 7*time.Second {
				h.t.Errorf("answered after %s", took)
			}
			if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || after < 5 || after > 15 {
				h.t.Errorf("Retry-After %q", resp.Header.Get("Retry-After"))
			}
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, took)
		})
	}
	wg.Wait()
	return slowest
}

// R12: a topic that would not keep the promises. Each check by itself is in package kafka.
func TestR12UnsafeTopic(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.New(t)
	for name, c := range map[string]struct {
		kafka string
		check string
	}{
		"one replica":        {"replication_factor: 1, min_insync_replicas: 1", "replication-factor"},
		"one in sync":        {"replication_factor: 3, min_insync_replicas: 1", "min-insync-replicas"},
		"too short":          {"retention: 1h", ""},
		"waived by its name": {"replication_factor: 1, min_insync_replicas: 1, accept: [replication-factor, min-insync-replicas]", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			topic := "unsafe." + uuid.NewString()
			h := startOn(t, cluster, topic, "2s", "", ", partitions: 1, "+c.kafka)
			if c.check == "" {
				h.ready()
				resp, body := h.call(h.stripe(1))
				require.Equal(t, 200, resp.StatusCode, body)
				return
			}
			require.Eventually(t, func() bool { err := h.Ready(); return err != nil && strings.Contains(err.Error(), c.check) }, 30*time.Second, 10*time.Millisecond)
			resp, body := h.call(h.stripe(1))
			requireProblem(t, resp, body, 503, "unavailable")
			require.Empty(t, h.records())
		})
	}
}

// TestKafkaIsNotThere starts before Kafka: honest refusals, then service, without a restart.
func TestKafkaIsNotThere(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.New(t)
	proxy := newGate(t, cluster.Brokers[0])
	topic := cluster.Topic(t, 1)
	gated := &kafkatest.Cluster{Brokers: []string{proxy.addr()}}
	h := startOn(t, gated, topic, "1s", "", "")
	resp, body := h.call(h.stripe(1))
	requireProblem(t, resp, body, 503, "unavailable")
	require.Error(t, h.Ready())
	proxy.open()
	h.ready()
}

// gate is a TCP proxy that refuses connections until it is opened.
type gate struct {
	t      testing.TB
	l      net.Listener
	target string
	isOpen atomic.Bool
}

func newGate(t testing.TB, target string) *gate {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := &gate{t: t, l: l, target: target}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if !g.isOpen.Load() {
				_ = c.Close()
				continue
			}
			go g.pipe(c)
		}
	}()
	return g
}

func (g *gate) pipe(c net.Conn) {
	defer func() { _ = c.Close() }()
	up, err := net.Dial("tcp", g.target)
	if err != nil {
		return
	}
	defer func() { _ = up.Close() }()
	go func() { _, _ = io.Copy(up, c); _ = up.Close() }()
	_, _ = io.Copy(c, up)
}

func (g *gate) open()        { g.isOpen.Store(true) }
func (g *gate) addr() string { return g.l.Addr().String() }

// TestOverBudget fills in_flight_bytes with bodies that do not end: others are refused at once, and served again
// when there is room.
func TestOverBudget(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", ", in_flight_bytes: 256KiB, max_body: 200KiB")
	h.ready()
	r, w := io.Pipe()
	req := must(http.NewRequest(http.MethodPost, h.url+"/webhooks/stripe", r))
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	_, err := w.Write(bytes.Repeat([]byte("a"), 190<<10))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return h.budget.used.Load() > 190<<10 }, 30*time.Second, time.Millisecond)
	big := post(h.url+"/webhooks/stripe", nil, bytes.Repeat([]byte("b"), 100<<10))
	resp, body := h.call(big)
	requireProblem(t, resp, body, 503, "overloaded")
	require.NoError(t, w.Close())
	<-answered
	require.Eventually(t, func() bool { return h.budget.used.Load() == 0 }, 30*time.Second, time.Millisecond)
	resp, body = h.call(h.stripe(5))
	require.Equal(t, 200, resp.StatusCode, body)
}

// TestStopUnderLoad: no request that was accepted is cut off, and what was answered 200 is in the log.
func TestStopUnderLoad(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", ", drain_delay: 50ms")
	h.ready()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	var ids sync.Map
	var n atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				s := sampleOf("stripe", w*1_000_000+i)
				resp, err := client.Do(h.signed("stripe", "stripe", stripeSecret, time.Now(), s))
				if err != nil {
					var ue *url.Error
					require.ErrorAs(t, err, &ue)
					return // the listener is closed: refused before a byte was read
				}
				_, err = io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil {
					t.Errorf("an answer was cut off: %v", err)
				}
				if resp.StatusCode != 200 {
					t.Errorf("answered %d while draining", resp.StatusCode)
				}
				ids.Store("stripe "+s.ID, true)
				n.Add(1)
			}
		})
	}
	require.Eventually(t, func() bool { return n.Load() > 200 }, 30*time.Second, time.Millisecond)
	require.NoError(t, h.stop())
	require.Error(t, h.Ready())
	wg.Wait()
	client.CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
	got := h.deliveries()
	ids.Range(func(id, _ any) bool { require.Contains(t, got, id); return true })
}

// TestDrainEndsConnectionsOneByOne: while it drains, an answer ends its connection in HTTP/1, where nothing else can be under way
// on it; in HTTP/2 the connection stays, for its end would drop the requests that a balancer has just written.
func TestDrainEndsConnectionsOneByOne(t *testing.T) {
	h := start(t, kafkatest.NewFake(t), "20s", ", h2c: true")
	h.ready()
	for major, want := range map[int]int64{1: 4, 2: 1} {
		protocols := &http.Protocols{}
		protocols.SetHTTP1(major == 1)
		protocols.SetUnencryptedHTTP2(major == 2)
		client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
		var connections atomic.Int64
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
			if !c.Reused {
				connections.Add(1)
			}
		}})
		for i := range 5 {
			h.draining.Store(i > 0)
			resp, err := client.Do(h.stripe(100*major + i).WithContext(ctx))
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, resp.Body)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.Equal(t, major, resp.ProtoMajor)
		}
		require.Equal(t, want, connections.Load(), "HTTP/%d", major)
		client.CloseIdleConnections()
	}
}

func TestBusyPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	cfg, err := settings.Parse("catchment.yaml", []byte("kafka: {brokers: [\"127.0.0.1:1\"]}\ningress: {listen: \""+l.Addr().String()+"\"}\n"), settings.NeedKafka, settings.NeedIngress)
	require.NoError(t, err)
	_, err = New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.ErrorContains(t, err, "listen for webhooks on "+l.Addr().String()+" (set ingress.listen to another address)")
}

func TestMetricsHaveNoLabelsFromRequests(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", "")
	for i := range 50 {
		h.call(post(fmt.Sprintf("%s/webhooks/random-%d", h.url, i), nil, nil))
	}
	require.InDelta(t, 50, testutil.ToFloat64(h.metrics.requests.WithLabelValues(unknownSource, "unknown_source")), 0)
	problems, err := testutil.GatherAndLint(h.reg)
	require.NoError(t, err)
	require.Empty(t, problems)
}

func BenchmarkAccept(b *testing.B) {
	cluster := kafkatest.NewFake(b)
	h := start(b, cluster, "4s", "")
	h.ready()
	http.DefaultTransport.(*http.Transport).MaxIdleConnsPerHost = 256
	var seq atomic.Int64
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := http.DefaultClient.Do(h.stripe(int(seq.Add(1))))
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if resp.StatusCode != 200 {
				b.Errorf("answered %d", resp.StatusCode)
			}
		}
	})
}

func hmacRequest(url string, body []byte, header, prefix string) *http.Request {
	m := hmac.New(sha256.New, []byte(hmacSecret))
	m.Write(body)
	return post(url, http.Header{http.CanonicalHeaderKey(header): {prefix + hex.EncodeToString(m.Sum(nil))}}, body)
}

func sha(b []byte) [32]byte { return sha256.Sum256(b) }
