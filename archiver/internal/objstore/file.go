package objstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/pkg/mutant"
)

// temporary is the folder of unfinished files, beside events/ where no reader looks.
const temporary = "tmp"

// staleAfter is the age at which an unfinished file belongs to nobody. One that is wrongly removed makes its writer's
// link fail, and the writer tries again.
const staleAfter = 10 * time.Minute

// fileStore keeps objects as files in a folder. Processes on one machine can share it.
type fileStore struct{ root string }

// Make makes the folder. One that is there already is left as it is.
func (s *fileStore) Make(context.Context) (made bool, err error) {
	if _, err := os.Stat(s.root); err == nil {
		return false, nil
	}
	return true, s.makeFolder(s.root)
}

// Create writes a temporary file, makes it durable and links it to its name, which fails if the name is taken.
func (s *fileStore) Create(ctx context.Context, key string, body []byte) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	path, err := s.path(key)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := s.makeFolder(dir); err != nil {
		return err
	}
	replace := mutant.On(mutant.M10) && key != probeKey
	if _, err := os.Lstat(path); err == nil && !replace {
		return s.exists(key, dir)
	}
	temp, err := s.writeTemporary(body)
	if err != nil {
		return err
	}
	if replace {
		return os.Rename(temp, path)
	}
	err = os.Link(temp, path)
	if removed := os.Remove(temp); err == nil && removed != nil && !errors.Is(removed, fs.ErrNotExist) {
		err = removed
	}
	if errors.Is(err, fs.ErrExist) {
		return s.exists(key, dir)
	}
	if err != nil {
		return err
	}
	return syncFolder(dir)
}

// exists makes sure that the name lasts: whoever linked it may have died before that.
func (s *fileStore) exists(key, dir string) error {
	if err := syncFolder(dir); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", key, ErrExists)
}

func (s *fileStore) writeTemporary(body []byte) (name string, err error) {
	dir := filepath.Join(s.root, temporary)
	if err := s.makeFolder(dir); err != nil {
		return "", err
	}
	s.removeStale(dir)
	f, err := os.CreateTemp(dir, "*.part")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(body)
	if err == nil {
		err = f.Chmod(0o444) // nobody writes to it again
	}
	if err == nil {
		err = f.Sync()
	}
	return f.Name(), errors.Join(err, f.Close())
}

// removeStale removes what writers left behind when they were killed. What fails now is done next time.
func (s *fileStore) removeStale(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > staleAfter {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// makeFolder makes a folder and its parents within the root, each of them durable.
func (s *fileStore) makeFolder(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := s.makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(parent)
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (s *fileStore) Read(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	f, err := s.open(ctx, key)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	left := max(info.Size()-offset, 0)
	if length < 0 || length > left {
		length = left
	}
	body := make([]byte, length)
	if _, err := f.ReadAt(body, offset); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return body, nil
}

func (s *fileStore) Size(ctx context.Context, key string) (int64, error) {
	f, err := s.open(ctx, key)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (s *fileStore) open(ctx context.Context, key string) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, err := s.path(key)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", key, ErrNotFound)
	}
	return f, err
}

// List walks the deepest folder that holds all keys with the prefix, which may be a link. Byte order of keys is not the order in
// which folders are walked, so that all names are needed before the first is yielded. A link below it is yielded as an object: it is
// one to readers.
func (s *fileStore) List(ctx context.Context, prefix, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var keys []string
		folder := filepath.Join(s.root, filepath.FromSlash(prefix[:strings.LastIndexByte(prefix, '/')+1]))
		within, err := filepath.EvalSymlinks(folder)
		if err == nil {
			err = filepath.WalkDir(within, func(path string, e fs.DirEntry, err error) error {
				if err == nil {
					err = ctx.Err()
				}
				if err != nil {
					return err
				}
				key, err := s.keyOf(folder, within, path)
				switch {
				case err != nil:
					return err
				case e.IsDir() && key == temporary:
					return fs.SkipDir
				case !e.IsDir() && strings.HasPrefix(key, prefix) && key > after:
					keys = append(keys, key)
				}
				return nil
			})
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			yield("", err)
			return
		}
		slices.Sort(keys)
		for _, key := range keys {
			if !yield(key, nil) {
				return
			}
		}
	}
}

// keyOf returns the key of what was found at path within a folder of the store, which may be a link to within.
func (s *fileStore) keyOf(folder, within, path string) (string, error) {
	name, err := filepath.Rel(within, path)
	if err == nil {
		name, err = filepath.Rel(s.root, filepath.Join(folder, name))
	}
	return filepath.ToSlash(name), err
}

// Delete removes the file and makes that last.
func (s *fileStore) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	path, err := s.path(key)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = syncFolder(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// KeepsVersions says no: what snapshots and backups of the disk hold, nobody here can know.
func (s *fileStore) KeepsVersions(context.Context) (bool, error) { return false, nil }

func (s *fileStore) path(key string) (string, error) {
	local := filepath.FromSlash(key)
	if !filepath.IsLocal(local) || strings.HasPrefix(key, temporary+"/") {
		return "", fmt.Errorf("%q is not an object's key", key)
	}
	return filepath.Join(s.root, local), nil
}
