package ingress

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	ack      prometheus.Histogram
	inflight prometheus.Gauge
	dataLoss prometheus.Counter
	verified *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	buckets := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	histogram := func(name, help string) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
		}
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "catchment_ingress_requests_total", Help: "Requests by how they ended."}, []string{"source", "outcome"}),
		seconds:  prometheus.NewHistogramVec(histogram("catchment_ingress_request_seconds", "Time from a request's headers to its answer."), []string{"source"}),
		ack:      prometheus.NewHistogram(histogram("catchment_ingress_ack_seconds", "Time from handing a record to the producer to Kafka's acknowledgement.")),
		inflight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "catchment_ingress_inflight_bytes", Help: "Bytes of bodies held, until Kafka has answered for them."}),
		dataLoss: prometheus.NewCounter(prometheus.CounterOpts{Name: "catchment_ingress_data_loss_detected_total", Help: "Times that the producer found that Kafka may have lost acknowledged records."}),
		verified: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "catchment_ingress_verified_total", Help: "Verified requests by the secret that verified them."}, []string{"source", "secret_id"}),
	}
	reg.MustRegister(m.requests, m.seconds, m.ack, m.inflight, m.dataLoss, m.verified)
	return m
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
