package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/catchment-dev/catchment/pkg/otlptest"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// tracedService is a service that wants a tracer.
type tracedService struct {
	run.Service
	tracer *Tracer
}

func (s *tracedService) Trace(t *Tracer) { s.tracer = t }

// tracing starts a tracer as a program does; stop is what the program does at its end.
func tracing(t *testing.T, cfg settings.Telemetry, log *slog.Logger) (tracer *Tracer, stop func()) {
	t.Helper()
	s := &tracedService{}
	stop, err := Tracing(&settings.File{Telemetry: cfg}, "catchment-test", log, s)
	require.NoError(t, err)
	return s.tracer, stop
}

func TestTracesOff(t *testing.T) {
	for _, env := range [][2]string{{"", ""}, {"OTEL_SDK_DISABLED", "true"}, {"OTEL_TRACES_EXPORTER", "none"}} {
		cfg := settings.Telemetry{Traces: "otlp"}
		if env[0] == "" {
			cfg.Traces = "off"
		} else {
			t.Setenv(env[0], env[1])
		}
		tracer, stop := tracing(t, cfg, slog.New(slog.DiscardHandler))
		require.Nil(t, tracer)
		stop()
	}
}

func TestTracesRefuse(t *testing.T) {
	for _, env := range [][2]string{{"OTEL_TRACES_EXPORTER", "zipkin"}, {"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}, {"OTEL_RESOURCE_ATTRIBUTES", "%zz"}} {
		t.Run(env[0], func(t *testing.T) {
			t.Setenv(env[0], env[1])
			_, err := Tracing(&settings.File{Telemetry: settings.Telemetry{Traces: "otlp"}}, "x", slog.New(slog.DiscardHandler))
			require.ErrorIs(t, err, run.ErrUsage)
			require.ErrorContains(t, err, env[0])
		})
	}
	for _, endpoint := range []string{"collector:4318", "collector", "grpc://collector:4317", "http://", "http://user:secret@collector:4318", ":"} {
		cfg, err := settings.Parse("catchment.yaml", fmt.Appendf(nil, "telemetry: {traces: otlp, trace_endpoint: %q}", endpoint), settings.NeedTelemetry)
		require.NoError(t, err)
		_, err = Tracing(cfg, "x", slog.New(slog.DiscardHandler))
		require.ErrorIs(t, err, run.ErrUsage, endpoint)
		require.ErrorContains(t, err, "catchment.yaml:1:43: telemetry.trace_endpoint", endpoint)
		require.NotContains(t, err.Error(), "secret", endpoint)
	}
}

// TestTracesSample traces one in a hundred, and what another has decided to trace.
func TestTracesSample(t *testing.T) {
	c := otlptest.New(t)
	tracer, stop := tracing(t, settings.Telemetry{Traces: "otlp", TraceEndpoint: c.URL, TraceOneIn: 100}, slog.New(slog.DiscardHandler))
	sampled := 0
	for range 10_000 {
		_, span := tracer.Start(context.Background(), "one")
		if span.SpanContext().IsSampled() {
			sampled++
		}
		span.End()
	}
	require.InDelta(t, 100, sampled, 60)
	parent := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	of := Remote(parent, "a=b")
	_, span := tracer.Start(trace.ContextWithRemoteSpanContext(context.Background(), of), "two")
	head, state := Header(span.SpanContext())
	span.End()
	require.Regexp(t, "^00-0af7651916cd43dd8448eb211c80319c-[0-9a-f]{16}-01$", head)
	require.Equal(t, "a=b", state)
	require.Equal(t, span.SpanContext().WithRemote(true), Remote(head, state))
	stop()
	require.Len(t, c.Spans(), sampled+1)
	require.Equal(t, "catchment-test", c.Spans()[0].Service)
}

func TestSampled(t *testing.T) {
	for parent, want := range map[string]bool{
		"": false, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": true, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00": false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03": true, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x": false,
	} {
		require.Equal(t, want, Sampled(parent), parent)
	}
	for _, no := range []string{"", "x", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} {
		require.False(t, Remote(no, "").IsValid(), no)
	}
}

// TestTogether shows work on many records as spans of each record's trace that are linked.
func TestTogether(t *testing.T) {
	c := otlptest.New(t)
	tracer, stop := tracing(t, settings.Telemetry{Traces: "otlp", TraceEndpoint: c.URL, TraceOneIn: 1}, slog.New(slog.DiscardHandler))
	parts := make([]Part, 300)
	began := time.Unix(1_700_000_000, 0)
	for i := range parts {
		parts[i] = Part{
			Of:    Remote(fmt.Sprintf("00-%032x-%016x-01", i+1, i+1), ""),
			About: []attribute.KeyValue{attribute.Int("n", i)},
		}
	}
	parts[1].Error = "dead"
	parts[1].Steps = []Step{{Name: "step", Began: began, Ended: began.Add(time.Second), Error: "failed"}}
	tracer.Together("work", began, began.Add(2*time.Second), parts)
	stop()
	require.Len(t, c.Spans(), 301)
	first, second, last := c.Find("work", "n", "0"), c.Find("work", "n", "1"), c.Find("work", "n", "299")
	require.Len(t, first.Links, mostLinks-1)
	require.False(t, first.HasLost)
	require.Equal(t, fmt.Sprintf("%032x", 2), first.Links[0])
	require.Equal(t, []string{first.Trace}, second.Links)
	require.Equal(t, []string{first.Trace}, last.Links)
	require.Equal(t, fmt.Sprintf("%016x", 300), last.Parent)
	require.True(t, second.Failed)
	require.Empty(t, second.Message)
	step := c.Children(second)["step"]
	require.True(t, step.Failed)
	require.EqualValues(t, time.Second, step.End-step.Start)
}

// lockedBuffer is a log that can be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// TestCollectorsThatHinder makes spans while the collector is down, never answers, or refuses slowly: whoever makes spans never
// waits, the end waits a second, and the log tells of it once.
func TestCollectorsThatHinder(t *testing.T) {
	hole, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	require.NoError(t, err)
	defer func() { _ = hole.Close() }()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(300 * time.Millisecond):
		case <-r.Context().Done():
		}
		http.Error(w, "no", http.StatusServiceUnavailable)
	}))
	defer slow.Close()
	wrong := httptest.NewServer(http.NotFoundHandler())
	defer wrong.Close()
	for name, url := range map[string]string{"down": "http://" + gone.Addr().String(), "black hole": "http://" + hole.Addr().String(), "slow": slow.URL, "wrong": wrong.URL} {
		t.Run(name, func(t *testing.T) {
			log := &lockedBuffer{}
			t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600000") // the collector may take ten minutes
			tracer, stop := tracing(t, settings.Telemetry{Traces: "otlp", TraceEndpoint: url, TraceOneIn: 1}, slog.New(slog.NewJSONHandler(log, nil)))
			began := time.Now()
			for range 20_000 {
				_, span := tracer.Start(context.Background(), "one")
				span.End()
			}
			require.Less(t, time.Since(began), 20*time.Second, "to make spans waits for the collector")
			if name == "wrong" {
				require.Eventually(t, func() bool { return log.String() != "" }, time.Minute, 10*time.Millisecond)
			}
			began = time.Now()
			stop()
			require.Less(t, time.Since(began), 20*time.Second, "the end waits for the collector")
			require.LessOrEqual(t, strings.Count(log.String(), "\n"), 1, log.String())
			if name == "wrong" {
				require.Contains(t, log.String(), `"level":"WARN","msg":"the collector of traces does not take spans`)
			}
		})
	}
}
