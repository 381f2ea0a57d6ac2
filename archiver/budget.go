package archiver

import "sync/atomic"

// budget counts the bytes that wait to be archived. It does not block: who adds asks first whether it is full.
type budget struct {
	limit int64
	used  atomic.Int64
	freed chan struct{} // signalled when bytes were given back
}

func newBudget(limit int64) *budget {
	return &budget{limit: limit, freed: make(chan struct{}, 1)}
}

func (b *budget) add(bytes int64) {
	b.used.Add(bytes)
	if bytes < 0 {
		signal(b.freed)
	}
}

func (b *budget) full() bool  { return b.used.Load() >= b.limit }
func (b *budget) load() int64 { return b.used.Load() }
