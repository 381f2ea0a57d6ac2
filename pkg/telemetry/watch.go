package telemetry

import (
	"crypto/x509"
	"encoding/pem"
	"maps"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// Watch adds what does not belong to one service alone: whether each is ready, and when the certificates of the
// configuration end.
func Watch(reg prometheus.Registerer, cfg *settings.File, services ...run.Service) {
	for _, s := range services {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "catchment_ready", Help: "1: the service can do its work, as /readyz says.", ConstLabels: prometheus.Labels{"service": strings.TrimPrefix(s.Name(), "catchment-")},
		}, func() float64 {
			if s.Ready() != nil {
				return 0
			}
			return 1
		}))
	}
	ends := map[string]func() (time.Time, error){}
	for key, file := range certificateFiles(cfg) {
		ends[key] = func() (time.Time, error) { return endOf(file, strings.HasSuffix(key, ".ca_file")), nil }
	}
	for _, s := range services {
		if c, ok := s.(certified); ok {
			maps.Copy(ends, c.Certificates())
		}
	}
	reg.MustRegister(&certificates{ends: ends, desc: prometheus.NewDesc("catchment_certificate_not_after_timestamp_seconds",
		"When the first certificate of a chain, or the last one of a bundle of authorities, ends to count, in Unix time, by the key that names it; 0: it cannot be read.", []string{"key"}, nil)})
}

// certificateFiles are the files of the configuration that hold certificates, by their keys.
func certificateFiles(cfg *settings.File) map[string]string {
	files := map[string]string{}
	add := func(key, file string) {
		if file != "" {
			files[key] = cfg.Abs(file)
		}
	}
	if t := cfg.Ingress.TLS; t != nil {
		add("ingress.tls.cert_file", t.CertFile)
	}
	for key, t := range map[string]*settings.TLS{"kafka.tls": cfg.Kafka.TLS, "ingress.dedup.tls": cfg.Ingress.Dedup.TLS} {
		if t != nil {
			add(key+".ca_file", t.CAFile)
			add(key+".cert_file", t.CertFile)
		}
	}
	return files
}

// certified is a service that knows better than a file which certificate it shows, by the key that names it.
type certified interface {
	Certificates() map[string]func() (time.Time, error)
}

// certificates looks whenever metrics are asked for: they are renewed while we run.
type certificates struct {
	ends map[string]func() (time.Time, error)
	desc *prometheus.Desc
}

// Describe names the metric.
func (c *certificates) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc }

// Collect sends them all.
func (c *certificates) Collect(ch chan<- prometheus.Metric) {
	for key, ends := range c.ends {
		end := 0.0
		if t, err := ends(); err == nil && !t.IsZero() {
			end = float64(t.Unix())
		}
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, end, key)
	}
}

// endOf is when the first certificate of a PEM file ends, or the last; zero: there is none that can be read.
func endOf(file string, last bool) (end time.Time) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return end
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return end
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return time.Time{}
		}
		if end.IsZero() || cert.NotAfter.After(end) == last {
			end = cert.NotAfter
		}
	}
}
