package processor

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
)

// Whatever the number of partitions, what is fetched and waits for Postgres stays within the budget; and when Postgres
// is back, everything is stored.
func TestBufferIsBounded(t *testing.T) {
	const partitions, each, size = 40, 100, 8 << 10 // 32 MiB
	w := newWorld(t, partitions)
	w.cfg.Processor.BufferBytes = 2 << 20
	w.cfg.Processor.TxTimeout = 2 * time.Second
	filler := `"` + strings.Repeat("x", size) + `"`
	var records []*kgo.Record
	for p := range int32(partitions) {
		for _, id := range ids("e"+string(rune('A'+p)), each) {
			r := event.Encode(delivery("shop", id, "t", filler))
			r.Partition = p
			records = append(records, r)
		}
	}
	manual := w.kc.Client(t, kgo.DefaultProduceTopic(w.cfg.Kafka.Topic), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(64<<10),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	require.NoError(t, manual.ProduceSync(t.Context(), records...).FirstErr())
	lock, err := w.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = lock.Exec(t.Context(), `LOCK TABLE catchment.identities IN EXCLUSIVE MODE`) // positions are taken, nothing is stored
	require.NoError(t, err)
	r := w.start()
	most, still, before := 0, 0, -1
	require.True(t, waitFor(func() bool {
		b := r.buffer()
		if b == nil {
			return false
		}
		held := b.held()
		most = max(most, held)
		if still++; held != before || !full(r) {
			still, before = 0, held
		}
		return still == 100 // looks: nothing more comes
	}), "the partitions are still fetched, with %d bytes in memory", most)
	require.Positive(t, most)
	// A poll that begins below the budget may bring a fetch from each of three brokers, and each of them a whole batch of
	// the log beyond its size; the headers and structs count too.
	all, _ := r.buffer().fetches()
	require.Less(t, most, 2<<20+3*(int(all)+64<<10)*3/2)
	require.NoError(t, lock.Rollback(context.WithoutCancel(t.Context())))
	w.eventually(partitions*each, `SELECT count(*) FROM catchment.identities`)
	require.True(t, waitFor(func() bool { return r.buffer().held() == 0 }), "%d bytes are left", r.buffer().held())
}

func (r *running) buffer() *budget {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == nil {
		return nil
	}
	return r.session.eng.budget
}

// full says whether all partitions are assigned, have records, and are paused or waited for.
func full(r *running) bool {
	r.mu.Lock()
	ses := r.session
	r.mu.Unlock()
	if ses == nil {
		return false
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	paused := 0
	for _, w := range ses.workers {
		w.mu.Lock()
		if w.paused {
			paused++
		}
		w.mu.Unlock()
	}
	return len(ses.workers) == 40 && (paused == 40 || ses.eng.budget.held() >= ses.eng.budget.limit)
}

// Records that wait do not keep the broker's answer in memory: they are copies.
func TestDetach(t *testing.T) {
	answer := bytes.Repeat([]byte("abcdefgh"), 1<<17)
	var records []*kgo.Record
	for i := range 1000 {
		at := i * 1000
		records = append(records, &kgo.Record{
			Key: answer[at : at+8], Value: answer[at+8 : at+900], Headers: []kgo.RecordHeader{{Key: "a", Value: answer[at+900 : at+910]}, {Key: "b"}},
		})
	}
	records = append(records, &kgo.Record{Value: answer[:slabBytes+1]}, &kgo.Record{})
	detach(records)
	want := bytes.Clone(answer)
	clear(answer)
	for i, r := range records[:1000] {
		at := i * 1000
		require.Equal(t, want[at:at+8], r.Key)
		require.Equal(t, want[at+8:at+900], r.Value)
		require.Equal(t, want[at+900:at+910], r.Headers[0].Value)
		require.Nil(t, r.Headers[1].Value)
		require.Equal(t, len(r.Value), cap(r.Value), "an append would write into the next one")
	}
	require.Equal(t, want[:slabBytes+1], records[1000].Value)
	require.Nil(t, records[1001].Value)
}
