package workload

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
	"github.com/catchment-dev/catchment/pkg/run"
)

// The forgeries.
const (
	wrongSecret = "wrong secret"
	unsigned    = "unsigned"
	expired     = "expired"
	future      = "future"
	crossSource = "another source's secret"
	altered     = "body altered after signing"
	oldSecret   = "secret that is no longer valid"
)

// forge sends a request that must be refused, with bytes that no genuine one has. Now and then it claims the ID of a genuine
// event that comes right behind it.
func (w *workload) forge(ctx context.Context, h happening, r *rand.Rand) {
	h.pad = random(r, 30) + "-forged"
	h.poison = ""
	if r.IntN(3) > 0 {
		h.id = "forged-" + h.id
	}
	forgery := w.forgeryFor(h.source, r)
	t := h.write(0)
	url := w.o.URLs[r.IntN(len(w.o.URLs))]
	header, err := w.forgedHeader(&h, &t, forgery, target(url, h.source))
	if err != nil {
		w.fail(err)
		return
	}
	a := h.attempt(&t, journal.Forged)
	a.Forgery, a.Parts, a.Entity, a.Version = forgery, nil, "", 0
	w.progress.Forged.Add(1)
	w.post(ctx, a, t.body, url, header)
}

// forgeryFor picks a forgery that the source's scheme can tell.
func (w *workload) forgeryFor(s *source, r *rand.Rand) string {
	kinds := []string{wrongSecret, unsigned, crossSource, altered}
	if s.stamped {
		kinds = append(kinds, expired, future)
	}
	s.mu.RLock()
	if s.old != "" {
		kinds = append(kinds, oldSecret, oldSecret)
	}
	s.mu.RUnlock()
	return kinds[r.IntN(len(kinds))]
}

func (w *workload) forgedHeader(h *happening, t *text, forgery, url string) (http.Header, error) {
	secret, at := h.source.secret(), time.Now()
	switch forgery {
	case wrongSecret:
		secret = newSecret(h.source.preset.Name, rand.New(rand.NewPCG(w.o.Seed, 1<<61)))
	case expired:
		at = at.Add(-time.Hour)
	case future:
		at = at.Add(time.Hour)
	case oldSecret:
		h.source.mu.RLock()
		secret = h.source.old
		h.source.mu.RUnlock()
	case crossSource:
		secret = w.anothers(h.source)
	case altered:
		signed := *t
		signed.body = append([]byte(nil), t.body...)
		t.body[len(t.body)-3] ^= 1 // within the padding
		return h.sign(secret, &signed, url, at)
	}
	header, err := h.sign(secret, t, url, at)
	if forgery == unsigned {
		for name := range header {
			if n := strings.ToLower(name); strings.Contains(n, "signature") || strings.Contains(n, "hmac") {
				header.Del(name)
			}
		}
	}
	return header, err
}

// anothers is the secret of another source, in a form that the scheme takes.
func (w *workload) anothers(s *source) string {
	for _, other := range w.cast.sources {
		if other != s && other.preset.Name != "standard-webhooks" && s.preset.Name != "standard-webhooks" {
			return other.secret()
		}
	}
	// Standard Webhooks wants base64; that of another source is no base64 but by chance.
	return newSecret(s.preset.Name, rand.New(rand.NewPCG(w.o.Seed, 1<<60)))
}

// rotate changes the secrets of one source after the other, while it is in use: the provider goes over to the second secret,
// which the ingress knows already; then the first one is replaced, and is a forger's from then on.
func (w *workload) rotate(ctx context.Context) {
	var retiring sync.WaitGroup
	defer retiring.Wait()
	for n := 0; w.o.Rotate > 0 && run.Pause(ctx, w.o.Rotate); n++ {
		s := w.cast.sources[n%len(w.cast.sources)]
		s.mu.Lock()
		before := s.using
		s.using = 1 - before
		retired := s.slots[before]
		s.mu.Unlock()
		// What was signed with the first one may still be on its way.
		if !run.Pause(ctx, w.o.Timeout) {
			return
		}
		if err := w.cast.put(s, before, newSecret(s.preset.Name, rand.New(rand.NewPCG(w.o.Seed, 1<<59+uint64(n))))); err != nil {
			w.fail(err)
			return
		}
		if err := w.o.Journal.Invoke(journal.Attempt{Source: s.name, Number: w.attempts.Add(1), At: time.Now(), Kind: journal.Rotation}); err != nil {
			w.fail(err)
			return
		}
		w.progress.Rotations.Add(1)
		retiring.Go(func() {
			if run.Pause(ctx, w.o.Settle) {
				s.mu.Lock()
				s.old = retired
				s.mu.Unlock()
			}
		})
	}
}
