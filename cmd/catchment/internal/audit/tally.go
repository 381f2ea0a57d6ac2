package audit

import (
	"encoding/binary"
	"hash/maphash"
)

const tallyBuckets = 1 << 18

// tally tells two sets of identities apart in bounded memory: each identity adds its hash to one of many sums. Where a sum
// is the same for both sets, so are their members, but for a chance of 1 in 2^64. The hash is seeded anew for each run.
type tally struct {
	seed maphash.Seed
	sums []uint64
}

func newTally(buckets int) *tally { return &tally{maphash.MakeSeed(), make([]uint64, buckets)} }

// mark is an identity's hash.
func (t *tally) mark(source, id string, delivery [16]byte) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	var size [8]byte
	binary.LittleEndian.PutUint64(size[:], uint64(len(source)))
	_, _ = h.Write(size[:]) // never fails
	_, _ = h.WriteString(source)
	_, _ = h.WriteString(id)
	_, _ = h.Write(delivery[:])
	return h.Sum64()
}

func (t *tally) bucket(mark uint64) int { return int(mark % uint64(len(t.sums))) }

// spread makes a sum in which marks of one bucket do not cancel out.
func spread(mark uint64) uint64 { return mark*0x9e3779b97f4a7c15 | 1 }

func (t *tally) add(mark uint64)    { t.sums[t.bucket(mark)] += spread(mark) }
func (t *tally) remove(mark uint64) { t.sums[t.bucket(mark)] -= spread(mark) }

// different returns up to limit buckets in which what was added is not what was removed.
func (t *tally) different(limit int) map[int]bool {
	out := map[int]bool{}
	for i, sum := range t.sums {
		if sum != 0 && len(out) < limit {
			out[i] = true
		}
	}
	return out
}
