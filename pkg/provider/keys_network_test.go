package provider

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// keyServer is a TLS server on loopback that answers for keys.example.com.
type keyServer struct {
	*NetworkKeys
	calls atomic.Int64
	ahead atomic.Int64 // how far the clock is
	last  atomic.Pointer[http.Request]
}

func newKeyServer(t *testing.T, answer http.HandlerFunc) *keyServer {
	t.Helper()
	cert, roots := serverCertificate(t)
	s := &keyServer{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.calls.Add(1)
		s.last.Store(r)
		answer(w, r)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	t.Cleanup(server.Close)
	s.NetworkKeys = newNetworkKeys(func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
	}, roots)
	s.now = func() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }
	return s
}

func serverCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "keys"}, DNSNames: []string{"keys.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

func fetchOf(t *testing.T, text string) *Fetch {
	t.Helper()
	u, err := url.Parse(text)
	require.NoError(t, err)
	return &Fetch{Name: text, Source: "test", URL: u}
}

func number(calls *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strconv.FormatInt(calls.Load(), 10))
	}
}

func TestNetworkKeysRemember(t *testing.T) {
	var s *keyServer
	s = newKeyServer(t, func(w http.ResponseWriter, r *http.Request) { number(&s.calls)(w, r) })
	f := fetchOf(t, "https://keys.example.com/a")
	expect := func(f *Fetch, want string) {
		t.Helper()
		b, err := s.Fetch(t.Context(), f)
		require.NoError(t, err)
		require.Equal(t, want, string(b))
	}
	expect(f, "1")
	expect(f, "1")
	fresh := *f
	fresh.Fresh = true
	expect(&fresh, "1")
	s.ahead.Add(int64(freshAfter))
	expect(f, "1")
	expect(&fresh, "2")
	expect(&fresh, "2")
	post := *f
	post.Method, post.Body, post.Header = "POST", []byte(`{"key_id":"x"}`), http.Header{"Content-Type": {"application/json"}}
	expect(&post, "3")
	require.Equal(t, "application/json", s.last.Load().Header.Get("Content-Type"))
	s.ahead.Add(int64(keyTTL))
	expect(f, "4")
}

func TestNetworkKeysFailures(t *testing.T) {
	var s *keyServer
	var status atomic.Int64
	status.Store(http.StatusNotFound)
	s = newKeyServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(int(status.Load()))
		number(&s.calls)(w, r)
	})
	f := fetchOf(t, "https://keys.example.com/a")
	for range 3 {
		_, err := s.Fetch(t.Context(), f)
		require.ErrorContains(t, err, "unexpected status 404")
	}
	require.Equal(t, int64(1), s.calls.Load(), "a failure is remembered")
	s.ahead.Add(int64(failureTTL))
	status.Store(http.StatusOK)
	b, err := s.Fetch(t.Context(), f)
	require.NoError(t, err)
	require.Equal(t, "2", string(b))
	status.Store(http.StatusBadGateway)
	s.ahead.Add(int64(freshAfter))
	f.Fresh = true
	b, err = s.Fetch(t.Context(), f)
	require.NoError(t, err, "what is not too old stays when it cannot be had again")
	require.Equal(t, "2", string(b))
	s.ahead.Add(int64(keyTTL))
	_, err = s.Fetch(t.Context(), f)
	require.ErrorContains(t, err, "502")
}

func TestNetworkKeysRefuse(t *testing.T) {
	release := make(chan struct{})
	s := newKeyServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/redirect":
			http.Redirect(w, r, "https://keys.example.com/ok", http.StatusFound)
		case "/long":
			_, _ = w.Write(bytes.Repeat([]byte("x"), maxKeySize+1))
		case "/endless":
			for {
				if _, err := w.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
					return
				}
			}
		case "/header":
			w.Header().Set("X-Long", strings.Repeat("x", 2*maxKeyHeader))
		case "/slow":
			<-release
		}
	})
	defer close(release)
	for path, want := range map[string]string{
		"/redirect": "unexpected status 302", "/long": "longer than 65536 bytes", "/endless": "longer than 65536 bytes", "/header": "header",
	} {
		_, err := s.Fetch(t.Context(), fetchOf(t, "https://keys.example.com"+path))
		require.ErrorContains(t, err, want, path)
	}
	_, err := s.Fetch(t.Context(), fetchOf(t, "https://other.example.com/a"))
	require.ErrorContains(t, err, "certificate is valid for keys.example.com, not other.example.com")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Fetch(ctx, fetchOf(t, "https://keys.example.com/slow"))
	require.ErrorIs(t, err, context.Canceled)
}

func TestNetworkKeysOneFlight(t *testing.T) {
	release := make(chan struct{})
	s := newKeyServer(t, func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = io.WriteString(w, "key")
	})
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if b, err := s.Fetch(t.Context(), fetchOf(t, "https://keys.example.com/a")); err != nil || string(b) != "key" {
				t.Errorf("%q, %v", b, err)
			}
		})
	}
	require.Eventually(t, func() bool { return s.calls.Load() == 1 }, 10*time.Second, time.Millisecond)
	close(release)
	wg.Wait()
	require.Equal(t, int64(1), s.calls.Load())
}

// TestNetworkKeysBounded: whoever makes up key names costs few look-ups, disturbs no other source, and memory stays.
func TestNetworkKeysBounded(t *testing.T) {
	s := newKeyServer(t, func(http.ResponseWriter, *http.Request) {})
	refused := 0
	for i := range 100 {
		if _, err := s.Fetch(t.Context(), fetchOf(t, fmt.Sprintf("https://keys.example.com/%d", i))); errors.Is(err, errKeyBudget) {
			refused++
		}
	}
	require.Equal(t, 100-keyBurst, refused)
	require.Equal(t, int64(keyBurst), s.calls.Load())
	other := fetchOf(t, "https://keys.example.com/x")
	other.Source = "other"
	_, err := s.Fetch(t.Context(), other)
	require.NoError(t, err)
	_, err = s.Fetch(t.Context(), fetchOf(t, "https://keys.example.com/0"))
	require.NoError(t, err, "what is remembered costs nothing")
	s.ahead.Add(int64(keyInterval))
	_, err = s.Fetch(t.Context(), fetchOf(t, "https://keys.example.com/y"))
	require.NoError(t, err)

	for i := range 2 * maxKeys {
		s.remember(&keyEntry{name: strconv.Itoa(i)})
		s.spend(&Fetch{Source: strconv.Itoa(i)}, s.now())
		s.ahead.Add(int64(keyInterval))
	}
	require.Len(t, s.entries, maxKeys)
	require.Equal(t, maxKeys, s.recent.Len())
	require.LessOrEqual(t, len(s.budgets), maxKeys)
}

// TestHostileURLs: none of them is called, whatever the preset thinks of it.
func TestHostileURLs(t *testing.T) {
	k := newNetworkKeys(func(context.Context, string, string) (net.Conn, error) {
		t.Error("dialled")
		return nil, io.EOF
	}, nil)
	for _, text := range []string{
		"http://keys.example.com/a", "ftp://keys.example.com/a", "file:///etc/passwd", "//keys.example.com/a", "https:keys.example.com",
		"https://user@keys.example.com/a", "https://user:pw@keys.example.com/a", "https://keys.example.com@127.0.0.1/a",
		"https://keys.example.com:8443/a", "https://keys.example.com:443/a", "https://keys.example.com:/a", "https://keys.example.com/a#b",
		"https://127.0.0.1/a", "https://127.1/a", "https://2130706433/a", "https://0x7f000001/a", "https://0x7f.1/a", "https://0177.0.0.1/a",
		"https://[::1]/a", "https://[::ffff:127.0.0.1]/a", "https://[::ffff:7f00:1]/a", "https://[64:ff9b::7f00:1]/a", "https://[fe80::1%25eth0]/a",
		"https://169.254.169.254/latest/meta-data", "https://localhost/a", "https://keys.example.com./a", "https://.example.com/a",
		"https://keys..example.com/a", "https://keys.example.com%00.example.org/a", "https://keys。example.com/a", "https://ｋeys.example.com/a", "https:///a",
		"https://" + strings.Repeat("a.", 130) + "com/a",
	} {
		u, err := url.Parse(text)
		if err != nil {
			continue
		}
		_, err = k.Fetch(t.Context(), &Fetch{Name: text, URL: u})
		require.ErrorIs(t, err, errFetchURL, text)
	}
	_, err := k.Fetch(t.Context(), &Fetch{})
	require.ErrorIs(t, err, errFetchURL)
}

func TestPublicAddress(t *testing.T) {
	for text, want := range map[string]bool{
		"52.94.5.1": true, "1.1.1.1": true, "2600:1f18::1": true, "2a00:1450:4001::200e": true,
		"127.0.0.1": false, "127.255.255.254": false, "0.0.0.0": false, "10.1.2.3": false, "172.16.0.1": false, "172.31.255.255": false,
		"192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false, "100.127.255.255": false, "192.0.0.192": false, "198.18.0.1": false,
		"192.0.2.1": false, "203.0.113.5": false, "224.0.0.1": false, "239.1.1.1": false, "240.0.0.1": false, "255.255.255.255": false,
		"::": false, "::1": false, "::ffff:127.0.0.1": false, "::ffff:52.94.5.1": false, "::7f00:1": false, "64:ff9b::7f00:1": false, "64:ff9b:1::1": false,
		"fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd00:ec2::254": false, "ff02::1": false, "fec0::1": false,
		"2001::1": false, "2001:db8::1": false, "2002:7f00:1::1": false, "3fff::1": false, "100::1": false, "5f00::1": false,
	} {
		require.Equal(t, want, publicAddress(netip.MustParseAddr(text)), text)
	}
	require.False(t, publicAddress(netip.Addr{}))
}

// TestRebinding: the name is resolved to a loopback address, or first to a public one and then to loopback. What is
// judged is the address of the connection.
func TestRebinding(t *testing.T) {
	for _, answers := range [][]string{{"127.0.0.1"}, {"10.0.0.1"}, {"169.254.169.254"}} {
		k := newNetworkKeys(publicDialer(fakeDNS(t, answers...)).DialContext, nil)
		_, err := k.Fetch(t.Context(), fetchOf(t, "https://keys.example.com/a"))
		require.ErrorIs(t, err, errPrivateAddress, answers)
		require.ErrorContains(t, err, answers[0])
	}
}

// fakeDNS answers questions for IPv4 addresses with the texts in turn, the last one for ever.
func fakeDNS(t *testing.T, texts ...string) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for n := 0; ; {
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			question := buf[12:size]
			end := bytes.IndexByte(question, 0) + 5
			reply := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question[:end]...)
			if binary.BigEndian.Uint16(question[end-4:]) == 1 {
				ip := netip.MustParseAddr(texts[min(n, len(texts)-1)]).As4()
				n++
				reply[7] = 1
				reply = append(append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4), ip[:]...)
			}
			_, _ = conn.WriteTo(reply, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestOfflineKeysByURL(t *testing.T) {
	k, err := ParseOfflineKeys([]byte(`{"fetch":{"https://a.example/x.pem":"text\n"}}`))
	require.NoError(t, err)
	f := fetchOf(t, "https://a.example/x.pem")
	f.Name = "jwks:bank"
	b, err := k.Fetch(t.Context(), f)
	require.NoError(t, err)
	require.Equal(t, "text\n", string(b))
	_, err = ParseOfflineKeys([]byte(`{} {}`))
	require.ErrorIs(t, err, errKeysTrailing)
}
