//go:build linux

package archiver

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/proctest"
)

// smallDisk gives the rig a folder on a file system of its own, where this user may mount one.
func (r *rig) smallDisk(size string) bool {
	r.Helper()
	dir := r.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		r.Logf("no file system of %s: %v", size, err)
		return false
	}
	r.Cleanup(func() { require.NoError(r, syscall.Unmount(dir, 0)) })
	r.cfg.Archive.URL = "file://" + dir
	var err error
	r.store, err = archive.Open(r.Context(), r.cfg.Archive)
	require.NoError(r, err)
	return true
}

// R44: the disk of a local archive is full, and gets room again. Where no file system can be mounted, a limit on the size
// of the archiver's files fails its writes in the same place.
func TestR44DiskFull(t *testing.T) {
	r := newRig(t, 1)
	mounted := r.smallDisk("1m")
	dir := strings.TrimPrefix(r.cfg.Archive.URL, "file://")
	p, full := r.process(r.cfg.Archive.URL), "no space left on device"
	if !mounted {
		p, full = r.limited(), "file too large"
	}
	p.Start()
	r.produce(100)
	r.judge()
	r.produce(3000) // about 3 MiB that hardly compress
	r.eventually(func() bool { return p.Said(full) > 0 }, "the disk is not full")
	noPartOfASegment(t, r)
	if mounted {
		require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=20m"))
	} else {
		p.Kill()
		p = r.process(r.cfg.Archive.URL)
		p.Start()
	}
	r.judge()
	r.everyRow()
	require.Empty(t, parts(dir))
	p.Stop()
}

// limited is the archiver with files of 1 MiB at most.
func (r *rig) limited() *proctest.Process {
	r.Helper()
	shell := filepath.Join(r.TempDir(), "limited")
	program := proctest.Build(r, "./cmd/archiver")
	require.NoError(r, os.WriteFile(shell, []byte("#!/bin/sh\nulimit -f 2048\nexec "+program+" \"$@\"\n"), 0o700)) //nolint:gosec // it is a program
	return r.processOf(shell, r.cfg.Archive.URL)
}

// R44: the archiver is killed after it has begun to write a segment, and before the segment has its name.
func TestR44KilledBeforeLink(t *testing.T) {
	r := newRig(t, 1)
	r.cfg.Archiver.SegmentAge = 100 * time.Millisecond
	dir := strings.TrimPrefix(r.cfg.Archive.URL, "file://")
	p := r.process(r.cfg.Archive.URL)
	left := 0 // behind it, of segments that have no name
	for round := 0; left == 0; round++ {
		require.Less(t, round, 100, "it was never met in time")
		p.Start()
		r.produce(2000)
		before := len(parts(dir))
		for look := 1; len(parts(dir)) == before; look++ {
			require.False(t, p.Ended())
			if look%1000 == 0 && r.archived() == r.made { // it was too fast
				r.produce(2000)
			}
		}
		p.Kill()
		noPartOfASegment(t, r)
		left = 0
		for _, e := range parts(dir) {
			if info, err := e.Info(); err == nil && info.Sys().(*syscall.Stat_t).Nlink == 1 { //nolint:forcetypeassert // this is Linux
				left++
			}
		}
	}
	p.Start()
	r.judge()
	r.everyRow()
	p.Stop()
}

// parts are the unfinished files of a local archive.
func parts(dir string) []os.DirEntry {
	entries, _ := os.ReadDir(filepath.Join(dir, "tmp"))
	return entries
}

// noPartOfASegment wants all that a reader finds to be whole.
func noPartOfASegment(t *testing.T, r *rig) {
	t.Helper()
	for s, err := range archive.Segments(t.Context(), r.store) {
		require.NoError(t, err)
		for _, err := range archive.Records(t.Context(), r.store, s.Key) {
			require.NoError(t, err)
		}
	}
}
