package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/catchment-dev/catchment/pkg/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a service that writes down when it starts and stops.
type fake struct {
	name  string
	diary *diary
	fails chan error // a value ends Run
	drain error
	ready error
}

type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) add(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (f *fake) Name() string { return f.name }
func (f *fake) Ready() error { return f.ready }

func (f *fake) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		f.diary.add(f.name + " stopped")
		return f.drain
	case err := <-f.fails:
		return err
	}
}

func trio() (*diary, []*fake, []Service) {
	d := &diary{}
	fakes := []*fake{}
	services := []Service{}
	for _, name := range []string{"first", "second", "third"} {
		f := &fake{name: name, diary: d, fails: make(chan error, 1)}
		fakes, services = append(fakes, f), append(services, f)
	}
	return d, fakes, services
}

func TestGroupStopsInReverse(t *testing.T) {
	d, _, services := trio()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.NoError(t, Group(ctx, services...))
	require.Equal(t, []string{"third stopped", "second stopped", "first stopped"}, d.lines)
}

func TestGroupFailsTogether(t *testing.T) {
	d, fakes, services := trio()
	cause := errors.New("disk full")
	fakes[1].fails <- cause
	fakes[0].drain = errors.New("could not drain")
	err := Group(context.Background(), services...)
	require.ErrorIs(t, err, cause)
	require.EqualError(t, err, "second: disk full\nfirst: could not drain")
	require.Equal(t, []string{"third stopped", "first stopped"}, d.lines)

	_, fakes, services = trio()
	fakes[2].fails <- nil
	require.EqualError(t, Group(context.Background(), services...), "third: ended by itself")
}

func TestReady(t *testing.T) {
	_, fakes, services := trio()
	require.NoError(t, Ready(services...))
	fakes[1].ready = errors.New("starting")
	require.EqualError(t, Ready(services...), "second: starting")
}

func TestMainExitCodes(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		err  error
		code int
		text string
	}{
		"ok":                  {nil, nil, ExitOK, ""},
		"failure":             {nil, errors.New("no disk"), ExitFailed, "svc: no disk\n"},
		"usage":               {nil, fmt.Errorf("%w: no file", ErrUsage), ExitUsage, "svc: usage: no file\n"},
		"wrong configuration": {nil, config.Errors{{Pos: config.Pos{File: "c.yaml", Line: 1, Col: 2}, Path: "a", Msg: "b"}}, ExitUsage, "svc: c.yaml:1:2: a: b\n"},
		"unknown flag":        {[]string{"--nope"}, nil, ExitUsage, "flag provided but not defined"},
		"argument":            {[]string{"now"}, nil, ExitUsage, "expected no arguments"},
		"help":                {[]string{"--help"}, nil, ExitOK, "configuration file"},
		"version":             {[]string{"--version"}, nil, ExitOK, "svc dev"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			got := ""
			code := Main("svc", c.args, &out, func(_ context.Context, path string) error { got = path; return c.err }, nil)
			require.Equal(t, c.code, code)
			require.Contains(t, out.String(), c.text)
			if c.args == nil {
				require.Equal(t, "catchment.yaml", got)
			}
		})
	}
}

func TestTheEnvironmentNamesTheConfiguration(t *testing.T) {
	t.Setenv("CATCHMENT_CONFIG", "/etc/catchment/catchment.yaml")
	got := ""
	f := func(_ context.Context, path string) error { got = path; return nil }
	require.Equal(t, ExitOK, Main("svc", nil, &bytes.Buffer{}, f, nil))
	require.Equal(t, "/etc/catchment/catchment.yaml", got)
	require.Equal(t, ExitOK, Main("svc", []string{"--config", "other.yaml"}, &bytes.Buffer{}, f, nil))
	require.Equal(t, "other.yaml", got)
}

func TestSignalEndsTheContext(t *testing.T) {
	ctx, stop := Signals(context.Background())
	defer stop()
	require.NoError(t, syscall.Kill(syscall.Getpid(), syscall.SIGTERM))
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the signal was not seen")
	}
}

// reloading counts its reloads.
type reloading struct {
	*fake
	times chan struct{}
}

func (r *reloading) Reload() { r.times <- struct{}{} }

func TestHangupReloadsAndDoesNotEnd(t *testing.T) {
	_, stop := hangups() // before Main listens for it, the signal would end the test
	defer stop()
	r := &reloading{&fake{name: "svc", diary: &diary{}, fails: make(chan error)}, make(chan struct{}, 8)}
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() {
		code <- Main("svc", nil, &bytes.Buffer{}, func(context.Context, string) error { return Group(ctx, r) }, nil)
	}()
	for seen := 0; seen < 2; {
		require.NoError(t, syscall.Kill(syscall.Getpid(), syscall.SIGHUP))
		select {
		case <-r.times:
			seen++
		case <-time.After(50 * time.Millisecond): // Group did not listen yet
		}
	}
	select {
	case <-code:
		t.Fatal("ended by SIGHUP")
	default:
	}
	cancel()
	require.Equal(t, ExitOK, <-code)
}
