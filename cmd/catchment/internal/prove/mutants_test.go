//go:build mutant

package prove

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/nemesis"
	"github.com/catchment-dev/catchment/pkg/mutant"
)

// TestCases holds that each mutation has a case, of faults that there are, and checks that are to notice.
func TestCases(t *testing.T) {
	kinds := caseKinds()
	var of []mutant.Mutant
	for _, c := range Cases() {
		require.NoError(t, nemesis.Check(c.Plan, kinds), c.Mutant)
		require.NotEmpty(t, c.Checks, c.Mutant)
		of = append(of, c.Mutant)
	}
	require.Equal(t, mutant.All(), of)
	require.ErrorContains(t, nemesis.Check([]nemesis.Slot{{at(0, 1, "postgres-eaten", "")}}, kinds), "no fault")
	require.ErrorContains(t, nemesis.Check([]nemesis.Slot{{at(0, 1, "commit-lost", "processor-7")}}, kinds), "no target")
}
