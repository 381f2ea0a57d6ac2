package ingress

import (
	"maps"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// timing is a histogram of times, in classic and in native buckets, as Prometheus' own with NativeHistogramBucketFactor 1.1.
// That one looks for each native bucket in a map, twice for each request; here they are numbers in a row.
type timing struct {
	prometheus.Histogram // for names, labels and the time of its making: it observes nothing

	bounds []time.Duration
	classic,
	native []atomic.Uint64
	exemplars []atomic.Pointer[dto.Exemplar] // of the classic buckets
	zero      atomic.Uint64
	sum       atomic.Int64 // ns
}

const (
	// timingSchema is that of the native buckets: 2^3 of them between two powers of two.
	timingSchema = 3
	// The first native bucket ends above 2^timingFrom s, which is less than a nanosecond; the last one takes all that is
	// longer than 2^timingTo s.
	timingFrom, timingTo = -30, 12
	// timingMost is how many native buckets are shown at most; where more are in use, pairs of them are shown as one.
	timingMost = 100
)

// timingBounds are the upper bounds of the native buckets between a half and 1.
var timingBounds = [1 << timingSchema]float64{
	0.5, 0.5452538663326288, 0.5946035575013605, 0.6484197773255048, 0.7071067811865475, 0.7711054127039704, 0.8408964152537144, 0.9170040432046711,
}

func newTiming(opts prometheus.HistogramOpts) *timing {
	t := &timing{
		Histogram: prometheus.NewHistogram(opts),
		exemplars: make([]atomic.Pointer[dto.Exemplar], len(opts.Buckets)+1),
		classic:   make([]atomic.Uint64, len(opts.Buckets)+1), native: make([]atomic.Uint64, (timingTo-timingFrom)<<timingSchema+1),
	}
	for _, b := range opts.Buckets {
		t.bounds = append(t.bounds, time.Duration(math.Round(b*1e9)))
	}
	return t
}

// observe counts one time. Negative ones, of a clock that was set back, count as zero.
func (t *timing) observe(d time.Duration) {
	d = max(d, 0)
	t.sum.Add(int64(d))
	if d == 0 {
		t.zero.Add(1)
	} else {
		t.native[nativeBucket(d.Seconds())].Add(1)
	}
	t.classic[t.bucket(d)].Add(1) // last: what is counted here has been counted above
}

// bucket is the place of the classic bucket of d.
func (t *timing) bucket(d time.Duration) int {
	i := 0
	for i < len(t.bounds) && d > t.bounds[i] {
		i++
	}
	return i
}

// mark keeps the trace of an observed time as its bucket's exemplar.
func (t *timing) mark(d time.Duration, of trace.TraceID) {
	d = max(d, 0)
	t.exemplars[t.bucket(d)].Store(&dto.Exemplar{
		Label: []*dto.LabelPair{{Name: new("trace_id"), Value: new(of.String())}}, Value: new(d.Seconds()), Timestamp: timestamppb.Now(),
	})
}

// nativeBucket is the place of a positive number of seconds in the row.
func nativeBucket(seconds float64) int {
	frac, exp := math.Frexp(seconds)
	i := 0
	for i < len(timingBounds) && timingBounds[i] < frac {
		i++
	}
	return min(max((exp-1-timingFrom)<<timingSchema+i, 0), (timingTo-timingFrom)<<timingSchema)
}

// Collect sends the histogram.
func (t *timing) Collect(ch chan<- prometheus.Metric) { ch <- t }

// Write fills in what was observed. The classic buckets are read first: they never hold more than the native ones.
func (t *timing) Write(out *dto.Metric) error {
	if err := t.Histogram.Write(out); err != nil {
		return err
	}
	h := out.Histogram
	var sum uint64
	for i := range h.Bucket {
		sum += t.classic[i].Load()
		h.Bucket[i].CumulativeCount = new(sum)
	}
	t.writeExemplars(h)
	counts := make(map[int]uint64)
	var count uint64
	for i := range t.native {
		if n := t.native[i].Load(); n > 0 {
			counts[i+timingFrom<<timingSchema] = n
			count += n
		}
	}
	schema := int32(timingSchema)
	for ; len(counts) > timingMost; schema-- {
		wider := make(map[int]uint64)
		for i, n := range counts {
			wider[(i+1)>>1] += n
		}
		counts = wider
	}
	zero := t.zero.Load()
	h.ZeroCount, h.SampleCount, h.Schema = new(zero), new(count+zero), new(schema)
	h.SampleSum = new(time.Duration(t.sum.Load()).Seconds())
	h.PositiveSpan, h.PositiveDelta = spansOf(counts)
	return nil
}

// spansOf writes buckets down as Prometheus wants them: runs of buckets, with the gaps between them, and each count by its
// difference to the one before.
func spansOf(counts map[int]uint64) (spans []*dto.BucketSpan, deltas []int64) {
	next, before := 0, int64(0)
	for _, i := range slices.Sorted(maps.Keys(counts)) {
		if len(spans) == 0 || i != next {
			spans = append(spans, &dto.BucketSpan{Offset: new(int32(i - next)), Length: new(uint32(0))})
		}
		*spans[len(spans)-1].Length++
		n := int64(counts[i])
		deltas = append(deltas, n-before)
		next, before = i+1, n
	}
	return spans, deltas
}

// writeExemplars adds those of the classic buckets, and the same ones for the native buckets.
func (t *timing) writeExemplars(h *dto.Histogram) {
	for i := range t.exemplars {
		e := t.exemplars[i].Load()
		if e == nil {
			continue
		}
		h.Exemplars = append(h.Exemplars, e)
		if i < len(h.Bucket) {
			h.Bucket[i].Exemplar = e
		}
	}
}
