package ingress

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// R46: a million event IDs, addresses and names of sources, none of them twice. What is remembered of them is full
// after the first twenty thousand, and then neither memory nor the number of metric series grows: one machine word for
// each would be eight times what is allowed.
func TestR46NothingIsKeptForEachID(t *testing.T) {
	const fill = 20_000
	most := uint64(1_000_000)
	if raceEnabled {
		most = 50_000
	}
	s := startDistinct(t)
	s.feed(0, fill)
	heap, series := heapInUse(), s.series(t)
	s.feed(fill, fill+most)
	grown := int64(heapInUse()) - int64(heap)
	t.Logf("heap %d KiB, grown by %d KiB; %d series", heap>>10, grown>>10, series)
	require.Equal(t, series, s.series(t))
	require.LessOrEqual(t, grown, int64(1<<20))
}

// distinct is an ingress without a listener's and a network's cost.
type distinct struct {
	*Service
	reg *prometheus.Registry
	t   *testing.T
}

// startDistinct makes an ingress on brokers that acknowledge and keep nothing.
func startDistinct(t *testing.T) *distinct {
	t.Helper()
	cluster := kafkatest.NewFake(t, kfake.BlackholeProduce())
	topic := cluster.Topic(t, 3)
	cfg, err := settings.Parse("catchment.yaml", fmt.Appendf(nil, `
kafka: {brokers: [%q], topic: %s}
ingress:
  listen: "127.0.0.1:0"
  dedup: {entries: 4000, ttl: 1h}
  limits: {rate: 1000, requests_per_address: 10, addresses: 4000}
sources:
  github: {provider: github, secrets: [%q], quota: {rate: 1000000}}
`, cluster.Brokers[0], topic, githubSecret), settings.NeedKafka, settings.NeedIngress, settings.NeedSources)
	require.NoError(t, err)
	h := &harness{t: t, log: &syncBuffer{}, reg: prometheus.NewRegistry(), topic: topic, kafka: cluster}
	h.Service, err = New(cfg, discard(), h.reg)
	require.NoError(t, err)
	h.run()
	h.ready()
	return &distinct{h.Service, h.reg, t}
}

// feed does for each number from begin to end what an ingress does for a name of a source that does not exist, an
// address that was not seen before, and an event that was accepted. Every fourth is a forged request as well, and every
// thousandth a genuine one.
func (d *distinct) feed(begin, end uint64) {
	d.t.Helper()
	const workers = 8
	var wg sync.WaitGroup
	for w := range uint64(workers) {
		wg.Go(func() {
			for i := begin + w; i < end; i += workers {
				d.one(i)
			}
		})
	}
	wg.Wait()
}

func (d *distinct) one(i uint64) {
	id := fmt.Sprintf("%08x-0000-4000-8000-%012x", uint32(i), i)
	d.send(i, fmt.Sprintf("nobody-%d", i), id, "", http.StatusNotFound)
	c := clientOf(distinctAddress(i))
	if open, wait := d.limits.perAddr.enter(c); wait == 0 {
		d.limits.perAddr.leave(c, open)
	}
	s := newSighting(d.lookup.hasher(), [32]byte{1}, "github", id, binary.BigEndian.AppendUint64(nil, i), true)
	if d.lookup.look(&s, d.now()).seen {
		d.t.Errorf("%s was not seen before", id)
	}
	d.lookup.add(&s, d.now())
	if i%4 == 0 {
		d.send(i, "github", id, forged, http.StatusUnauthorized)
	}
	if i%1000 == 0 {
		d.send(i, "github", id, githubSignature(distinctBody(i)), http.StatusOK)
	}
}

var forged = "sha256=" + strings.Repeat("0", 64)

func githubSignature(body string) string {
	mac := hmac.New(sha256.New, []byte(githubSecret))
	_, _ = mac.Write([]byte(body))
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func distinctBody(i uint64) string { return fmt.Sprintf(`{"action":"opened","number":%d}`, i) }

// send makes one request from an address of its own.
func (d *distinct) send(i uint64, source, id, signature string, want int) {
	body := distinctBody(i)
	r := &http.Request{ // httptest's way of making one costs more than the answer
		Method: http.MethodPost, URL: &url.URL{Path: "/webhooks/" + source}, Host: "hooks", ProtoMajor: 1, ProtoMinor: 1,
		RemoteAddr: netip.AddrPortFrom(distinctAddress(i), 443).String(), ContentLength: int64(len(body)), Body: io.NopCloser(strings.NewReader(body)),
		Header: http.Header{"X-Github-Delivery": {id}, "X-Github-Event": {"event_" + strconv.FormatUint(i, 10)}, "X-Hub-Signature-256": {signature}},
	}
	w := &statusOnly{header: http.Header{}}
	d.ServeHTTP(w, r)
	if w.status != want {
		d.t.Errorf("answered %d to %s from %s", w.status, r.URL.Path, r.RemoteAddr)
	}
}

// statusOnly is an answer of which nothing else is looked at.
type statusOnly struct {
	header http.Header
	status int
}

func (w *statusOnly) Header() http.Header         { return w.header }
func (w *statusOnly) WriteHeader(status int)      { w.status = status }
func (w *statusOnly) Write(b []byte) (int, error) { return len(b), nil }

// distinctAddress is IPv4 for even numbers, and a /64 of its own for odd ones.
func distinctAddress(i uint64) netip.Addr {
	var a [16]byte
	if i%2 == 0 {
		binary.BigEndian.PutUint32(a[:4], 10<<24|uint32(i))
		return netip.AddrFrom4([4]byte(a[:4]))
	}
	binary.BigEndian.PutUint64(a[:8], 0x2001_0db8<<32|i)
	return netip.AddrFrom16(a)
}

func (d *distinct) series(t *testing.T) (n int) {
	t.Helper()
	families, err := d.reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		n += len(f.GetMetric())
	}
	return n
}

// heapInUse is what is reachable.
func heapInUse() uint64 {
	var m runtime.MemStats
	for range 3 { // what a pool holds lives for two collections
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
