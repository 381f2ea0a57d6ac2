package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

var mutation = regexp.MustCompile(`(?i)` + module + `/\S*mutant`)

// TestNoMutants wants nothing of a mutation in a program that is shipped: not its name, not what it does, not the variable that
// chooses it. The same look at a mutated build shows that it would find them.
func TestNoMutants(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	look := func(pkg string, args ...string) (symbols [][]byte, variable bool) {
		program := filepath.Join(dir, "program")
		out, err := exec.Command("go", append(append([]string{"build", "-o", program}, args...), pkg)...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		names, err := exec.Command("go", "tool", "nm", program).Output()
		require.NoError(t, err)
		content, err := os.ReadFile(program)
		require.NoError(t, err)
		return mutation.FindAll(names, 5), bytes.Contains(content, []byte("CATCHMENT_MUTANT"))
	}
	for _, pkg := range []string{".", "../../ingress/cmd/ingress", "../../processor/cmd/processor", "../../archiver/cmd/archiver"} {
		symbols, variable := look(pkg)
		require.Empty(t, symbols, "%s: %q", pkg, symbols)
		require.False(t, variable, pkg)
	}
	symbols, variable := look("../../ingress/cmd/ingress", "-tags", "mutant")
	require.NotEmpty(t, symbols)
	require.True(t, variable)
}
