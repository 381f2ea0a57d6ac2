//go:build race

package ingress

// raceEnabled says that the race detector makes everything several times slower.
const raceEnabled = true
