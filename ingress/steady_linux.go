package ingress

import (
	"time"

	"golang.org/x/sys/unix"
)

// steadyClock returns a clock that nobody sets, and whether it goes on while the machine sleeps.
func steadyClock() (read func() time.Duration, sleeps bool) {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil { // in some sandboxes
		return monotonic, false
	}
	return func() time.Duration {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // it answered before
		return time.Duration(ts.Nano())
	}, true
}
