package config

import (
	"fmt"
	"time"
)

// ParseMoment reads a time, or how long before now it was. Without a zone it is UTC. Empty is the zero time.
func ParseMoment(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly, "2006-01-02T15:04", "2006-01-02 15:04", time.DateTime} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("expected a time such as 2026-01-31T12:00:00Z or 2026-01-31, or a duration such as 90m or 7d, found %q", text)
}
