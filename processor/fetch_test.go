package processor

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// newFetched is a ledger of two partitions on a Kafka whose answers to fetches a test chooses.
func newFetched(t *testing.T) *fetched {
	t.Helper()
	w := newDatabase(t, ledgerSchema...)
	w.on(kafkatest.NewFake(t), 2)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	return &fetched{world: w, manual: w.kc.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))}
}

type fetched struct {
	*world
	manual *kgo.Client
	sent   int
}

// send produces an event to a partition.
func (w *fetched) send(partition int32) {
	w.t.Helper()
	w.sent++
	r := event.Encode(delivery("shop", fmt.Sprint("e", w.sent), "t", `{}`))
	r.Topic, r.Partition = w.cfg.Kafka.Topic, partition
	require.NoError(w.t, w.manual.ProduceSync(w.t.Context(), r).FirstErr())
}

// refuse lets fetches of partition 0 fail until the fault is removed.
func (w *fetched) refuse(err *kerr.Error) *kfake.FaultHandle {
	return w.kc.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: w.cfg.Kafka.Topic, Partitions: []int32{0}, Err: err, Count: -1})
}

// current is the session of a processor that has both partitions.
func (w *fetched) current(r *running) (ses *session) {
	w.t.Helper()
	require.True(w.t, waitFor(func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		ses = r.session
		return ses != nil && len(ses.thirsting()) == 2
	}))
	return ses
}

// A partition whose position is not in the log any more halts, and the others go on. Nothing is skipped: the position
// stays where it was.
func TestLostPositionHaltsItsPartition(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*fetched, *session){
		"out of range": func(w *fetched, _ *session) { w.refuse(kerr.OffsetOutOfRange) },
		"log was cut": func(w *fetched, ses *session) {
			ses.deliver(w.t.Context(), kgo.FetchTopicPartition{Topic: ses.topic, FetchPartition: kgo.FetchPartition{
				Partition: 0, Err: &kgo.ErrDataLoss{Topic: ses.topic, Partition: 0, ConsumedTo: 1, ResetTo: 0},
			}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFetched(t)
			r := w.start()
			w.send(0)
			w.send(1)
			w.eventually(2, `SELECT count(*) FROM ledger`)
			lose(w, w.current(r))
			require.True(t, waitFor(func() bool { return r.metric(t, "catchment_processor_halted", "partition=0") == 1 }))
			require.ErrorContains(t, r.Ready(), "partition 0 is halted")
			w.send(0)
			w.send(1)
			w.eventually(2, `SELECT next_offset::int FROM catchment.progress WHERE partition = 1`)
			require.Equal(t, 1, w.count(`SELECT next_offset::int FROM catchment.progress WHERE partition = 0`))
			require.Zero(t, r.metric(t, "catchment_processor_halted", "partition=1"))
		})
	}
}

// Errors that pass halt nothing: the partition goes on where it was when they have passed, and the others do not wait.
// What only an operator can change is told.
func TestFetchErrorsThatPass(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  *kerr.Error
		told bool
	}{
		{kerr.TopicAuthorizationFailed, true},
		{kerr.UnknownTopicID, false},
		{kerr.UnknownTopicOrPartition, false},
		{kerr.InconsistentTopicID, false},
		{kerr.NotLeaderForPartition, false},
		{kerr.KafkaStorageError, false},
	} {
		t.Run(c.err.Message, func(t *testing.T) {
			t.Parallel()
			w := newFetched(t)
			r := w.start()
			w.send(0)
			w.send(1)
			w.eventually(2, `SELECT count(*) FROM ledger`)
			w.current(r)
			fault := w.refuse(c.err)
			w.send(0)
			w.send(1)
			w.eventually(2, `SELECT next_offset::int FROM catchment.progress WHERE partition = 1`)
			require.True(t, waitFor(func() bool { return fault.Hits() >= 3 }), "no fetch failed")
			if c.told {
				require.True(t, waitFor(func() bool { return r.Ready() != nil }))
				require.ErrorContains(t, r.Ready(), "kafka: partition 0: "+c.err.Message)
			}
			require.Zero(t, r.metric(t, "catchment_processor_halted"))
			fault.Remove()
			w.eventually(4, `SELECT count(*) FROM ledger`)
			require.Equal(t, 4, w.count(`SELECT count(DISTINCT event_id) FROM ledger`))
			require.True(t, waitFor(func() bool { return r.Ready() == nil }), "%v", r.Ready())
		})
	}
}

// Records are there, and the client brings none, as it tries again by itself and says nothing: the session is ended, and
// a new one has a new client. Who has nothing to fetch, or goes on, is left alone.
func TestNoFetchesEndTheSession(t *testing.T) {
	t.Parallel()
	w := newFetched(t)
	w.cfg.Processor.StallTimeout = time.Second // the third check in which nothing has come
	r := w.start()
	w.send(0)
	w.send(1)
	w.eventually(2, `SELECT count(*) FROM ledger`)
	ses := w.current(r)
	check := ses.checkFetches()
	for range 5 {
		require.NoError(t, check(t.Context()), "nothing is there")
	}
	fault := w.refuse(kerr.NotLeaderForPartition)
	require.True(t, waitFor(func() bool { return fault.Hits() > 0 }))
	w.send(0)
	require.NoError(t, check(t.Context()))
	require.NoError(t, check(t.Context()))
	require.ErrorIs(t, check(t.Context()), errNoFetches)
	compacted := &session{svc: r.Service, eng: &engine{gapsOK: true}}
	require.NoError(t, compacted.checkFetches()(t.Context()), "the end of its log may hold no record")

	ses.end(errNoFetches) // as every does
	require.True(t, waitFor(func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.session != nil && r.session != ses
	}), "no new session")
	fault.Remove()
	w.eventually(3, `SELECT count(*) FROM ledger`)
}
