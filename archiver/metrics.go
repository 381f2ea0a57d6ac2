package archiver

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	segments    prometheus.Counter
	adopted     prometheus.Counter
	records     prometheus.Counter
	bytes       prometheus.Counter
	storeErrors prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Service) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string, labels prometheus.Labels, absent float64, value func(*consumer) float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.current == nil {
				return absent
			}
			return value(s.current)
		})
	}
	m := &metrics{
		segments:    counter("catchment_archiver_segments_total", "Segments that this process wrote."),
		adopted:     counter("catchment_archiver_adopted_segments_total", "Segments that another process had written first."),
		records:     counter("catchment_archiver_records_total", "Records in the segments that this process wrote."),
		bytes:       counter("catchment_archiver_segment_bytes_total", "Bytes of the segments that this process wrote."),
		storeErrors: counter("catchment_archiver_store_errors_total", "Calls of the store that failed and were tried again."),
	}
	for _, c := range []prometheus.Collector{
		m.segments, m.adopted, m.records, m.bytes, m.storeErrors,
		gauge("catchment_archiver_oldest_unarchived_seconds", "Age of the oldest record that was fetched and is not archived.", nil, 0,
			func(c *consumer) float64 { return c.oldest(time.Now()).Seconds() }),
		gauge("catchment_archiver_halted_partitions", "Partitions that stand still until a person looks at them.", nil, 0,
			func(c *consumer) float64 { return float64(c.haltedCount()) }),
		gauge("catchment_archiver_buffered_bytes", "Bytes of records that wait to be archived.", nil, 0,
			func(c *consumer) float64 { return float64(c.budget.load()) }),
		gauge("catchment_retention_headroom_seconds", "Time until Kafka's retention deletes what this consumer has not yet read.",
			prometheus.Labels{"consumer": "archiver"}, math.NaN(), func(c *consumer) float64 { return c.headroom(time.Now()) }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
