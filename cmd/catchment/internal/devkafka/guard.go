package devkafka

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// guard notices failed fsyncs. The broker syncs each batch before it acknowledges it, but does not look at what
// fsync answers. Linux reports a failed write-back once to every open descriptor of the file, so the guard keeps its
// own descriptor of each file that is being written to and asks again. It also syncs the folders in which files
// appear, without which a power cut may lose a file's name.
type guard struct {
	dir   string
	files map[string]*watched  // by path; the newest segment and index of each partition
	seen  map[string]time.Time // folder → modification time at its last sync
}

// watched is a file that is being written to.
type watched struct {
	*os.File
	size  int64
	doubt int // checks still to make: a write seen now may be synced, and fail, after this check
}

const guardInterval = time.Second

func newGuard(dir string) *guard {
	return &guard{dir: dir, files: map[string]*watched{}, seen: map[string]time.Time{}}
}

// run checks until ctx ends.
func (g *guard) run(ctx context.Context, fail func(error)) {
	tick := time.NewTicker(guardInterval)
	defer tick.Stop()
	for {
		if err := g.check(); err != nil {
			fail(fmt.Errorf("embedded Kafka: the disk refused data that was written: %w", err))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// check syncs new names and asks every descriptor whether a write-back failed.
func (g *guard) check() error {
	if err := g.refresh(); err != nil {
		return err
	}
	for path, f := range g.files {
		info, err := f.Stat()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if info.Size() != f.size {
			f.size, f.doubt = info.Size(), 2
		}
		if f.doubt == 0 {
			continue
		}
		f.doubt--
		if err := f.Sync(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// refresh opens the files that are written to now, closes those that are no longer, and syncs changed folders.
func (g *guard) refresh() error {
	current := map[string]bool{}
	err := filepath.WalkDir(g.dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // removed in the meantime
			return nil
		}
		if err != nil {
			return err
		}
		if !e.IsDir() {
			return nil
		}
		for _, name := range newest(path) {
			current[filepath.Join(path, name)] = true
		}
		return g.syncFolder(path)
	})
	if err != nil {
		return err
	}
	for path := range current {
		if g.files[path] != nil {
			continue
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		g.files[path] = &watched{File: f, size: -1}
	}
	for path, f := range g.files {
		if !current[path] {
			_ = f.Close()
			delete(g.files, path)
		}
	}
	return nil
}

// newest returns the files of a partition's folder that are appended to: the segment and the index whose names,
// offsets in decimal, are the greatest.
func newest(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	best := map[string]string{}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if ext != ".dat" && ext != ".idx" {
			continue
		}
		if b := best[ext]; len(e.Name()) > len(b) || (len(e.Name()) == len(b) && e.Name() > b) {
			best[ext] = e.Name()
		}
	}
	return slices.Collect(maps.Values(best))
}

func (g *guard) syncFolder(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if g.seen[path].Equal(info.ModTime()) {
		return nil
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	g.seen[path] = info.ModTime()
	return nil
}

func (g *guard) close() {
	for _, f := range g.files {
		_ = f.Close()
	}
}
