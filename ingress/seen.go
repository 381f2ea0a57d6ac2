package ingress

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// seenKey names one thing to remember: a digest.
type seenKey [16]byte

// sighting is one delivery, as the look-up knows it.
type sighting struct {
	event seenKey // this event with these bytes, in one topic of one cluster
	bytes seenKey // these bytes of this source, under whatever ID; empty when the signature covers the ID
	id    seenKey // the event ID
	scope [32]byte
	mark  string // of what was known when the look-up was asked; empty: it did not answer
}

// newSighting makes the keys of a delivery.
func newSighting(h *hasher, scope [32]byte, source, id string, body []byte, idUnsigned bool) sighting {
	digest := h.sum(body)
	s := sighting{scope: scope, event: h.key(scope, source, id, digest)}
	if idUnsigned {
		s.bytes, s.id = h.key(scope, source, "", digest), h.key([32]byte{}, "", id, [32]byte{})
	}
	return s
}

// guarded says whether the same bytes under another ID are suspect.
func (s *sighting) guarded() bool { return s.bytes != seenKey{} }

// found is what is remembered of a delivery.
type found struct {
	seen     bool // Kafka has acknowledged it
	replayed bool // its bytes were acknowledged under another ID
}

// lookup remembers what Kafka has acknowledged lately. It saves work, and correctness never depends on it: what it does
// not know was not seen.
type lookup interface {
	// hasher is for newSighting.
	hasher() *hasher
	// look marks the sighting with the generation of what it knows, for add.
	look(s *sighting, now time.Time) found
	// add is called after the acknowledgement, never before it. What was looked up before a forget is not added.
	add(s *sighting, now time.Time)
	// forget drops all that is known of the topic: Kafka may have lost what it acknowledged.
	forget(scope [32]byte)
	close()
}

// hasher makes keys. Those that stay in one process are two hashes of 64 bits each under seeds that the process has made
// up: a quarter of the CPU of SHA-256, which keys that several ingresses share (nil) are made with.
type hasher [2]maphash.Seed

func newHasher() *hasher { return &hasher{maphash.MakeSeed(), maphash.MakeSeed()} }

func (h *hasher) sum(p []byte) (d [32]byte) {
	if h == nil {
		return sha256.Sum256(p)
	}
	binary.BigEndian.PutUint64(d[:8], maphash.Bytes(h[0], p))
	binary.BigEndian.PutUint64(d[8:], maphash.Bytes(h[1], p))
	return d
}

// key hashes the parts, each with its length before it, so that no two lists of parts look alike.
func (h *hasher) key(scope [32]byte, source, id string, digest [32]byte) (k seenKey) {
	var space [512]byte
	p := append(space[:0], scope[:]...)
	p = append(p, digest[:]...)
	p = append(p, byte(len(source)))
	p = append(p, source...)
	p = append(p, id...)
	d := h.sum(p)
	copy(k[:], d[:])
	return k
}

// recent is the look-up in this process's memory.
type recent struct {
	mu     sync.Mutex
	events *generations[struct{}] // nil: only replays are looked for
	bodies *generations[seenKey]  // the first ID of each body
	mark   string                 // another after each forget
	hashes *hasher

	seen, unseen prometheus.Counter
}

func newRecent(entries int, ttl time.Duration, events bool, m *metrics) *recent {
	r := &recent{bodies: newGenerations[seenKey](entries, ttl), mark: rand.Text(), hashes: newHasher(), seen: m.lookups.WithLabelValues(lookupSeen), unseen: m.lookups.WithLabelValues(lookupUnseen)}
	if events {
		r.events = newGenerations[struct{}](entries, ttl)
	}
	return r
}

func (r *recent) hasher() *hasher { return r.hashes }

func (r *recent) look(s *sighting, now time.Time) (f found) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.mark = r.mark
	if r.events != nil {
		if _, f.seen = r.events.get(s.event, now); f.seen {
			r.seen.Inc()
		} else {
			r.unseen.Inc()
		}
	}
	if s.guarded() {
		first, ok := r.bodies.get(s.bytes, now)
		f.replayed = ok && first != s.id
	}
	return f
}

func (r *recent) add(s *sighting, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.mark != r.mark {
		return
	}
	if r.events != nil {
		r.events.put(s.event, struct{}{}, now)
	}
	if s.guarded() {
		if _, ok := r.bodies.get(s.bytes, now); !ok {
			r.bodies.put(s.bytes, s.id, now)
		}
	}
}

func (r *recent) forget([32]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mark = rand.Text()
	if r.events != nil {
		r.events.clear()
	}
}

func (r *recent) close() {}

// generations is a map that is bounded in number and time by two generations: when the young one is full or half the
// TTL old, it becomes the old one, and the old one is dropped. It is not safe for concurrent use.
type generations[V any] struct {
	half  int
	turn  time.Duration
	young map[seenKey]V
	old   map[seenKey]V
	born  time.Time
}

func newGenerations[V any](entries int, ttl time.Duration) *generations[V] {
	return &generations[V]{half: max(entries/2, 1), turn: ttl / 2, young: map[seenKey]V{}, old: map[seenKey]V{}}
}

func (g *generations[V]) get(k seenKey, now time.Time) (V, bool) {
	g.age(now)
	if v, ok := g.young[k]; ok {
		return v, true
	}
	v, ok := g.old[k]
	return v, ok
}

func (g *generations[V]) put(k seenKey, v V, now time.Time) {
	g.age(now)
	if len(g.young) >= g.half {
		g.rotate(now)
	}
	g.young[k] = v
}

func (g *generations[V]) age(now time.Time) {
	switch {
	case g.born.IsZero():
		g.born = now
	case now.Sub(g.born) >= 2*g.turn || now.Before(g.born):
		g.rotate(now)
		g.rotate(now)
	case now.Sub(g.born) >= g.turn:
		g.rotate(now)
	}
}

func (g *generations[V]) rotate(now time.Time) {
	g.old, g.young, g.born = g.young, make(map[seenKey]V, len(g.young)), now
}

func (g *generations[V]) clear() { g.old, g.young = map[seenKey]V{}, map[seenKey]V{} }
