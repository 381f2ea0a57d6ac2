//go:build !mutant

package mutant

import "time"

// Built says whether this build can be mutated.
const Built = false

// On says whether a mutation is chosen.
func On(Mutant) bool { return false }

// Now is the time of this machine's clock.
func Now() time.Time { return time.Now() }
