//go:build mutant

package mutant

import (
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// Built says whether this build can be mutated.
const Built = true

// Env names the variable that chooses a mutation.
const Env = "CATCHMENT_MUTANT"

// EnvClock names the variable that says by how much this machine's clock is wrong, where a mutation asks it: "-24h".
const EnvClock = "CATCHMENT_MUTANT_CLOCK"

var chosen atomic.Pointer[Mutant]

// On says whether a mutation is chosen: by Choose, or else by Env. A value of Env that is wrong ends the process: a test
// must not go on without its mutation.
func On(m Mutant) bool {
	c := chosen.Load()
	if c == nil {
		name := Mutant(os.Getenv(Env))
		if name != "" && !slices.Contains(All(), name) {
			fmt.Fprintf(os.Stderr, "mutant: %s=%q: expected one of %v\n", Env, name, All())
			os.Exit(2) //nolint:forbidigo // a build for tests only, which must not run without its mutation
		}
		chosen.CompareAndSwap(nil, &name)
		c = chosen.Load()
	}
	return *c == m
}

// Choose chooses another mutation; empty: none.
func Choose(m Mutant) { chosen.Store(&m) }

// Now is the time of this machine's clock, as wrong as EnvClock says.
func Now() time.Time {
	off, err := time.ParseDuration(os.Getenv(EnvClock))
	if err != nil {
		off = 0
	}
	return time.Now().Add(off)
}
