package processor

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/catchment-dev/catchment/pkg/telemetry"
)

// metrics are the processor's own. Labels take values from the configuration only.
type metrics struct {
	reg     prometheus.Registerer
	sources map[string]bool

	events     *prometheus.CounterVec
	operations *prometheus.CounterVec
	whenErrors *prometheus.CounterVec
	batch      prometheus.Histogram
	fenced     prometheus.Counter
	unknown    prometheus.Counter
	tries      prometheus.Counter
	lag        *prometheus.GaugeVec
	oldest     prometheus.Gauge
	headroom   prometheus.Gauge
	retention  prometheus.Gauge
	halted     *prometheus.GaugeVec
	letters    *prometheus.GaugeVec
	retries    prometheus.Gauge
	circuits   *prometheus.GaugeVec
	upkeep     *upkeepMetrics
	pool       *poolMetrics

	outboxRecords   prometheus.Gauge
	outboxOldest    prometheus.Gauge
	outboxPublished *prometheus.CounterVec
	outboxFailures  *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, sources map[string]bool) *metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "catchment", Name: name, Help: help}
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts(opts(name, help)), labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts(opts(name, help)))
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts(opts(name, help)), labels)
	}
	m := &metrics{
		reg: reg, sources: sources,
		events:     counters("processor_events_total", "Events committed, by what became of them, and records that are none.", "source", "outcome"),
		operations: counters("processor_attempts_total", "Attempts of operations, by outcome.", "operation", "outcome"),
		whenErrors: counters("processor_when_errors_total", "Conditions that could not be evaluated: no match.", "operation"),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "catchment", Name: "processor_batch_seconds", Help: "Time of a committed batch.",
			Buckets: prometheus.ExponentialBuckets(0.002, 2, 14), NativeHistogramBucketFactor: 1.1,
		}),
		fenced:  counter("processor_fenced_total", "Batches refused because another owner or position was stored."),
		unknown: counter("processor_unknown_commits_total", "COMMITs that nobody answered, found out by reading the position."),
		tries:   counter("processor_failed_tries_total", "Batches that failed and were tried again."),
		lag:     gauges("processor_lag_records", "Records between the stored position and the end of the log.", "partition"),
		oldest:  gauge("processor_oldest_unprocessed_seconds", "Age of the oldest record that is fetched and not committed."),
		headroom: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "catchment", Name: "retention_headroom_seconds", Help: "Time until Kafka's retention deletes what this consumer has not yet read.",
			ConstLabels: prometheus.Labels{"consumer": "processor"},
		}),
		retention: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "catchment", Name: "retention_seconds", Help: "How long Kafka keeps the records of the topic that this consumer reads; +Inf: for ever, or not known yet.",
			ConstLabels: prometheus.Labels{"consumer": "processor"},
		}),
		halted:   gauges("processor_halted", "1: the partition is halted, its position is lost.", "partition"),
		letters:  gauges("dead_letters", "Dead letters stored.", "source"),
		retries:  gauge("processor_retries_pending", "Attempts that are still to be made."),
		circuits: gauges("processor_circuit_open", "1: the operation's circuit is open, its attempts wait.", "operation"),
		upkeep:   newUpkeepMetrics(reg),
		pool:     newPoolMetrics(reg),

		outboxRecords:   gauge("processor_outbox_records", "Records that are committed and not yet published."),
		outboxOldest:    gauge("processor_outbox_oldest_seconds", "How long the oldest of them has waited."),
		outboxPublished: counters("processor_outbox_published_total", "Records that Kafka has acknowledged.", "topic"),
		outboxFailures:  counters("processor_outbox_failures_total", "Tries to publish that did not succeed as a whole.", "topic"),
	}
	m.headroom.Set(math.Inf(1))
	m.retention.Set(math.Inf(1))
	reg.MustRegister(m.events, m.operations, m.whenErrors, m.batch, m.fenced, m.unknown, m.tries, m.lag, m.oldest, m.headroom, m.retention,
		m.halted, m.letters, m.retries, m.circuits,
		m.outboxRecords, m.outboxOldest, m.outboxPublished, m.outboxFailures)
	return m
}

// source keeps label values to the configured ones.
func (m *metrics) source(name string) string {
	if m.sources[name] {
		return name
	}
	return "other"
}

func (m *metrics) add(s *summary, took time.Duration, of trace.TraceID) {
	telemetry.Observe(m.batch, took, of)
	for k, n := range s.events {
		m.events.WithLabelValues(m.source(k[0]), k[1]).Add(float64(n))
	}
	for k, n := range s.operations {
		m.operations.WithLabelValues(k[0], k[1]).Add(float64(n))
	}
	for k, n := range s.whenErrors {
		m.whenErrors.WithLabelValues(k).Add(float64(n))
	}
}
