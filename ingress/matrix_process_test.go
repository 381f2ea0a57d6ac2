package ingress

import (
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// R1 of the failure matrix: the ingress is killed at each stage of a request. The sender has no answer and sends
// again; what it was told is in the log.
func TestR01KilledAtEveryStage(t *testing.T) {
	t.Parallel()
	program := build(t)
	for name, c := range map[string]struct {
		linger string
		// reach brings the request of that number to the stage and proves that it is there.
		reach func(w *stage, seq int)
		twice bool // the first request's record is in the log, and so is the second's
	}{
		"the body is being read": {"5ms", func(w *stage, seq int) {
			w.p.connect(seq).write(10)
			w.eventually(func() bool { return w.p.Metric("catchment_ingress_inflight_bytes") > 0 })
			require.Zero(t, w.p.Metric("catchment_ingress_verified_total")-w.verified)
		}, false},
		"verified and buffered": {"25s", func(w *stage, seq int) {
			asked := w.cluster.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1})
			w.p.connect(seq).write(0)
			w.eventually(func() bool { return w.p.Metric("catchment_ingress_verified_total") > w.verified })
			require.Zero(t, asked.Hits(), "the record has not left the program")
		}, false},
		"on its way to Kafka": {"0s", func(w *stage, seq int) {
			w.cluster.WireAll(kafkatest.BlackHole)
			w.p.connect(seq).write(0)
			w.eventually(func() bool { return w.p.Metric("catchment_ingress_verified_total") > w.verified })
			require.Equal(t, w.written, w.inLog())
		}, false},
		"acknowledged, and the answer is not there yet": {"0s", func(w *stage, seq int) {
			w.cluster.WireAll(kafkatest.Mute)
			w.p.connect(seq).write(0)
			w.eventually(func() bool { return w.inLog() == w.written+1 })
		}, true},
		"the answer is read by half": {"0s", func(w *stage, seq int) {
			s := w.p.connect(seq)
			s.write(0)
			require.Equal(t, "HTTP/1.1 200", s.read(12))
			require.Equal(t, w.written+1, w.inLog())
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &stage{t: t, cluster: kafkatest.NewFake(t)}
			w.topic = w.cluster.Topic(t, 1)
			w.p = newProcess(t, program, w.cluster, w.topic, "20s", ", linger: "+c.linger)
			w.p.start()
			l := newLoad(t, w.p.url, 0)
			if c.linger != "25s" {
				l.deliver(1) // the connections that a later break hits are there
			}
			w.verified, w.written = w.p.Metric("catchment_ingress_verified_total"), w.inLog()
			c.reach(w, 2)
			w.p.Kill()
			w.cluster.WireAll(kafkatest.Open)

			text, err := os.ReadFile(w.p.Config)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(w.p.Config, []byte(strings.Replace(string(text), "25s", "0s", 1)), 0o600))
			w.p.start()
			l.deliver(2)
			h := &harness{t: t, kafka: w.cluster, topic: w.topic}
			if twice := l.requireHonest(h.records()); c.twice {
				require.Equal(t, 1, twice)
			}
		})
	}
}

// stage is a world in which an ingress is brought to one stage of a request.
type stage struct {
	t        *testing.T
	p        *process
	cluster  *kafkatest.Cluster
	topic    string
	verified float64 // requests before the one that counts
	written  int64   // records before
}

func (w *stage) eventually(cond func() bool) {
	w.t.Helper()
	require.Eventually(w.t, cond, 30*time.Second, 5*time.Millisecond)
}

// inLog counts records without asking over the network, which may be broken now.
func (w *stage) inLog() (n int64) {
	for _, p := range w.cluster.Fake().PartitionInfos(w.topic) {
		n += p.HighWatermark
	}
	return n
}

// R1 again, with kills at random moments under load, so that those between the stages are met too.
func TestR01KilledUnderLoad(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.New(t)
	topic := cluster.Topic(t, 3)
	p := newProcess(t, build(t), cluster, topic, "9s", "")
	l := newLoad(t, p.url, 0)
	p.start()
	l.run(8)
	for range 6 {
		l.more(30)
		pause(time.Duration(rand.IntN(50)) * time.Millisecond)
		p.Kill()
		p.start()
	}
	l.more(30)
	l.end()
	require.NotEmpty(t, l.broken, "no request was cut off")
	h := &harness{t: t, kafka: cluster, topic: topic}
	twice := l.requireHonest(h.records())
	t.Logf("%d events, %d requests cut off, %d events twice in the log", l.count(), len(l.broken), twice)
}

// pause waits for a random time, where that is what a test is about.
func pause(d time.Duration) { <-time.After(d) }

// R2: two replicas behind a balancer that heeds /readyz are replaced one after the other under load. No request meets
// a closed or reset connection, and every one is answered 200.
func TestR02RollingUpdate(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.New(t)
	topic := cluster.Topic(t, 3)
	program := build(t)
	replicas := []*process{}
	for range 2 {
		p := newProcess(t, program, cluster, topic, "9s", ", drain_delay: 3s") // time for a balancer on a busy machine
		p.start()
		replicas = append(replicas, p)
	}
	var turn atomic.Int64
	var open [2]atomic.Bool
	open[0].Store(true)
	open[1].Store(true)
	l := newLoad(t, func() string {
		for {
			if i := turn.Add(1) % 2; open[i].Load() {
				return replicas[i].url()
			}
		}
	}, 0)
	l.once = true
	l.run(8)
	for range 2 {
		for i, p := range replicas {
			l.more(100)
			stopped := make(chan struct{})
			go func() { // the balancer
				defer close(stopped)
				for p.Ready() {
					pause(5 * time.Millisecond)
				}
				open[i].Store(false)
			}()
			p.Stop()
			<-stopped
			p.start()
			open[i].Store(true)
		}
	}
	l.more(100)
	l.end()
	require.Empty(t, l.broken)
	require.Equal(t, l.statuses[http.StatusOK], l.count())
	require.Len(t, l.statuses, 1, "%v", l.statuses)
	h := &harness{t: t, kafka: cluster, topic: topic}
	require.Zero(t, l.requireHonest(h.records()))
}

// R2 for senders that know nothing of readiness: whoever is cut off has not been read, for its event is not in the log.
func TestR02StopUnderLoad(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.New(t)
	topic := cluster.Topic(t, 3)
	p := newProcess(t, build(t), cluster, topic, "9s", "")
	p.start()
	l := newLoad(t, p.url, 0)
	l.once = true
	l.run(16)
	l.more(200)
	p.Stop()
	l.end()
	h := &harness{t: t, kafka: cluster, topic: topic}
	l.requireHonest(h.records())
	got := h.deliveries()
	for id, err := range l.broken {
		require.NotContains(t, got, id, "taken, and cut off: %v", err)
	}
	require.Len(t, l.statuses, 1, "%v", l.statuses)
	t.Logf("%d answered, %d cut off before they were read", l.count(), len(l.broken))
}
