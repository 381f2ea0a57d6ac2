package ingress

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
)

// nativeBuckets takes spans and deltas apart again.
func nativeBuckets(h *dto.Histogram) map[int]int64 {
	m := map[int]int64{}
	i, n, k := 0, int64(0), 0
	for _, s := range h.PositiveSpan {
		i += int(s.GetOffset())
		for range s.GetLength() {
			n += h.PositiveDelta[k]
			if n > 0 {
				m[i] = n
			}
			i, k = i+1, k+1
		}
	}
	return m
}

func written(t *testing.T, m prometheus.Metric) *dto.Metric {
	var out dto.Metric
	require.NoError(t, m.Write(&out))
	return &out
}

// TestTimingIsPrometheusHistogram observes the same times with both.
func TestTimingIsPrometheusHistogram(t *testing.T) {
	opts := timingOpts("x_seconds", "Help.")
	opts.ConstLabels = prometheus.Labels{"source": "s"}
	ours, theirs := newTiming(opts), prometheus.NewHistogram(opts)
	observe := func(d time.Duration) { ours.observe(d); theirs.Observe(d.Seconds()) }
	compare := func() {
		got, want := written(t, ours), written(t, theirs)
		require.Equal(t, want.Label, got.Label)
		g, w := got.Histogram, want.Histogram
		require.Equal(t, w.GetSampleCount(), g.GetSampleCount())
		require.InDelta(t, w.GetSampleSum(), g.GetSampleSum(), 1e-9*w.GetSampleSum())
		require.Equal(t, len(w.Bucket), len(g.Bucket))
		for i := range w.Bucket {
			require.Equal(t, w.Bucket[i].String(), g.Bucket[i].String())
		}
		require.Equal(t, w.GetSchema(), g.GetSchema())
		require.Equal(t, w.GetZeroCount(), g.GetZeroCount())
		require.Equal(t, w.GetZeroThreshold(), g.GetZeroThreshold())
		require.Equal(t, nativeBuckets(w), nativeBuckets(g))
	}
	compare()
	for _, d := range []time.Duration{0, 1, time.Millisecond, time.Millisecond + 1, 10 * time.Second, 10*time.Second + 1, time.Second / 2, time.Second / 4} {
		observe(d)
		compare()
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		observe(time.Duration(float64(time.Millisecond) * math.Exp2(8*r.Float64())))
	}
	compare()
}

// TestTimingShowsTraces keeps the last trace of each bucket, within its bounds.
func TestTimingShowsTraces(t *testing.T) {
	h := newTiming(timingOpts("x_seconds", "Help."))
	for n, d := range []time.Duration{time.Millisecond, 30 * time.Millisecond, 31 * time.Millisecond, time.Hour} {
		h.observe(d)
		h.mark(d, trace.TraceID{15: byte(n + 1)})
	}
	got := written(t, h).Histogram
	require.Len(t, got.Exemplars, 3)
	seen, from := 0, 0.0
	for _, b := range got.Bucket {
		if e := b.Exemplar; e != nil {
			seen++
			require.Greater(t, e.GetValue(), from)
			require.LessOrEqual(t, e.GetValue(), b.GetUpperBound())
			require.NoError(t, e.GetTimestamp().CheckValid())
		}
		from = b.GetUpperBound()
	}
	require.Equal(t, 2, seen, "an hour is in no bucket with a bound")
	require.Equal(t, "trace_id", got.Exemplars[1].Label[0].GetName())
	require.Equal(t, "00000000000000000000000000000003", got.Exemplars[1].Label[0].GetValue())
}

// TestTimingIsBounded: whatever is observed, there are so many native buckets, and they hold all that was counted.
func TestTimingIsBounded(t *testing.T) {
	h := newTiming(timingOpts("x_seconds", "Help."))
	n := uint64(0)
	for d := time.Duration(1); d > 0; d += d/20 + 1 {
		h.observe(d)
		n++
	}
	h.observe(math.MaxInt64)
	h.observe(-time.Hour)
	n += 2
	got := written(t, h).Histogram
	require.Equal(t, n, got.GetSampleCount())
	sum := got.GetZeroCount()
	buckets := nativeBuckets(got)
	for _, n := range buckets {
		sum += uint64(n)
	}
	require.Equal(t, n, sum)
	require.LessOrEqual(t, len(buckets), timingMost)
	require.Less(t, got.GetSchema(), int32(timingSchema))
	require.NoError(t, registry().Register(h))
}

func BenchmarkTiming(b *testing.B) {
	h := newTiming(timingOpts("x_seconds", "Help."))
	for b.Loop() {
		h.observe(8 * time.Millisecond)
	}
}
