package archive_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// What is not there is made, once, and proved to be safe.
func TestEnsureMakesThePlaces(t *testing.T) {
	dir := t.TempDir()
	a := settings.Archive{URL: "file://" + dir + "/archive", CheckpointCopy: "file://" + dir + "/copy"}
	if bucket := s3test.New(t); bucket != nil {
		a.URL = strings.Replace(bucket.URL, bucket.Name, bucket.Name+"-new", 1)
	}
	made, err := archive.Ensure(t.Context(), a)
	require.NoError(t, err)
	require.Equal(t, []string{a.URL, a.CheckpointCopy}, made)
	made, err = archive.Ensure(t.Context(), a)
	require.NoError(t, err)
	require.Empty(t, made)
}

func TestEnsureSaysWhichPlaceCannotBeMade(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	a := settings.Archive{URL: "file://" + dir + "/archive", CheckpointCopy: "file://" + dir + "/file/copy"}
	made, err := archive.Ensure(t.Context(), a)
	require.ErrorContains(t, err, "archive.checkpoint_copy: ")
	require.Equal(t, []string{a.URL}, made)
}
