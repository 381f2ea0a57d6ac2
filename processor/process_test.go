package processor

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// process is the processor as a program of its own, which can be killed, stopped and started again.
type process struct {
	t       testing.TB
	program string
	config  string
	log     string
	ops     string
	cmd     *exec.Cmd
	exited  chan struct{}
}

// build makes the program, with the given arguments of go build.
func build(tb testing.TB, args ...string) string {
	tb.Helper()
	program := filepath.Join(tb.TempDir(), "processor")
	out, err := exec.Command("go", append(append([]string{"build"}, args...), "-o", program, "./cmd/processor")...).CombinedOutput()
	require.NoError(tb, err, "%s", out)
	return program
}

// process writes the world's configuration to a file for the program.
func (w *world) process(program string) *process {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "processor-")
	require.NoError(w.t, err)
	p := &process{t: w.t, program: program, config: filepath.Join(dir, "catchment.yaml"), log: filepath.Join(dir, "log"), ops: freeAddress(w.t)}
	require.NoError(w.t, os.WriteFile(p.config, w.file(p.ops), 0o600))
	w.t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
		if w.t.Failed() {
			text, _ := os.ReadFile(p.log)
			w.t.Logf("end of the log of %s:\n%s", program, text[max(0, len(text)-4000):])
		}
		_ = os.RemoveAll(dir)
	})
	return p
}

// file is the world's configuration as text; JSON is YAML.
func (w *world) file(ops string) []byte {
	w.t.Helper()
	type object = map[string]any
	duration := func(d time.Duration) string { return d.String() }
	var operations []any
	for _, op := range w.cfg.Operations {
		op = withDefaults(op)
		o := object{
			"name": op.Name, "on": object{"source": op.On.Source, "types": op.On.Types}, "sql": op.SQL, "params": op.Params,
			"expect_rows": op.ExpectRows, "timeout": duration(op.Timeout),
			"retry": object{"max_attempts": op.Retry.MaxAttempts, "initial": duration(op.Retry.Initial), "max": duration(op.Retry.Max)},
		}
		for key, value := range map[string]string{"when": op.When, "entity": op.Entity, "version": op.Version, "guard": op.Guard} {
			if value != "" {
				o[key] = value
			}
		}
		operations = append(operations, o)
	}
	sources := object{}
	for name, s := range w.cfg.Sources {
		sources[name] = object{"provider": s.Provider}
	}
	c := w.cfg.Processor
	text, err := json.Marshal(object{
		"kafka":    object{"brokers": w.cfg.Kafka.Brokers, "topic": w.cfg.Kafka.Topic, "create_topic": false},
		"postgres": object{"url": w.cfg.Postgres.URL.Reveal(), "max_conns": w.cfg.Postgres.MaxConns},
		"processor": object{
			"ops_listen": ops, "group": c.Group, "batch": c.Batch, "migrate": c.Migrate,
			"tx_timeout": duration(c.TxTimeout), "session_timeout": duration(c.Session),
		},
		"sources": sources, "operations": operations,
	})
	require.NoError(w.t, err)
	return text
}

func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	defer func() { require.NoError(tb, l.Close()) }()
	return l.Addr().String()
}

// start starts the program; env is NAME=VALUE.
func (p *process) start(env ...string) {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(p.t, err)
	defer func() { require.NoError(p.t, log.Close()) }()
	p.cmd = exec.Command(p.program, "--config", p.config)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), env...)
	require.NoError(p.t, p.cmd.Start())
	cmd, exited := p.cmd, make(chan struct{})
	p.exited = exited
	go func() { _ = cmd.Wait(); close(exited) }()
}

// ended says whether the program has ended.
func (p *process) ended() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// killed says which signal ended the program.
func (p *process) killedBy() syscall.Signal {
	p.t.Helper()
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(p.t, ok && status.Signaled(), "the program ended with code %d", p.cmd.ProcessState.ExitCode())
	return status.Signal()
}

func (p *process) kill() {
	p.t.Helper()
	_ = p.cmd.Process.Kill()
	<-p.exited
	p.cmd = nil
}

// stop asks the program to end and waits until it has, with exit code 0.
func (p *process) stop() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	require.True(p.t, waitFor(p.ended), "the processor does not end")
	require.Equal(p.t, 0, p.cmd.ProcessState.ExitCode())
	p.cmd = nil
}

// said counts how often a text is in the program's log.
func (p *process) said(text string) int {
	p.t.Helper()
	b, err := os.ReadFile(p.log)
	require.NoError(p.t, err)
	return strings.Count(string(b), text)
}

// metric adds up the samples of a metric of the program; 0 when it cannot be asked.
func (p *process) metric(name string) float64 {
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
