//go:build synctests && mutant

package simtest

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/mutant"
)

func fault(kind, target string, at, lasts float64, n int) Fault {
	s := float64(time.Second)
	return Fault{Kind: kind, Target: target, At: time.Duration(at * s), For: time.Duration(lasts * s), N: n}
}

// showing are the faults that show each mutation; none: it shows in calm.
var showing = map[mutant.Mutant][]Fault{
	mutant.M1:  {fault("requests held", "ingress0", 5, 20, 1), fault("killed", "ingress0", 12, 3, 1)},
	mutant.M2:  {fault("two brokers down", "", 5, 45, 1)},
	mutant.M3:  {fault("two brokers down", "", 5, 12, 1)},
	mutant.M4:  {fault("COMMIT lost", "", 3, 30, 12)},
	mutant.M5:  {fault("statements held", "processor0", 6, 8.4, 1), fault("cut from Kafka", "processor0", 8, 14, 1)},
	mutant.M6:  nil,
	mutant.M7:  nil,
	mutant.M8:  {fault("COMMIT lost", "", 3, 30, 12)},
	mutant.M9:  nil,
	mutant.M11: {fault("store refuses tomorrow", "", 29, 20, 1), fault("killed", "archiver0", 45, 8, 1), fault("killed", "archiver1", 46, 8, 1)},
	mutant.M12: nil,
	mutant.M13: nil,
	mutant.M14: {fault("two brokers down", "", 5, 45, 1)},
	mutant.M15: {fault("killed", "processor0", 6, 24, 1), fault("killed", "processor1", 6, 24, 1), fault("retention overtakes", "", 28, 1, 1)},
	mutant.M16: {fault("Postgres restarted", "", 8, 4, 1), fault("Postgres resets", "processor0", 14, 10, 20), fault("Postgres resets", "processor1", 14, 10, 20)},
	mutant.M17: nil,
	mutant.M18: nil,
}

// caught says what gives a mutation away. Retention that overtakes the processor loses events also in a sound build,
// which halts the partition and says so.
func caught(m mutant.Mutant, v *Verdict) string {
	for _, w := range v.Wrong {
		if m == mutant.M15 && (len(v.Halted) > 0 || !strings.HasPrefix(w, "1 ")) {
			continue
		}
		return w
	}
	return ""
}

func scenario(m mutant.Mutant) Scenario {
	return Scenario{Events: 40, Faults: showing[m], Calm: showing[m] == nil}
}

// TestMutants lets each mutation be caught, by the seed that is the first to do so, and the same run of the same build
// without it be clean.
func TestMutants(t *testing.T) {
	t.Cleanup(func() { mutant.Choose("") })
	const most = 12
	for _, m := range mutant.All() {
		if m == mutant.M10 { // the store is a folder here, in which nobody hangs: archiver/internal/objstore has its test
			continue
		}
		t.Run(string(m), func(t *testing.T) {
			for seed := uint64(1); ; seed++ {
				require.LessOrEqual(t, seed, uint64(most), "no seed has caught it")
				mutant.Choose(m)
				v := simulate(t, seed, scenario(m))
				why := caught(m, v)
				if why == "" {
					continue
				}
				t.Logf("seed %d: %s", seed, why)
				mutant.Choose("")
				sound := simulate(t, seed, scenario(m))
				require.Empty(t, caught(m, sound), "%s", sound)
				if m == mutant.M15 {
					require.NotEmpty(t, sound.Halted, "%s", sound)
				}
				return
			}
		})
	}
}

// TestReplay finds seeds that fail, of those that draw their own faults, and lets each fail ten times of ten.
func TestReplay(t *testing.T) {
	t.Cleanup(func() { mutant.Choose("") })
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // as where TestSimulate runs seeds
	for _, m := range []mutant.Mutant{mutant.M2, mutant.M9, mutant.M17} {
		t.Run(string(m), func(t *testing.T) {
			mutant.Choose(m)
			seed := uint64(1)
			first := simulate(t, seed, Scenario{})
			for ; len(first.Wrong) == 0; first = simulate(t, seed, Scenario{}) {
				seed++
				require.Less(t, seed, uint64(60), "no seed has caught it")
			}
			for range 10 {
				v := simulate(t, seed, Scenario{})
				require.NotEmpty(t, v.Wrong, "%s", v)
				require.Equal(t, slices.Sorted(slices.Values(first.Story)), slices.Sorted(slices.Values(v.Story)), "the faults are the seed's")
			}
			t.Logf("seed %d: %s", seed, first.Wrong[0])
		})
	}
}
