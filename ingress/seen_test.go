package ingress

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

func discard() *slog.Logger          { return slog.New(slog.DiscardHandler) }
func registry() *prometheus.Registry { return prometheus.NewRegistry() }

func TestGenerationsAreBounded(t *testing.T) {
	g := newGenerations[int](100, time.Minute)
	now := time.Unix(1_795_000_000, 0)
	key := func(i int) (k seenKey) { binary.BigEndian.PutUint64(k[:], uint64(i)); return k }
	for i := range 10_000 {
		g.put(key(i), i, now)
		require.LessOrEqual(t, len(g.young)+len(g.old), 100)
	}
	v, ok := g.get(key(9_999), now)
	require.True(t, ok)
	require.Equal(t, 9_999, v)
	_, ok = g.get(key(0), now)
	require.False(t, ok, "pushed out")
	_, ok = g.get(key(9_999), now.Add(29*time.Second))
	require.True(t, ok)
	_, ok = g.get(key(9_999), now.Add(2*time.Minute))
	require.False(t, ok, "too old")
	g.put(key(1), 1, now)
	_, ok = g.get(key(1), now.Add(-time.Hour))
	require.False(t, ok, "a clock that was set back forgets")
}

// TestKeysTellDeliveriesApart: whatever differs makes another key; keys of one process mean nothing to another, and those
// that ingresses share are the same in all.
func TestKeysTellDeliveriesApart(t *testing.T) {
	for _, h := range []*hasher{nil, newHasher()} {
		body := bytes.Repeat([]byte("b"), 2048)
		seen := map[seenKey]string{}
		add := func(what string, scope [32]byte, source, id string, body []byte) {
			k := newSighting(h, scope, source, id, body, false).event
			require.NotContains(t, seen, k, what)
			seen[k] = what
			require.Equal(t, k, newSighting(h, scope, source, id, bytes.Clone(body), false).event)
		}
		add("all", [32]byte{1}, "source", "id", body)
		add("scope", [32]byte{2}, "source", "id", body)
		add("source", [32]byte{1}, "sourcei", "d", body)
		add("id", [32]byte{1}, "source", "id2", body)
		add("long id", [32]byte{1}, "source", strings.Repeat("i", 512), body)
		add("end", [32]byte{1}, "source", "id", body[1:])
		for i := range len(body) * 8 {
			body[i/8] ^= 1 << (i % 8)
			add("bit "+strconv.Itoa(i), [32]byte{1}, "source", "id", body)
			body[i/8] ^= 1 << (i % 8)
		}
	}
	key := func(h *hasher) seenKey {
		return newSighting(h, [32]byte{1}, "source", "id", []byte("body"), false).event
	}
	require.NotEqual(t, key(newHasher()), key(newHasher()))
	require.Equal(t, key(nil), key(nil))
}

// TestWhatWasLookedUpBeforeALossIsNotAdded: its acknowledgement may be among what was lost.
func TestWhatWasLookedUpBeforeALossIsNotAdded(t *testing.T) {
	r := newRecent(100, time.Minute, true, newMetrics(registry()))
	now := time.Unix(1_795_000_000, 0)
	s := newSighting(r.hasher(), [32]byte{1}, "s", "id", []byte("body"), false)
	require.False(t, r.look(&s, now).seen)
	r.forget(s.scope)
	r.add(&s, now)
	require.False(t, r.look(&s, now).seen)
	r.add(&s, now)
	require.True(t, r.look(&s, now).seen)
}

// TestReplaySuspect: an ID that no signature covers can be replaced by whoever saw a delivery; a provider may also send
// real twins. They are enqueued, with a flag.
func TestReplaySuspect(t *testing.T) {
	for _, store := range []string{"memory", "off"} {
		t.Run(store, func(t *testing.T) {
			h := start(t, kafkatest.New(t), "20s", ", dedup: {store: "+store+"}")
			h.ready()
			send := func(id string) {
				s := sampleOf("github", 1)
				s.ID = id
				require.Equal(t, "accepted", h.answer("github", "github", githubSecret, s))
			}
			send("10000000-0000-4000-8000-000000000000")
			send("20000000-0000-4000-8000-000000000000")
			send("30000000-0000-4000-8000-000000000000")
			got := h.deliveries()
			for id, suspect := range map[string]bool{"10000000": false, "20000000": true, "30000000": true} {
				ds := got["github "+id+"-0000-4000-8000-000000000000"]
				require.Len(t, ds, 1)
				require.Equal(t, suspect, ds[0].Verdict.Has(event.FlagReplaySuspect), id)
			}
			// The same body with its own ID signed is another matter: Stripe's IDs stand in the body.
			require.Equal(t, "accepted", h.answer("stripe", "stripe", stripeSecret, sampleOf("stripe", 1)))
			if store == "off" {
				require.Equal(t, "accepted", h.answer("stripe", "stripe", stripeSecret, sampleOf("stripe", 1)))
			}
		})
	}
}
