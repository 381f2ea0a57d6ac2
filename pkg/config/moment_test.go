package config

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                     {},
		"90m":                  now.Add(-90 * time.Minute),
		"7d":                   now.AddDate(0, 0, -7),
		"2026-05-01":           time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC),
		"2026-05-01 08:30":     time.Date(2026, 5, 1, 8, 30, 0, 0, time.UTC),
		"2026-05-01T08:30:00Z": time.Date(2026, 5, 1, 8, 30, 0, 0, time.UTC),
	} {
		got, err := ParseMoment(text, now)
		require.NoError(t, err, text)
		require.True(t, want.Equal(got), "%s: %s", text, got)
	}
	_, err := ParseMoment("yesterday", now)
	require.ErrorContains(t, err, "2026-01-31")
}
