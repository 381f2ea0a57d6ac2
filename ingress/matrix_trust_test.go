package ingress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const trustAck = 500 * time.Millisecond // the ack_timeout of these tests

// startTrusting runs an ingress with a topic of its own on brokers that must be found, trusted or convinced as kafka
// says, in YAML: relative paths start in dir.
func startTrusting(t *testing.T, cluster *kafkatest.Cluster, dir, kafkaMore string) *harness {
	t.Helper()
	topic := "trust." + strconv.FormatInt(time.Now().UnixNano(), 10)
	text := fmt.Sprintf("kafka: {brokers: [%s], topic: %s, partitions: 3%s}\ningress: {listen: \"127.0.0.1:0\"}\n", `"`+strings.Join(cluster.Brokers, `", "`)+`"`, topic, kafkaMore) +
		fmt.Sprintf(testSources, trustAck)
	cfg, err := settings.Parse(filepath.Join(dir, "catchment.yaml"), []byte(text), settings.NeedKafka, settings.NeedIngress, settings.NeedSources)
	require.NoError(t, err)
	h := &harness{t: t, log: &syncBuffer{}, reg: prometheus.NewRegistry(), topic: topic, kafka: cluster}
	h.options, err = kafka.Options(cfg.Kafka, "test")
	require.NoError(t, err)
	h.Service, err = New(cfg, slog.New(slog.NewJSONHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})), h.reg)
	require.NoError(t, err)
	h.run()
	h.ready()
	return h
}

// requireHealing wants honest answers while the ingress cannot get to its brokers, and service when it can again.
func requireHealing(t *testing.T, h *harness, breakIt, heal func()) {
	t.Helper()
	seq := int(trustSeq.Add(1000))
	accepted := map[string]bool{}
	send := func() int {
		seq++
		s := sampleOf("stripe", seq)
		resp, body := h.call(h.signed("stripe", "stripe", stripeSecret, time.Now(), s))
		if resp.StatusCode == http.StatusOK {
			accepted["stripe "+s.ID] = true
		} else {
			requireProblem(t, resp, body, http.StatusServiceUnavailable, "not-acknowledged")
		}
		return resp.StatusCode
	}
	served := func() bool { return send() == http.StatusOK }
	require.Eventually(t, served, 30*time.Second, 20*time.Millisecond)
	breakIt()
	for range 3 {
		began := time.Now()
		require.Equal(t, http.StatusServiceUnavailable, send())
		require.Less(t, time.Since(began), trustAck+5*time.Second)
		require.NoError(t, h.Ready(), "an outage of Kafka is no reason to leave the load balancer")
	}
	heal()
	began := time.Now()
	require.Eventually(t, served, 30*time.Second, 20*time.Millisecond, "%s", h.log)
	t.Logf("served again after %s", time.Since(began))
	for id := range accepted {
		require.Eventually(t, func() bool { return len(h.deliveries()[id]) > 0 }, 30*time.Second, 100*time.Millisecond, "%s was accepted and is not in the log: %s", id, h.log)
	}
}

var trustSeq atomic.Int64

// R53, DNS: the brokers' name does not resolve, in each way in which a name may not, for connections that end in that
// time.
func TestR53NameDoesNotResolve(t *testing.T) {
	names := newNames(t)
	wire := &namedWire{}
	cluster := kafkatest.NewFake(t, kfake.ListenFn(wire.listen))
	h := startTrusting(t, cluster, t.TempDir(), "")
	for name, rcode := range map[string]dnsmessage.RCode{"no such name": dnsmessage.RCodeNameError, "server failure": dnsmessage.RCodeServerFailure, "silence": silent} {
		t.Run(name, func(t *testing.T) {
			h.t = t
			requireHealing(t, h,
				func() { names.answer(rcode); wire.cut() },
				func() { names.answer(dnsmessage.RCodeSuccess) })
		})
	}
	h.t = t
	require.Positive(t, names.asked.Load(), "the name was never asked for")
}

// R53, certificates: that of the brokers expires and is renewed, by the same authority and by another one, whose
// certificate then stands in ca_file.
func TestR53CertificateExpires(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var current atomic.Pointer[tls.Certificate]
	authority := newAuthority(t)
	authority.install(t, dir)
	show := func(a *authorityKeys, ends time.Time) { current.Store(a.certificate(t, ends)) }
	show(authority, time.Now().Add(time.Hour))
	cluster := kafkatest.NewFake(t, kfake.TLS(&tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil },
	}))
	h := startTrusting(t, cluster, dir, ", tls: {ca_file: ca.pem}")
	expire := func() { show(authority, time.Now().Add(-time.Minute)); hangUp(cluster) }
	requireHealing(t, h, expire, func() { show(authority, time.Now().Add(time.Hour)) })
	requireHealing(t, h, expire, func() {
		other := newAuthority(t)
		show(other, time.Now().Add(time.Hour))
		other.install(t, dir)
	})
}

// R53, passwords: the brokers want another one than before, and the file holds it a while later.
func TestR53PasswordRotated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	write(t, file, "first-password\n")
	cluster := kafkatest.NewFake(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "catchment", "first-password"), kfake.Superuser("PLAIN", "admin", "admin-password"))
	h := startTrusting(t, cluster, dir, ", sasl: {mechanism: scram-sha-256, username: catchment, password: file:password}")
	admin := kadm.NewClient(cluster.Client(t, h.options...))
	rotate := func(password string) func() {
		return func() {
			done, err := admin.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: "catchment", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: password}})
			require.NoError(t, err)
			require.NoError(t, done.Error())
			hangUp(cluster)
		}
	}
	requireHealing(t, h, rotate("second-password"), func() { write(t, file, "second-password\n") })
	requireHealing(t, h, func() { write(t, file, ""); hangUp(cluster) }, func() { write(t, file, "second-password") })
	for _, secret := range []string{"first-password", "second-password"} {
		require.NotContains(t, h.log.String(), secret)
	}
}

// R53 under load: connections end and passwords change while a dozen senders post. What was answered 200 is in the log,
// where the producer said that it is.
func TestR53PasswordRotatedUnderLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	write(t, file, "p0\n")
	cluster := kafkatest.NewFake(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "catchment", "p0"), kfake.Superuser("PLAIN", "admin", "admin-password"))
	h := startTrusting(t, cluster, dir, ", sasl: {mechanism: scram-sha-256, username: catchment, password: file:password}")
	admin := kadm.NewClient(cluster.Client(t, h.options...))
	l := newLoad(t, func() string { return h.url }, 0)
	l.run(12)
	l.more(50)
	for i := range 4 {
		pw := string(rune('a'+i)) + "-password"
		_, err := admin.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: "catchment", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: pw}})
		require.NoError(t, err)
		hangUp(cluster)
		n := l.answers(503)
		require.Eventually(t, func() bool { return l.answers(503) > n+5 }, 30*time.Second, 10*time.Millisecond)
		write(t, file, pw+"\n")
		l.more(30)
		hangUp(cluster)
		l.more(30)
	}
	l.end()
	rs := h.records()
	l.requireHonest(rs)
	h.requireAcknowledged(rs)
}

// hangUp ends all connections to the brokers; new ones are taken.
func hangUp(cluster *kafkatest.Cluster) {
	cluster.WireAll(kafkatest.Refused)
	cluster.WireAll(kafkatest.Open)
}

const brokerName = "kafka.catchment.test"

// namedWire lets kfake tell its brokers' addresses by a name.
type namedWire struct {
	mu    sync.Mutex
	conns []net.Conn
}

func (w *namedWire) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	return &namedListener{l, w}, err
}

func (w *namedWire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

type namedListener struct {
	net.Listener
	wire *namedWire
}

func (l *namedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.wire.mu.Lock()
		l.wire.conns = append(l.wire.conns, c)
		l.wire.mu.Unlock()
	}
	return c, err
}

func (l *namedListener) Addr() net.Addr { return namedAddr{l.Listener.Addr()} }

type namedAddr struct{ net.Addr }

func (a namedAddr) String() string {
	_, port, _ := net.SplitHostPort(a.Addr.String())
	return net.JoinHostPort(brokerName, port)
}

// silent is no answer at all.
const silent dnsmessage.RCode = 0xfff

// names is a name server that knows one name. While it lives, this process asks nobody else.
type names struct {
	conn  net.PacketConn
	rcode atomic.Uint32
	asked atomic.Int64 // in vain
}

func newNames(t *testing.T) *names {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	n := &names{conn: conn}
	ended := make(chan struct{})
	go func() { defer close(ended); n.serve(t) }()
	before := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Resolver: before}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = before
		_ = conn.Close()
		<-ended
	})
	return n
}

func (n *names) answer(rcode dnsmessage.RCode) { n.rcode.Store(uint32(rcode)) }

func (n *names) serve(t *testing.T) {
	buf := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var m dnsmessage.Message
		if err != nil || m.Unpack(buf[:size]) != nil || len(m.Questions) != 1 {
			t.Errorf("no DNS question: %v", err)
			continue
		}
		rcode := dnsmessage.RCode(n.rcode.Load())
		if rcode != dnsmessage.RCodeSuccess {
			n.asked.Add(1)
		}
		if rcode == silent {
			continue
		}
		q := m.Questions[0]
		m = dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true, RCode: rcode}, Questions: m.Questions}
		switch {
		case rcode != dnsmessage.RCodeSuccess:
		case !strings.HasPrefix(q.Name.String(), brokerName+"."):
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET},
				Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			}}
		}
		packed, err := m.Pack()
		if err != nil {
			t.Error(err)
			continue
		}
		_, _ = n.conn.WriteTo(packed, from)
	}
}

// authorityKeys is a certificate authority.
type authorityKeys struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authorityKeys {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authorityKeys{cert, key}
}

// install makes this authority the one that the ingress trusts.
func (a *authorityKeys) install(t *testing.T, dir string) {
	t.Helper()
	next := filepath.Join(dir, "ca.new")
	require.NoError(t, os.WriteFile(next, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}), 0o600))
	require.NoError(t, os.Rename(next, filepath.Join(dir, "ca.pem")))
}

// certificate is one for the brokers.
func (a *authorityKeys) certificate(t *testing.T, ends time.Time) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: ends, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
