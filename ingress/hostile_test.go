package ingress

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// hostileMemory is what the ingress may take up under any attack.
const hostileMemory = 256 << 20

// target is a program under attack.
type target struct {
	*process
	client *http.Client
	base   string
	seq    int
}

// good sends genuine deliveries, which must pass whatever goes on.
func (a *target) good(t *testing.T, n int) {
	t.Helper()
	for range n {
		a.seq++
		req, err := stripeRequest(a.base, sampleOf("stripe", a.seq))
		require.NoError(t, err)
		began := time.Now()
		resp, err := a.client.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode, "%s", body)
		require.Less(t, time.Since(began), 9*time.Second)
	}
	require.Less(t, a.rss(), int64(hostileMemory))
}

// all runs f n times at once.
func all(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func (a *target) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", a.listen, 20*time.Second)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// status sends what it is given, and returns the status of the answer; 0 when the connection was closed without one.
func (a *target) status(t *testing.T, send ...string) int {
	t.Helper()
	c := a.dial(t)
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	for _, text := range send {
		if _, err := io.WriteString(c, text); err != nil {
			break // it has answered before
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

const hostileHead = "POST /webhooks/stripe HTTP/1.1\r\nHost: h\r\n"

// TestHostileHTTP1 (R47, R48, R50) attacks the program over plain sockets. Its memory stays bounded, genuine
// deliveries pass at any time, and only they come into Kafka.
func TestHostileHTTP1(t *testing.T) {
	cluster := kafkatest.NewFake(t)
	topic := cluster.Topic(t, 3)
	p := newProcess(t, build(t), cluster, topic, "9s", ", read_header_timeout: 60s, read_timeout: 60s, limits: {connections: 10100}")
	p.start()
	a := &target{process: p, base: p.url(), client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	a.good(t, 3)

	t.Run("slow and idle connections", func(t *testing.T) { a.slow(t) })
	t.Run("bodies", func(t *testing.T) { a.bodies(t) })
	t.Run("heads", func(t *testing.T) { a.heads(t) })
	t.Run("garbage", func(t *testing.T) { a.garbage(t) })

	a.good(t, 3)
	_, peak := p.Memory()
	t.Logf("memory at its highest: %d MiB", peak>>20)
	require.Less(t, peak, int64(hostileMemory))
	require.EqualValues(t, a.seq, p.Metric(`catchment_ingress_ack_seconds_count`), "only the genuine ones were enqueued")
	require.Zero(t, p.Metric(`catchment_ingress_requests_total{outcome="internal_error",source="stripe"}`))
	require.NotContains(t, p.Log(), "panic")
}

// slow opens 10,000 connections that send nothing, a part of a head, or a body byte by byte, and some that do not
// read their answers.
func (a *target) slow(t *testing.T) {
	var mu sync.Mutex
	var conns []net.Conn
	all(100, func(i int) {
		for j := range 100 {
			c, err := net.DialTimeout("tcp", a.listen, 30*time.Second)
			if err != nil {
				t.Error(err)
				return
			}
			switch n := i*100 + j; {
			case n%100 == 0:
				_, _ = io.WriteString(c, hostileHead+"Content-Length: 100000\r\n\r\n{")
			case n%100 == 1:
				_, _ = io.WriteString(c, strings.Repeat(hostileHead+"Content-Length: 2\r\n\r\n{}", 200))
			case n%2 == 0:
				_, _ = io.WriteString(c, hostileHead+"X-Slow: ")
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
		}
	})
	require.Len(t, conns, 10_000)
	a.good(t, 20)
	for _, c := range conns { // one byte more of each
		_, _ = c.Write([]byte("a"))
	}
	a.good(t, 20)
	t.Logf("memory with 10,000 connections: %d MiB", a.rss()>>20)
	all(300, func(int) { // more than fit: the oldest idle ones give way
		c, err := net.DialTimeout("tcp", a.listen, 30*time.Second)
		if err != nil {
			t.Error(err)
			return
		}
		mu.Lock()
		conns = append(conns, c)
		mu.Unlock()
	})
	a.good(t, 10)
	for _, c := range conns {
		_ = c.Close()
	}
}

// bodies are larger than announced, than allowed, or than they look.
func (a *target) bodies(t *testing.T) {
	var megabyte bytes.Buffer
	zw := gzip.NewWriter(&megabyte)
	_, _ = zw.Write(make([]byte, 1<<20))
	require.NoError(t, zw.Close())
	bomb := bytes.Repeat(megabyte.Bytes(), 100) // members of one stream
	block := strings.Repeat("a", 64<<10)
	all(20, func(i int) {
		switch i % 4 {
		case 0:
			require.Contains(t, []int{413, 0}, a.status(t, hostileHead+"Content-Length: 100000000\r\n\r\n", block, block, block, block))
		case 1: // chunks without end: closed in the middle
			c := a.dial(t)
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			_, err := io.WriteString(c, hostileHead+"Transfer-Encoding: chunked\r\n\r\n")
			for sent := 0; err == nil && sent < 100<<20; sent += len(block) {
				_, err = io.WriteString(c, "10000\r\n"+block+"\r\n")
			}
			require.Error(t, err, "100 MB of chunks were taken")
		case 2:
			require.Equal(t, 415, a.status(t, fmt.Sprintf(hostileHead+"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n", len(bomb)), string(bomb)))
		case 3:
			require.Equal(t, 400, a.status(t, hostileHead+"Transfer-Encoding: chunked\r\n\r\n", strings.Repeat("1;"+strings.Repeat("e", 3000)+"\r\na\r\n", 1000)), "chunk extensions")
		}
	})
	a.good(t, 3)
	c := a.dial(t)
	_, err := io.WriteString(c, hostileHead+"Content-Length: 1000\r\n\r\nshort")
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 400, resp.StatusCode, "a body that ends early")
	a.good(t, 3)
}

// heads are floods, or what two programs could read in two ways.
func (a *target) heads(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		text   string
	}{
		"large head":                     {431, hostileHead + strings.Repeat("X-A: "+strings.Repeat("a", 1000)+"\r\n", 100) + "\r\n"},
		"one endless line":               {431, hostileHead + "X-A: " + strings.Repeat("a", 100_000)},
		"many lines":                     {400, hostileHead + strings.Repeat("a: b\r\n", 1000) + "Content-Length: 2\r\n\r\n{}"},
		"long path":                      {431, "POST /webhooks/stripe/" + strings.Repeat("a", 100_000) + " HTTP/1.1\r\n\r\n"},
		"length and encoding":            {400, hostileHead + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"},
		"encoding and length":            {400, hostileHead + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"},
		"two lengths":                    {400, hostileHead + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "},
		"two encodings":                  {400, hostileHead + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"},
		"encoding with a space":          {400, hostileHead + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
		"unknown encoding":               {501, hostileHead + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
		"negative length":                {400, hostileHead + "Content-Length: -1\r\n\r\n"},
		"folded line":                    {400, hostileHead + "Stripe-Signature: t=1,\r\n v1=a\r\nContent-Length: 2\r\n\r\n{}"},
		"twin of the signature":          {400, hostileHead + "Stripe-Signature: t=1,v1=a\r\nStripe_Signature: t=1,v1=b\r\nContent-Length: 2\r\n\r\n{}"},
		"bare LF in a chunk's size":      {400, hostileHead + "Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n"},
		"NUL in a header":                {400, hostileHead + "X-A: a\x00b\r\n\r\n"},
		"no host":                        {400, "POST /webhooks/stripe HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"},
		"two hosts":                      {400, hostileHead + "Host: other\r\nContent-Length: 2\r\n\r\n{}"},
		"HTTP/2 to a server without TLS": {505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
	} {
		if got := a.status(t, c.text); got != c.status && (c.status != 505 || got < 400 || got >= 500) {
			t.Errorf("%s: answered %d, expected %d", name, got, c.status)
		}
	}
	a.good(t, 3)
}

// garbage changes bytes of a genuine request, and sends bytes that are none. The genuine request is stale, so that
// no change can make it pass.
func (a *target) garbage(t *testing.T) {
	req := must(http.NewRequest(http.MethodPost, a.base+"/webhooks/stripe", strings.NewReader(`{"id":"evt_1","type":"a"}`)))
	req.Header.Set("Stripe-Signature", "t=1,v1="+strings.Repeat("0", 64))
	var text bytes.Buffer
	require.NoError(t, req.Write(&text))
	all(16, func(worker int) {
		r := rand.New(rand.NewPCG(7, uint64(worker)))
		for range 40 {
			b := bytes.Clone(text.Bytes())
			for range 1 + r.IntN(4) {
				switch i := r.IntN(len(b)); r.IntN(4) {
				case 0:
					b[i] ^= 1 << r.IntN(8)
				case 1:
					b = append(b[:i], b[i+r.IntN(len(b)-i):]...)
				case 2:
					b = append(b[:i], append([]byte("\r\n\t\x00 :;%"[r.IntN(8):]), b[i:]...)...)
				case 3:
					b = append(b, b[i:]...)
				}
				if len(b) == 0 {
					b = []byte{0}
				}
			}
			c, err := net.Dial("tcp", a.listen)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write(b)
			_ = c.(*net.TCPConn).CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			answer, _ := io.ReadAll(c)
			_ = c.Close()
			if len(answer) > 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.1 4")) && !bytes.HasPrefix(answer, []byte("HTTP/1.1 5")) && !bytes.HasPrefix(answer, []byte("HTTP/1.0 4")) {
				t.Errorf("%q was answered %.60q", b, answer)
			}
		}
	})
	a.good(t, 3)
}

// TestFloodWithoutKafka (R5, R7): genuine deliveries while no broker takes records. What is held for Kafka is
// bounded, what is over it is refused at once, and after the heal all is given back.
func TestFloodWithoutKafka(t *testing.T) {
	cluster := kafkatest.NewFake(t)
	topic := cluster.Topic(t, 12)
	p := newProcess(t, build(t), cluster, topic, "100ms", ", in_flight_bytes: 16MiB")
	p.start()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	fault := cluster.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	calm := p.Metric("go_goroutines")
	var next atomic.Int64
	overloaded := func() bool {
		return p.Metric(`catchment_ingress_requests_total{outcome="overloaded",source="stripe"}`) > 200
	}
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for range 256 {
		senders.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				req, err := stripeRequest(p.url(), sampleOf("stripe", int(next.Add(1))))
				if err != nil {
					t.Error(err)
					return
				}
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusServiceUnavailable {
					t.Errorf("answered %d", resp.StatusCode)
				}
			}
		})
	}
	require.Eventually(t, overloaded, 60*time.Second, 200*time.Millisecond)
	t.Logf("%d deliveries: %.1f MiB held, memory %d MiB", next.Load(), p.Metric("catchment_ingress_inflight_bytes")/(1<<20), p.rss()>>20)
	require.LessOrEqual(t, p.Metric("catchment_ingress_inflight_bytes"), float64(16<<20))
	require.Less(t, p.rss(), int64(128<<20))
	close(stop)
	senders.Wait()
	fault.Remove()
	client.CloseIdleConnections()
	http.DefaultClient.CloseIdleConnections()
	require.Eventually(t, func() bool { return p.Metric("catchment_ingress_inflight_bytes") == 0 }, 60*time.Second, 100*time.Millisecond)
	require.Eventually(t, func() bool { return p.Metric("go_goroutines") < calm+100 }, 30*time.Second, 100*time.Millisecond)
}

// TestHostileHTTP2 (R49) floods the program with resets, continuations, settings and streams that wait.
func TestHostileHTTP2(t *testing.T) {
	cluster := kafkatest.NewFake(t)
	topic := cluster.Topic(t, 3)
	cert, key, roots := identity(t, t.TempDir())
	p := newProcess(t, build(t), cluster, topic, "9s", fmt.Sprintf(", tls: {cert_file: %q, key_file: %q}", cert, key))
	p.start()
	a := &target{process: p, base: "https://" + p.listen, client: tlsClient(roots, true)}
	a.good(t, 3)
	for name, attack := range map[string]func(f *http2.Framer, head []byte) error{
		"rapid reset": func(f *http2.Framer, head []byte) error {
			for i := range uint32(5000) {
				if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: head, EndHeaders: true}); err != nil {
					return err
				}
				if err := f.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
					return err
				}
			}
			return nil
		},
		"continuations": func(f *http2.Framer, head []byte) error {
			if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head}); err != nil {
				return err
			}
			for range 5000 {
				if err := f.WriteContinuation(1, false, bytes.Repeat([]byte{0x40, 1, 'a', 1, 'b'}, 3000)); err != nil {
					return err
				}
			}
			return nil
		},
		"streams that wait": func(f *http2.Framer, head []byte) error {
			for i := range uint32(1000) {
				if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: head, EndHeaders: true}); err != nil {
					return err
				}
			}
			return nil
		},
		"settings and pings": func(f *http2.Framer, _ []byte) error {
			for range 20_000 {
				if err := f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
					return err
				}
				if err := f.WritePing(false, [8]byte{}); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			var done sync.WaitGroup
			for range 10 {
				done.Go(func() { flood(t, a, roots, attack) })
			}
			a.good(t, 10)
			done.Wait()
			a.good(t, 10)
			t.Logf("memory: %d MiB", a.rss()>>20)
		})
	}
}

// flood opens a connection and attacks it until it is closed or the attack ends.
func flood(t *testing.T, a *target, roots *x509.CertPool, attack func(*http2.Framer, []byte) error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", a.listen, &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	go func() { _, _ = io.Copy(io.Discard, c) }()
	_, _ = io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, nil)
	_ = f.WriteSettings()
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	enc.SetMaxDynamicTableSize(0) // each block stands for itself
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "h"}, {":path", "/webhooks/stripe"}, {"content-length", "100"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1], Sensitive: true})
	}
	_ = attack(f, head.Bytes()) // that it fails is what we want
}

// TestSlowSendersAreCutOff: headers and bodies that come too slowly end their connection.
func TestSlowSendersAreCutOff(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", ", read_header_timeout: 200ms, read_timeout: 600ms")
	h.ready()
	for name, text := range map[string]string{
		"nothing": "", "headers": hostileHead + "X-Slow: a", "body": hostileHead + "Content-Length: 100\r\n\r\n{", "chunks": hostileHead + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := net.Dial("tcp", h.Addr())
			require.NoError(t, err)
			defer func() { _ = c.Close() }()
			_, err = io.WriteString(c, text)
			require.NoError(t, err)
			_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
			answer, err := io.ReadAll(c)
			require.NoError(t, err, "the connection was not closed")
			if len(answer) > 0 {
				require.Regexp(t, `^HTTP/1\.1 4`, string(answer))
			}
		})
	}
}
