package telemetry

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/settings"
)

// certificate is the PEM text of one that ends then.
func certificate(t *testing.T, end time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: end.Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// sick is a service that says why it is not ready, and knows two of its certificates.
type sick struct{ err error }

func (*sick) Name() string              { return "catchment-processor" }
func (*sick) Run(context.Context) error { return nil }
func (s *sick) Ready() error            { return s.err }
func (s *sick) Certificates() map[string]func() (time.Time, error) {
	return map[string]func() (time.Time, error){
		"kafka.tls.cert_file": func() (time.Time, error) { return time.Unix(1_900_000_000, 0), nil },
		"postgres.url":        func() (time.Time, error) { return time.Unix(1_900_000_000, 0), s.err },
	}
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, texts ...[]byte) string {
		path := filepath.Join(dir, name)
		var all []byte
		for _, text := range texts {
			all = append(all, text...)
		}
		require.NoError(t, os.WriteFile(path, all, 0o600))
		return path
	}
	early, late := certificate(t, time.Unix(2_000_000_000, 0)), certificate(t, time.Unix(2_100_000_000, 0))
	cfg := &settings.File{Ingress: settings.Ingress{TLS: &settings.ServerTLS{CertFile: file("chain", late, early)}}}
	cfg.Kafka.TLS = &settings.TLS{CAFile: file("authorities", late, early), CertFile: filepath.Join(dir, "nothing")}
	cfg.Ingress.Dedup.TLS = &settings.TLS{CAFile: file("broken", []byte("-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n"))}
	reg, s := prometheus.NewRegistry(), &sick{}
	Watch(reg, cfg, s)
	want := func(ready, postgres string) string {
		return `
# HELP catchment_certificate_not_after_timestamp_seconds When the first certificate of a chain, or the last one of a bundle of authorities, ends to count, in Unix time, by the key that names it; 0: it cannot be read.
# TYPE catchment_certificate_not_after_timestamp_seconds gauge
catchment_certificate_not_after_timestamp_seconds{key="ingress.dedup.tls.ca_file"} 0
catchment_certificate_not_after_timestamp_seconds{key="ingress.tls.cert_file"} 2e+09
catchment_certificate_not_after_timestamp_seconds{key="kafka.tls.ca_file"} 2.1e+09
catchment_certificate_not_after_timestamp_seconds{key="kafka.tls.cert_file"} 1.9e+09
catchment_certificate_not_after_timestamp_seconds{key="postgres.url"} ` + postgres + `
# HELP catchment_ready 1: the service can do its work, as /readyz says.
# TYPE catchment_ready gauge
catchment_ready{service="processor"} ` + ready + "\n"
	}
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(want("1", "1.9e+09"))))
	s.err = errors.New("no database")
	require.NoError(t, testutil.GatherAndCompare(reg, strings.NewReader(want("0", "0"))))
}
