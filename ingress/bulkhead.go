package ingress

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// bulkhead bounds what one partition may hold of in_flight_bytes, so that one whose leader is gone does not use up
// the room of the others: what it is sent beyond its share is refused at once.
type bulkhead struct {
	budget    int64
	partition kgo.TopicPartitioner // as the producer's: for records with a key it has no state
	slots     atomic.Pointer[[]*slot]
}

// slot is one partition.
type slot struct {
	held  atomic.Int64 // bytes that Kafka has not answered for
	acked atomic.Int64 // when the newest acknowledged record was handed over, since the process began; 0: none yet
	_     [48]byte     // slots are written to by all cores: a cache line each
}

func newBulkhead(topic string, budget int64) *bulkhead {
	return &bulkhead{budget: budget, partition: kgo.StickyKeyPartitioner(nil).ForTopic(topic)}
}

// resize takes over the topic's number of partitions. Those that were there keep what they hold.
func (b *bulkhead) resize(partitions int) {
	var old []*slot
	if p := b.slots.Load(); p != nil {
		old = *p
	}
	if len(old) == partitions {
		return
	}
	slots := make([]*slot, partitions)
	for i := range copy(slots, old) {
		slots[i] = old[i]
	}
	for i := range slots {
		if slots[i] == nil {
			slots[i] = &slot{}
		}
	}
	b.slots.Store(&slots)
}

// share is what one of n partitions may hold: twice its part, so that uneven keys pass, and one broker of three can
// be gone with a third of the budget left for the rest.
func (b *bulkhead) share(n int) int64 {
	switch {
	case n <= 1:
		return b.budget
	case n == 2:
		return b.budget / 4 * 3
	}
	return 2 * b.budget / int64(n)
}

// take finds the record's partition and takes its bytes from the partition's share; nil: there is no room. A record
// that is larger than the share passes alone.
func (b *bulkhead) take(r *kgo.Record) *slot {
	slots := b.slots.Load()
	if slots == nil || len(*slots) == 0 {
		return &slot{} // the topic is not known yet
	}
	n := len(*slots)
	s := (*slots)[b.partition.Partition(r, n)]
	size := sizeOf(r)
	if held := s.held.Add(size); held > b.share(n) && held != size {
		s.held.Add(-size)
		return nil
	}
	return s
}

// answered gives back what take took, and remembers when an acknowledged record was handed over.
func (s *slot) answered(r *kgo.Record, sent time.Duration, err error) {
	s.held.Add(-sizeOf(r))
	if err != nil {
		return
	}
	for {
		old := s.acked.Load()
		if int64(sent) <= old || s.acked.CompareAndSwap(old, int64(sent)) {
			return
		}
	}
}

// sizeOf is what the record is charged: its body, and what comes on top for each.
func sizeOf(r *kgo.Record) int64 { return int64(len(r.Value)) + requestOverhead }
