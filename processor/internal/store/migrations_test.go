package store

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestMigrationsAreNumbered wants one migration of each number, without a gap: two of one number stop every start.
func TestMigrationsAreNumbered(t *testing.T) {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	require.NoError(t, err)
	for i, f := range files {
		require.True(t, strings.HasPrefix(f, fmt.Sprintf("migrations/%05d_", i+1)), "%s is not the only migration of its number, or one is missing before it", f)
	}
}
