//go:build mutant

package objstore

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/mutant"
)

// TestMutantReplaces shows that the tests of Create would notice M10, and that the probe at the start does not.
func TestMutantReplaces(t *testing.T) {
	t.Cleanup(func() { mutant.Choose("") })
	s, err := Open(t.Context(), "file://"+t.TempDir())
	require.NoError(t, err)
	mutant.Choose("")
	require.NoError(t, s.Create(t.Context(), "a", []byte("first")))
	require.ErrorIs(t, s.Create(t.Context(), "a", []byte("second")), ErrExists)
	mutant.Choose(mutant.M10)
	require.NoError(t, Probe(t.Context(), s))
	require.NoError(t, s.Create(t.Context(), "a", []byte("second")))
	got, err := s.Read(t.Context(), "a", 0, -1)
	require.NoError(t, err)
	require.Equal(t, "second", string(got))
}
