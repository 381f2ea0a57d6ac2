// Package devpg runs the Postgres server of `catchment up`. A folder and a connection URL come in, and a server that
// answers at that URL goes out, kept running until it is stopped. It never touches a server that it did not make,
// never deletes a database, and never trades durability for speed.
package devpg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Options say what to run, and where.
type Options struct {
	Dir      string // the data folder; becomes a link when the server's account cannot reach it
	URL      string // postgres://user:password@127.0.0.1:port/database
	LogFile  string // where the server's own log is appended
	CacheDir string // fetched servers; empty: CATCHMENT_POSTGRES_CACHE, else the user's cache folder
	StateDir string // where data goes that the server's account cannot reach in Dir; empty: /var/lib/catchment
	NoPath   bool   // do not look for an installed server: take the fetched one

	// Progress tells the user, in one line, what takes time or is worth knowing.
	Progress func(format string, args ...any)
}

// target is Options.URL, taken apart.
type target struct {
	user, password, database string
	port                     int
}

// parseURL takes apart the URL of a server that runs on this machine.
func parseURL(raw string) (target, error) {
	u, err := url.Parse(raw)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		return target{}, errors.New("postgres.url of an embedded Postgres must look like postgres://user:password@127.0.0.1:port/database")
	}
	if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return target{}, fmt.Errorf("postgres.url of an embedded Postgres must name 127.0.0.1, not %q", u.Hostname())
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil || port < 1 || port > 65535 {
		return target{}, errors.New("postgres.url of an embedded Postgres must name a port")
	}
	password, _ := u.User.Password()
	t := target{user: u.User.Username(), password: password, database: strings.TrimPrefix(u.Path, "/"), port: port}
	if t.user == "" || t.password == "" || t.database == "" {
		return target{}, errors.New("postgres.url of an embedded Postgres must name a user, a password and a database")
	}
	return t, nil
}

// Start brings the server up: it finds or fetches the programs, makes the data folder on first use, stops a server
// that an earlier run left behind, starts a new one and waits until it answers. The server is started again when it
// dies; Failed reports when that no longer helps.
func Start(ctx context.Context, o Options) (*Server, error) {
	t, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("postgres data folder: %w", err)
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
	acc, err := chooseAccount(o.Dir)
	if err != nil {
		return nil, err
	}
	sweep(filepath.Dir(o.Dir), 0) // that folder is our caller's alone
	progs, err := findPrograms(ctx, &o, acc, dataVersion(o.Dir))
	if err != nil {
		return nil, err
	}
	data, err := ensureData(ctx, &o, acc, progs, t)
	if err != nil {
		return nil, err
	}
	s := &Server{o: o, t: t, acc: acc, progs: progs, data: data, failed: make(chan error, 1), done: make(chan struct{})}
	if err := s.up(ctx); err != nil {
		return nil, err
	}
	var life context.Context
	life, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go s.supervise(life)
	return s, nil
}

// dataVersion returns the major version that made the data folder, or "" when there is none yet.
func dataVersion(dir string) string {
	b, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// waitFor calls ok until it says true, and gives up after d.
func waitFor(ctx context.Context, d time.Duration, ok func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return ok()
		case <-tick.C:
		}
	}
	return true
}
