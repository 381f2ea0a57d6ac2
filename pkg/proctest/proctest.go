// Package proctest runs a shipped program as a process of its own. The package of a program and a configuration come in;
// a process goes out that a test starts, asks, stops and kills, as often as it likes.
// It must never run anything but what go build makes of the sources as they are, and leaves no process and no file behind.
package proctest

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

const (
	patience = 60 * time.Second // until a condition must hold
	tail     = 4000             // bytes of the log that a failed test shows
)

// programs are those that were made, by what go build was told.
var programs = struct {
	sync.Mutex
	dir  string
	made map[string]func() (string, error)
}{made: map[string]func() (string, error){}}

// Main runs the tests, up to parallel beside each other where they say so, and removes the programs.
func Main(m *testing.M, parallel int) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil {
		if n, err := strconv.Atoi(f.Value.String()); err == nil && n < parallel {
			_ = f.Value.Set(strconv.Itoa(parallel))
		}
	}
	m.Run()
	programs.Lock()
	defer programs.Unlock()
	if programs.dir != "" {
		_ = os.RemoveAll(programs.dir)
	}
}

// Build makes the program of a package, such as "./cmd/processor", once for all tests; args are more of go build. Main
// removes it.
func Build(tb testing.TB, pkg string, args ...string) string {
	tb.Helper()
	program, err := building(append(args, pkg))()
	require.NoError(tb, err)
	return program
}

func building(args []string) func() (string, error) {
	programs.Lock()
	defer programs.Unlock()
	name := strings.Join(args, "\x00")
	if programs.made[name] == nil {
		if programs.dir == "" {
			dir, err := os.MkdirTemp("", "catchment-programs-")
			if err != nil {
				return func() (string, error) { return "", err }
			}
			programs.dir = dir
		}
		program := filepath.Join(programs.dir, strconv.Itoa(len(programs.made)), filepath.Base(args[len(args)-1]))
		programs.made[name] = sync.OnceValues(func() (string, error) {
			if out, err := exec.Command("go", append([]string{"build", "-o", program}, args...)...).CombinedOutput(); err != nil {
				return "", fmt.Errorf("go build %s: %w: %s", strings.Join(args, " "), err, out)
			}
			return program, nil
		})
	}
	return programs.made[name]
}

// EnvKills says how often tests kill a program at each of its steps.
const EnvKills = "CATCHMENT_TEST_KILLS"

// Kills is what EnvKills says; 5 where it says nothing.
func Kills(tb testing.TB) int {
	tb.Helper()
	text := os.Getenv(EnvKills)
	if text == "" {
		return 5
	}
	n, err := strconv.Atoi(text)
	require.NoError(tb, err, EnvKills)
	return n
}

// FreeAddress is an address of this machine on which nothing listens, and that nobody else takes while the test runs.
func FreeAddress(tb testing.TB) string {
	tb.Helper()
	port, err := parts.FreePort()
	require.NoError(tb, err)
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

// Process is a program that can be killed, stopped and started again. It keeps its configuration and its log meanwhile.
type Process struct {
	Config string   // the file with the configuration, which a test may write anew
	Args   []string // before --config

	t       testing.TB
	program string
	ops     string
	log     string
	cmd     *exec.Cmd
	exited  chan struct{}
}

// New writes a configuration to a file for a program; ops is the address of its metrics in it, "" for a program without
// any. What runs at the test's end is killed, and a test that failed shows the log's end.
func New(tb testing.TB, program, ops string, config []byte) *Process {
	tb.Helper()
	dir := tb.TempDir()
	p := &Process{Config: filepath.Join(dir, "catchment.yaml"), t: tb, program: program, ops: ops, log: filepath.Join(dir, "log")}
	require.NoError(tb, os.WriteFile(p.Config, config, 0o600))
	tb.Cleanup(func() {
		if p.cmd != nil {
			p.Kill()
		}
		if tb.Failed() {
			text, _ := os.ReadFile(p.log)
			tb.Logf("end of the log of %s:\n%s", filepath.Base(program), text[max(0, len(text)-tail):])
		}
	})
	return p
}

// Start starts the program; env is NAME=VALUE.
func (p *Process) Start(env ...string) {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(p.t, err)
	defer func() { require.NoError(p.t, log.Close()) }()
	cmd, exited := exec.Command(p.program, append(append([]string{}, p.Args...), "--config", p.Config)...), make(chan struct{})
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	require.NoError(p.t, cmd.Start())
	p.cmd, p.exited = cmd, exited
	go func() { _ = cmd.Wait(); close(exited) }()
}

// Ready says whether the program says that it is.
func (p *Process) Ready() bool {
	resp, err := http.Get("http://" + p.ops + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Readiness is what the program says of it; empty when it cannot be asked.
func (p *Process) Readiness() string {
	resp, err := http.Get("http://" + p.ops + "/readyz")
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	return string(text)
}

// WaitReady waits until the program is ready.
func (p *Process) WaitReady() {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return p.Ready() || p.Ended() }, patience, 10*time.Millisecond, "%s is not ready", p.program)
	require.False(p.t, p.Ended(), "%s has ended", p.program)
}

// Ended says whether the program has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Wait waits until the program has ended by itself, and returns its exit code; -1 where a signal ended it.
func (p *Process) Wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		require.Fail(p.t, "the program does not end", p.program)
	}
	return p.cmd.ProcessState.ExitCode()
}

// KilledBy says which signal ended the program.
func (p *Process) KilledBy() syscall.Signal {
	p.t.Helper()
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(p.t, ok && status.Signaled(), "the program ended with code %d", p.cmd.ProcessState.ExitCode())
	return status.Signal()
}

// Kill ends the program without a warning.
func (p *Process) Kill() {
	p.t.Helper()
	_ = p.cmd.Process.Kill()
	<-p.exited
	p.cmd = nil
}

// Stop asks the program to end and waits until it has, with exit code 0.
func (p *Process) Stop() {
	p.t.Helper()
	p.Signal(syscall.SIGTERM)
	require.Equal(p.t, 0, p.Wait())
	p.cmd = nil
}

// Signal sends a signal to the program.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(s))
}

// Stands says whether the program is stopped, as by SIGSTOP.
func (p *Process) Stands() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && strings.HasPrefix(state, "T")
}

// Memory is the program's memory in bytes: now and at its highest.
func (p *Process) Memory() (now, peak int64) {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	read := func(name string) int64 {
		_, rest, found := strings.Cut(string(status), name+":")
		require.True(p.t, found, name)
		kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		require.NoError(p.t, err)
		return kib << 10
	}
	return read("VmRSS"), read("VmHWM")
}

// Log is all that the program has said, since its first start.
func (p *Process) Log() string {
	p.t.Helper()
	b, err := os.ReadFile(p.log)
	require.NoError(p.t, err)
	return string(b)
}

// Said counts how often a text is in the program's log.
func (p *Process) Said(text string) int {
	p.t.Helper()
	return strings.Count(p.Log(), text)
}

// Metric adds up the samples of a metric of the program; 0 when it cannot be asked.
func (p *Process) Metric(name string) float64 {
	p.t.Helper()
	resp, err := http.Get("http://" + p.ops + "/metrics")
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0
	}
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series == name || strings.HasPrefix(series, name+"{") {
			n, err := strconv.ParseFloat(value, 64)
			require.NoError(p.t, err)
			sum += n
		}
	}
	return sum
}
