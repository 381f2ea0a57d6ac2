package devpg

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/proctest"
)

// openDir returns a folder that every account can reach, unlike t.TempDir, which is its owner's alone.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

func testOptions(t *testing.T, dir string) Options {
	t.Helper()
	return Options{
		Dir:      filepath.Join(dir, "postgres"),
		URL:      fmt.Sprintf("postgres://catchment:first@%s/catchment?sslmode=disable", proctest.FreeAddress(t)),
		LogFile:  filepath.Join(dir, "postgres.log"),
		StateDir: filepath.Join(openDir(t), "state"),
		Progress: t.Logf,
	}
}

func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	return s
}

// query runs statements at the URL and returns the first column of the last one's rows.
func query(t *testing.T, url, sql string) (got []string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), sql)
	require.NoError(t, err)
	got, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return got
}

func TestDataOutlivesEveryEnd(t *testing.T) {
	o := testOptions(t, openDir(t))
	s := start(t, o)
	require.Equal(t, []string{"on"}, query(t, o.URL, "SHOW fsync"))
	require.Equal(t, []string{"on"}, query(t, o.URL, "SHOW synchronous_commit"))
	require.Equal(t, []string{`public, "$user"`}, query(t, o.URL, "SHOW search_path")) // a role's own schema would hide its tables
	query(t, o.URL, "CREATE TABLE kept (v text)")
	insert := "WITH i AS (INSERT INTO kept VALUES ('x') RETURNING v) SELECT v FROM i"
	rows := 0
	add := func() { query(t, o.URL, insert); rows++ }
	check := func() {
		t.Helper()
		require.Len(t, query(t, o.URL, "SELECT v FROM kept"), rows)
	}
	add()
	require.NoError(t, s.Stop(t.Context()))

	t.Run("started again after a stop", func(*testing.T) { // the server outlives this part: it belongs to the whole test
		s = start(t, o)
		check()
		add()
	})
	t.Run("killed under us", func(*testing.T) {
		old := s.PID()
		require.NoError(t, syscall.Kill(old, syscall.SIGKILL))
		require.Eventually(t, func() bool {
			conn, err := pgx.Connect(t.Context(), o.URL)
			if err != nil {
				return false
			}
			return conn.Close(t.Context()) == nil && s.PID() != old
		}, 60*time.Second, 100*time.Millisecond)
		check()
		add()
	})
	t.Run("left behind by a killed run", func(*testing.T) {
		s.abandon()
		left := s.PID()
		s = start(t, o)
		require.NotEqual(t, left, s.PID())
		check()
		add()
	})
	t.Run("another process has the number in postmaster.pid", func(*testing.T) {
		require.NoError(t, s.Stop(t.Context()))
		stale := fmt.Sprintf("%d\n%s\n%d\n", os.Getpid(), s.data, time.Now().Unix())
		require.NoError(t, os.WriteFile(filepath.Join(s.data, "postmaster.pid"), []byte(stale), 0o644))
		s = start(t, o)
		check()
	})
	t.Run("another password in the file", func(*testing.T) {
		require.NoError(t, s.Stop(t.Context()))
		u, err := url.Parse(o.URL)
		require.NoError(t, err)
		u.User = url.UserPassword("catchment", "it's another")
		o.URL = u.String()
		s = start(t, o)
		check()
		require.NoError(t, s.Stop(t.Context()))
	})
}

// abandon leaves the server running as a killed process would.
func (s *Server) abandon() {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
}

func TestRootCannotReachTheFolder(t *testing.T) {
	if os.Geteuid() != 0 {
		require.NotZero(t, os.Geteuid()) // nothing to prove: without root, the server runs as the folder's owner
		return
	}
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	o := testOptions(t, dir)
	s := start(t, o)
	require.Equal(t, []string{"1"}, query(t, o.URL, "SELECT '1'"))
	link, err := os.Readlink(o.Dir)
	require.NoError(t, err)
	require.Equal(t, o.StateDir, filepath.Dir(link))
	require.NoError(t, s.Stop(t.Context()))

	s = start(t, o)
	require.Equal(t, link, s.data)
	require.NoError(t, s.Stop(t.Context()))

	require.NoError(t, os.RemoveAll(link))
	_, err = Start(t.Context(), o)
	require.ErrorContains(t, err, "is gone")
}

func TestRefusals(t *testing.T) {
	dir := openDir(t)
	for name, tc := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"another host":  {func(o *Options) { o.URL = "postgres://u:p@db.example.com:5432/d" }, "must name 127.0.0.1"},
		"no port":       {func(o *Options) { o.URL = "postgres://u:p@127.0.0.1/d" }, "must name a port"},
		"no password":   {func(o *Options) { o.URL = "postgres://u@127.0.0.1:5432/d" }, "a user, a password and a database"},
		"foreign files": {func(o *Options) { require.NoError(t, os.MkdirAll(filepath.Join(o.Dir, "x"), 0o755)) }, "no Postgres data folder"},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions(t, dir)
			tc.change(&o)
			_, err := Start(t.Context(), o)
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestDamagedArchive(t *testing.T) {
	o := testOptions(t, openDir(t))
	o.NoPath, o.CacheDir = true, t.TempDir()
	arch := map[string]string{"arm64": "arm64v8"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	name := filepath.Join(o.CacheDir, fmt.Sprintf("embedded-postgres-binaries-%s-%s-%s.txz", runtime.GOOS, arch, fetched[0]))
	require.NoError(t, os.WriteFile(name, []byte("damaged"), 0o644))
	_, err := Start(t.Context(), o)
	require.ErrorContains(t, err, name)
	require.ErrorContains(t, err, "delete it")
}

func TestStoppedBeforeTheProgramsAnswer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := testOptions(t, openDir(t))
	o.CacheDir = t.TempDir()
	leftover := filepath.Join(filepath.Dir(o.Dir), unfinished+"1")
	require.NoError(t, os.Mkdir(leftover, 0o700))
	_, err := Start(ctx, o)
	require.ErrorIs(t, err, context.Canceled)
	require.NoDirExists(t, leftover)
}

// TestFetchedServer starts the server that the library unpacks, when its cache is filled beforehand.
func TestFetchedServer(t *testing.T) {
	cache := os.Getenv(CacheEnv)
	if cache == "" {
		if os.Getenv("CATCHMENT_TEST_REAL") != "" {
			t.Fatalf("%s names no filled cache", CacheEnv)
		}
		_, err := exec.LookPath("initdb")
		t.Logf("%s is not set: the server of this machine stands in (initdb on PATH: %v)", CacheEnv, err == nil)
		return
	}
	// Without access for others, the cache is like one below /root: root's server must not run from there.
	private := t.TempDir()
	require.NoError(t, os.Chmod(private, 0o700))
	found, err := filepath.Glob(filepath.Join(cache, "*.txz"))
	require.NoError(t, err)
	require.NotEmpty(t, found, "%s holds no server", cache)
	for _, path := range found {
		require.NoError(t, os.Symlink(path, filepath.Join(private, filepath.Base(path))))
	}
	o := testOptions(t, openDir(t))
	o.NoPath, o.CacheDir = true, private
	for range 2 { // unpacked, then found unpacked
		s := start(t, o)
		require.Equal(t, "17", s.progs.major)
		require.Equal(t, []string{"1"}, query(t, o.URL, "SELECT '1'"))
		require.NoError(t, s.Stop(t.Context()))
	}
}
