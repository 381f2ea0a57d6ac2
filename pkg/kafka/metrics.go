package kafka

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kprom"
)

// Metrics returns the option with which a client counts what it does with the brokers, as catchment_kafka_… with its name as
// label client. The counters are there while the client is: no two clients of one registry may have one name at a time.
func Metrics(reg prometheus.Registerer, client string) kgo.Opt {
	return kgo.WithHooks(kprom.NewMetrics("catchment_kafka",
		kprom.Registerer(wellNamed{reg}), kprom.WithStaticLabel(prometheus.Labels{"client": client}),
		kprom.FetchAndProduceDetail(kprom.ByTopic, kprom.ByNode, kprom.Batches, kprom.Records),
	))
}

// wellNamed is a registry without the client's histograms, which are not asked for, and without those of its gauges that have
// the name of a counter.
type wellNamed struct{ prometheus.Registerer }

// MustRegister leaves these out.
func (w wellNamed) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		descs := make(chan *prometheus.Desc, 1)
		c.Describe(descs)
		name := (<-descs).String()
		if strings.Contains(name, `_seconds"`) || strings.Contains(name, "_buffered_") && strings.Contains(name, `_total"`) {
			continue
		}
		w.Registerer.MustRegister(c)
	}
}
