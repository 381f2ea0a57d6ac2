package run

import (
	"math"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLimitMemory(t *testing.T) {
	limit, percent := debug.SetMemoryLimit(-1), debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetMemoryLimit(limit); debug.SetGCPercent(percent) })
	now := func() (bytes int64, garbage int) {
		garbage = debug.SetGCPercent(100)
		return debug.SetMemoryLimit(-1), garbage
	}
	for _, c := range []struct {
		gomemlimit, gogc string
		bytes            int64
		garbage          int
	}{{"", "", 1 << 30, 300}, {"2GiB", "", math.MaxInt64, 300}, {"", "50", 1 << 30, 100}, {"2GiB", "50", math.MaxInt64, 100}} {
		debug.SetMemoryLimit(math.MaxInt64)
		t.Setenv("GOMEMLIMIT", c.gomemlimit)
		t.Setenv("GOGC", c.gogc)
		LimitMemory(1<<30, 300)
		bytes, garbage := now()
		require.Equal(t, c.bytes, bytes, c)
		require.Equal(t, c.garbage, garbage, c)
	}
	t.Setenv("GOGC", "")
	LimitMemory(1<<30, 0)
	_, garbage := now()
	require.Equal(t, 100, garbage)
}
