package ingress

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// R7: every broker takes connections and answers nothing. Senders get their 503 at the deadline; what was under way
// arrives when the hole closes, and the senders' second try with it.
func TestR07BlackHole(t *testing.T) {
	cluster := kafkatest.NewFake(t)
	h := start(t, cluster, "500ms", "")
	h.ready()
	l := newLoad(t, func() string { return h.url }, 0)
	l.run(16)
	l.more(50)
	before := runtime.NumGoroutine()
	cluster.WireAll(kafkatest.BlackHole)
	require.Eventually(t, func() bool { return l.answers(http.StatusServiceUnavailable) >= 100 }, 30*time.Second, 10*time.Millisecond)
	taken := l.count()
	require.Eventually(t, func() bool { return l.answers(http.StatusServiceUnavailable) >= 200 }, 30*time.Second, 10*time.Millisecond)
	require.Equal(t, taken, l.count(), "taken without an acknowledgement")
	require.Less(t, runtime.NumGoroutine(), before+100)
	require.Positive(t, h.budget.used.Load(), "what the producer holds counts")
	cluster.WireAll(kafkatest.Open)
	l.more(100)
	l.end()
	require.LessOrEqual(t, l.slowest, 8*time.Second, "the producer's own time-outs are longer")
	require.Positive(t, l.requireHonest(h.records()), "no record arrived after its sender's 503")
	require.Eventually(t, func() bool { return h.budget.used.Load() == 0 }, 30*time.Second, 5*time.Millisecond)
}

// R8: the broker has appended, and says that it timed out, that replicas are missing, or nothing at all, while senders
// hang up. What the producer calls acknowledged is in the log where it says (franz-go's issue 1217).
func TestR08ResponseLostAfterAppend(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.NewFake(t)
	h := start(t, cluster, "300ms", "")
	h.ready()
	l := newLoad(t, func() string { return h.url }, 0)
	hasty := newLoad(t, func() string { return h.url }, 1<<20) // hangs up before most answers
	hasty.client.Timeout = 3 * time.Millisecond
	l.run(8)
	hasty.run(8)
	l.more(20)
	for name, fault := range map[string]func() (heal func()){
		"timed out":           func() func() { return inject(cluster, kerr.RequestTimedOut) },
		"not enough replicas": func() func() { return inject(cluster, kerr.NotEnoughReplicasAfterAppend) },
		"answer lost": func() func() {
			cluster.WireAll(kafkatest.Mute)
			return func() { cluster.WireAll(kafkatest.Refused); cluster.WireAll(kafkatest.Open) }
		},
	} {
		refused := l.answers(http.StatusServiceUnavailable)
		heal := fault()
		require.Eventually(t, func() bool { return l.answers(http.StatusServiceUnavailable) >= refused+8 }, 30*time.Second, 5*time.Millisecond, name)
		heal()
		l.more(50)
	}
	l.end()
	hasty.end()
	require.NoError(t, h.stop())
	require.NotEmpty(t, hasty.broken, "no sender hung up")
	records := h.records()
	for id, digest := range hasty.sent {
		l.sent[id] = digest
	}
	require.Positive(t, l.requireHonest(records), "no record was appended whose sender got a 503")
	h.requireAcknowledged(records)
}

// inject lets every produce be appended and answered with err.
func inject(cluster *kafkatest.Cluster, err *kerr.Error) (heal func()) {
	f := cluster.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: err, Count: -1})
	return f.Remove
}

// requireAcknowledged holds every acknowledgement that the ingress logged against the log: that delivery is at that
// offset of that partition.
func (h *harness) requireAcknowledged(records []*kgo.Record) {
	h.t.Helper()
	at := map[string]string{}
	for _, r := range records {
		d, err := event.Decode(r)
		require.NoError(h.t, err)
		at[fmt.Sprintf("%d/%d", r.Partition, r.Offset)] = d.DeliveryID
	}
	acks := h.acknowledged()
	require.NotEmpty(h.t, acks)
	for place, id := range acks {
		require.Equal(h.t, id, at[place], "acknowledged at %s", place)
	}
}
