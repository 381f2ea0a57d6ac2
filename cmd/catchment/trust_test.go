package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/certtest"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// These tests give the programs that are shipped, at each edge, what they must not trust or may not do, while they work or
// when they start: they say which edge and why, are not ready, lose nothing, and go on by themselves when it is repaired.

const trustConfig = `
kafka: %[1]s
postgres: {url: "%[2]s"}
archive: {url: "%[3]s"}
ingress: {listen: "%[4]s", ops_listen: "%[5]s"%[6]s}
processor: {ops_listen: "%[7]s", group: "%[9]s-processor", migrate: true}
archiver: {ops_listen: "%[8]s", group: "%[9]s-archiver", segment_age: 1s}
` + orderStatus

// edges are the programs whose edges are tested.
type edges struct {
	*deployment
	dir string // what is trusted
	all map[string]*proctest.Process
	ops map[string]string
}

// newEdges writes the configuration and makes the programs; kafkaText and ingressMore are YAML.
func newEdges(t *testing.T, kafkaText, db, archiveURL, ingressMore string, services ...string) *edges {
	t.Helper()
	t.Setenv("STRIPE_WEBHOOK_SECRET", e2eSecret)
	e := &edges{deployment: &deployment{t: t}, dir: t.TempDir(), all: map[string]*proctest.Process{}, ops: map[string]string{}}
	for _, s := range []string{"ingress", "processor", "archiver"} {
		e.ops[s] = proctest.FreeAddress(t)
	}
	text := strings.ReplaceAll(fmt.Sprintf(trustConfig, kafkaText, db, archiveURL, proctest.FreeAddress(t), e.ops["ingress"], ingressMore, e.ops["processor"], e.ops["archiver"], "trust-"+uuid.NewString()), "{dir}", e.dir)
	for _, s := range services {
		e.all[s] = proctest.New(t, proctest.Build(t, "../../"+s+"/cmd/"+s), e.ops[s], []byte(text))
	}
	path := filepath.Join(e.dir, "catchment.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	var err error
	e.cfg, err = settings.Load(path, settings.Everything...)
	require.NoError(t, err)
	return e
}

func (e *edges) startAll(env ...string) {
	e.t.Helper()
	for _, p := range e.all {
		p.Start(env...)
	}
}

func (e *edges) allReady() {
	e.t.Helper()
	for _, p := range e.all {
		p.WaitReady()
	}
}

// unready waits until each of these services is not ready and says why.
func (e *edges) unready(services []string, why ...string) {
	e.t.Helper()
	for _, s := range services {
		unready(e.t, s, e.ops[s], why...)
	}
}

// unready waits until the service with this operations listener is not ready and says why.
func unready(t testing.TB, service, ops string, why ...string) {
	t.Helper()
	text := ""
	ok := await(t, 90*time.Second, func() bool {
		resp, err := http.Get("http://" + ops + "/readyz")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		text = string(b)
		for _, w := range why {
			if !strings.Contains(strings.ToLower(text), strings.ToLower(w)) {
				return false
			}
		}
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	require.True(t, ok, "%s says %q, expected %q", service, text, why)
}

// post is the status of one more event; 0: there is no answer.
func (e *edges) post(client *http.Client, scheme string, seq int) int {
	e.t.Helper()
	stripe, _ := provider.ByName("stripe")
	s := stripe.Sample(rand.New(rand.NewPCG(5, uint64(seq))), provider.SampleInput{Seq: seq, Now: time.Now()})
	at := scheme + "://" + e.cfg.Ingress.Listen + "/webhooks/stripe"
	signed, err := stripe.Sign(&provider.SignInput{Secret: e2eSecret, Method: http.MethodPost, URL: at, Body: s.Body, Now: time.Now(), Sample: s})
	require.NoError(e.t, err)
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodPost, at, strings.NewReader(string(s.Body)))
	require.NoError(e.t, err)
	req.Header = signed.Header
	resp, err := client.Do(req)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// stored waits until n events are processed; none of them more than once.
func (e *edges) stored(n int) {
	e.t.Helper()
	require.True(e.t, await(e.t, 90*time.Second, func() bool {
		return e.query("SELECT count(*) FROM catchment.events WHERE status IN ('processed', 'unmatched')")[0] == fmt.Sprint(n)
	}), "%d events were accepted; there are %v", n, e.query("SELECT status, count(*) FROM catchment.events GROUP BY 1"))
	require.Equal(e.t, []string{"0"}, e.query("SELECT count(*) FROM catchment.dead_letters"))
	require.Equal(e.t, []string{"1"}, e.query("SELECT max(attempt) FROM catchment.results"))
}

// archived waits until n rows are in the archive.
func (e *edges) archived(n int) {
	e.t.Helper()
	store, err := archive.Open(e.t.Context(), e.cfg.Archive)
	require.NoError(e.t, err)
	rows := 0
	require.True(e.t, await(e.t, 90*time.Second, func() bool {
		rows = 0
		for segment, err := range archive.Segments(e.t.Context(), store) {
			require.NoError(e.t, err)
			for _, err := range archive.Records(e.t.Context(), store, segment.Key) {
				require.NoError(e.t, err)
				rows++
			}
		}
		return rows >= n
	}), "%d events were accepted; %d are archived", n, rows)
	require.Equal(e.t, n, rows)
}

const ordersOfTrust = "CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL)"

// TestTrustKafka: an authority, a certificate of ours, the brokers' certificate or name that is wrong, for all three programs.
func TestTrustKafka(t *testing.T) {
	s := kafkatest.NewSecured(t)
	user, topic := "trust-"+uuid.NewString(), "trust."+uuid.NewString()
	db := pgtest.New(t)
	require.NoError(t, execAt(db, ordersOfTrust))
	e := newEdges(t, fmt.Sprintf(`{brokers: [%q], topic: %q, results_topic: "%[2]s.results", create_topic: false, partitions: 1, replication_factor: 1, min_insync_replicas: 1,
  accept: [replication-factor, min-insync-replicas], tls: {ca_file: "{dir}/ca.pem", cert_file: "{dir}/us.pem", key_file: "{dir}/us-key.pem"}}`, s.MTLS, topic),
		db, "file://"+t.TempDir(), "", "ingress", "processor", "archiver")
	admin := s.Admin.Client(t)
	for _, name := range []string{topic, topic + ".results"} {
		require.NoError(t, kafka.EnsureTopic(t.Context(), admin, e.cfg.Kafka, name, 1<<20))
	}
	s.Allow(kadm.NewACLs().Topics(topic, topic+".results").Groups(e.cfg.Processor.Group, e.cfg.Archiver.Group, e.cfg.Archiver.ResultsGroup()).
		Operations(kadm.OpDescribe, kadm.OpDescribeConfigs, kadm.OpRead, kadm.OpWrite).Allow("User:" + user).AllowHosts())
	services, caFile := []string{"ingress", "processor", "archiver"}, filepath.Join(e.dir, "ca.pem")

	certtest.New(t).Write(t, caFile)
	s.CA.Issue(t, user, time.Now().Add(-time.Minute)).Write(t, e.dir, "us")
	e.startAll()
	e.unready(services, "kafka", "certificate signed by unknown authority")
	require.Equal(t, http.StatusServiceUnavailable, e.post(http.DefaultClient, "http", 1))
	s.CA.Write(t, caFile)
	e.unready(services, "kafka", "remote error: tls: ")
	require.Equal(t, http.StatusServiceUnavailable, e.post(http.DefaultClient, "http", 1))
	s.CA.Issue(t, user, time.Now().Add(time.Hour)).Write(t, e.dir, "us")
	e.allReady()
	e.send(10, 20)
	e.stored(20)

	for env, why := range map[string]string{
		"CATCHMENT_KAFKA__TLS__SERVER_NAME=kafka.example": "certificate is valid for localhost, not kafka.example",
		"CATCHMENT_KAFKA__BROKERS=" + s.Expired:           "certificate has expired",
	} {
		for _, p := range e.all {
			p.Stop()
		}
		e.startAll(env)
		e.unready(services, "kafka", why)
	}
	for _, p := range e.all {
		p.Stop()
	}
	e.startAll()
	e.allReady()
	e.send(100, 5)
	e.stored(25)
	e.archived(25)
}

// TestTrustPostgres: the server's certificate by a stranger, for another name, out of date; our own out of date, and renewed;
// a database that may only be read. All of it while the processor works.
func TestTrustPostgres(t *testing.T) {
	cluster, server := kafkatest.New(t), pgtest.Breakable(t)
	server.Exec("CREATE ROLE svc LOGIN SUPERUSER")
	plain := server.Database("app")
	require.NoError(t, execAt(plain, ordersOfTrust))
	at, err := url.Parse(plain)
	require.NoError(t, err)
	ca, e := certtest.New(t), (*edges)(nil)
	topic := cluster.Topic(t, 3)
	query := url.Values{"sslmode": {"verify-full"}, "sslrootcert": {"{dir}/ca.pem"}, "sslcert": {"{dir}/us.pem"}, "sslkey": {"{dir}/us-key.pem"}}
	text, err := url.QueryUnescape(query.Encode())
	require.NoError(t, err)
	e = newEdges(t, fmt.Sprintf(`{brokers: ["%s"], topic: %s}`, strings.Join(cluster.Brokers, `", "`), topic),
		"postgres://svc@"+at.Host+"/app?"+text, "file://"+t.TempDir(), "", "ingress", "processor")
	ca.Write(t, filepath.Join(e.dir, "ca.pem"))
	ours := func(ends time.Time) { ca.Issue(t, "svc", ends).Write(t, e.dir, "us") }
	shows := func(a *certtest.Authority, ends time.Time, host string) {
		pair := a.Issue(t, "postgres", ends, host)
		server.Put("server.key", pair.Key)
		server.Put("server.crt", pair.Cert)
	}
	now, past := time.Now().Add(time.Hour), time.Now().Add(-time.Minute)
	server.Put("clients.crt", ca.PEM())
	server.Put("pg_hba.conf", []byte("hostssl all svc 127.0.0.1/32 cert\nhost all svc all reject\nhost all all 127.0.0.1/32 trust\n"))
	shows(ca, now, "127.0.0.1")
	ours(now)
	for _, s := range []string{"ssl = on", "ssl_cert_file = 'server.crt'", "ssl_key_file = 'server.key'", "ssl_ca_file = 'clients.crt'"} {
		server.Exec("ALTER SYSTEM SET " + s)
	}
	// anew makes the server read its files, and ends the sessions that began with others.
	anew := func() {
		server.Exec("SELECT pg_reload_conf()")
		server.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'svc'")
	}
	anew()
	e.startAll()
	e.allReady()
	e.send(0, 10)
	e.stored(10)
	n := 10
	for _, c := range []struct {
		what          string
		breakIt, heal func()
		why           string
	}{
		{"a stranger's", func() { shows(certtest.New(t), now, "127.0.0.1") }, func() { shows(ca, now, "127.0.0.1") }, "certificate signed by unknown authority"},
		{"another name", func() { shows(ca, now, "db.example") }, func() { shows(ca, now, "127.0.0.1") }, "127.0.0.1"},
		{"out of date", func() { shows(ca, past, "127.0.0.1") }, func() { shows(ca, now, "127.0.0.1") }, "certificate has expired"},
		{"ours is out of date", func() { ours(past) }, func() { ours(now) }, "certificate"},
		{
			"may only be read", func() { server.Exec("ALTER SYSTEM SET default_transaction_read_only = on") },
			func() { server.Exec("ALTER SYSTEM SET default_transaction_read_only = off") }, "read-only transaction",
		},
	} {
		c.breakIt()
		anew()
		e.send(100*n, 10)
		n += 10
		e.unready([]string{"processor"}, "postgres: ", c.why)
		require.True(t, e.all["ingress"].Ready(), "%s: Postgres is no concern of the ingress", c.what)
		c.heal()
		anew()
		e.all["processor"].WaitReady()
		e.stored(n)
	}
	ours(now) // renewed in time: nobody notices
	anew()
	e.send(100*n, 10)
	e.stored(n + 10)
}

// TestTrustStore: the certificate of the S3 server is by a stranger, for another name, out of date, while the archiver works.
func TestTrustStore(t *testing.T) {
	bucket := s3test.New(t)
	if bucket == nil {
		t.Skip("no S3 server")
	}
	ca, cluster := certtest.New(t), kafkatest.New(t)
	front := newTerminator(t, strings.TrimPrefix(bucket.Endpoint, "http://"))
	shows := func(a *certtest.Authority, ends time.Time, host string) {
		front.show(a.Issue(t, "s3", ends, host).TLS(t))
	}
	now := time.Now().Add(time.Hour)
	shows(certtest.New(t), now, "127.0.0.1")
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	ca.Write(t, bundle)
	db := pgtest.New(t)
	query := url.Values{"region": {bucket.Region}, "endpoint": {"https://" + front.address}, "path_style": {"true"}}
	e := newEdges(t, fmt.Sprintf(`{brokers: ["%s"], topic: %s}`, strings.Join(cluster.Brokers, `", "`), cluster.Topic(t, 3)),
		db, "s3://"+bucket.Name+"?"+query.Encode(), "", "ingress", "archiver")
	e.startAll("AWS_CA_BUNDLE=" + bundle)
	e.all["ingress"].WaitReady()
	e.send(0, 10)
	e.unready([]string{"archiver"}, "archive", "certificate signed by unknown authority") // when it starts
	shows(ca, now, "127.0.0.1")
	e.all["archiver"].WaitReady()
	e.cfg.Archive.URL = bucket.URL // the test asks the server itself
	e.archived(10)
	n := 10
	for _, c := range []struct {
		ends      time.Time
		host, why string
	}{
		{now, "store.example", "127.0.0.1"},
		{time.Now().Add(-time.Minute), "127.0.0.1", "certificate has expired"},
	} {
		shows(ca, c.ends, c.host)
		e.send(100*n, 10)
		n += 10
		e.unready([]string{"archiver"}, "archiver: the store has failed", c.why)
		shows(ca, now, "127.0.0.1")
		e.all["archiver"].WaitReady()
		e.archived(n)
	}
}

// terminator ends TLS before a server, as it is written on the wire.
type terminator struct {
	address string
	current atomic.Pointer[tls.Certificate]

	mu   sync.Mutex
	open []net.Conn
}

func newTerminator(t *testing.T, to string) *terminator {
	t.Helper()
	f := &terminator{}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current.Load(), nil },
	})
	require.NoError(t, err)
	f.address = l.Addr().String()
	t.Cleanup(func() { _ = l.Close(); f.cut() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go f.pass(c, to)
		}
	}()
	return f
}

func (f *terminator) pass(c net.Conn, to string) {
	defer func() { _ = c.Close() }()
	behind, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	defer func() { _ = behind.Close() }()
	f.mu.Lock()
	f.open = append(f.open, c, behind)
	f.mu.Unlock()
	go func() { _, _ = io.Copy(behind, c); _ = behind.Close() }()
	_, _ = io.Copy(c, behind)
}

// show gives the connections that come from now on another certificate, and ends those that stand.
func (f *terminator) show(c *tls.Certificate) {
	f.current.Store(c)
	f.cut()
}

func (f *terminator) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.open {
		_ = c.Close()
	}
	f.open = nil
}

// TestTrustListener: who has no certificate by one of client_ca_file's authorities does not get in, and who is trusted
// changes while the ingress works; a file that says nothing changes nothing, and at the start it is an error with its place.
func TestTrustListener(t *testing.T) {
	dir, ca, other := t.TempDir(), certtest.New(t), certtest.New(t)
	cluster := kafkatest.NewFake(t)
	e := newEdges(t, fmt.Sprintf(`{brokers: ["%s"], topic: %s}`, strings.Join(cluster.Brokers, `", "`), cluster.Topic(t, 3)), "postgres://nobody@127.0.0.1:1/none", "file://"+dir,
		`, tls: {cert_file: "{dir}/server.pem", key_file: "{dir}/server-key.pem", client_ca_file: "{dir}/clients.pem"}`, "ingress")
	p, clients := e.all["ingress"], filepath.Join(e.dir, "clients.pem")
	require.NoError(t, os.WriteFile(clients, []byte("no certificate"), 0o600))
	server := func(ends time.Time) { ca.Issue(t, "ingress", ends, "127.0.0.1").Write(t, e.dir, "server") }
	server(time.Now().Add(time.Hour))
	p.Start()
	require.Equal(t, 2, p.Wait(), "%s", p.Log())
	require.Contains(t, p.Log(), "ingress.tls.client_ca_file: expected PEM certificates")
	require.Contains(t, p.Log(), "catchment.yaml:")
	ca.Write(t, clients)
	p.Start()
	p.WaitReady()
	client := func(pair *certtest.Pair) *http.Client {
		conf := &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS12}
		if pair != nil {
			conf.Certificates = []tls.Certificate{*pair.TLS(t)}
		}
		return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}
	}
	issue := func(a *certtest.Authority, ends time.Time) *certtest.Pair {
		pair := a.Issue(t, "sender", ends)
		return &pair
	}
	good, strange := client(issue(ca, time.Now().Add(time.Hour))), client(issue(other, time.Now().Add(time.Hour)))
	seq := 0
	status := func(c *http.Client) int { seq++; return e.post(c, "https", seq) }
	require.True(t, await(t, time.Minute, func() bool { return status(good) == http.StatusOK }))
	require.Zero(t, status(strange), "by a stranger")
	require.Zero(t, status(client(nil)), "none")
	require.Zero(t, status(client(issue(ca, time.Now().Add(-time.Minute)))), "out of date")
	require.NotEqual(t, http.StatusOK, e.post(http.DefaultClient, "http", 1_000_000), "plain HTTP")
	other.Write(t, clients)
	require.True(t, await(t, time.Minute, func() bool { return status(strange) == http.StatusOK }), "the new authority is not trusted")
	require.Zero(t, status(good), "the old authority is trusted still")
	require.NoError(t, os.WriteFile(clients, nil, 0o600))
	require.True(t, await(t, time.Minute, func() bool {
		return status(strange) == http.StatusOK && strings.Contains(p.Log(), "cannot be used; the old one stays")
	}))
	server(time.Now().Add(-time.Minute)) // the sender sees it; our own alarm is the metric
	require.True(t, await(t, time.Minute, func() bool {
		return status(strange) == 0 && p.Metric("catchment_certificate_not_after_seconds") < float64(time.Now().Unix())
	}))
	server(time.Now().Add(time.Hour))
	require.True(t, await(t, time.Minute, func() bool { return status(strange) == http.StatusOK }))
	p.Stop()
}
