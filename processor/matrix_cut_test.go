package processor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
)

// R16: a processor stands still for longer than its session, between two steps, and goes on where it stood: another has
// its partitions by then, and Postgres refuses what it writes.
func TestR16PausedPastItsSession(t *testing.T) {
	t.Parallel()
	program := build(t, "-tags", "failpoints")
	for _, point := range []failpoint.Point{failpoint.AfterPoll, failpoint.InTransaction} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			w := newTraffic(t, 3)
			w.gated()
			paused := w.process(program)
			w.send(120)
			open := func() {}
			if point == failpoint.AfterPoll {
				open = w.shut() // so that none of what it has polled is written when it stops
			}
			paused.Start(fmt.Sprintf("%s=%s=stop@1", failpoint.Env, point))
			require.True(t, waitFor(paused.Stands), "it did not stop at %s", point)
			open()
			heir := w.start()
			w.settled()
			paused.Signal(syscall.SIGCONT)
			if point == failpoint.AfterPoll { // with an open transaction, its session has been ended
				// Which is first, Postgres' refusal or Kafka's? TestR17CutFromKafka and TestZombieIsFenced hold the fence alone.
				require.True(t, waitFor(func() bool {
					return paused.Metric("catchment_processor_fenced_total") >= 1 || paused.Said("partitions lost") > 0
				}), "nothing was refused")
			}
			w.send(60)
			w.settled()
			heir.stop() // and the one that stood still is a member again
			w.send(60)
			w.settled()
			paused.Stop()
			w.check()
		})
	}
}

// gated lets the ledger's operation wait while a gate is shut.
func (w *traffic) gated() {
	w.t.Helper()
	w.exec(`CREATE TABLE gate AS SELECT 1 AS id`)
	w.cfg.Operations[0].SQL = append(config.Strings{`UPDATE gate SET id = 1`}, w.cfg.Operations[0].SQL...)
	w.cfg.Operations[0].Timeout, w.cfg.Processor.TxTimeout = time.Minute, time.Minute
}

// shut shuts the gate until open is called.
func (w *traffic) shut() (open func()) {
	w.t.Helper()
	gate, err := w.pool.Begin(context.Background())
	require.NoError(w.t, err)
	_, err = gate.Exec(context.Background(), `UPDATE gate SET id = 1`)
	require.NoError(w.t, err)
	return func() { require.NoError(w.t, gate.Rollback(context.Background())) }
}

// link is a network to Kafka that can be cut: what is written is lost, and nothing is read.
type link struct {
	mu    sync.Mutex
	whole chan struct{} // closed: it is not cut
	conns map[*linked]bool
}

func newLink() *link {
	l := &link{whole: make(chan struct{}), conns: map[*linked]bool{}}
	close(l.whole)
	return l
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.whole = make(chan struct{})
}

// mend makes the network whole; the connections of before are gone.
func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.whole)
	for c := range l.conns {
		_ = c.Conn.Close()
	}
	clear(l.conns)
}

func (l *link) state() chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.whole
}

func (l *link) isCut() bool {
	select {
	case <-l.state():
		return false
	default:
		return true
	}
}

func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	select {
	case <-l.state():
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w := &linked{Conn: c, l: l, closed: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[w] = true
	return w, nil
}

type linked struct {
	net.Conn
	l      *link
	once   sync.Once
	closed chan struct{}
}

var errCut = errors.New("the network was cut")

func (c *linked) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if c.l.isCut() {
		select {
		case <-c.l.state():
		case <-c.closed:
		}
		return 0, errCut
	}
	return n, err
}

func (c *linked) Write(b []byte) (int, error) {
	if c.l.isCut() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *linked) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// R17: a processor reaches Postgres and not Kafka, so that it does not learn that another has its partitions.
func TestR17CutFromKafka(t *testing.T) {
	t.Parallel()
	w := newTraffic(t, 2)
	w.gated()
	network := newLink()
	cut := w.start(kgo.Dialer(network.dial), kgo.RequestTimeoutOverhead(time.Minute)) // so long it does not notice
	w.send(30)
	w.settled()
	open := w.shut()
	w.send(60)
	w.eventually(2, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) // both are within a batch
	network.cut()
	heir := w.start()
	require.True(t, waitFor(func() bool { return cut.metric(t, "catchment_processor_fenced_total") >= 1 }), "nothing was refused")
	open()
	w.settled()
	require.Positive(t, heir.metric(t, "catchment_processor_events_total"))
	began := time.Now()
	cut.stop() // though nobody answers
	require.Less(t, time.Since(began), patience/2)
	network.mend()
	heir.stop()
	w.start()
	w.send(30)
	w.settled()
	w.check()
}

// R18: a processor reaches Kafka and not Postgres. It stays a member and says what it waits for; no event is to blame.
func TestR18CutFromPostgres(t *testing.T) {
	t.Parallel()
	w := newTraffic(t, 2)
	p, through := newProxy(t, w.url)
	w.cfg.Postgres.URL = config.NewSecret(through)
	w.cfg.Processor.TxTimeout = time.Second
	r := w.start()
	w.send(30)
	w.settled()
	generation := r.generation()
	for name, cut := range map[string]struct{ away, back func() }{
		"nothing comes through":   {p.hang.Lock, p.hang.Unlock},
		"connections are refused": {func() { p.setDown(true) }, func() { p.setDown(false) }},
	} {
		began := time.Now()
		cut.away()
		w.send(30)
		told := waitFor(func() bool { return r.Ready() != nil })
		waited := waitFor(func() bool {
			return time.Since(began) > w.cfg.Processor.Session+time.Second && r.metric(t, "catchment_processor_lag_records") > 0
		})
		cut.back()
		require.True(t, told, name)
		require.True(t, waited, name)
		w.settled()
	}
	require.Equal(t, generation, r.generation(), "it stayed a member")
	w.check()
	require.True(t, waitFor(func() bool { return r.Ready() == nil }))
}

// R28: one operation takes longer than the group waits for a member, and for a rebalance. The member stays, the
// partition that moves is given up in time, and its next owner makes the attempt, once.
func TestR28SlowOperation(t *testing.T) {
	t.Parallel()
	w := newTraffic(t, 2)
	const sleep = 14 // seconds; session and rebalance timeout are 6 each
	w.cfg.Operations[0].SQL = append(config.Strings{fmt.Sprintf(`SELECT pg_sleep(CASE WHEN @type = 'slow' THEN %d ELSE 0 END)`, sleep)}, w.cfg.Operations[0].SQL...)
	w.cfg.Operations[0].Timeout = time.Minute
	w.cfg.Processor.Batch, w.cfg.Processor.TxTimeout = 1, 30*time.Second
	short := kgo.RebalanceTimeout(6 * time.Second)
	manual := w.kc.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for p := range int32(2) {
		d := order(fmt.Sprintf("slow%d", p), fmt.Sprint("o", p), -1, "s")
		d.Type = "slow"
		w.sent[d.ID] = d
		r := event.Encode(d)
		r.Topic, r.Partition = w.cfg.Kafka.Topic, p
		require.NoError(t, manual.ProduceSync(t.Context(), r).FirstErr())
	}
	w.send(20)
	first := w.start(short)
	w.eventually(2, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`)
	second := w.start(short)
	w.settled()
	for _, r := range []*running{first, second} {
		require.Positive(t, r.metric(t, "catchment_processor_events_total"), "a partition moved")
	}
	w.check()
	require.Equal(t, 2, w.count(`SELECT count(*) FROM catchment.results WHERE event_id LIKE 'slow%' AND operation LIKE 'ledger%' AND attempt = 1 AND outcome = 'succeeded'`))
}

// R34: Kafka's offsets are lost, or somebody moves them. The position lies in Postgres: nothing is skipped or repeated.
func TestR34OffsetsMoved(t *testing.T) {
	t.Parallel()
	w := newTraffic(t, 2)
	admin := kadm.NewClient(w.cl)
	commit := func(at func(end int64) int64) {
		ends, err := admin.ListEndOffsets(t.Context(), w.cfg.Kafka.Topic)
		require.NoError(t, err)
		var to kadm.Offsets
		ends.Each(func(o kadm.ListedOffset) {
			to.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: at(o.Offset), LeaderEpoch: -1})
		})
		require.NoError(t, admin.CommitAllOffsets(t.Context(), w.cfg.Processor.Group, to))
	}
	for _, move := range []func(){
		func() {},
		func() { // as when they expired
			resp, err := admin.DeleteGroups(t.Context(), w.cfg.Processor.Group)
			require.NoError(t, err)
			require.NoError(t, resp.Error())
		},
		func() { commit(func(int64) int64 { return 0 }) },              // to the earliest
		func() { commit(func(end int64) int64 { return end }) },        // to the latest
		func() { w.cfg.Processor.Group += "-of-another-name" },         // a group that never committed
		func() { commit(func(end int64) int64 { return end + 1000 }) }, // nowhere
	} {
		w.send(50)
		require.True(t, waitFor(func() bool {
			groups, err := admin.DescribeGroups(t.Context(), w.cfg.Processor.Group)
			return err == nil && len(groups[w.cfg.Processor.Group].Members) == 0
		}))
		move()
		r := w.start()
		w.settled()
		r.stop()
	}
	w.check()
}
