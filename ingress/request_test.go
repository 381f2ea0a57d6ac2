package ingress

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// TestASmallBodyLiesInKeptMemory: it is charged for all of it; what does not fit gets memory of its own.
func TestASmallBodyLiesInKeptMemory(t *testing.T) {
	b := &budget{limit: 1 << 20, gauge: prometheus.NewGauge(prometheus.GaugeOpts{Name: "x"})}
	space := make([]byte, 0, keptBody)
	for n, inside := range map[int]bool{0: true, 1: true, keptBody - 1: true, keptBody: false, 3 * keptBody: false} {
		want := strings.Repeat("b", n)
		body, held, err := b.read(strings.NewReader(want), int64(n), 1<<16, space)
		require.NoError(t, err)
		require.Equal(t, want, string(body))
		require.Equal(t, inside, &body[:1][0] == &space[:1][0], n)
		charge := int64(n) + 1 + requestOverhead
		if inside {
			charge = keptBody + requestOverhead
		}
		require.Equal(t, charge, held)
		require.Equal(t, held, b.used.Load())
		b.give(held)
	}
	_, held, err := b.read(strings.NewReader("longer than said"), 6, 1<<16, space)
	require.ErrorIs(t, err, errTooLarge)
	b.give(held)
	require.Zero(t, b.used.Load())
}

func TestDeliveryIDs(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 123_456_789, time.UTC)
	seen := map[string]bool{}
	last := ""
	for i := range 1000 {
		text := newDeliveryID(now.Add(time.Duration(i) * time.Microsecond))
		id, err := uuid.Parse(text)
		require.NoError(t, err)
		require.Equal(t, uuid.Version(7), id.Version())
		require.Equal(t, uuid.RFC4122, id.Variant())
		sec, nsec := id.Time().UnixTime()
		require.Equal(t, now.Add(time.Duration(i)*time.Microsecond).UnixMilli(), time.Unix(sec, nsec).UnixMilli())
		require.Greater(t, text, last, "they are in the order of time")
		require.False(t, seen[text])
		seen[text], last = true, text
	}
	require.NotEqual(t, newDeliveryID(now), newDeliveryID(now))
}
