package devpg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ensureData returns the real data folder, made on first use.
func ensureData(ctx context.Context, o *Options, acc account, p programs, t target) (string, error) {
	if dataVersion(o.Dir) != "" {
		real, err := filepath.EvalSymlinks(o.Dir)
		if err != nil {
			return "", fmt.Errorf("postgres data folder: %w", err)
		}
		if !acc.reaches(ctx, p, real) {
			return "", fmt.Errorf("the database runs as %s, which cannot reach %s: let it through the folders above (chmod o+x), or run catchment as another user", acc.name, real)
		}
		return real, nil
	}
	if err := vacant(o.Dir); err != nil {
		return "", err
	}
	parent := filepath.Dir(o.Dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", fmt.Errorf("postgres data folder: %w", err)
	}
	if acc.reaches(ctx, p, parent) {
		if err := initialise(ctx, o, acc, p, t, o.Dir); err != nil {
			return "", err
		}
		return filepath.EvalSymlinks(o.Dir) // by that name the server's processes are found
	}
	state, err := o.stateDir()
	if err != nil {
		return "", err
	}
	real := filepath.Join(state, "postgres-"+strings.ToLower(rand.Text()[:12]))
	if err := initialise(ctx, o, acc, p, t, real); err != nil {
		return "", err
	}
	if err := os.Symlink(real, o.Dir); err != nil {
		return "", fmt.Errorf("postgres data folder: %w", err)
	}
	o.Progress("Postgres does not run as root, and %s cannot reach %s: its data is in %s, linked from there", acc.name, parent, real)
	return real, nil
}

// vacant refuses a folder that holds something else. An empty folder is removed, so that the new one can take its
// place; a link whose target is gone is refused, since a database is missing then.
func vacant(dir string) error {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("postgres data folder: %w", err)
	case info.Mode()&os.ModeSymlink != 0:
		return fmt.Errorf("%s links to a Postgres data folder that is gone: bring it back, or remove the link to begin with an empty database", dir)
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("%s is no Postgres data folder and not empty: move it away", dir)
	}
	return nil
}

// unfinished begins the names of folders that are being made.
const unfinished = ".postgres-new-"

// sweep removes what killed runs left unfinished longer ago than age. It is no harm when it cannot.
func sweep(parent string, age time.Duration) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil && strings.HasPrefix(e.Name(), unfinished) && time.Since(info.ModTime()) >= age {
			_ = os.RemoveAll(filepath.Join(parent, e.Name()))
		}
	}
}

// initialise makes a data folder. It appears under its name only when it is complete, so that a kill in between
// leaves nothing half made.
func initialise(ctx context.Context, o *Options, acc account, p programs, t target, dir string) error {
	stop := ticking(o.Progress, "making the Postgres data folder")
	defer stop()
	sweep(filepath.Dir(dir), 10*time.Minute) // others may be at work there
	tmp, err := os.MkdirTemp(filepath.Dir(dir), unfinished)
	if err != nil {
		return fmt.Errorf("postgres data folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	fresh, passwords := filepath.Join(tmp, "data"), filepath.Join(tmp, "password")
	if err := errors.Join(os.Mkdir(fresh, 0o700), os.WriteFile(passwords, []byte(t.password+"\n"), 0o600)); err != nil {
		return fmt.Errorf("postgres data folder: %w", err)
	}
	if err := errors.Join(acc.own(tmp), acc.own(fresh), acc.own(passwords)); err != nil {
		return err
	}
	out, err := acc.command(ctx, p.path("initdb"), "-D", fresh, "-U", t.user, "--pwfile", passwords,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return fmt.Errorf("postgres data folder: %w", err)
	}
	return nil
}
