package pgtest

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

// Bouncer runs PgBouncer in transaction mode before a database, with so many sessions at most, until the test ends, and
// returns the URL through it; "": there is no PgBouncer here, and none is required.
func Bouncer(t testing.TB, databaseURL string, sessions int) string {
	t.Helper()
	program := bouncerProgram()
	if program == "" {
		if parts.Required() {
			t.Fatalf("pgtest: %s=1, but there is no pgbouncer: install it", parts.EnvReal)
		}
		parts.Report("pgbouncer", "none: install pgbouncer")
		return ""
	}
	parts.Report("pgbouncer", program)
	through, err := startBouncer(t, program, databaseURL, sessions)
	if err != nil {
		t.Fatalf("pgtest: pgbouncer: %v", err)
	}
	return through
}

func bouncerProgram() string {
	if p, err := exec.LookPath("pgbouncer"); err == nil {
		return p
	}
	if p := "/usr/sbin/pgbouncer"; isFile(p) {
		return p
	}
	return ""
}

func isFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func startBouncer(t testing.TB, program, databaseURL string, sessions int) (string, error) {
	t.Helper()
	u, err := url.Parse(databaseURL)
	if err != nil {
		return "", err
	}
	uid, gid, err := unprivileged()
	if err != nil {
		return "", err
	}
	dir, err := serverDir(uid, gid)
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	port, err := parts.FreePort()
	if err != nil {
		return "", err
	}
	target := fmt.Sprintf("host=%s port=%s user=%s", u.Hostname(), u.Port(), u.User.Username())
	if password, ok := u.User.Password(); ok {
		target += " password='" + password + "'"
	}
	text := fmt.Sprintf("[databases]\n%s = %s\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"+
		"auth_type = any\npool_mode = transaction\ndefault_pool_size = %d\nmax_client_conn = 200\n", strings.TrimPrefix(u.Path, "/"), target, port, sessions)
	file := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil { //nolint:gosec // read by another user; a test's password
		return "", err
	}
	log, err := os.Create(filepath.Join(dir, "pgbouncer.log"))
	if err != nil {
		return "", err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program, file)
	parts.As(cmd, uid, gid)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		select {
		case <-ended:
			t.Errorf("pgtest: pgbouncer has ended by itself: %s", cmd.ProcessState)
		default:
		}
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Logf("end of pgbouncer's log:\n%s", said[max(0, len(said)-4000):])
		}
	})
	if err := parts.Guard(fmt.Sprintf("kill -9 %d", cmd.Process.Pid)); err != nil {
		return "", err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			_ = conn.Close()
			u.Host = address
			return u.String(), nil
		}
	}
	said, _ := os.ReadFile(log.Name())
	return "", fmt.Errorf("it does not start: %s", said)
}
