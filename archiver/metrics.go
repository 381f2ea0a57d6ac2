package archiver

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
)

type metrics struct {
	reg         prometheus.Registerer
	segments    prometheus.Counter
	adopted     prometheus.Counter
	records     prometheus.Counter
	bytes       prometheus.Counter
	storeErrors prometheus.Counter
	stores      prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, s *Service) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m := &metrics{
		reg:         reg,
		segments:    counter("catchment_archiver_segments_total", "Segments that this process wrote."),
		adopted:     counter("catchment_archiver_adopted_segments_total", "Segments that another process had written first."),
		records:     counter("catchment_archiver_records_total", "Records in the segments that this process wrote."),
		bytes:       counter("catchment_archiver_segment_bytes_total", "Bytes of the segments that this process wrote."),
		storeErrors: counter("catchment_archiver_store_errors_total", "Calls of the store that failed and were tried again."),
	}
	m.stores = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "catchment_archiver_segment_seconds", Help: "Time until a finished segment and its checkpoint were in the store, with all tries.",
		Buckets: prometheus.ExponentialBuckets(0.01, 2, 14), NativeHistogramBucketFactor: 1.1,
	})
	collectors := []prometheus.Collector{
		m.stores, m.segments, m.adopted, m.records, m.bytes, m.storeErrors,
		gauge("catchment_archiver_oldest_unarchived_seconds", "Age of the oldest record that is not archived, as far as it is known.", func() float64 {
			var oldest time.Duration
			for _, st := range s.streams {
				age, _ := st.oldest(time.Now())
				oldest = max(oldest, age)
			}
			return oldest.Seconds()
		}),
		gauge("catchment_archiver_halted_partitions", "Partitions that stand still until a person looks at them.", func() float64 {
			n := 0
			for _, c := range s.consumers() {
				n += c.haltedCount()
			}
			return float64(n)
		}),
		gauge("catchment_archiver_buffered_bytes", "Bytes of records that wait to be archived.", func() float64 { return float64(s.budget.load()) }),
	}
	collectors = append(collectors, gauge("catchment_archiver_store_failing_seconds", "How long the store has failed without a call that succeeded; 0: it does not.", func() float64 { return s.failingFor(time.Now()).Seconds() }))
	for _, st := range s.streams {
		collectors = append(collectors, newHeadroom(st), newRetention(st))
	}
	for _, c := range collectors {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// consumerName is the label of the topic's consumer: archiver, or archiver-results.
func (st *stream) consumerName() string {
	if st.kind == layout.Events {
		return "archiver"
	}
	return "archiver-" + st.kind.String()
}

// newHeadroom is the headroom of one topic.
func newHeadroom(st *stream) prometheus.Collector {
	return st.gauge("catchment_retention_headroom_seconds", "Time until Kafka's retention deletes what this consumer has not yet read.",
		func() float64 { return st.headroom(time.Now()) })
}

// newRetention is how long one topic's records stay.
func newRetention(st *stream) prometheus.Collector {
	return st.gauge("catchment_retention_seconds", "How long Kafka keeps the records of the topic that this consumer reads; +Inf: for ever, or not known yet.", st.keeps)
}

// gauge is a value of one topic.
func (st *stream) gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: name, Help: help, ConstLabels: prometheus.Labels{"consumer": st.consumerName()},
	}, value)
}

// oldest is the age of the topic's oldest record that is not archived; known: it can be told.
func (st *stream) oldest(now time.Time) (age time.Duration, known bool) {
	st.mu.Lock()
	c := st.current
	st.mu.Unlock()
	age, known = st.arrearsAge(now)
	if c != nil {
		age, known = max(age, c.oldest(now)), true
	}
	return age, known
}

// headroom is how many seconds are left until Kafka deletes what is not archived; NaN when that is not known.
func (st *stream) headroom(now time.Time) float64 {
	retention := time.Duration(st.retention.Load())
	age, known := st.oldest(now)
	switch {
	case retention == 0 || !known:
		return math.NaN()
	case retention < 0:
		return math.Inf(1)
	}
	return (retention - age).Seconds()
}

// keeps is how many seconds the topic keeps its records.
func (st *stream) keeps() float64 {
	if retention := time.Duration(st.retention.Load()); retention > 0 {
		return retention.Seconds()
	}
	return math.Inf(1)
}
