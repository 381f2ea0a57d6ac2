//go:build unix

package objstore_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A limit on the size of files is what a process can set for itself that fails like a full disk.
func TestFullDiskLeavesNothingBehind(t *testing.T) {
	root := t.TempDir()
	s := open(t, "file://"+root)
	require.NoError(t, s.Create(t.Context(), "events/small", nil))
	var before syscall.Rlimit
	require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 16, Max: before.Max}))
	err := s.Create(t.Context(), "events/big", make([]byte, 1<<20))
	require.NoError(t, syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before))
	require.ErrorIs(t, err, syscall.EFBIG)
	require.NoFileExists(t, filepath.Join(root, "events", "big"))
	require.Empty(t, temporaries(t, root))
	require.NoError(t, s.Create(t.Context(), "events/big", make([]byte, 1<<20)))
}
