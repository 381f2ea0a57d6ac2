package ingress

import (
	"crypto/sha256"
	"sync"
	"time"
)

// seenKey names one event with its bytes in one topic of one cluster.
type seenKey [16]byte

// seen remembers what Kafka has acknowledged lately. It is bounded in number and time by two generations: when
// the young one is full or half the TTL old, it becomes the old one, and the old one is dropped.
type seen struct {
	half  int
	turn  time.Duration
	mu    sync.Mutex
	young map[seenKey]struct{}
	old   map[seenKey]struct{}
	born  time.Time
}

func newSeen(entries int, ttl time.Duration) *seen {
	return &seen{half: max(entries/2, 1), turn: ttl / 2, young: map[seenKey]struct{}{}, old: map[seenKey]struct{}{}}
}

// keyOf hashes the parts, each with its length before it, so that no two lists of parts look alike.
func keyOf(scope [32]byte, source, id string, digest [32]byte) (k seenKey) {
	h := make([]byte, 0, 160+len(source)+len(id))
	h = append(h, scope[:]...)
	h = append(h, digest[:]...)
	h = append(h, byte(len(source)))
	h = append(h, source...)
	h = append(h, id...)
	sum := sha256.Sum256(h)
	copy(k[:], sum[:])
	return k
}

func (s *seen) has(k seenKey, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.age(now)
	if _, ok := s.young[k]; ok {
		return true
	}
	_, ok := s.old[k]
	return ok
}

// add is called after the acknowledgement, never before it.
func (s *seen) add(k seenKey, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.age(now)
	if len(s.young) >= s.half {
		s.rotate(now)
	}
	s.young[k] = struct{}{}
}

func (s *seen) age(now time.Time) {
	switch {
	case s.born.IsZero():
		s.born = now
	case now.Sub(s.born) >= 2*s.turn || now.Before(s.born):
		s.rotate(now)
		s.rotate(now)
	case now.Sub(s.born) >= s.turn:
		s.rotate(now)
	}
}

func (s *seen) rotate(now time.Time) {
	s.old, s.young, s.born = s.young, make(map[seenKey]struct{}, len(s.young)), now
}

func (s *seen) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.old, s.young = map[seenKey]struct{}{}, map[seenKey]struct{}{}
}
