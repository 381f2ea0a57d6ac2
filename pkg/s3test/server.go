package s3test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

const (
	access = "catchment"
	secret = "catchment-test-secret"
)

// start runs versitygw on a temporary folder. A guard ends it and removes the folder when this process ends.
func start(program string) (string, error) {
	dir, err := os.MkdirTemp("", "catchment-s3test-")
	if err != nil {
		return "", err
	}
	for attempt := 0; attempt < 3; attempt++ {
		port, err := parts.FreePort()
		if err != nil {
			return "", err
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if run(program, dir, address) {
			return fmt.Sprintf("http://%s:%s@%s", access, secret, address), nil
		}
	}
	said, _ := os.ReadFile(filepath.Join(dir, "log"))
	return "", fmt.Errorf("versitygw does not start: %s", said)
}

func run(program, dir, address string, more ...string) bool {
	root, meta := filepath.Join(dir, "buckets"), filepath.Join(dir, "meta")
	for _, d := range []string{root, meta} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return false
		}
	}
	out, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return false
	}
	defer func() { _ = out.Close() }()
	// A sidecar folder instead of extended attributes, which not every temporary folder has.
	args := append([]string{"--quiet", "--port", address, "--access", access, "--secret", secret}, more...)
	cmd := exec.Command(program, append(args, "posix", "--sidecar", meta, root)...)
	cmd.Stdout, cmd.Stderr = out, out
	parts.As(cmd, 0, 0)
	if err := cmd.Start(); err != nil {
		return false
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := parts.Guard(`kill "$1"; rm -rf "$2"`, pid, dir); err != nil {
		return false
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			_ = conn.Close()
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}
