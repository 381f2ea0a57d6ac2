package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/otlptest"
	"github.com/catchment-dev/catchment/pkg/proctest"
)

// TestTraceOfOneEvent lets the three programs send what they trace to a collector, and finds one event's whole way there: POST,
// Kafka, transaction, operation and segment.
func TestTraceOfOneEvent(t *testing.T) {
	t.Parallel()
	k, c := kafkatest.New(t), otlptest.New(t)
	w := newWatched(t, place{
		brokers: k.Brokers, topic: k.Topic(t, 1), db: emptyDatabase(t), archive: "file://" + t.TempDir(),
		telemetry: fmt.Sprintf("log_level: warn, traces: otlp, trace_endpoint: %q, trace_one_in: 1", c.URL),
	})
	stranger := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	var posts sync.WaitGroup
	var accepted atomic.Int32
	for n := range 20 {
		body := fmt.Sprintf(`{"id":"evt_%d","type":%q,"amount":"none"}`, n, map[bool]string{true: "bad", false: "order"}[n == 0])
		posts.Go(func() {
			if w.post("shop", shopSecret, body, http.Header{"Traceparent": {stranger}, "Tracestate": {"theirs=1"}}) == http.StatusOK {
				accepted.Add(1)
			}
		})
	}
	posts.Wait()
	require.EqualValues(t, 20, accepted.Load())
	require.Equal(t, http.StatusUnauthorized, w.post("shop", "not the secret", `{"id":"evt_refused"}`, nil))

	var post, send, process *otlptest.Span
	found := func(what string, ok func() bool) {
		t.Helper()
		require.True(t, await(t, 2*time.Minute, ok), "there is no span of %s", what)
	}
	found("the POST", func() bool {
		post = c.Find("POST /webhooks/{source}", "catchment.event_id", "evt_0")
		return post != nil
	})
	require.Equal(t, "catchment-ingress", post.Service)
	require.Equal(t, "SPAN_KIND_SERVER", post.Kind)
	require.Empty(t, post.Parent, "a sender does not decide whether and where we trace")
	require.Equal(t, []string{"0af7651916cd43dd8448eb211c80319c"}, post.Links)
	requireAttributes(t, post, map[string]string{
		"http.request.method": "POST", "http.route": "/webhooks/{source}", "http.response.status_code": "200", "client.address": "127.0.0.1",
		"catchment.source": "shop", "catchment.outcome": "accepted",
	})
	below := func(of *otlptest.Span, name string) *otlptest.Span {
		t.Helper()
		var child otlptest.Span
		found(name, func() bool { var ok bool; child, ok = c.Children(of)[name]; return ok })
		require.Equal(t, of.Trace, child.Trace)
		return &child
	}
	send = below(post, "send "+w.topic)
	requireAttributes(t, send, map[string]string{"messaging.system": "kafka", "messaging.operation.type": "send", "messaging.destination.name": w.topic})
	process = below(send, "process "+w.topic)
	require.Equal(t, "catchment-processor", process.Service)
	require.Equal(t, "SPAN_KIND_CONSUMER", process.Kind)
	require.True(t, process.Failed)
	require.Empty(t, process.Message)
	requireAttributes(t, process, map[string]string{
		"messaging.operation.type": "process", "messaging.consumer.group.name": w.topic + ".processor", "messaging.destination.partition.id": "0",
		"catchment.source": "shop", "catchment.event_id": "evt_0", "catchment.outcome": "dead",
	})
	requireAttributes(t, below(process, "operation good"), map[string]string{"catchment.operation": "good", "catchment.outcome": "succeeded", "catchment.attempt": "1"})
	bad := below(process, "operation bad")
	require.True(t, bad.Failed)
	requireAttributes(t, bad, map[string]string{"catchment.outcome": "dead", "error.type": "dead"})
	segment := below(send, "archive "+w.topic)
	require.Equal(t, "catchment-archiver", segment.Service)
	require.Regexp(t, `^events/date=.*\.parquet$`, segment.Attributes["catchment.segment"])
	for _, pair := range [][2]*otlptest.Span{{post, send}, {send, process}, {process, segment}} {
		require.LessOrEqual(t, pair[0].Start, pair[1].Start, "%s before %s", pair[0].Name, pair[1].Name)
	}

	found("all events' segments", func() bool { return countSpans(c, "archive ") == 20 })
	found("all events' batches", func() bool { return countSpans(c, "process ") == 20 })
	requireLinked(t, c, "process ", "archive ")
	refused := func() *otlptest.Span { return c.Find("POST", "catchment.outcome", "unauthenticated") }
	found("the refusal", func() bool { return refused() != nil })
	require.Empty(t, c.Children(refused()))
	requireExemplars(t, w, c)
	require.NotContains(t, c.Raw(), shopSecret)
	require.NotContains(t, c.Raw(), "theirs=1")
	for _, s := range c.Spans() {
		require.False(t, s.HasEvents || s.HasLost, "%+v", s)
		require.Empty(t, s.Message)
	}
}

func requireAttributes(t *testing.T, s *otlptest.Span, want map[string]string) {
	t.Helper()
	for name, value := range want {
		require.Equal(t, value, s.Attributes[name], "%s of %s", name, s.Name)
	}
}

func countSpans(c *otlptest.Collector, name string) (n int) {
	for _, s := range c.Spans() {
		if strings.HasPrefix(s.Name, name) {
			n++
		}
	}
	return n
}

// requireLinked wants spans of work that several events shared to lead to each other.
func requireLinked(t *testing.T, c *otlptest.Collector, names ...string) {
	t.Helper()
	own := map[string]bool{}
	for _, s := range c.Spans() {
		if s.Name == "POST /webhooks/{source}" {
			own[s.Trace] = true
		}
	}
	for _, name := range names {
		linked := 0
		for _, s := range c.Spans() {
			for _, to := range s.Links {
				if strings.HasPrefix(s.Name, name) {
					linked++
					require.True(t, own[to] && to != s.Trace, "%s links to a trace that is none of ours, or to its own", s.Name)
				}
			}
		}
		require.Positive(t, linked, "no %s is linked", name)
	}
}

var exemplar = regexp.MustCompile(`(?m)^(catchment_\w+)_bucket\{.*# \{trace_id="([0-9a-f]{32})"\}`)

// requireExemplars wants the histograms to name traces that the collector has.
func requireExemplars(t *testing.T, w *watched, c *otlptest.Collector) {
	t.Helper()
	for name, ops := range map[string]string{
		"catchment_ingress_request_seconds": w.ingressOps, "catchment_ingress_ack_seconds": w.ingressOps,
		"catchment_processor_batch_seconds": w.processorOps, "catchment_archiver_segment_seconds": w.ops,
	} {
		known := false
		require.True(t, await(t, time.Minute, func() bool {
			for _, m := range exemplar.FindAllStringSubmatch(openMetrics(t, ops), -1) {
				for _, s := range c.Spans() {
					known = known || m[1] == name && s.Trace == m[2]
				}
			}
			return known
		}), "%s has no exemplar", name)
	}
}

// openMetrics asks for metrics as Prometheus does that wants exemplars.
func openMetrics(t *testing.T, ops string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+ops+"/metrics", nil)
	require.NoError(t, err)
	req.Header.Set("Accept", "application/openmetrics-text;version=1.0.0")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return string(text)
}

// TestCollectorIsABlackHole lets all three programs trace everything to a collector that takes connections and never says a
// word: no request, batch, segment or end of a program waits for it.
func TestCollectorIsABlackHole(t *testing.T) {
	t.Parallel()
	k := kafkatest.New(t)
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = hole.Close() }()
	w := newWatched(t, place{
		brokers: k.Brokers, topic: k.Topic(t, 1), db: emptyDatabase(t), archive: "file://" + t.TempDir(),
		telemetry: fmt.Sprintf("log_level: warn, traces: otlp, trace_endpoint: %q, trace_one_in: 1", "http://"+hole.Addr().String()),
		env:       []string{"OTEL_EXPORTER_OTLP_TIMEOUT=3600000", "OTEL_BSP_EXPORT_TIMEOUT=3600000"}, // an hour, if anybody waited
	})
	const events = 1500 // makes more spans than the ingress keeps
	var posts sync.WaitGroup
	var accepted atomic.Int32
	for sender := range 10 {
		posts.Go(func() {
			for n := range events / 10 {
				if w.post("shop", shopSecret, fmt.Sprintf(`{"id":"evt_%d_%d","type":"order"}`, sender, n), nil) == http.StatusOK {
					accepted.Add(1)
				}
			}
		})
	}
	posts.Wait()
	require.EqualValues(t, events, accepted.Load(), "requests wait for the collector")
	require.True(t, await(t, 3*time.Minute, func() bool {
		return w.processor.Metric("catchment_processor_events_total") >= events && w.archiver.Metric("catchment_archiver_records_total") >= events
	}), "batches or segments wait for the collector")
	for _, p := range []*proctest.Process{w.ingress, w.processor, w.archiver} {
		began := time.Now()
		p.Stop()
		require.Less(t, time.Since(began), time.Minute)
	}
}

// TestProxysTrace takes a proxy of ours as the parent, and says nothing of a stranger's.
func TestProxysTrace(t *testing.T) {
	t.Parallel()
	k, c := kafkatest.New(t), otlptest.New(t)
	w := newWatched(t, place{
		brokers: k.Brokers, topic: k.Topic(t, 1), db: emptyDatabase(t), archive: "file://" + t.TempDir(),
		telemetry: fmt.Sprintf("log_level: warn, traces: otlp, trace_endpoint: %q, trace_one_in: 1000000", c.URL),
		env:       []string{"CATCHMENT_INGRESS__TRUSTED_PROXIES=127.0.0.1"},
	})
	yes, no := strings.Repeat("ab", 16), strings.Repeat("cd", 16)
	require.Equal(t, http.StatusOK, w.post("shop", shopSecret, `{"id":"evt_not"}`, http.Header{"Traceparent": {"00-" + no + "-b7ad6b7169203331-00"}}))
	require.Equal(t, http.StatusOK, w.post("shop", shopSecret, `{"id":"evt_proxy"}`, http.Header{"Traceparent": {"00-" + yes + "-b7ad6b7169203331-01"}, "Tracestate": {"ours=1"}}))
	require.True(t, await(t, 2*time.Minute, func() bool { return countSpans(c, "archive ") == 1 && countSpans(c, "process ") == 1 }), "the trace does not go on")
	for _, s := range c.Spans() {
		require.Equal(t, yes, s.Trace)
		require.Equal(t, "ours=1", s.State)
	}
}
