package archiver

import (
	"sync"
	"sync/atomic"
)

// budget counts the bytes that wait to be archived, of all topics. It does not block: who adds asks first whether it is
// full.
type budget struct {
	limit  int64
	used   atomic.Int64    // of queues and open segments
	queued atomic.Int64    // of that, records that could be in a segment and are not yet
	freed  []chan struct{} // one a topic, signalled when bytes were given back

	guard   sync.Mutex
	pressed *partition // closes its segment because memory is short
}

func (b *budget) add(bytes int64) {
	b.used.Add(bytes)
	if bytes < 0 {
		b.tell()
	}
}

func (b *budget) tell() {
	for _, ch := range b.freed {
		signal(ch)
	}
}

func (b *budget) full() bool  { return b.used.Load() >= b.limit }
func (b *budget) load() int64 { return b.used.Load() }

// ahead says that enough is fetched for now. A record that waits is some thirty pieces of memory for the garbage collector to
// look at, time and again, an open segment only a few. And it keeps all that came in the same response of a broker. What waits for
// the store does not count: meanwhile the other partitions go on.
func (b *budget) ahead() bool { return b.queued.Load() > b.limit/8 }

// lags says that so many bytes of one partition wait that others will be done with theirs long before.
func (b *budget) lags(queued int64) bool { return queued > b.limit/64 }

// press makes the partition with the largest open segment close it. One at a time.
func (b *budget) press(parts []*partition) {
	b.guard.Lock()
	defer b.guard.Unlock()
	if b.pressed != nil {
		return
	}
	for _, p := range parts {
		if p.open.Load() > 0 && (b.pressed == nil || p.open.Load() > b.pressed.open.Load()) {
			b.pressed = p
		}
	}
	if b.pressed != nil {
		signal(b.pressed.pressed)
	}
}

// relieved says that p has no open segment any more.
func (b *budget) relieved(p *partition) {
	b.guard.Lock()
	if b.pressed == p {
		b.pressed = nil
	}
	b.guard.Unlock()
	b.tell()
}
