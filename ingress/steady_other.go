//go:build !linux

package ingress

import "time"

// steadyClock returns a clock that nobody sets, and whether it goes on while the machine sleeps.
func steadyClock() (read func() time.Duration, sleeps bool) { return monotonic, false }
