package proctest

import (
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) { Main(m, 1) }

// A program is made once, and lives as often as a test wants it to.
func TestProcess(t *testing.T) {
	program := Build(t, "./testdata/program")
	require.Equal(t, program, Build(t, "./testdata/program"))
	require.NotEqual(t, program, Build(t, "./testdata/program", "-tags", "other"))
	ops := FreeAddress(t)
	p := New(t, program, ops, []byte(ops))
	p.Args = []string{"serve"}
	require.False(t, p.Ready())
	require.Zero(t, p.Metric("asked"), "nobody answers")

	p.Start("PROCTEST=first")
	p.WaitReady()
	require.False(t, p.Ended())
	require.Equal(t, 1, p.Said("begun first serve"))
	require.InDelta(t, 5, p.Metric("asked"), 0)
	require.InDelta(t, 2, p.Metric(`asked{a="1"}`), 0)
	now, peak := p.Memory()
	require.Positive(t, now)
	require.GreaterOrEqual(t, peak, now)
	p.Signal(syscall.SIGSTOP)
	require.Eventually(t, p.Stands, patience, time.Millisecond)
	p.Signal(syscall.SIGCONT)
	p.Stop()

	p.Start()
	p.WaitReady()
	p.Signal(syscall.SIGKILL)
	require.Equal(t, -1, p.Wait())
	require.Equal(t, syscall.SIGKILL, p.KilledBy())
	p.Start()
	p.WaitReady()
	p.Kill()
	require.Equal(t, 3, p.Said("begun "))

	l, err := net.Listen("tcp", ops)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	p.Start()
	require.Equal(t, 3, p.Wait(), "its address is taken")
	require.True(t, p.Ended())
}

// What a test leaves running is killed at its end.
func TestNothingStays(t *testing.T) {
	var pid int
	t.Run("left", func(t *testing.T) {
		ops := FreeAddress(t)
		p := New(t, Build(t, "./testdata/program"), ops, []byte(ops))
		p.Start()
		p.WaitReady()
		pid = p.cmd.Process.Pid
	})
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
}

func TestBuildFails(t *testing.T) {
	_, err := building([]string{"./testdata/nothing"})()
	require.ErrorContains(t, err, "go build ./testdata/nothing")
	_, err = os.Stat(programs.dir)
	require.NoError(t, err)
}
