package processor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
)

// R15: the processor is killed at each boundary between two steps, again and again, under load. Whatever was in flight,
// every event has its effect once: the ledger has no unique key that could hide a second one.
func TestR15KilledAtEveryStep(t *testing.T) {
	t.Parallel()
	atEach(t, failpoint.OfBatch(), func(k killing) {
		w := newTraffic(t, 4)
		p := w.process(k.program)
		k.kill(w, p)
		p.Start()
		w.settled()
		p.Stop()
		w.check()
	})
}

// killing is at which step a program is killed, and how often.
type killing struct {
	program string
	point   failpoint.Point
	times   int
	rng     *rand.Rand
}

// killers bounds how many programs are killed beside each other.
var killers = make(chan struct{}, 7)

// atEach calls f for each of the points, beside each other: most of the time the group waits for the one that was killed.
func atEach(t *testing.T, points []failpoint.Point, f func(killing)) {
	t.Helper()
	times := proctest.Kills(t)
	program := build(t, "-tags", "failpoints")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for i, point := range points {
		wg.Go(func() {
			killers <- struct{}{}
			defer func() { <-killers }()
			f(killing{program, point, times, rand.New(rand.NewPCG(seed, uint64(i)))})
		})
	}
	wg.Wait()
}

// kill starts the program and lets it be killed, under load.
func (k killing) kill(w *traffic, p *proctest.Process) {
	w.t.Helper()
	for n := range k.times {
		w.send(40)
		p.Start(fmt.Sprintf("%s=%s=kill@%d", failpoint.Env, k.point, 1+k.rng.IntN(2)))
		require.True(w.t, waitFor(func() bool { w.send(2); return p.Ended() }), "%s was not passed", k.point)
		require.Equal(w.t, syscall.SIGKILL, p.KilledBy(), k.point)
		require.Equal(w.t, n+1, p.Said("failpoint: "+string(k.point)), k.point)
	}
}

// traffic is a world with a stream of events, of which some come twice and some out of order, and with two operations:
// one whose repetition shows, and one whose order shows.
type traffic struct {
	*world
	sent  map[string]*event.Delivery
	ids   []string
	whole map[string]bool // those whose records were dead letters
	rng   *rand.Rand
	more  []kgo.RecordHeader // of every record
}

func newTraffic(tb testing.TB, partitions int) *traffic {
	tb.Helper()
	return newTrafficAt(tb, pgtest.New(tb), partitions)
}

func newTrafficAt(tb testing.TB, url string, partitions int) *traffic {
	tb.Helper()
	w := &traffic{
		world: newWorldAt(tb, url, partitions, append(append([]string{}, ledgerSchema...), ordersSchema...)...),
		sent:  map[string]*event.Delivery{}, whole: map[string]bool{}, rng: rand.New(rand.NewPCG(rand.Uint64(), 0)),
	}
	w.cfg.Processor.Batch = 10
	w.cfg.Operations = append(w.cfg.Operations, ledger("shop"), state())
	return w
}

// send produces n new events, and some of the old ones once more.
func (w *traffic) send(n int) {
	w.t.Helper()
	var ds []*event.Delivery
	for range n {
		i := len(w.ids)
		id := fmt.Sprintf("e%05d", i)
		d := order(id, fmt.Sprint("o", i%7), w.rng.IntN(1000), "s"+id)
		w.ids, w.sent[id] = append(w.ids, id), d
		ds = append(ds, d)
		if i%5 == 4 {
			again := *w.sent[w.ids[w.rng.IntN(i)]]
			again.DeliveryID = delivery("shop", "x", "x", "").DeliveryID
			ds = append(ds, &again)
		}
	}
	records := make([]*kgo.Record, len(ds))
	for i, d := range ds {
		records[i] = event.Encode(d)
		records[i].Headers = append(records[i].Headers, w.more...)
	}
	w.produceRecords(records...)
}

// settled waits until the position is the log's end.
func (w *traffic) settled() {
	w.t.Helper()
	w.eventually(w.logEnd(), `SELECT coalesce(sum(next_offset), 0)::int FROM catchment.progress`)
}

// logEnd is the number of records in the log.
func (w *world) logEnd() int { return w.endOf(w.cfg.Kafka.Topic) }

// endOf is the number of records in a topic.
func (w *world) endOf(topic string) int {
	w.t.Helper()
	ends, err := kadm.NewClient(w.cl).ListEndOffsets(context.Background(), topic)
	require.NoError(w.t, err)
	n := 0
	ends.Each(func(o kadm.ListedOffset) { n += int(o.Offset) })
	return n
}

// check wants every event to have had its effect once, and the newest version of every order to have won.
func (w *traffic) check() {
	w.t.Helper()
	n := len(w.sent)
	require.Equal(w.t, n, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(w.t, n, w.count(`SELECT count(DISTINCT event_id) FROM ledger`))
	require.Equal(w.t, n, w.count(`SELECT n FROM counters`))
	require.Equal(w.t, n, w.count(`SELECT count(*) FROM catchment.identities`))
	require.Equal(w.t, n, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'processed'`))
	require.Equal(w.t, w.logEnd(), w.count(`SELECT sum(next_offset)::int FROM catchment.progress`))
	require.Equal(w.t, 0, w.count(`SELECT count(*) FROM catchment.dead_letters`)+w.count(`SELECT count(*) FROM catchment.retries`)+w.count(`SELECT count(*) FROM catchment.conflicts`))
	require.Equal(w.t, 0, w.count(`SELECT count(*) FROM (SELECT v, lag(v) OVER (PARTITION BY id ORDER BY n) AS before FROM history) AS h WHERE v < before`))
	for o, id := range w.newest() {
		require.Equal(w.t, "s"+id, w.text(`SELECT status FROM orders WHERE id = $1`, o))
	}
	w.advisory()
}

// newest is the event that must have won, by order.
func (w *traffic) newest() map[string]string {
	won, version := map[string]string{}, map[string]int{}
	for i, id := range w.ids {
		o := fmt.Sprint("o", i%7)
		var v int
		_, err := fmt.Sscanf(string(w.sent[id].Body), fmt.Sprintf(`{"order":%q,"v":%%d,`, o), &v)
		require.NoError(w.t, err)
		if won[o] == "" || v > version[o] || v == version[o] && id > won[o] {
			won[o], version[o] = id, v
		}
	}
	return won
}

// advisory wants Kafka's commit not to be ahead of the position.
func (w *world) advisory() {
	w.t.Helper()
	offsets, err := kadm.NewClient(w.cl).FetchOffsets(context.Background(), w.cfg.Processor.Group)
	require.NoError(w.t, err)
	offsets.Each(func(o kadm.OffsetResponse) {
		require.LessOrEqual(w.t, int(o.At), w.count(`SELECT next_offset::int FROM catchment.progress WHERE topic = $1 AND partition = $2`, o.Topic, o.Partition))
	})
}
