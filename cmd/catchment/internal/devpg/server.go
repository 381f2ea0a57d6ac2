package devpg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	startTimeout = 90 * time.Second // recovery after a crash included
	maxLog       = 16 << 20         // a longer log begins anew at a start
	restarts     = 5                // failed starts in a row after which the server is given up
)

// Server is a running Postgres.
type Server struct {
	o     Options
	t     target
	acc   account
	progs programs
	data  string

	mu       sync.Mutex
	cmd      *exec.Cmd
	exited   chan struct{} // closed when cmd has ended
	stopping bool
	cancel   context.CancelFunc // ends a restart under way

	failed chan error
	done   chan struct{} // closed when supervise has returned
}

// Failed reports once when the server has died and could not be started again.
func (s *Server) Failed() <-chan error { return s.failed }

// PID returns the number of the server's main process.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cmd.Process.Pid
}

// Stop ends the server: connections are closed, data is flushed. When ctx ends first it is stopped at once; the next
// start then recovers from the write-ahead log, and nothing that was committed is missing.
func (s *Server) Stop(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	process, exited := s.cmd.Process, s.exited
	s.mu.Unlock()
	s.cancel()
	defer func() { <-s.done }()
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGINT, 30 * time.Second}, {syscall.SIGQUIT, 5 * time.Second}, {syscall.SIGKILL, 10 * time.Second}} {
		if err := process.Signal(step.sig); errors.Is(err, os.ErrProcessDone) {
			return nil
		} else if err != nil {
			return fmt.Errorf("stop Postgres: %w", err)
		}
		wait := time.NewTimer(step.wait)
		stopNow := ctx.Done()
		if step.sig != syscall.SIGINT {
			stopNow = nil
		}
		select {
		case <-exited:
			wait.Stop()
			return nil
		case <-stopNow:
		case <-wait.C:
		}
		wait.Stop()
	}
	return errors.New("stop Postgres: it does not end")
}

// supervise starts the server again whenever it ends without being told to.
func (s *Server) supervise(ctx context.Context) {
	defer close(s.done)
	for {
		s.mu.Lock()
		exited := s.exited
		s.mu.Unlock()
		<-exited
		if s.isStopping() {
			return
		}
		err := s.restart(ctx)
		if s.isStopping() { // Stop came while the server was down: it signalled the old process
			s.killQuietly()
			return
		}
		if err != nil {
			s.failed <- err
			return
		}
	}
}

func (s *Server) restart(ctx context.Context) error {
	var err error
	for i := range restarts {
		if s.isStopping() {
			return nil
		}
		s.o.Progress("Postgres has ended: starting it again (its log: %s)", s.o.LogFile)
		if err = s.up(ctx); err == nil {
			return nil
		}
		pause := time.NewTimer(time.Duration(i+1) * 500 * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
	return fmt.Errorf("the database died and cannot be started again: %w", err)
}

func (s *Server) killQuietly() {
	s.mu.Lock()
	process, exited := s.cmd.Process, s.exited
	s.mu.Unlock()
	_ = process.Signal(syscall.SIGQUIT)
	<-exited
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// up starts the server once and waits until the database of the URL answers.
func (s *Server) up(ctx context.Context) error {
	if err := stopLeftover(ctx, s.data, s.o.Progress); err != nil {
		return err
	}
	if err := s.portFree(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := s.spawn(ctx); err != nil {
		return err
	}
	err := s.answer(ctx)
	if isCredentials(err) {
		s.o.Progress("the password in catchment.yaml is not the database's: setting it")
		s.killQuietly()
		if err := s.setPassword(ctx); err != nil {
			return err
		}
		if err := s.spawn(ctx); err != nil {
			return err
		}
		err = s.answer(ctx)
	}
	if err != nil {
		s.killQuietly()
	}
	return err
}

func (s *Server) portFree(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:"+strconv.Itoa(s.t.port))
	if err != nil {
		return fmt.Errorf("port %d of postgres.url in catchment.yaml is used by another program: stop that, or change the port there (%w)", s.t.port, err)
	}
	return l.Close()
}

// spawn starts the process. Its lifetime is not that of any context: Stop ends it.
func (s *Server) spawn(ctx context.Context) error {
	log, err := openLog(s.o.LogFile)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := s.acc.command(context.WithoutCancel(ctx), s.progs.path("postgres"), "-D", s.data, "-p", strconv.Itoa(s.t.port),
		"-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=", // their path may be too long, and nothing needs them
		"-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "full_page_writes=on",
		"-c", "log_min_messages=fatal", "-c", "log_min_error_statement=panic", // errors quote the values of events
		"-c", "max_connections=100", "-c", "logging_collector=off", "-c", "log_timezone=UTC", "-c", "timezone=UTC")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	exited := make(chan struct{})
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()
	go func() {
		_ = cmd.Wait() // how it ended stands in its log
		close(exited)
	}()
	return nil
}

func openLog(path string) (*os.File, error) {
	flag := os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		flag = os.O_TRUNC
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flag, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of Postgres: %w", err)
	}
	return f, nil
}

// answer waits until the server accepts the URL's user, and makes the URL's database when it is missing.
func (s *Server) answer(ctx context.Context) error {
	s.mu.Lock()
	exited := s.exited
	s.mu.Unlock()
	start, said := time.Now(), false
	for {
		err := s.connect(ctx)
		if err == nil || isCredentials(err) {
			return err
		}
		pause := time.NewTimer(50 * time.Millisecond)
		select {
		case <-exited:
			pause.Stop()
			return fmt.Errorf("the database ended at its start; the end of %s:\n%s", s.o.LogFile, tail(s.o.LogFile))
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("the database does not answer: %w", err)
		case <-pause.C:
		}
		if time.Since(start) > 5*time.Second && !said {
			said = true
			s.o.Progress("waiting for Postgres, which recovers from a crash or starts slowly")
		}
	}
}

// connect proves that the URL works, and makes its database when it is missing.
func (s *Server) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cfg, err := pgx.ParseConfig(s.o.URL)
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	missing := hasCode(err, "3D000")
	if missing {
		cfg.Database = "postgres"
		conn, err = pgx.ConnectConfig(ctx, cfg)
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if missing {
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{s.t.database}.Sanitize()); err != nil {
			return err
		}
	}
	return publicFirst(ctx, conn)
}

// publicFirst makes the role look for tables in the schema public before the one that is called like itself, unless it has a
// search_path of its own already. For a role called catchment that one is full of tables called jobs, events and the like.
func publicFirst(ctx context.Context, conn *pgx.Conn) error {
	var path string
	if err := conn.QueryRow(ctx, "SHOW search_path").Scan(&path); err != nil {
		return err
	}
	if path != `"$user", public` {
		return nil
	}
	_, err := conn.Exec(ctx, `ALTER ROLE CURRENT_USER SET search_path = public, "$user"`)
	return err
}

// setPassword makes the URL's role log in with the URL's password, in single-user mode, which asks for none: whoever
// owns the data folder owns the database.
func (s *Server) setPassword(ctx context.Context) error {
	role, literal := pgx.Identifier{s.t.user}.Sanitize(), "'"+strings.ReplaceAll(s.t.password, "'", "''")+"'"
	cmd := s.acc.command(ctx, s.progs.path("postgres"), "--single", "-D", s.data, "postgres")
	cmd.Stdin = strings.NewReader("CREATE ROLE " + role + "\nALTER ROLE " + role + " SUPERUSER LOGIN PASSWORD " + literal + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set the database's password: %w\n%s", err, out)
	}
	return nil
}

// isCredentials says whether the server refused the user or the password.
func isCredentials(err error) bool { return hasCode(err, "28P01") || hasCode(err, "28000") }

func hasCode(err error, code string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == code
}

// tail returns the last lines of a file.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}
