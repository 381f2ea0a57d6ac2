package ingress

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
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
// named, and found in the look-up.
func BenchmarkDuplicate(b *testing.B) {
	h := start(b, kafkatest.NewFake(b), "4s", "")
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
