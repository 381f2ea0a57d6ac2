package telemetry

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/catchment-dev/catchment/pkg/settings"
)

// Certificate shows when the certificate of an edge expires, in Unix seconds, as catchment_certificate_not_after_seconds.
// ends is asked at each scrape; where it fails, 0 is shown, so that an alarm of certificates that expire soon is heard.
// Services of one process may share an edge.
func Certificate(reg prometheus.Registerer, edge string, ends func() (time.Time, error)) error {
	err := reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "catchment_certificate_not_after_seconds", ConstLabels: prometheus.Labels{"edge": edge},
		Help: "When the certificate that we show at this edge expires, in Unix seconds; 0: it cannot be read.",
	}, func() float64 {
		t, err := ends()
		if err != nil {
			return 0
		}
		return float64(t.Unix())
	}))
	if errors.As(err, &prometheus.AlreadyRegisteredError{}) {
		return nil
	}
	return err
}

// ClientCertificate is Certificate for one that we show as a client; nil, or without one, it does nothing.
func ClientCertificate(reg prometheus.Registerer, edge string, t *settings.TLS) error {
	if t == nil || t.CertFile == "" {
		return nil
	}
	return Certificate(reg, edge, func() (time.Time, error) { return certificateEnds(t.CertFile) })
}

// certificateEnds reads the first certificate of a PEM file.
func certificateEnds(name string) (time.Time, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return time.Time{}, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return time.Time{}, fmt.Errorf("%s: %w", name, err)
		}
		return c.NotAfter, nil
	}
	return time.Time{}, fmt.Errorf("%s: expected a PEM certificate, found none", name)
}
