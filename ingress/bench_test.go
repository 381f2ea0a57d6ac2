package ingress

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/otlptest"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
)

// answerOnly is a response of which only the status is of interest.
type answerOnly struct {
	h      http.Header
	status int
}

func (a *answerOnly) Header() http.Header         { return a.h }
func (a *answerOnly) Write(p []byte) (int, error) { return len(p), nil }
func (a *answerOnly) WriteHeader(status int)      { a.status = status }

// BenchmarkDuplicate is the way of a request through the handler without Kafka and without a socket: read, verified,
// named, and found in the look-up; with traces off, of one request in a hundred, and of each, sent to a collector.
func BenchmarkDuplicate(b *testing.B) {
	for name, oneIn := range map[string]int{"off": 0, "1%": 100, "100%": 1} {
		b.Run("traces="+name, func(b *testing.B) { benchmarkDuplicate(b, oneIn) })
	}
}

func benchmarkDuplicate(b *testing.B, oneIn int) {
	h := start(b, kafkatest.NewFake(b), "4s", "")
	if oneIn > 0 {
		cfg := &settings.File{Telemetry: settings.Telemetry{Traces: "otlp", TraceEndpoint: otlptest.New(b).URL, TraceOneIn: oneIn}}
		flush, err := telemetry.Tracing(cfg, "catchment-ingress", slog.New(slog.DiscardHandler), h.Service)
		require.NoError(b, err)
		b.Cleanup(flush)
	}
	h.ready()
	s := sampleOf("stripe", 1)
	req := h.signed("stripe", "stripe", stripeSecret, time.Now(), s)
	require.Eventually(b, func() bool {
		resp, _ := h.call(h.signed("stripe", "stripe", stripeSecret, time.Now(), s))
		return resp.StatusCode == 200
	}, time.Minute, time.Millisecond)
	req.RemoteAddr = "192.0.2.1:1234"
	body := bytes.NewReader(s.Body)
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(s.Body)
		req.Body = io.NopCloser(body)
		w := &answerOnly{h: http.Header{}}
		h.ServeHTTP(w, req)
		if w.status != 200 {
			b.Fatalf("answered %d", w.status)
		}
	}
}
