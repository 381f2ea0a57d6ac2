package ingress

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// identity writes a new self-signed certificate over the old one.
func identity(t testing.TB, dir string, serial int64) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	require.NoError(t, os.WriteFile(certFile, certPEM, 0o600))
	require.NoError(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600))
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, roots
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
	cert, key, roots := identity(t, dir, 1)
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
	require.Eventually(t, func() bool { return served(h, roots) == 1 && strings.Contains(h.log.String(), "the old one stays") }, 30*time.Second, 100*time.Millisecond)
	_, _, renewed := identity(t, dir, 2)
	require.Eventually(t, func() bool { return served(h, renewed) == 2 }, 30*time.Second, 100*time.Millisecond)
}

// served is the serial number of the certificate that the ingress shows; 0 when it is not trusted.
func served(h *harness, roots *x509.CertPool) int64 {
	c, err := tls.Dial("tcp", h.Addr(), &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err != nil {
		return 0
	}
	defer func() { _ = c.Close() }()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}
