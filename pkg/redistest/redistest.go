// Package redistest gives a test a Redis or Valkey. Nothing comes in but the test; a server's URL goes out, of the one
// that an environment variable names, or of one of the test's own, which it may kill.
// It must never be taken for a proof when no server is there: it says so, and fails where real parts are required.
package redistest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

// Env names the variable that holds a server's URL: redis://HOST:PORT
const Env = "CATCHMENT_TEST_REDIS"

// New returns the URL of a server that other tests use as well, or "" when there is none.
func New(t testing.TB) string {
	t.Helper()
	if url := os.Getenv(Env); url != "" {
		parts.Report("redis", url)
		return url
	}
	if s := Start(t); s != nil {
		return s.URL
	}
	return ""
}

// Server is a server of the test's own, without data on disk: what it held is gone when it ends.
type Server struct {
	URL string

	t       testing.TB
	program string
	port    string
	log     string
	cmd     *exec.Cmd
}

// Start runs redis-server or valkey-server until the test ends; nil: there is none.
func Start(t testing.TB) *Server {
	t.Helper()
	program := find()
	if program == "" {
		if parts.Required() {
			t.Fatalf("redistest: %s=1, but neither redis-server nor valkey-server: install one", parts.EnvReal)
		}
		parts.Report("redis", "none: install redis-server")
		return nil
	}
	parts.Report("redis", program)
	port, err := parts.FreePort()
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	s := &Server{t: t, program: program, port: strconv.Itoa(port), log: filepath.Join(t.TempDir(), "redis.log")}
	s.URL = "redis://" + net.JoinHostPort("127.0.0.1", s.port) + "/0"
	t.Cleanup(s.Kill)
	s.Restart()
	return s
}

func find() string {
	for _, name := range []string{"redis-server", "valkey-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// Kill ends the server at once, as kill -9 does.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Signal sends a signal to the server: one that is stopped neither answers nor refuses.
func (s *Server) Signal(sig os.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
}

// Restart runs the server again, on the same port and empty.
func (s *Server) Restart() {
	s.t.Helper()
	out, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(s.program, "--port", s.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", filepath.Dir(s.log))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
	s.cmd = cmd
	if err := parts.Guard(fmt.Sprintf("kill -9 %d", cmd.Process.Pid)); err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
	address := net.JoinHostPort("127.0.0.1", s.port)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			_ = conn.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	said, _ := os.ReadFile(s.log)
	s.t.Fatalf("redistest: %s does not start: %s", s.program, said)
}
