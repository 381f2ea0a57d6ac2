package ingress

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/pkg/settings"
)

// certificateLook is how often the certificates' files are looked at, at most.
const certificateLook = time.Second

// watched is what some files hold, read again when they have changed. What cannot be read leaves the old in use.
type watched[T any] struct {
	what  string
	files []string
	read  func() (T, error)
	log   *slog.Logger

	mu      sync.Mutex
	current T
	version []fileVersion
	looked  time.Time
}

// fileVersion tells one content of a file from another.
type fileVersion struct {
	modified time.Time
	size     int64
}

// Certificates tells when the certificate ends that we show, which is not the file's while that one cannot be used.
func (s *Service) Certificates() map[string]func() (time.Time, error) {
	if s.certificate == nil {
		return nil
	}
	return map[string]func() (time.Time, error){"ingress.tls.cert_file": func() (time.Time, error) { return s.certificate.get().Leaf.NotAfter, nil }}
}

// serverTLS returns nil when the configuration has no certificate. asks says whether senders are asked for theirs;
// whether it is a good one is judged by the source, unless client_ca_file says whose are. Connections that stand keep what
// they began with.
func serverTLS(cfg *settings.File, asks bool, log *slog.Logger) (conf *tls.Config, own *watched[*tls.Certificate], err error) {
	t := cfg.Ingress.TLS
	if t == nil {
		return nil, nil, nil
	}
	certFile, keyFile, caFile := cfg.Abs(t.CertFile), cfg.Abs(t.KeyFile), cfg.Abs(t.CAFile)
	own = &watched[*tls.Certificate]{what: "certificate", files: []string{certFile, keyFile}, log: log, read: func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		return &pair, err
	}}
	if err := own.load(); err != nil {
		return nil, nil, cfg.Errorf("ingress.tls", "expected a certificate and its key in PEM files: %v", err)
	}
	conf = &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.get(), nil },
	}
	if asks {
		conf.ClientAuth = tls.RequestClientCert
	}
	if caFile == "" {
		return conf, own, nil
	}
	trusted := &watched[*x509.CertPool]{what: "bundle of authorities", files: []string{caFile}, log: log, read: func() (*x509.CertPool, error) { return readPool(caFile) }}
	if err := trusted.load(); err != nil {
		return nil, nil, cfg.Errorf("ingress.tls.client_ca_file", "expected PEM certificates: %v", err)
	}
	conf.ClientAuth = tls.RequireAndVerifyClientCert
	conf.SessionTicketsDisabled = true // a session may be older than the bundle
	conf.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := conf.Clone()
		now.GetConfigForClient, now.ClientCAs = nil, trusted.get()
		return now, nil
	}
	return conf, own, nil
}

func readPool(name string) (*x509.CertPool, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("no certificate is in it")
	}
	return pool, nil
}

func (w *watched[T]) versions() (v []fileVersion, err error) {
	for _, name := range w.files {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		v = append(v, fileVersion{info.ModTime(), info.Size()})
	}
	return v, nil
}

func (w *watched[T]) load() error {
	version, err := w.versions()
	if err != nil {
		return err
	}
	content, err := w.read()
	if err != nil {
		return fmt.Errorf("%s: %w", w.files[0], err)
	}
	w.current, w.version, w.looked = content, version, time.Now()
	return nil
}

func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.looked) < certificateLook {
		return w.current
	}
	w.looked = time.Now()
	version, err := w.versions()
	if err == nil && slices.Equal(version, w.version) {
		return w.current
	}
	if err == nil {
		err = w.load()
	}
	if err != nil { // files may be half-way between two versions: looked at again
		w.log.Warn("the new "+w.what+" cannot be used; the old one stays", slog.Any("error", err))
		return w.current
	}
	w.log.Info("using the new "+w.what, slog.String("file", w.files[0]))
	return w.current
}
