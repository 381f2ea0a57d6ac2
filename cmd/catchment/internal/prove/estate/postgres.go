package estate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/devpg"
)

const (
	role, password, database = "catchment", "catchment-prove-password", "catchment"

	postgresPatience = 60 * time.Second
	replication      = "standby→postgres"
)

// Postgres is the primary and its standby, which may change places.
type Postgres struct {
	e        *Estate
	uid, gid int
	links    []string // those of the services and of who looks on

	mu               sync.Mutex
	primary, standby *server
	failovers        int
}

// server is one of the two servers.
type server struct {
	*Process
	data string
	port int
}

// startPostgres makes the primary with its database, and the standby from it.
func (e *Estate) startPostgres(ctx context.Context) error {
	p := &Postgres{e: e}
	var err error
	if p.uid, p.gid, err = devpg.Unprivileged(); err != nil {
		return err
	}
	e.Postgres = p
	if p.primary, err = e.newServer(ctx, p, "postgres-a"); err != nil {
		return err
	}
	if p.standby, err = e.newServer(ctx, p, "postgres-b"); err != nil {
		return err
	}
	if err := p.run(ctx, "initdb", "-D", p.primary.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return err
	}
	if err := p.start(ctx, p.primary); err != nil {
		return err
	}
	if err := p.prepare(ctx); err != nil {
		return err
	}
	if _, err := e.link(ctx, replication, local(p.primary.port)); err != nil {
		return err
	}
	for _, c := range append(clients(), "tool") {
		if _, err := e.link(ctx, c+"→postgres", local(p.primary.port)); err != nil {
			return err
		}
		p.links = append(p.links, c+"→postgres")
	}
	return p.makeStandby(ctx)
}

func (e *Estate) newServer(ctx context.Context, p *Postgres, name string) (*server, error) {
	port, err := e.freePort(ctx)
	if err != nil {
		return nil, err
	}
	home := e.data(name)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	if p.uid != 0 {
		if err := os.Chown(home, p.uid, p.gid); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(home, "data")
	args := []string{"-D", data, "-p", strconv.Itoa(port), "-k", home}
	for _, s := range []string{
		"listen_addresses=127.0.0.1", "max_connections=80", "shared_buffers=64MB", "wal_level=replica", "max_wal_senders=4",
		"hot_standby=on", "log_min_messages=warning", "timezone=UTC", "checkpoint_timeout=5min", "max_wal_size=512MB", "wal_keep_size=64MB",
		"log_checkpoints=off", "log_min_error_statement=panic", "log_error_verbosity=terse",
	} {
		args = append(args, "-c", s)
	}
	return &server{port: port, data: data, Process: &Process{
		Name: name, program: filepath.Join(e.o.Programs.Postgres, "postgres"), args: args, starts: e.starts, log: e.logFile(name),
		deathsig: syscall.SIGQUIT, uid: p.uid, gid: p.gid, dir: home, env: []string{"LC_ALL=C", "HOME=" + home},
	}}, nil
}

// run runs one of Postgres' programs to its end.
func (p *Postgres) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(p.e.o.Programs.Postgres, program), args...)
	own(cmd, kill, p.uid, p.gid)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), "LC_ALL=C")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, out)
	}
	return nil
}

// start starts a server and waits until it takes connections.
func (p *Postgres) start(ctx context.Context, s *server) error {
	err := Await(ctx, postgresPatience, 50*time.Millisecond, s.Name, func(ctx context.Context) error {
		if err := s.Start(); err != nil { // also again, where the port or the shared memory is not free yet
			return err
		}
		return p.answers(ctx, s)
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.logEnd())
	}
	return nil
}

func (p *Postgres) answers(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, superURL(s.port, "postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// superURL leads to a server as its superuser, who may write also where others may only read.
func superURL(port int, name string) string {
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable&options=-c%%20default_transaction_read_only%%3Doff", local(port), name)
}

// URL is the database of a client's link, for the services' role.
func (p *Postgres) URL(client string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", role, password, p.e.Link(client+"→postgres").Address(), database)
}

// DirectURL is the primary's database, past all links, for a superuser.
func (p *Postgres) DirectURL() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return superURL(p.primary.port, database)
}

// Password is what may stand in no log.
func (p *Postgres) Password() string { return password }

// prepare makes the role, the database and the users' tables.
func (p *Postgres) prepare(ctx context.Context) error {
	for _, s := range []string{
		"CREATE ROLE " + role + " LOGIN PASSWORD '" + password + "'",
		"CREATE DATABASE " + database + " OWNER " + role,
	} {
		if err := exec1(ctx, superURL(p.primary.port, "postgres"), s); err != nil {
			return err
		}
	}
	for _, s := range p.e.o.SQL {
		if err := exec1(ctx, superURL(p.primary.port, database), "SET ROLE "+role+"; "+s); err != nil {
			return err
		}
	}
	return nil
}

// exec1 runs statements on a connection of their own.
func exec1(ctx context.Context, url, statements string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	_, err = conn.PgConn().Exec(ctx, statements).ReadAll()
	return err
}

// Exec runs statements as a superuser on the primary.
func (p *Postgres) Exec(ctx context.Context, statements string) error {
	return exec1(ctx, p.DirectURL(), statements)
}

// makeStandby makes the standby anew from the primary, and starts it.
func (p *Postgres) makeStandby(ctx context.Context) error {
	p.mu.Lock()
	s, primary := p.standby, p.primary
	p.mu.Unlock()
	s.Kill()
	if err := os.RemoveAll(s.data); err != nil {
		return err
	}
	p.e.Link(replication).Lead(local(primary.port))
	from := fmt.Sprintf("host=127.0.0.1 port=%d user=postgres application_name=standby", p.e.Link(replication).Port())
	if err := p.run(ctx, "pg_basebackup", "-D", s.data, "-d", from, "-R", "-c", "fast", "-X", "stream", "--no-sync"); err != nil {
		return err
	}
	return p.start(ctx, s)
}

// Restart ends the primary in a way (SIGINT: fast, SIGQUIT: immediate, SIGKILL) and starts it again.
func (p *Postgres) Restart(ctx context.Context, way syscall.Signal) error {
	if err := p.Stop(ctx, way); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Stop ends the primary.
func (p *Postgres) Stop(ctx context.Context, way syscall.Signal) error {
	return p.now().End(ctx, way, postgresPatience)
}

// Start starts the primary.
func (p *Postgres) Start(ctx context.Context) error { return p.start(ctx, p.now()) }

func (p *Postgres) now() *server {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.primary
}

// all are the primary's process and those that serve its sessions.
func (p *Postgres) all() []int {
	pid := p.now().Pid()
	if pid == 0 {
		return nil
	}
	return append([]int{pid}, children(pid)...)
}

// Freeze lets the primary stand still, with all its sessions; Thaw lets it go on.
func (p *Postgres) Freeze() error { return p.signalAll(syscall.SIGSTOP) }

// Thaw lets the primary go on.
func (p *Postgres) Thaw() error { return p.signalAll(cont) }

func (p *Postgres) signalAll(s syscall.Signal) error {
	pids := p.all()
	if len(pids) == 0 {
		return errors.New("the primary does not run")
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, s) // a session may have ended meanwhile
	}
	return nil
}

// FillDisk lets every write of the primary to its disk fail, until it is started again.
func (p *Postgres) FillDisk(ctx context.Context) error {
	pids := p.all()
	if len(pids) == 0 {
		return errors.New("the primary does not run")
	}
	err := fillDisk(ctx, pids[0], p.uid, p.gid)
	for _, pid := range pids[1:] {
		_ = fillDisk(ctx, pid, p.uid, p.gid) // a session may have ended meanwhile
	}
	return err
}

// EndSessions ends the services' sessions, as an administrator does.
func (p *Postgres) EndSessions() {
	for _, k := range p.links {
		p.e.Link(k).Cut()
	}
}

// Promote makes the standby the primary, whatever it has; the old primary is killed before. Rebuild makes it the standby.
func (p *Postgres) Promote(ctx context.Context) error {
	p.mu.Lock()
	old, fresh := p.primary, p.standby
	p.mu.Unlock()
	for _, pid := range p.all() {
		_ = syscall.Kill(pid, kill)
	}
	old.Kill()
	if err := p.run(ctx, "pg_ctl", "promote", "-w", "-t", "60", "-D", fresh.data); err != nil {
		return err
	}
	p.mu.Lock()
	p.primary, p.standby = fresh, old
	p.failovers++
	p.mu.Unlock()
	for _, k := range p.links {
		p.e.Link(k).Lead(local(fresh.port))
		p.e.Link(k).Cut()
	}
	return nil
}

// Rebuild makes the standby anew.
func (p *Postgres) Rebuild(ctx context.Context) error { return p.makeStandby(ctx) }

// ensure starts what does not run.
func (p *Postgres) ensure(ctx context.Context) error {
	_ = p.Thaw()
	p.mu.Lock()
	primary, standby := p.primary, p.standby
	p.mu.Unlock()
	err := errors.Join(p.start(ctx, primary), p.start(ctx, standby))
	return errors.Join(err, p.LimitConnections(ctx, -1), p.ReadOnly(ctx, false))
}

// LimitConnections lets the services have so many connections at most; -1: any number.
func (p *Postgres) LimitConnections(ctx context.Context, n int) error {
	return p.Exec(ctx, fmt.Sprintf("ALTER ROLE %s CONNECTION LIMIT %d", role, n))
}

// ReadOnly lets new sessions only read, or write again.
func (p *Postgres) ReadOnly(ctx context.Context, only bool) error {
	if only {
		return p.Exec(ctx, "ALTER DATABASE "+database+" SET default_transaction_read_only = on")
	}
	return p.Exec(ctx, "ALTER DATABASE "+database+" RESET default_transaction_read_only")
}

// close ends both.
func (p *Postgres) close(ctx context.Context) {
	_ = p.Thaw()
	for _, s := range []*server{p.standby, p.primary} {
		if s != nil {
			_ = s.End(ctx, syscall.SIGQUIT, 10*time.Second)
		}
	}
}

// Position is how far the processors are, summed over all partitions of the deliveries.
func (p *Postgres) Position(ctx context.Context) (n int64, err error) {
	o := Observer{DatabaseURL: p.DirectURL(), Topic: Topic}
	return o.Position(ctx)
}
