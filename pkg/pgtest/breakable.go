package pgtest

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

// Server is a Postgres of one test's own, which it may stop, and give a standby.
type Server struct {
	URL string // of the database postgres, by TCP

	t testing.TB
	c *cluster
}

// How a server ends.
const (
	Fast      = "fast"      // it ends its sessions and writes all to disk
	Immediate = "immediate" // as in a crash: what was not committed is gone, and it recovers when it starts
)

// Breakable starts a server that this test has alone, with these parameters (NAME=VALUE), until the test ends. Where
// the environment names a server of other tests, its programs are those of this machine.
func Breakable(t testing.TB, parameters ...string) *Server {
	t.Helper()
	bin, ok := localPrograms()
	if os.Getenv(EnvFetch) == "embedded" || !ok {
		var err error
		if bin, err = embeddedPrograms(); err != nil {
			t.Fatalf("pgtest: %v", err)
		}
	}
	s := newServer(t, bin, parameters)
	s.must(s.c.initialise())
	s.must(s.c.startAnywhere())
	s.URL = s.c.url()
	parts.Report("postgres", "breakable "+filepath.Dir(bin))
	return s
}

func newServer(t testing.TB, bin string, parameters []string) *Server {
	t.Helper()
	c, err := newCluster(bin)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	c.more = parameters
	t.Cleanup(func() {
		_ = c.run("pg_ctl", "stop", "-s", "-m", Immediate, "-D", c.data())
		_ = os.RemoveAll(c.dir)
	})
	return &Server{t: t, c: c}
}

func (s *Server) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatalf("pgtest: %v", err)
	}
}

// Stop ends the server: Fast or Immediate.
func (s *Server) Stop(mode string) {
	s.t.Helper()
	s.must(s.c.run("pg_ctl", "stop", "-w", "-s", "-t", "60", "-m", mode, "-D", s.c.data()))
}

// Start starts the server again, on its port, and waits until it takes connections.
func (s *Server) Start() {
	s.t.Helper()
	s.must(s.c.start())
}

// Standby makes a copy of the server and runs it as its hot standby, which gets what happens since from the given
// address (host:port), so that a test can stand between the two. name is its application_name.
func (s *Server) Standby(from, name string) *Server {
	s.t.Helper()
	host, port, err := net.SplitHostPort(from)
	s.must(err)
	standby := newServer(s.t, s.c.bin, []string{"primary_conninfo=host=" + host + " port=" + port + " user=postgres application_name=" + name})
	s.must(s.copyTo(standby.c))
	s.must(standby.c.startAnywhere())
	standby.URL = standby.c.url()
	return standby
}

// copyTo makes a base backup of the running server, from which a standby can start: the Postgres that is fetched (15 or
// newer) comes without pg_basebackup.
func (s *Server) copyTo(standby *cluster) error {
	if _, err := os.Stat(filepath.Join(s.c.bin, "pg_basebackup")); err == nil {
		return standby.run("pg_basebackup", "-D", standby.data(), "-h", "127.0.0.1", "-p", strconv.Itoa(s.c.port), "-U", "postgres",
			"-X", "stream", "-c", "fast", "-R", "--no-sync")
	}
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.URL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, `SELECT pg_backup_start('standby', true)`); err != nil {
		return err
	}
	if err := standby.copyData(s.c.data()); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, `SELECT labelfile FROM pg_backup_stop(false)`).Scan(&label); err != nil {
		return err
	}
	return errors.Join(standby.write("backup_label", []byte(label)), standby.write("standby.signal", nil))
}

// copyData copies a server's folder, without what belongs to the running server alone. Its log comes by replication.
func (c *cluster) copyData(from string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a file of a table that is gone
		}
		name, nameErr := filepath.Rel(from, path)
		if err = errors.Join(err, nameErr); err != nil {
			return err
		}
		if entry.IsDir() {
			dir := filepath.Join(c.data(), name)
			return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, c.owner(), c.group()))
		}
		switch top, _, _ := strings.Cut(name, string(filepath.Separator)); top {
		case "postmaster.pid", "postmaster.opts", "pg_wal", "pg_replslot", "pg_stat_tmp":
			return nil
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, c.write(name, data))
	})
}

func (c *cluster) write(name string, data []byte) error {
	path := filepath.Join(c.data(), name)
	return errors.Join(os.WriteFile(path, data, 0o600), os.Chown(path, c.owner(), c.group()))
}

// owner and group are the user's that runs the server; -1: our own.
func (c *cluster) owner() int { return cmp.Or(c.uid, -1) }
func (c *cluster) group() int { return cmp.Or(c.gid, -1) }

// Promote makes a standby take writes, and waits until it does.
func (s *Server) Promote() {
	s.t.Helper()
	s.must(s.c.run("pg_ctl", "promote", "-w", "-s", "-t", "60", "-D", s.c.data()))
}

// Put writes a file of the server's data folder, which the server alone may read: certificates, pg_hba.conf. The server reads
// it after pg_reload_conf().
func (s *Server) Put(name string, data []byte) {
	s.t.Helper()
	s.must(s.c.write(name, data))
}

// Exec runs a statement on the database postgres.
func (s *Server) Exec(statement string) {
	s.t.Helper()
	s.must(execute(s.URL, statement))
}

// Database makes a database and returns its URL.
func (s *Server) Database(name string) string {
	s.t.Helper()
	s.Exec("CREATE DATABASE " + name)
	return s.Of(name)
}

// Of returns the URL of a database on this server.
func (s *Server) Of(name string) string {
	s.t.Helper()
	u, err := url.Parse(s.URL)
	s.must(err)
	u.Path = "/" + name
	return u.String()
}
