//go:build !mutant

package mutant

// Built says whether this build can be mutated.
const Built = false

// On says whether a mutation is chosen.
func On(Mutant) bool { return false }
