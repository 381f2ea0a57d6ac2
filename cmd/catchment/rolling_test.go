package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// balancer stands before the ingresses as a load balancer does: it asks each for /readyz, keeps connections to those that are
// ready, speaks HTTP/1.1 or HTTP/2 to them, and never sends a POST twice.
type balancer struct {
	backends []*backend
	turn     atomic.Int64
}

type backend struct {
	ops     string
	open    atomic.Bool
	proxies []http.Handler
}

func newBalancer(t *testing.T, ingresses ...*settings.File) *httptest.Server {
	t.Helper()
	b := &balancer{}
	for _, cfg := range ingresses {
		to, err := url.Parse(run.BaseURL(cfg.Ingress.Listen))
		require.NoError(t, err)
		one := &backend{ops: cfg.Ingress.OpsListen}
		for _, http2 := range []bool{false, true} {
			protocols := &http.Protocols{}
			protocols.SetHTTP1(!http2)
			protocols.SetUnencryptedHTTP2(http2)
			transport := &http.Transport{Protocols: protocols, MaxIdleConnsPerHost: 16}
			t.Cleanup(transport.CloseIdleConnections)
			one.proxies = append(one.proxies, &httputil.ReverseProxy{
				Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, Transport: transport,
				ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
					http.Error(w, fmt.Sprintf("HTTP/2 %t: %v", http2, err), http.StatusBadGateway)
				},
			})
		}
		b.backends = append(b.backends, one)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	for _, one := range b.backends {
		one.open.Store(true)
		watching.Go(func() {
			for run.Pause(ctx, 100*time.Millisecond) {
				one.open.Store(run.Ask(ctx, one.ops, false).Healthy)
			}
		})
	}
	s := httptest.NewServer(b)
	t.Cleanup(func() { cancel(); watching.Wait(); s.Close() })
	return s
}

func (b *balancer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := int(b.turn.Add(1))
	for i := range b.backends {
		if one := b.backends[(n+i)%len(b.backends)]; one.open.Load() {
			one.proxies[n/2%2].ServeHTTP(w, r)
			return
		}
	}
	http.Error(w, "no ingress is ready", http.StatusBadGateway)
}

// patientProvider sends events until it is ended. It sends one again only where the answer was 503 and said when.
type patientProvider struct {
	url    string
	client *http.Client

	mu       sync.Mutex
	sent     map[string]bool // by event ID: acknowledged
	again    map[string]int  // 503s, which may have left a record behind
	failures []string
}

// run sends with some workers; every tenth event comes in pieces.
func (p *patientProvider) run(ctx context.Context, workers *sync.WaitGroup, many int) {
	stripe, _ := provider.ByName("stripe")
	var next atomic.Int64
	for range many {
		workers.Go(func() {
			for run.Pause(ctx, 20*time.Millisecond) {
				seq := int(next.Add(1))
				s := stripe.Sample(rand.New(rand.NewPCG(17, uint64(seq))), provider.SampleInput{Seq: seq, Now: time.Now()})
				for !p.post(stripe, s, seq%10 == 0) {
				}
			}
		})
	}
}

// post returns false where the event is to be sent again.
func (p *patientProvider) post(stripe *provider.Provider, s provider.Sample, slowly bool) bool {
	status, text, after := p.answer(stripe, s, slowly)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case status == http.StatusOK:
		p.sent[s.ID] = true
		return true
	case status == http.StatusServiceUnavailable && after != "":
		p.again[s.ID]++
		return p.again[s.ID] > 100
	}
	p.failures = append(p.failures, fmt.Sprintf("%s: %d %s", s.ID, status, text))
	return true
}

func (p *patientProvider) answer(stripe *provider.Provider, s provider.Sample, slowly bool) (status int, text, after string) {
	signed, err := stripe.Sign(&provider.SignInput{Secret: e2eSecret, Method: http.MethodPost, URL: p.url, Body: s.Body, Now: time.Now(), Sample: s})
	if err != nil {
		return 0, err.Error(), ""
	}
	var body io.Reader = bytes.NewReader(s.Body)
	if slowly {
		body = &pieces{rest: s.Body}
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, p.url, body)
	if err != nil {
		return 0, err.Error(), ""
	}
	req.Header, req.ContentLength = signed.Header, int64(len(s.Body))
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, err.Error(), ""
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return 0, err.Error(), ""
	}
	return resp.StatusCode, string(b), resp.Header.Get("Retry-After")
}

func (p *patientProvider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sent)
}

// pieces is a body that comes in four parts over a second.
type pieces struct {
	rest []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	if p.n++; p.n > 1 {
		<-time.After(300 * time.Millisecond)
	}
	n := len(p.rest)
	if p.n < 4 {
		n = min(n, max(1, n/2))
	}
	n = copy(b, p.rest[:n])
	p.rest = p.rest[n:]
	return n, nil
}

// TestRollingRestart restarts two ingresses, two processors and two archivers, one after the other, under load and as a
// deployment does: SIGTERM, the end, the start, readiness. No sender sees anything but 200, or 503 with Retry-After, and
// afterwards every event has its one record, its one effect and its one row.
func TestRollingRestart(t *testing.T) {
	cluster := kafkatest.New(t)
	topic, db, archiveURL := cluster.Topic(t, 6), pgtest.New(t), "file://"+t.TempDir()
	if bucket := s3test.New(t); bucket != nil {
		archiveURL = bucket.URL
	}
	t.Setenv("STRIPE_WEBHOOK_SECRET", e2eSecret)
	require.NoError(t, execAt(db, "CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL); CREATE TABLE effects (event_id text)"))
	var files []*settings.File
	services, all := []string{"ingress", "processor", "archiver"}, map[string][]*proctest.Process{}
	for i := range 2 {
		ops := []string{proctest.FreeAddress(t), proctest.FreeAddress(t), proctest.FreeAddress(t)}
		text := fmt.Sprintf(e2eConfig, strings.Join(cluster.Brokers, `", "`), topic, db, archiveURL, proctest.FreeAddress(t), ops[0], ops[1], ops[2]) + effects
		for j, s := range services {
			p := proctest.New(t, proctest.Build(t, "../../"+s+"/cmd/"+s), ops[j], []byte(text))
			p.Start("CATCHMENT_INGRESS__DRAIN_DELAY=3s", "CATCHMENT_INGRESS__H2C=true")
			all[s] = append(all[s], p)
		}
		cfg, err := settings.Load(all["ingress"][i].Config, settings.Everything...)
		require.NoError(t, err)
		files = append(files, cfg)
	}
	for _, s := range services {
		for _, p := range all[s] {
			p.WaitReady()
		}
	}
	front := newBalancer(t, files...)
	sender := &patientProvider{url: front.URL + "/webhooks/stripe", client: &http.Client{}, sent: map[string]bool{}, again: map[string]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var workers sync.WaitGroup
	t.Cleanup(func() { cancel(); workers.Wait() })
	sender.run(ctx, &workers, 8)
	more := func() {
		t.Helper()
		from := sender.count()
		require.True(t, await(t, 90*time.Second, func() bool { return sender.count() > from+60 }), "nothing is accepted any more")
	}
	for _, s := range services {
		for i, p := range all[s] {
			more()
			began := time.Now()
			p.Stop()
			stopped := time.Since(began)
			p.Start("CATCHMENT_INGRESS__DRAIN_DELAY=3s", "CATCHMENT_INGRESS__H2C=true")
			p.WaitReady()
			t.Logf("%s %d: stopped after %s, ready again after %s, %d events so far", s, i, stopped.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), sender.count())
		}
	}
	more()
	cancel()
	workers.Wait()
	require.Empty(t, sender.failures)
	requireOneOfEach(t, all["ingress"][0].Config, cluster, sender)
}

// requireOneOfEach holds what was sent against Kafka, Postgres and the archive.
func requireOneOfEach(t *testing.T, path string, cluster *kafkatest.Cluster, sender *patientProvider) {
	t.Helper()
	cfg, err := settings.Load(path, settings.Everything...)
	require.NoError(t, err)
	n := len(sender.sent)
	d := &deployment{t: t, cfg: cfg}
	require.True(t, await(t, 90*time.Second, func() bool { return d.query("SELECT count(DISTINCT event_id) FROM effects")[0] == fmt.Sprint(n) }), "%d events, and effects of %v", n, d.query("SELECT count(DISTINCT event_id) FROM effects"))
	require.Equal(t, []string{fmt.Sprint(n)}, d.query("SELECT count(*) FROM effects"), "an event took effect twice")
	require.Equal(t, []string{fmt.Sprint(n)}, d.query("SELECT count(*) FROM catchment.identities"))
	ends, err := kadm.NewClient(cluster.Client(t)).ListEndOffsets(t.Context(), cfg.Kafka.Topic)
	require.NoError(t, err)
	records := 0
	ends.Each(func(o kadm.ListedOffset) { require.NoError(t, o.Err); records += int(o.Offset) })
	refused := 0
	for _, times := range sender.again {
		refused += times
	}
	require.GreaterOrEqual(t, records, n)
	require.LessOrEqual(t, records, n+refused, "a record without a request that asked for it")
	store, err := archive.Open(t.Context(), cfg.Archive)
	require.NoError(t, err)
	rows := func() (rows int) {
		places := map[string]bool{}
		for segment, err := range archive.Segments(t.Context(), store) {
			require.NoError(t, err)
			for rec, err := range archive.Records(t.Context(), store, segment.Key) {
				require.NoError(t, err)
				place := fmt.Sprintf("%v/%d", segment.Partition, rec.Offset)
				require.False(t, places[place], "%s is archived twice", place)
				places[place] = true
			}
		}
		return len(places)
	}
	require.True(t, await(t, 90*time.Second, func() bool { return rows() >= records }), "%d of %d records are archived", rows(), records)
	require.Equal(t, records, rows())
	code, out, errs := tool(t, "audit", "--config", path)
	require.Equal(t, 0, code, "%s%s", out, errs)
	t.Logf("%d events, %d answered 503 with Retry-After, %d records, each in one row; every event took effect once", n, refused, records)
}
