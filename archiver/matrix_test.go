package archiver

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/pkg/s3test"
)

// gate lets one request tell that it is there, and wait.
type gate struct {
	arrived, open chan struct{}
	taken         atomic.Bool
}

func newGate() *gate { return &gate{arrived: make(chan struct{}), open: make(chan struct{})} }

// tell says whether it is the first request.
func (g *gate) tell() bool {
	first := g.taken.CompareAndSwap(false, true)
	if first {
		close(g.arrived)
	}
	return first
}

func (g *gate) pass() {
	if g.tell() {
		<-g.open
	}
}

func (r *rig) arrives(g *gate) {
	r.Helper()
	select {
	case <-g.arrived:
	case <-time.After(patience):
		require.Fail(r, "it never came to that")
	}
}

// R37: the archiver is killed at each stage of a segment. The next one makes one chain of it.
func TestR37KilledAtEachStage(t *testing.T) {
	// The request at which it is killed, and whether the server has done what it asks; "" is before any.
	for name, c := range map[string]struct {
		write string
		done  bool
	}{
		"while it buffers":                        {"", false},
		"while it uploads a segment":              {"events/", false},
		"after the segment, before its answer":    {"events/", true},
		"before the checkpoint":                   {"checkpoints/", false},
		"after the checkpoint, before its answer": {"checkpoints/", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1)
			bucket := r.inBucket()
			if bucket == nil {
				return
			}
			var killed atomic.Bool
			g := newGate()
			proxy := bucket.Proxy(t, func(req *http.Request) s3test.Fault {
				if killed.Load() || c.write == "" || !s3test.IsWrite(req, c.write) {
					return s3test.None
				}
				if !c.done {
					g.pass()
					return s3test.CutRequest
				}
				g.tell()
				return s3test.Late
			})
			if c.write == "" {
				r.cfg.Archiver.SegmentAge = time.Hour
			}
			p := r.process(proxy.URL)
			p.Start()
			r.produce(30)
			if c.write == "" {
				r.eventually(func() bool { return p.Metric("catchment_archiver_buffered_bytes") > 0 }, "nothing is buffered")
			} else {
				r.arrives(g)
				if c.done {
					r.eventually(func() bool { return proxy.Faults()[s3test.Late] > 0 }, "the server has not answered")
				}
			}
			p.Kill()
			killed.Store(true)
			close(g.open)
			require.LessOrEqual(t, r.committed(), int64(0), "nothing is committed before its checkpoint is known to be there")

			r.cfg.Archiver.SegmentAge = 200 * time.Millisecond
			next := r.process(proxy.URL)
			next.Start()
			r.produce(30)
			r.judge()
			r.everyRow()
			if c.write != "" {
				made := map[bool]s3test.Fault{false: s3test.CutRequest, true: s3test.Late}[c.done]
				require.Positive(t, proxy.Faults()[made], made)
			}
			r.eventually(func() bool { return r.committed() == 60 }, "the offset does not follow")
			next.Kill() // after the commit
			third := r.process(proxy.URL)
			third.Start()
			r.produce(10)
			r.judge()
			r.everyRow()
			third.Stop()
			noUploads(t, bucket)
		})
	}
}

// R38: the store fails in each way that a store can, again and again, while records come and archivers start anew.
func TestR38EveryFaultOfTheStore(t *testing.T) {
	r := newRig(t, 2)
	bucket := r.inBucket()
	if bucket == nil {
		return
	}
	const limit = 1 << 20
	r.cfg.Archiver.BufferBytes, r.cfg.Archiver.SegmentAge = limit, 50*time.Millisecond
	writes := []s3test.Fault{s3test.Error500, s3test.Error503, s3test.CutRequest, s3test.Damage, s3test.Slow, s3test.Lost}
	reads := []s3test.Fault{s3test.Error500, s3test.Error503, s3test.CutRequest, s3test.Slow, s3test.Truncate, s3test.Corrupt}
	others := []s3test.Fault{s3test.Error500, s3test.Error503, s3test.CutRequest, s3test.Slow, s3test.Truncate}
	var guard sync.Mutex
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 38))
	var healed atomic.Bool
	proxy := bucket.Proxy(t, func(req *http.Request) s3test.Fault {
		guard.Lock()
		defer guard.Unlock()
		if healed.Load() || random.IntN(2) == 0 {
			return s3test.None
		}
		kinds := others
		switch {
		case s3test.IsWrite(req, ""):
			kinds = writes
		case s3test.IsRead(req):
			kinds = reads
		}
		return kinds[random.IntN(len(kinds))]
	})
	store, err := objstore.Open(t.Context(), proxy.URL)
	require.NoError(t, err)
	all := func() bool {
		faults := proxy.Faults()
		for _, f := range append(append([]s3test.Fault{}, writes...), reads...) {
			if faults[f] == 0 {
				return false
			}
		}
		return true
	}
	for round := 0; round < 3 || !all(); round++ {
		require.Less(t, round, 60, "%v", proxy.Faults())
		a := r.start(store)
		r.produce(100)
		r.waitArchived(r.made)
		require.Less(t, a.budget.load(), int64(limit+4<<20))
		a.stop(r) // the next one looks for the chain's end through the same faults
	}
	healed.Store(true)
	a := r.start(store)
	r.produce(10)
	r.judge()
	r.everyRow()
	require.NoError(t, a.Ready())
	t.Logf("%v", proxy.Faults())
}

// R39: a segment is stored, and its answer is lost or too late. It comes again and is the same. What is said to that may be lost as
// well: servers close the connection on an upload that they refuse.
func TestR39AnswerLostAfterSuccess(t *testing.T) {
	for _, fault := range []s3test.Fault{s3test.Lost, s3test.Late, s3test.Unheard} {
		t.Run(string(fault), func(t *testing.T) {
			t.Parallel() // the client waits for long
			r := newRig(t, 1)
			bucket := r.inBucket()
			if bucket == nil {
				return
			}
			var once sync.Map
			proxy := bucket.Proxy(t, func(req *http.Request) s3test.Fault {
				if s3test.IsWrite(req, "events/") || s3test.IsWrite(req, "checkpoints/") && fault != s3test.Late {
					_, again := once.LoadOrStore(req.URL.Path, true)
					switch {
					case fault == s3test.Unheard && !again:
						return s3test.Lost
					case fault == s3test.Unheard || !again:
						return fault
					}
				}
				return s3test.None
			})
			store, err := objstore.Open(t.Context(), proxy.URL)
			require.NoError(t, err)
			a := r.start(store)
			r.produce(30)
			r.judge()
			if fault != s3test.Late { // which takes objstore's whole deadline
				r.produce(30)
				r.judge()
			}
			r.everyRow()
			require.NoError(t, a.Ready())
			same, other := proxy.Refused()
			require.Positive(t, proxy.Faults()[fault])
			require.Positive(t, same, "refused with the same digest")
			require.Zero(t, other)
		})
	}
}

// R40: an archiver freezes within an upload for twice the session. Another takes over and goes further; then the upload
// goes on, and the archiver wakes.
func TestR40FrozenWithinAnUpload(t *testing.T) {
	r := newRig(t, 1)
	bucket := r.inBucket()
	if bucket == nil {
		return
	}
	g := newGate()
	proxy := bucket.Proxy(t, func(req *http.Request) s3test.Fault {
		if s3test.IsWrite(req, "events/") {
			// The whole of it is here before the archiver is frozen: it could not send the rest.
			body, err := io.ReadAll(req.Body)
			if err != nil {
				return s3test.Error500
			}
			req.Body = io.NopCloser(bytes.NewReader(body))
			g.pass()
		}
		return s3test.None
	})
	r.produce(10)
	frozen := r.process(proxy.URL)
	frozen.Start()
	r.arrives(g)
	frozen.Signal(syscall.SIGSTOP)
	r.eventually(frozen.Stands, "it does not stand")
	stopped := time.Now()
	r.produce(15)
	other := r.process(proxy.URL)
	other.Start()
	r.judge() // 25 records, by the other one alone
	r.eventually(func() bool { return time.Since(stopped) > 2*r.cfg.Archiver.Session }, "")
	close(g.open) // the upload of ten records comes to the store
	r.eventually(func() bool { _, n := proxy.Refused(); return n > 0 }, "the late upload is not refused")
	r.judge()
	frozen.Signal(syscall.SIGCONT)
	r.produce(10)
	r.judge()
	other.Stop()
	r.produce(5)
	r.judge()
	r.everyRow()
	require.True(t, frozen.Ready())
	frozen.Stop()
	_, refused := proxy.Refused()
	require.Positive(t, refused, "refused with another digest")
}

// R41: two archivers believe to own a partition, and upload the segment of the same first offset at the same time.
func TestR41TwoArchiversAtOneOffset(t *testing.T) {
	r := newRig(t, 1)
	bucket := r.inBucket()
	if bucket == nil {
		return
	}
	var waiting atomic.Int32
	both := make(chan struct{})
	proxy := bucket.Proxy(t, func(req *http.Request) s3test.Fault {
		if s3test.IsWrite(req, "events/") {
			if waiting.Add(1) == 2 {
				close(both)
			}
			<-both
		}
		return s3test.None
	})
	store, err := objstore.Open(t.Context(), proxy.URL)
	require.NoError(t, err)
	r.produce(20)
	var archivers []*running
	for _, group := range []string{".one", ".two"} { // groups of their own make them owners
		r.cfg.Archiver.Group = r.topic + group
		archivers = append(archivers, r.start(store))
	}
	for range 5 {
		r.produce(20)
		r.judge()
	}
	for _, a := range archivers {
		require.NoError(t, a.Ready())
		a.stop(r)
	}
	r.judge()
	r.everyRow()
	_, other := proxy.Refused()
	require.Positive(t, other, "refused with another digest")
}

// R42: a store that takes an object twice is refused at the start, and nothing is written to it.
func TestR42StoreIgnoresTheCondition(t *testing.T) {
	r := newRig(t, 1)
	bucket := r.inBucket()
	if bucket == nil {
		return
	}
	proxy := bucket.Proxy(t, func(*http.Request) s3test.Fault { return s3test.Unasked })
	r.produce(10)
	p := r.process(proxy.URL)
	p.Start()
	require.NotZero(t, p.Wait())
	require.Positive(t, proxy.Faults()[s3test.Unasked])
	require.Positive(t, p.Said(objstore.ErrUnsafe.Error()))
	for s, err := range archive.Segments(t.Context(), r.store) {
		require.NoError(t, err)
		require.Fail(t, "archived", s.Key)
	}
}

// R54: the store is away while Kafka's retention runs.
func TestR54StoreAwayWhileRetentionRuns(t *testing.T) {
	r := newRig(t, 1)
	bucket := r.inBucket()
	if bucket == nil {
		return
	}
	const retention = time.Hour
	_, err := kadm.NewClient(r.client).AlterTopicConfigs(t.Context(),
		[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("3600000")}}, r.topic)
	require.NoError(t, err)
	var away atomic.Bool
	proxy := bucket.Proxy(t, func(*http.Request) s3test.Fault {
		if away.Load() {
			return s3test.Error503
		}
		return s3test.None
	})
	p := r.process(proxy.URL)
	p.Start()
	r.produce(10)
	r.judge()
	p.WaitReady()
	headroom := func() time.Duration {
		return time.Duration(p.Metric("catchment_retention_headroom_seconds") * float64(time.Second))
	}
	r.eventually(func() bool { return headroom() == retention }, "all is archived, and the whole retention is left")
	away.Store(true)
	r.produce(10)
	r.eventually(func() bool { left := headroom(); return left > 0 && left < retention-20*time.Second }, "the headroom does not fall")
	r.eventually(func() bool { return !p.Ready() }, "it is ready without a store")
	require.Positive(t, p.Metric("catchment_archiver_store_errors_total"))
	require.Positive(t, proxy.Faults()[s3test.Error503])
	r.produce(10)
	p.Kill() // who starts while the store is away has read nothing of Kafka
	p.Start()
	r.eventually(func() bool { left := headroom(); return left > 0 && left < retention-20*time.Second }, "the headroom is not known after a restart")
	require.Equal(t, retention.Seconds(), p.Metric("catchment_retention_seconds"))
	require.Greater(t, p.Metric("catchment_archiver_oldest_unarchived_seconds"), 20.0)
	away.Store(false)
	r.judge()
	r.everyRow()
	r.eventually(p.Ready, "it is not ready again")
	r.eventually(func() bool { return headroom() == retention }, "the headroom does not come back")
	p.Stop()
}

// What waits in Kafka is known of a store that never was there; and an archiver
// that is stopped while it waits ends.
func TestHeadroomWithoutAConsumer(t *testing.T) {
	r := newRig(t, 3)
	_, err := kadm.NewClient(r.client).AlterTopicConfigs(t.Context(),
		[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("3600000")}}, r.topic)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	p := r.process("file://" + file)
	p.Start()
	headroom := func() float64 { return p.Metric("catchment_retention_headroom_seconds") }
	r.eventually(func() bool { return headroom() == 3600 }, "nothing waits, and the whole retention is not left")
	r.produce(10)
	r.eventually(func() bool { return headroom() < 3590 }, "the headroom does not fall") // NaN is not less
	p.Stop()
	r.judgeWith(r.cfg.Archive.URL)
}

// judgeWith has an archiver with a store that is right archive everything.
func (r *rig) judgeWith(url string) {
	r.Helper()
	p := r.process(url)
	p.Start()
	r.judge()
	p.Stop()
}
