package nemesis

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// first are the first faults of a seed's schedule, a line a slot.
func first(seed uint64, kinds []Kind, most, n int) (lines []string, slots []Slot) {
	faults := 0
	for slot := range Schedule(seed, kinds, most) {
		lines, slots = append(lines, slot.String()), append(slots, slot)
		if faults += len(slot); faults >= n {
			break
		}
	}
	return lines, slots
}

func TestScheduleIsItsSeed(t *testing.T) {
	kinds := Kinds()
	a, _ := first(7, kinds, Triples, 2000)
	b, _ := first(7, Kinds(), Triples, 2000)
	require.Equal(t, a, b)
	other, _ := first(8, kinds, Triples, 2000)
	require.NotEqual(t, a, other)
	short, _ := first(7, kinds, Triples, 60)
	require.Equal(t, a[:len(short)], short, "a longer run begins as a shorter one does")
}

func TestSchedule(t *testing.T) {
	kinds := Kinds()
	_, slots := first(1, kinds, Triples, 3000)
	sizes, number, seen, once := map[int]int{}, 0, map[string]bool{}, 0
	for _, slot := range slots {
		sizes[len(slot)]++
		var taken []string
		for _, f := range slot {
			number++
			require.Equal(t, number, f.Number)
			k := kinds[slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == f.Kind })]
			require.False(t, clash(taken, k.Needs), "%s breaks what is broken", slot)
			taken = append(taken, k.Needs...)
			require.GreaterOrEqual(t, f.Length, k.Min)
			require.LessOrEqual(t, f.Length, k.Max)
			if len(k.Targets) > 0 {
				require.Contains(t, k.Targets, f.Target)
			}
			if k.Once {
				once++
			}
			if number <= len(kinds) {
				require.False(t, seen[f.Kind], "%s comes again before all have come", f.Kind)
			}
			seen[f.Kind] = true
		}
	}
	require.Len(t, seen, len(kinds))
	require.Equal(t, 1, once)
	for seed := range uint64(50) {
		_, early := first(seed, kinds, Triples, 60)
		vital := 0
		for _, slot := range early {
			for _, f := range slot {
				if kinds[slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == f.Kind })].Vital {
					vital++
					require.Len(t, slot, 1, "%s is to be seen by itself", f)
				}
			}
		}
		require.Equal(t, vitals(kinds), vital, "seed %d", seed)
	}
	for n := 1; n <= 3; n++ {
		require.Greater(t, sizes[n], 100, "slots of %d", n)
	}
	require.Zero(t, sizes[Triples+1])
	_, crowded := first(1, kinds, 6, 3000)
	require.Less(t, len(crowded), len(slots)*2/3)
	_, alone := first(1, kinds, 1, 300)
	require.Len(t, alone, 300)
}

func vitals(kinds []Kind) (n int) {
	for _, k := range kinds {
		if k.Vital {
			n++
		}
	}
	return n
}

func TestKinds(t *testing.T) {
	names := map[string]bool{}
	for _, k := range Kinds() {
		require.False(t, names[k.Name], k.Name)
		names[k.Name] = true
		require.NotEmpty(t, k.What, k.Name)
		require.NotEmpty(t, k.Needs, k.Name)
		require.NotNil(t, k.begin, k.Name)
		require.Positive(t, k.Min, k.Name)
		require.GreaterOrEqual(t, k.Max, k.Min, k.Name)
		require.LessOrEqual(t, k.Max.Seconds(), 15.0, "%s is bounded", k.Name)
		require.Equal(t, strings.ToLower(k.Name), k.Name)
	}
	require.GreaterOrEqual(t, len(names), 30)
	document, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "..", "docs", "reliability.md"))
	require.NoError(t, err)
	for _, k := range Kinds() {
		require.Contains(t, string(document), "| `"+k.Name+"` | "+k.What+" |", "catchment prove --list has the line for docs/reliability.md")
	}
}

func TestChoose(t *testing.T) {
	all, err := Choose(nil)
	require.NoError(t, err)
	two, err := Choose([]string{"store-kill", "broker-kill"})
	require.NoError(t, err)
	require.Len(t, two, 2)
	rest, err := Choose([]string{"-store-kill"})
	require.NoError(t, err)
	require.Len(t, rest, len(all)-1)
	_, err = Choose([]string{"meteor"})
	require.ErrorContains(t, err, fmt.Sprintf("%q", "meteor"))
}
