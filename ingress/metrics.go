package ingress

import (
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
	lookups  *prometheus.CounterVec
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
	for _, result := range []string{lookupSeen, lookupUnseen, lookupFailed, lookupSkipped} {
		m.lookups.WithLabelValues(result)
	}
	for _, result := range []string{reloadOK, reloadFailed} {
		m.reloads.WithLabelValues(result)
	}
	reg.MustRegister(m.requests, m.ack, m.inflight, m.dataLoss, m.verified, m.reloads, m.lookups)
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
	return r
}

// retire drops the counters of secrets that are gone: however often secrets change, there are only as many series as
// there are secrets. Requests that still hold the old rules count into what nobody sees.
func (m *metrics) retire(source string, old, now *rules) {
	for id := range old.verified {
		if _, kept := now.verified[id]; !kept {
			m.verified.DeleteLabelValues(source, id)
		}
	}
}
