package processor

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	leastFetch     = 32 << 10 // of one partition
	mostFetch      = 4 << 20  // of one partition
	mostFetchBytes = 16 << 20 // of one broker
	slabBytes      = 256 << 10
)

// budget bounds the bytes of all records that are fetched and not yet committed. Each partition has an equal share of it,
// so that one that is stuck does not hold up the others: it is no longer fetched once it has half its share, and what a
// fetch may bring is the other half. Only a record larger than that goes beyond a share; while all together are over the
// budget, nothing is fetched.
type budget struct {
	limit int

	mu      sync.Mutex
	used    int
	workers int
	freed   chan struct{}
}

func newBudget(limit int) *budget { return &budget{limit: limit, freed: make(chan struct{}, 1)} }

// join and leave count the partitions that share the budget.
func (b *budget) join() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.workers++
}

func (b *budget) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.workers--
}

// half is half of a partition's share, in bytes.
func (b *budget) half() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limit / max(2*b.workers, 2)
}

// fetches returns how many bytes a fetch may bring from one broker, and from one partition.
func (b *budget) fetches() (all, partition int32) {
	half := b.half()
	return int32(min(max(b.limit/8, leastFetch), mostFetchBytes)), int32(min(max(half, leastFetch), mostFetch))
}

// A processor in a process of its own may take four times of what is buffered, for the batches that are made of it, on top
// of what the program takes at rest. Below that the collector may let the garbage of three heaps gather: a batch leaves megabytes
// of it, and looking through what waits costs more than the memory.
const (
	atRest    = 128 << 20 // bytes
	gcPercent = 300
)

func (b *budget) take(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += n
}

func (b *budget) free(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	select {
	case b.freed <- struct{}{}:
	default:
	}
}

// held is how many bytes are in use.
func (b *budget) held() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// wait returns when the budget has room, or ctx has ended.
func (b *budget) wait(ctx context.Context) {
	for b.held() >= b.limit {
		select {
		case <-b.freed:
		case <-ctx.Done():
			return
		}
	}
}

// recordBytes is about what a record takes in memory.
func recordBytes(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value) + 200
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + 40
	}
	return n
}

// detach copies what the records refer to. They refer to the broker's whole answer, and one record that waits would keep
// all the others of it in memory, also those of other partitions.
func detach(records []*kgo.Record) {
	left := 0
	for _, r := range records {
		left += referred(r)
	}
	var slab []byte
	own := func(b *[]byte) {
		if len(*b) == 0 {
			return
		}
		start := len(slab)
		slab = append(slab, *b...)
		*b = slab[start:len(slab):len(slab)]
	}
	for _, r := range records {
		n := referred(r)
		if cap(slab)-len(slab) < n {
			slab = make([]byte, 0, max(n, min(left, slabBytes)))
		}
		left -= n
		own(&r.Key)
		own(&r.Value)
		for i := range r.Headers {
			own(&r.Headers[i].Value)
		}
	}
}

func referred(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Value)
	}
	return n
}
