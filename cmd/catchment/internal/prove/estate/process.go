package estate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a program of the estate. It can be ended and started again; its log stays.
type Process struct {
	Name string

	program  string
	args     []string
	env      []string // besides ours
	dir      string
	uid, gid int
	deathsig syscall.Signal
	log      string
	starts   *starter

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	began  int64 // the log's length when it was started last
}

// starter starts processes from one thread that lives as long as we do: a parent's death signal is sent when the thread
// that started the process ends, not when the process does.
type starter struct {
	asked chan func()
}

func newStarter() *starter {
	s := &starter{asked: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for f := range s.asked {
			f()
		}
	}()
	return s
}

func (s *starter) start(cmd *exec.Cmd) error {
	done := make(chan error)
	s.asked <- func() { done <- cmd.Start() }
	return <-done
}

// Start starts it; nothing happens when it runs.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && !ended(p.exited) {
		return nil
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if info, err := log.Stat(); err == nil {
		p.began = info.Size()
	}
	cmd := exec.Command(p.program, p.args...) //nolint:noctx // it outlives the call, and is ended by its own signals
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, p.dir
	cmd.Env = append(os.Environ(), p.env...)
	own(cmd, p.deathsig, p.uid, p.gid)
	if err := p.starts.start(cmd); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	go func() { _ = cmd.Wait(); close(exited) }()
	return nil
}

func ended(exited chan struct{}) bool {
	select {
	case <-exited:
		return true
	default:
		return false
	}
}

// Running says whether it runs, also when it stands still.
func (p *Process) Running() bool { return p.Pid() != 0 }

// Pid is its number; 0: it does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || ended(p.exited) {
		return 0
	}
	return p.cmd.Process.Pid
}

// Signal sends a signal to it.
func (p *Process) Signal(s syscall.Signal) error {
	pid := p.Pid()
	if pid == 0 {
		return fmt.Errorf("%s does not run", p.Name)
	}
	return syscall.Kill(pid, s)
}

// End sends a signal, and waits until it has ended; after patience it is killed, which is an error.
func (p *Process) End(ctx context.Context, s syscall.Signal, patience time.Duration) error {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	if cmd == nil || ended(exited) {
		return nil
	}
	_ = cmd.Process.Signal(syscall.SIGCONT)
	_ = cmd.Process.Signal(s)
	select {
	case <-exited:
		return nil
	case <-ctx.Done():
	case <-time.After(patience):
	}
	_ = cmd.Process.Kill()
	<-exited
	return errors.Join(ctx.Err(), fmt.Errorf("%s did not end by signal %v within %v", p.Name, s, patience))
}

// Kill ends it without a warning.
func (p *Process) Kill() {
	p.mu.Lock()
	cmd, exited := p.cmd, p.exited
	p.mu.Unlock()
	if cmd != nil {
		_ = cmd.Process.Kill()
		<-exited
	}
}

// Said counts the lines of its log that hold one of the texts.
func (p *Process) Said(texts ...string) int { return p.said(0, texts...) }

// SaidNow is Said since it was started last.
func (p *Process) SaidNow(texts ...string) int {
	p.mu.Lock()
	from := p.began
	p.mu.Unlock()
	return p.said(from, texts...)
}

func (p *Process) said(from int64, texts ...string) (n int) {
	f, err := os.Open(p.log)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return 0
	}
	lines := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := lines.ReadSlice('\n') // of a longer one, each part counts by itself
		if slices.ContainsFunc(texts, func(t string) bool { return bytes.Contains(line, []byte(t)) }) {
			n++
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return n
		}
	}
}

// logEnd is the log's end, for an error.
func (p *Process) logEnd() string {
	f, err := os.Open(p.log)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	const tail = 1500
	if info, err := f.Stat(); err == nil && info.Size() > tail {
		_, _ = f.Seek(-tail, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	return string(b)
}

// children are the numbers of the processes that a process has started.
func children(pid int) []int {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	var found []int
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		text := string(b)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			n, _ := strconv.Atoi(strings.TrimPrefix(filepath.Dir(name), "/proc/"))
			found = append(found, n)
		}
	}
	return found
}

// fillDisk lets every further write of a process of that user to a file fail. Who is root may do that to processes of
// another user only as that user, unless root may do everything.
func fillDisk(ctx context.Context, pid, uid, gid int) error {
	cmd := exec.CommandContext(ctx, "prlimit", "--pid", strconv.Itoa(pid), "--fsize=0:")
	own(cmd, kill, uid, gid)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("prlimit: %w: %s", err, out)
	}
	return nil
}

// Pause lets time pass, unless ctx ends.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// errEnded is what waits for a process that has ended: it will not come by itself.
var errEnded = errors.New("it has ended")

// Await asks until ok is nil, patience is over, or ctx ends; the error is the last that ok gave.
func Await(ctx context.Context, patience, every time.Duration, what string, ok func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last error
	for {
		err := ok(ctx)
		if err == nil || errors.Is(err, errEnded) {
			return err
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if Pause(ctx, every) != nil {
			return fmt.Errorf("%s: not within %v: %w", what, patience, last)
		}
	}
}
