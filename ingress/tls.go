package ingress

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/pkg/settings"
)

// certificateLook is how often the certificate's files are looked at, at most.
const certificateLook = time.Second

// certificate is what the listener shows, read again when its files have changed. A pair that cannot be read leaves
// the old one in use.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	version [2]fileVersion
	looked  time.Time
}

// fileVersion tells one content of a file from another.
type fileVersion struct {
	modified time.Time
	size     int64
}

// serverTLS returns nil when the configuration has no certificate. clients says whether senders are asked for theirs;
// whether it is a good one is judged by the source.
func serverTLS(cfg *settings.File, clients bool, log *slog.Logger) (*tls.Config, error) {
	t := cfg.Ingress.TLS
	if t == nil {
		return nil, nil
	}
	c := &certificate{certFile: cfg.Abs(t.CertFile), keyFile: cfg.Abs(t.KeyFile), log: log}
	if err := c.load(); err != nil {
		return nil, cfg.Errorf("ingress.tls", "expected a certificate and its key in PEM files: %v", err)
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.get(), nil },
	}
	if clients {
		conf.ClientAuth = tls.RequestClientCert
	}
	return conf, nil
}

func (c *certificate) files() (v [2]fileVersion, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return v, err
		}
		v[i] = fileVersion{info.ModTime(), info.Size()}
	}
	return v, nil
}

func (c *certificate) load() error {
	version, err := c.files()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", c.certFile, c.keyFile, err)
	}
	c.current, c.version, c.looked = &pair, version, time.Now()
	return nil
}

func (c *certificate) get() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < certificateLook {
		return c.current
	}
	c.looked = time.Now()
	version, err := c.files()
	if err == nil && version == c.version {
		return c.current
	}
	if err == nil {
		err = c.load()
	}
	if err != nil { // the two files may be half-way between two versions: looked at again
		c.log.Warn("the new certificate cannot be used; the old one stays", slog.Any("error", err))
		return c.current
	}
	c.log.Info("using the new certificate", slog.String("file", c.certFile))
	return c.current
}
