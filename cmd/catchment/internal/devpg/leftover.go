package devpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopLeftover ends what a killed run left of the server of a data folder, so that a new one can start. The caller
// holds the lock of the folder above: nobody else runs a server here.
func stopLeftover(ctx context.Context, data string, progress func(string, ...any)) error {
	pid := postmaster(data)
	if pid != 0 && slices.Contains(processes(ctx, data, pid), pid) {
		progress("stopping the Postgres that an earlier run left behind (process %d)", pid)
		for _, step := range []struct {
			sig  syscall.Signal
			wait time.Duration
		}{{syscall.SIGINT, 20 * time.Second}, {syscall.SIGQUIT, 10 * time.Second}, {syscall.SIGKILL, 10 * time.Second}} {
			if err := syscall.Kill(pid, step.sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("stop the Postgres that an earlier run left behind (process %d): %w", pid, err)
			}
			if waitFor(ctx, step.wait, func() bool { return !slices.Contains(processes(ctx, data, pid), pid) }) {
				break
			}
		}
	}
	// Without its postmaster, a backend ends by itself as soon as it looks.
	if !waitFor(ctx, 10*time.Second, func() bool { return len(processes(ctx, data, pid)) == 0 }) {
		for _, p := range processes(ctx, data, pid) {
			_ = syscall.Kill(p, syscall.SIGKILL)
		}
		if !waitFor(ctx, 10*time.Second, func() bool { return len(processes(ctx, data, pid)) == 0 }) {
			return fmt.Errorf("processes of an earlier Postgres are still at work in %s: %v", data, processes(ctx, data, pid))
		}
	}
	return removeStalePID(data)
}

// removeStalePID removes postmaster.pid when the process that it names lives but is no server of this folder (the
// number was given out again, or it is a zombie): Postgres would refuse to start.
func removeStalePID(data string) error {
	pid := postmaster(data)
	if pid == 0 || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return nil
	}
	if err := os.Remove(filepath.Join(data, "postmaster.pid")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("stale postmaster.pid: %w", err)
	}
	return nil
}

// postmaster returns the process that postmaster.pid names, or 0.
func postmaster(data string) int {
	b, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid < 2 {
		return 0
	}
	return pid
}

// processes lists the live server processes of a data folder: all of them work in it. Where there is no /proc, it
// can only say whether the process pid is one.
func processes(ctx context.Context, data string, pid int) []int {
	if runtime.GOOS != "linux" {
		if pid == 0 {
			return nil
		}
		out, err := exec.CommandContext(ctx, "ps", "-o", "command=", "-p", strconv.Itoa(pid)).Output()
		if err != nil || !strings.Contains(string(out), data) {
			return nil
		}
		return []int{pid}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd")); err == nil && cwd == data {
			pids = append(pids, p)
		}
	}
	return pids
}
