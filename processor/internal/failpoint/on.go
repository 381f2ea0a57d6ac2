//go:build failpoints

package failpoint

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const linger = time.Second // of a pass that went on after a stop

type choice struct {
	point  Point
	signal syscall.Signal
	at     int64
}

var (
	chosen = sync.OnceValue(choose)
	passes atomic.Int64
)

// choose reads Env. A value that is wrong ends the process: a test must not go on without its fault.
func choose() choice {
	text := os.Getenv(Env)
	if text == "" {
		return choice{}
	}
	point, rest, _ := strings.Cut(text, "=")
	action, at, _ := strings.Cut(rest, "@")
	n, err := strconv.ParseInt(at, 10, 64)
	signal, known := map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGSTOP}[action]
	if err != nil || !known || n < 1 {
		fmt.Fprintf(os.Stderr, "failpoint: %s=%q: expected POINT=kill@N or POINT=stop@N\n", Env, text)
		os.Exit(2) //nolint:forbidigo // a build for tests only, which must not run without its fault
	}
	return choice{Point(point), signal, n}
}

// Hit passes a point.
func Hit(p Point) {
	c := chosen()
	if c.point != p || passes.Add(1) != c.at {
		return
	}
	fmt.Fprintf(os.Stderr, "failpoint: %s, pass %d\n", p, c.at)
	_ = syscall.Kill(os.Getpid(), c.signal)
	if c.signal == syscall.SIGKILL {
		select {} // the signal may reach another thread first
	}
	t := time.NewTimer(linger)
	defer t.Stop()
	<-t.C
}

// Watch lets a COMMIT be seen on the connections that cfg makes.
func Watch(cfg *pgconn.Config) {
	cfg.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, c net.Conn) (net.Conn, error) {
		return &conn{Conn: c}, nil
	}
}

// Arm says which point is passed when the next COMMIT on the connection is sent.
func Arm(c net.Conn, p Point) {
	if w, ok := c.(*conn); ok {
		w.armed.Store(&p)
	}
}

type conn struct {
	net.Conn
	armed atomic.Pointer[Point]
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if bytes.Contains(bytes.ToLower(b), []byte("commit\x00")) {
		if p := c.armed.Swap(nil); p != nil {
			Hit(*p)
		}
	}
	return n, err
}
