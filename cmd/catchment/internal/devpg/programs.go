package devpg

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// CacheEnv names the folder in which fetched servers are kept; filled beforehand, nothing is fetched.
const CacheEnv = "CATCHMENT_POSTGRES_CACHE"

// oldestMajor is the oldest Postgres that is taken from the machine.
const oldestMajor = 13

// fetched lists the servers that can be fetched; the first is taken for a new data folder.
var fetched = []embeddedpostgres.PostgresVersion{
	embeddedpostgres.V17, embeddedpostgres.V18, embeddedpostgres.V16, embeddedpostgres.V15, embeddedpostgres.V14, embeddedpostgres.V13,
}

// programs is a folder with initdb and postgres.
type programs struct {
	dir   string
	major string
}

func (p programs) path(name string) string { return filepath.Join(p.dir, name) }

// findPrograms returns the server programs for a data folder of the given major version (empty: a new one). The
// machine's own come first; else they are fetched.
func findPrograms(ctx context.Context, o *Options, acc account, major string) (programs, error) {
	if !o.NoPath {
		for _, dir := range installed() {
			p, err := inspect(ctx, dir)
			if ctx.Err() != nil {
				return programs{}, ctx.Err()
			}
			if err != nil || (major != "" && p.major != major) {
				continue
			}
			if n, err := strconv.Atoi(p.major); err != nil || n < oldestMajor || acc.runs(ctx, p) != nil {
				if ctx.Err() != nil {
					return programs{}, ctx.Err()
				}
				continue
			}
			return p, nil
		}
	}
	for _, v := range fetched {
		if m, _, _ := strings.Cut(string(v), "."); major == "" || m == major {
			return fetch(ctx, o, acc, v)
		}
	}
	return programs{}, fmt.Errorf("%s was made by Postgres %s, which is neither on PATH nor can be fetched: install it", o.Dir, major)
}

// installed lists the folders where a server may be, best first.
func installed() []string {
	var dirs []string
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin",
		"/Applications/Postgres.app/Contents/Versions/latest/bin",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		slices.Sort(found)
		slices.Reverse(found)
		dirs = append(dirs, found...)
	}
	return dirs
}

var versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// inspect asks the programs in dir for their version.
func inspect(ctx context.Context, dir string) (programs, error) {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return programs{}, err
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return programs{}, fmt.Errorf("version of %s: %w", filepath.Join(dir, "postgres"), err)
	}
	m := versionText.FindSubmatch(out)
	if m == nil {
		return programs{}, fmt.Errorf("version of %s: unexpected answer %q", filepath.Join(dir, "postgres"), out)
	}
	return programs{dir: dir, major: string(m[1])}, nil
}

// fetch returns the programs of one version, fetched and unpacked on first use.
func fetch(ctx context.Context, o *Options, acc account, v embeddedpostgres.PostgresVersion) (programs, error) {
	cache := o.CacheDir
	if cache == "" {
		cache = os.Getenv(CacheEnv)
	}
	if cache == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return programs{}, fmt.Errorf("folder for a fetched Postgres: %w; name one in %s", err, CacheEnv)
		}
		cache = filepath.Join(base, "catchment", "postgres")
	}
	cache, err := filepath.Abs(cache)
	if err != nil {
		return programs{}, fmt.Errorf("folder for a fetched Postgres: %w", err)
	}
	home := cache
	if acc.drop { // the cache is often below root's own folder, where the account may not go
		if home, err = o.stateDir(); err != nil {
			return programs{}, err
		}
	}
	p, err := unpacked(ctx, o, v, cache, filepath.Join(home, fmt.Sprintf("postgres-%s-%s-%s", v, runtime.GOOS, runtime.GOARCH)))
	if err != nil {
		return programs{}, err
	}
	return p, acc.runs(ctx, p)
}

// unpacked makes sure that dest holds the programs. What is not in the cache is fetched by the library.
func unpacked(ctx context.Context, o *Options, v embeddedpostgres.PostgresVersion, cache, dest string) (programs, error) {
	bin := filepath.Join(dest, "bin")
	if p, err := inspect(ctx, bin); err == nil {
		return p, nil
	}
	if ctx.Err() != nil { // which is why they did not answer
		return programs{}, ctx.Err()
	}
	if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
		return programs{}, fmt.Errorf("folder for a fetched Postgres: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dest), ".unpack-")
	if err != nil {
		return programs{}, fmt.Errorf("folder for a fetched Postgres: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	if err := unpack(ctx, o, v, cache, tmp); err != nil {
		return programs{}, err
	}
	if _, err := inspect(ctx, filepath.Join(tmp, "server", "bin")); err != nil {
		if ctx.Err() != nil {
			return programs{}, ctx.Err()
		}
		return programs{}, damaged(cache, v, err)
	}
	if _, err := inspect(ctx, bin); err != nil && ctx.Err() == nil { // half unpacked by an earlier run
		if err := os.RemoveAll(dest); err != nil {
			return programs{}, fmt.Errorf("remove a half unpacked Postgres: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(tmp, "server"), 0o755); err != nil {
		return programs{}, fmt.Errorf("unpack Postgres %s: %w", v, err)
	}
	if err := os.Rename(filepath.Join(tmp, "server"), dest); err != nil {
		if p, inspectErr := inspect(ctx, bin); inspectErr == nil { // another process was quicker
			return p, nil
		}
		return programs{}, fmt.Errorf("unpack Postgres %s: %w", v, err)
	}
	return inspect(ctx, bin)
}

// archives is the pattern of one version's archive in the cache.
func archives(cache string, v embeddedpostgres.PostgresVersion) string {
	return filepath.Join(cache, "embedded-postgres-binaries-*-"+string(v)+".txz")
}

// damaged says that the archive in the cache is no good.
func damaged(cache string, v embeddedpostgres.PostgresVersion, err error) error {
	name := archives(cache, v)
	if found, globErr := filepath.Glob(name); globErr == nil && len(found) > 0 {
		name = found[0]
	}
	return fmt.Errorf("%s cannot be unpacked to a Postgres that runs, it may be damaged: delete it and start again, and it is fetched anew (%w)", name, err)
}

// unpack lets the library fetch (when the cache does not hold it) and unpack the server below tmp. The library can
// only do that on the way to a running database; its data folder is put where none can be, so that it ends there.
func unpack(ctx context.Context, o *Options, v embeddedpostgres.PostgresVersion, cache, tmp string) error {
	blocker := filepath.Join(tmp, "no-data")
	if err := os.WriteFile(blocker, nil, 0o600); err != nil {
		return fmt.Errorf("unpack Postgres %s: %w", v, err)
	}
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	cached, err := filepath.Glob(archives(cache, v))
	if err != nil {
		return fmt.Errorf("unpack Postgres %s: %w", v, err)
	}
	doing := "unpacking Postgres " + string(v)
	if len(cached) == 0 {
		doing = fmt.Sprintf("no fitting Postgres on this machine: fetching version %s, about 15 MB, once (kept in %s)", v, cache)
	}
	stop := ticking(o.Progress, doing)
	defer stop()
	err = embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(v).CachePath(cache).Port(port).Logger(io.Discard).
		RuntimePath(filepath.Join(tmp, "run")).
		BinariesPath(filepath.Join(tmp, "server")).
		DataPath(filepath.Join(blocker, "data"))).Start()
	if _, statErr := os.Stat(filepath.Join(tmp, "server", "share")); statErr != nil {
		if len(cached) > 0 {
			return damaged(cache, v, err)
		}
		return fmt.Errorf("there is no Postgres on PATH, and fetching version %s failed: %w; install Postgres, "+
			"or set postgres.embedded: false and postgres.url to a server of yours", v, err)
	}
	return nil
}

// ticking says what is being done, and again every five seconds with the time it has taken.
func ticking(progress func(string, ...any), doing string) (stop func()) {
	progress("%s …", doing)
	start, done := time.Now(), make(chan struct{})
	go func() {
		t := time.NewTicker(5 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-done:
				return
			case <-t.C:
				progress("%s … %d s", doing, int(time.Since(start).Seconds()))
			}
		}
	}()
	return func() { close(done) }
}

// freePort returns a port that nobody listens on now.
func freePort(ctx context.Context) (uint32, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer func() { _ = l.Close() }()
	return uint32(l.Addr().(*net.TCPAddr).Port), nil
}
