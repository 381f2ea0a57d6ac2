package segment

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOutput(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, pieces := range [][]int{nil, {0}, {1}, {len(chunk{})}, {len(chunk{}) - 1, 2}, {100, 3 * len(chunk{}), 0, 7}, {len(chunk{}), len(chunk{})}} {
		var o output
		var want []byte
		for _, size := range pieces {
			p := make([]byte, size)
			for i := range p {
				p[i] = byte(r.Uint32())
			}
			n, err := o.Write(p)
			require.NoError(t, err)
			require.Equal(t, size, n)
			want = append(want, p...)
			require.Equal(t, len(want), o.size)
		}
		got := o.bytes()
		require.True(t, bytes.Equal(want, got), "%v", pieces)
		require.Zero(t, o.size)
		_, _ = o.Write([]byte("the next file")) // into a chunk of the one before
		require.True(t, bytes.Equal(want, got), "%v: it shares its memory with the next", pieces)
	}
}
