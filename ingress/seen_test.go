package ingress

import (
	"encoding/binary"
	"log/slog"
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

// TestWhatWasLookedUpBeforeALossIsNotAdded: its acknowledgement may be among what was lost.
func TestWhatWasLookedUpBeforeALossIsNotAdded(t *testing.T) {
	r := newRecent(100, time.Minute, true, newMetrics(registry()))
	now := time.Unix(1_795_000_000, 0)
	s := newSighting([32]byte{1}, "s", "id", [32]byte{2}, false)
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
