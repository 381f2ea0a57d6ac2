//go:build unix

package objstore_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/internal/objstore"
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

// Whose disk is full moves a folder to another one and leaves a link. And a link to an object is an object to whoever reads
// the folder by a pattern.
func TestLinksAreListed(t *testing.T) {
	root, other := t.TempDir(), t.TempDir()
	s := open(t, "file://"+root)
	for _, key := range []string{"events/date=1/a", "events/date=2/b", "probe/x"} {
		require.NoError(t, s.Create(t.Context(), key, []byte(key)))
	}
	list := func(s objstore.Store, prefix string) (keys []string) {
		for key, err := range s.List(t.Context(), prefix, "") {
			require.NoError(t, err)
			keys = append(keys, key)
		}
		return keys
	}
	require.NoError(t, os.Rename(filepath.Join(root, "events"), filepath.Join(other, "moved")))
	require.NoError(t, os.Symlink(filepath.Join(other, "moved"), filepath.Join(root, "events")))
	require.Equal(t, []string{"events/date=1/a", "events/date=2/b"}, list(s, "events/"))
	require.Equal(t, []string{"events/date=2/b"}, list(s, "events/date=2"))
	require.NoError(t, s.Create(t.Context(), "events/date=2/c", nil))
	require.FileExists(t, filepath.Join(other, "moved", "date=2", "c"))
	require.NoError(t, os.Symlink(filepath.Join(other, "moved", "date=1", "a"), filepath.Join(other, "moved", "date=1", "again")))
	require.Equal(t, []string{"events/date=1/a", "events/date=1/again"}, list(s, "events/date=1/"))

	link := filepath.Join(t.TempDir(), "archive")
	require.NoError(t, os.Symlink(root, link))
	require.Len(t, list(open(t, "file://"+link), "events/"), 4)
}
