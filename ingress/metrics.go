package ingress

import (
	"errors"
	"math"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reg      prometheus.Registerer
	requests *prometheus.CounterVec
	ack      *timing
	inflight prometheus.Gauge
	dataLoss prometheus.Counter
	verified *prometheus.CounterVec
	reloads  *prometheus.CounterVec
	unread   prometheus.Gauge
	lookups  *prometheus.CounterVec
	ends     *prometheus.GaugeVec

	underReplicated prometheus.Gauge
	belowMinInsync  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		reg:      reg,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "catchment_ingress_requests_total", Help: "Requests by how they ended."}, []string{"source", "outcome"}),
		ack:      newTiming(timingOpts("catchment_ingress_ack_seconds", "Time from handing a record to the producer to Kafka's acknowledgement.")),
		inflight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "catchment_ingress_inflight_bytes", Help: "Bytes of bodies held, until Kafka has answered for them."}),
		dataLoss: prometheus.NewCounter(prometheus.CounterOpts{Name: "catchment_ingress_data_loss_detected_total", Help: "Times that the producer found that Kafka may have lost acknowledged records."}),
		verified: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "catchment_ingress_verified_total", Help: "Verified requests by the secret that verified them."}, []string{"source", "secret_id"}),
		reloads:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "catchment_ingress_secret_reloads_total", Help: "Times that changed secrets were read again, by result: failed ones left a source's secrets as they were."}, []string{"result"}),
	}
	m.lookups = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "catchment_ingress_dedup_lookups_total", Help: "Look-ups of acknowledged events, by result: failed and skipped ones count as not seen."}, []string{"result"})
	m.unread = prometheus.NewGauge(prometheus.GaugeOpts{Name: "catchment_ingress_secrets_unread", Help: "1: the changed secrets of some source could not be read, and those from before are in use."})
	m.ends = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "catchment_secret_not_after_timestamp_seconds", Help: "When a secret ends to count, in Unix time, by its not_after; +Inf: never."}, []string{"source", "secret_id"})
	m.underReplicated = prometheus.NewGauge(prometheus.GaugeOpts{Name: "catchment_ingress_topic_under_replicated_partitions", Help: "Partitions of the topic of which not every replica is in sync, as of the last check, which is made every minute."})
	m.belowMinInsync = prometheus.NewGauge(prometheus.GaugeOpts{Name: "catchment_ingress_topic_below_min_insync_partitions", Help: "Partitions of the topic that take no records, as fewer replicas than min.insync.replicas are in sync, as of the last check."})
	for _, result := range []string{lookupSeen, lookupUnseen, lookupFailed, lookupSkipped} {
		m.lookups.WithLabelValues(result)
	}
	for _, result := range []string{reloadOK, reloadFailed} {
		m.reloads.WithLabelValues(result)
	}
	reg.MustRegister(m.requests, m.ack, m.inflight, m.dataLoss, m.verified, m.reloads, m.lookups, m.unread, m.ends, m.underReplicated, m.belowMinInsync)
	return m
}

func timingOpts(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		NativeHistogramBucketFactor: 1.1,
	}
}

// seconds makes the source's histogram of times.
func (m *metrics) seconds(source string) *timing {
	opts := timingOpts("catchment_ingress_request_seconds", "Time from a request's headers to its answer.")
	opts.ConstLabels = prometheus.Labels{"source": source}
	t := newTiming(opts)
	m.reg.MustRegister(t)
	return t
}

// unknownSource is the label of requests for no source: labels take no value from requests.
const unknownSource = "_unknown"

// counters returns the source's counters by outcome, all made now so that each shows from the start.
func (m *metrics) counters(source string) map[outcome]prometheus.Counter {
	c := map[outcome]prometheus.Counter{
		outAccepted:  m.requests.WithLabelValues(source, string(outAccepted)),
		outDuplicate: m.requests.WithLabelValues(source, string(outDuplicate)),
		outHandshake: m.requests.WithLabelValues(source, string(outHandshake)),
	}
	for o := range refusals {
		c[o] = m.requests.WithLabelValues(source, string(o))
	}
	return c
}

// rules makes the counters of the secrets in use now, so that each shows from the start.
func (m *metrics) rules(source string, j *Judge) *rules {
	r := &rules{judge: j, verified: map[string]prometheus.Counter{}}
	ids := j.rules.SecretIDs()
	if len(ids) == 0 {
		ids = []string{""}
	}
	for _, id := range ids {
		r.verified[id] = m.verified.WithLabelValues(source, id)
	}
	for id, end := range j.rules.SecretsEnd() {
		at := math.Inf(1)
		if !end.IsZero() {
			at = float64(end.Unix())
		}
		m.ends.WithLabelValues(source, id).Set(at)
	}
	return r
}

// verdicts shows what refuses all webhooks: an unsafe topic, and a clock that is unsound.
func (m *metrics) verdicts(s *Service) {
	gauge := func(name, help string, err func() error) {
		m.reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
			if err() != nil {
				return 1
			}
			return 0
		}))
	}
	gauge("catchment_ingress_topic_unsafe", "1: the topic would not keep what it acknowledges, and webhooks are refused.", func() error {
		if err := s.topic.err(); !errors.Is(err, errStarting) {
			return err
		}
		return nil // not checked yet
	})
	gauge("catchment_ingress_clock_unsound", "1: our clock is not the brokers', and webhooks are refused.", s.clock.err)
}

// retire drops the counters of secrets that are gone: however often secrets change, there are only as many series as
// there are secrets. Requests that still hold the old rules count into what nobody sees.
func (m *metrics) retire(source string, old, now *rules) {
	for id := range old.verified {
		if _, kept := now.verified[id]; !kept {
			m.verified.DeleteLabelValues(source, id)
		}
	}
	ends := now.judge.rules.SecretsEnd()
	for id := range old.judge.rules.SecretsEnd() {
		if _, kept := ends[id]; !kept {
			m.ends.DeleteLabelValues(source, id)
		}
	}
}
