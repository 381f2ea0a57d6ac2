package ingress

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/certtest"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// identity writes a new certificate over the old one.
func identity(t testing.TB, dir string) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	a := certtest.New(t)
	certFile, keyFile = a.Issue(t, "ingress", time.Now().Add(time.Hour), "127.0.0.1").Write(t, dir, "server")
	return certFile, keyFile, a.Pool()
}

func tlsClient(roots *x509.CertPool, http2 bool) *http.Client {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, Protocols: protocols}}
}

// TestTLS sends over HTTPS with both protocols, and exchanges the certificate in between; a broken one changes nothing.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, roots := identity(t, dir)
	h := start(t, kafkatest.New(t), "20s", fmt.Sprintf(", tls: {cert_file: %q, key_file: %q}", cert, key))
	h.url = "https://" + h.Addr()
	h.ready()
	for i, http2 := range []bool{false, true} {
		client := tlsClient(roots, http2)
		resp, err := client.Do(h.stripe(i))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
		require.Equal(t, 1+i, resp.ProtoMajor)
		require.NotNil(t, resp.TLS)
		client.CloseIdleConnections()
	}
	c, err := tls.Dial("tcp", h.Addr(), &tls.Config{RootCAs: roots, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12})
	require.NoError(t, err)
	_, err = c.Write([]byte("POST /webhooks/stripe HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	require.Equal(t, 400, resp.StatusCode, "the framing is looked at behind TLS as well")
	require.NoError(t, resp.Body.Close())
	require.NoError(t, c.Close())

	require.NoError(t, os.WriteFile(cert, []byte("half-written"), 0o600))
	require.Eventually(t, func() bool { return served(h, roots) && strings.Contains(h.log.String(), "the old one stays") }, 30*time.Second, 100*time.Millisecond)
	_, _, renewed := identity(t, dir)
	require.Eventually(t, func() bool { return served(h, renewed) }, 30*time.Second, 100*time.Millisecond)
}

// served says whether the ingress shows a certificate of these authorities.
func served(h *harness, roots *x509.CertPool) bool {
	c, err := tls.Dial("tcp", h.Addr(), &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// TestTLSRotatedUnderLoad exchanges certificate and authority while a sender goes on on one connection, in either
// protocol: it is not cut off, and no request fails.
func TestTLSRotatedUnderLoad(t *testing.T) {
	dir := t.TempDir()
	cert, key, roots := identity(t, dir)
	h := start(t, kafkatest.New(t), "20s", fmt.Sprintf(", tls: {cert_file: %q, key_file: %q}", cert, key))
	h.url = "https://" + h.Addr()
	h.ready()
	var seq, connections atomic.Int64
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) {
		if !c.Reused {
			connections.Add(1)
		}
	}})
	stop, failed := make(chan struct{}), make(chan error, 2)
	var senders sync.WaitGroup
	for _, http2 := range []bool{false, true} {
		client := tlsClient(roots, http2)
		senders.Go(func() {
			defer client.CloseIdleConnections()
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := client.Do(h.stripe(int(seq.Add(1))).WithContext(ctx))
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				if err == nil && resp.StatusCode != http.StatusOK {
					err = errors.New(resp.Status)
				}
				if err != nil {
					failed <- err
					return
				}
			}
		})
	}
	for range 4 {
		from := seq.Load()
		_, _, renewed := identity(t, dir)
		require.Eventually(t, func() bool { return served(h, renewed) && seq.Load() > from+20 }, 30*time.Second, 50*time.Millisecond)
	}
	close(stop)
	senders.Wait()
	require.Empty(t, failed)
	require.EqualValues(t, 2, connections.Load())
}

// TestTLSVersions: nothing older than TLS 1.2 is spoken.
func TestTLSVersions(t *testing.T) {
	cert, key, roots := identity(t, t.TempDir())
	h := start(t, kafkatest.New(t), "20s", fmt.Sprintf(", tls: {cert_file: %q, key_file: %q}", cert, key))
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c, err := tls.Dial("tcp", h.Addr(), &tls.Config{RootCAs: roots, MinVersion: version, MaxVersion: version}) //nolint:gosec // old ones must be refused
		require.Equal(t, want, err == nil, "%s: %v", tls.VersionName(version), err)
		if err == nil {
			require.NoError(t, c.Close())
		}
	}
}

// TestClientAuthorities lets in who has a certificate by an authority of client_ca_file, as it is now.
func TestClientAuthorities(t *testing.T) {
	dir := t.TempDir()
	cert, key, roots := identity(t, dir)
	first, second := certtest.New(t), certtest.New(t)
	bundle := filepath.Join(dir, "clients.pem")
	first.Write(t, bundle)
	h := start(t, kafkatest.New(t), "20s", fmt.Sprintf(", tls: {cert_file: %q, key_file: %q, client_ca_file: %q}", cert, key, bundle))
	h.url = "https://" + h.Addr()
	h.ready()
	n := 0
	sends := func(a *certtest.Authority, ends time.Time, http2 bool) bool {
		client := tlsClient(roots, http2)
		defer client.CloseIdleConnections()
		if a != nil {
			client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{*a.Issue(t, "sender", ends).TLS(t)}
		}
		n++
		resp, err := client.Do(h.stripe(n))
		if err != nil {
			return false
		}
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusOK, resp.StatusCode)
		return true
	}
	hour := time.Now().Add(time.Hour)
	for _, http2 := range []bool{false, true} {
		require.True(t, sends(first, hour, http2))
		require.False(t, sends(nil, hour, http2), "no certificate")
		require.False(t, sends(second, hour, http2), "another authority's")
		require.False(t, sends(first, time.Now().Add(-time.Minute), http2), "expired")
	}
	require.NoError(t, os.WriteFile(bundle, []byte("half-written"), 0o600))
	require.Eventually(t, func() bool {
		return sends(first, hour, false) && strings.Contains(h.log.String(), "the new bundle of authorities cannot be used")
	}, 30*time.Second, 100*time.Millisecond)
	second.Write(t, bundle)
	require.Eventually(t, func() bool { return sends(second, hour, true) }, 30*time.Second, 100*time.Millisecond)
	require.False(t, sends(first, hour, true))
}

// TestCertificateMetric shows when the certificate ends that the ingress shows, also while its file cannot be used.
func TestCertificateMetric(t *testing.T) {
	dir := t.TempDir()
	a := certtest.New(t)
	soon, later := time.Now().Add(time.Hour).Truncate(time.Second), time.Now().Add(48*time.Hour).Truncate(time.Second)
	cert, key := a.Issue(t, "ingress", soon, "127.0.0.1").Write(t, dir, "server")
	h := start(t, kafkatest.New(t), "20s", fmt.Sprintf(", tls: {cert_file: %q, key_file: %q}", cert, key))
	ends := func() int64 {
		at, err := h.Certificates()["ingress.tls.cert_file"]()
		require.NoError(t, err)
		return at.Unix()
	}
	require.Equal(t, soon.Unix(), ends())
	a.Issue(t, "ingress", later, "127.0.0.1").Write(t, dir, "server")
	require.Eventually(t, func() bool { return ends() == later.Unix() }, 30*time.Second, 100*time.Millisecond)
	require.NoError(t, os.WriteFile(cert, []byte("half-written"), 0o600))
	require.Eventually(t, func() bool {
		return ends() == later.Unix() && strings.Contains(h.log.String(), "the new certificate cannot be used")
	}, 30*time.Second, 100*time.Millisecond)
	require.Equal(t, later.Unix(), ends())
}
