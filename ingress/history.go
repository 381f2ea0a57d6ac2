package ingress

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// history is what became of the last requests to one source.
type history struct{ accepted, refused last }

// last is the last moment of its kind.
type last struct {
	mu sync.Mutex
	m  Moment
}

func (l *last) store(m *Moment) {
	l.mu.Lock()
	l.m = *m
	l.mu.Unlock()
}

// shown is the moment with its foreign texts made short and visible; nil: there was none.
func (l *last) shown() *Moment {
	l.mu.Lock()
	m := l.m
	l.mu.Unlock()
	if m.At.IsZero() {
		return nil
	}
	m.EventID, m.Reason = shown(m.EventID), shown(m.Reason)
	return &m
}

// Moment is one request that was accepted or refused.
type Moment struct {
	At         time.Time `json:"at"`
	DeliveryID string    `json:"delivery_id"`
	EventID    string    `json:"event_id,omitempty"` // once verified
	SecretID   string    `json:"secret_id,omitempty"`
	Outcome    string    `json:"outcome"`
	Reason     string    `json:"reason,omitempty"`
}

// SourceHistory is what GET /sources of the operations listener says of a source since the start.
type SourceHistory struct {
	Source       string  `json:"source"` // _unknown: requests for no source
	LastAccepted *Moment `json:"last_accepted"`
	LastRefused  *Moment `json:"last_refused"`
}

// History returns the last acceptance and the last refusal of each source, and last of requests for none.
func (s *Service) History() []SourceHistory {
	hs := make([]SourceHistory, 0, len(s.sources)+1)
	for _, name := range slices.Sorted(maps.Keys(s.sources)) {
		h := &s.sources[name].history
		hs = append(hs, SourceHistory{name, h.accepted.shown(), h.refused.shown()})
	}
	return append(hs, SourceHistory{Source: unknownSource, LastRefused: s.strays.refused.shown()})
}

// Pages are what the operations listener serves besides health and metrics.
func (s *Service) Pages() map[string]http.Handler {
	return map[string]http.Handler{"GET /sources": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_ = json.NewEncoder(w).Encode(s.History())
	})}
}

// shown makes foreign text short and visible.
func shown(text string) string {
	q := strconv.QuoteToGraphic(cut(text))
	return q[1 : len(q)-1]
}

// linesASecond is how many refusals are logged in a second, of verified requests and of others. The rest are counted in
// one line: an attack neither fills the disk, nor hides what became of genuine events.
const linesASecond = 500

// sampler says which refusals are logged.
type sampler struct {
	mu     sync.Mutex
	second int64
	lines  int
	held   int
}

// take says whether one more line may be logged now, and how many were held back in the seconds before.
func (s *sampler) take(now time.Time) (ok bool, held int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if second := now.Unix(); second != s.second {
		held, s.second, s.lines, s.held = s.held, second, 0, 0
	}
	if s.lines >= linesASecond {
		s.held++
		return false, held
	}
	s.lines++
	return true, held
}

// logRefusal writes one line a refusal, at most linesASecond.
func (s *Service) logRefusal(genuine bool, attrs []slog.Attr) {
	sampled := &s.sampled.other
	if genuine {
		sampled = &s.sampled.genuine
	}
	ok, held := sampled.take(s.now())
	if held > 0 {
		s.log.Warn("refusals were not logged one by one", slog.Int("count", held))
	}
	if ok {
		s.log.LogAttrs(context.Background(), slog.LevelWarn, "refused", attrs...)
	}
}
