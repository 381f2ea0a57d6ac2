package processor

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/catchment-dev/catchment/processor/internal/store"
)

// poolMetrics show the connections to Postgres, once there is a pool.
type poolMetrics struct {
	store atomic.Pointer[store.Store]

	connections, most, acquires, waits, waited, cancelled, made *prometheus.Desc
}

func newPoolMetrics(reg prometheus.Registerer) *poolMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("catchment_processor_pool_"+name, help, labels, nil)
	}
	p := &poolMetrics{
		connections: desc("connections", "Connections to Postgres, by what they do.", "state"),
		most:        desc("max_connections", "Connections to Postgres at most: postgres.max_conns."),
		acquires:    desc("acquires_total", "Times that a connection was taken from the pool."),
		waits:       desc("waits_total", "Times that there was no idle connection to take."),
		waited:      desc("acquire_seconds_total", "Time that was spent on taking connections."),
		cancelled:   desc("cancelled_acquires_total", "Times that who waited for a connection gave up."),
		made:        desc("new_connections_total", "Connections that were opened."),
	}
	reg.MustRegister(p)
	return p
}

// Describe names the metrics.
func (p *poolMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{p.connections, p.most, p.acquires, p.waits, p.waited, p.cancelled, p.made} {
		ch <- d
	}
}

// Collect reads the pool's own numbers.
func (p *poolMetrics) Collect(ch chan<- prometheus.Metric) {
	s := p.store.Load()
	if s == nil {
		return
	}
	st := s.PoolStat()
	gauge := func(d *prometheus.Desc, n int32, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	counter := func(d *prometheus.Desc, n float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, n)
	}
	gauge(p.connections, st.AcquiredConns(), "busy")
	gauge(p.connections, st.IdleConns(), "idle")
	gauge(p.connections, st.ConstructingConns(), "opening")
	gauge(p.most, st.MaxConns())
	counter(p.acquires, float64(st.AcquireCount()))
	counter(p.waits, float64(st.EmptyAcquireCount()))
	counter(p.waited, st.AcquireDuration().Seconds())
	counter(p.cancelled, float64(st.CanceledAcquireCount()))
	counter(p.made, float64(st.NewConnsCount()))
}
