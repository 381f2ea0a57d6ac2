package run

import (
	"os"
	"runtime/debug"
)

// LimitMemory tells Go's garbage collector how many bytes the program needs, without which its heap may grow to a multiple of
// what is in use, and how much garbage may gather below that, in percent of what is in use; 0: Go's own 100.
// GOMEMLIMIT and GOGC in the environment stand. It is for a process of its own: a main calls it.
func LimitMemory(bytes int64, garbage int) {
	if garbage > 0 && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes)
	}
}
