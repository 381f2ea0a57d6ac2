package simtest

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// Net is a network in memory. Who dials has a name, and so has what listens; the faults of a link are those of its two names.
type Net struct {
	mu        sync.Mutex
	listeners map[string]*listener // by address
	links     map[[2]string]Link
	conns     map[*conn]struct{}
	latency   func(from, to string) time.Duration
}

// Link is what a link does. The zero value is a sound one.
type Link struct {
	HoldUp   bool // what the dialler sends stays under way
	HoldDown bool // what the listener sends stays under way
	Refuse   bool // new connections are refused
}

// NewNet returns a network; latency is that of each direction of a link.
func NewNet(latency func(from, to string) time.Duration) *Net {
	return &Net{listeners: map[string]*listener{}, links: map[[2]string]Link{}, conns: map[*conn]struct{}{}, latency: latency}
}

// Listen takes connections for name at an address.
func (n *Net) Listen(name, address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[address] != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, syscall.EADDRINUSE)
	}
	l := &listener{net: n, name: name, addr: &net.TCPAddr{IP: net.ParseIP(host), Port: number}, at: address, queue: make(chan *conn, 64), closed: make(chan struct{})}
	n.listeners[address] = l
	return l, nil
}

// Dialer makes connections for name.
func (n *Net) Dialer(from string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, _, address string) (net.Conn, error) {
		n.mu.Lock()
		defer n.mu.Unlock()
		l := n.listeners[address]
		if l == nil || n.links[[2]string{from, l.name}].Refuse {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		near, far := n.pair(from, l)
		select {
		case l.queue <- far:
			return near, nil
		default:
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
		}
	}
}

func (n *Net) pair(from string, l *listener) (near, far *conn) {
	link, delay := [2]string{from, l.name}, n.latency(from, l.name)
	up, down := newHalf(delay), newHalf(delay)
	up.held, down.held = n.links[link].HoldUp, n.links[link].HoldDown
	me := &net.TCPAddr{IP: net.IPv4(10, 0, 0, byte(1+len(from)%200)), Port: 40000}
	near = &conn{net: n, link: link, in: down, out: up, local: me, remote: l.addr, dialled: true}
	far = &conn{net: n, link: link, in: up, out: down, local: l.addr, remote: me}
	n.conns[near] = struct{}{}
	return near, far
}

// Set makes a link what it is from now on, also for the connections that stand.
func (n *Net) Set(from, to string, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[[2]string{from, to}] = l
	for c := range n.conns {
		if c.link == [2]string{from, to} {
			c.out.hold(l.HoldUp)
			c.in.hold(l.HoldDown)
		}
	}
}

// Cut ends the connections of a link; what was under way is lost.
func (n *Net) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		if c.link == [2]string{from, to} {
			delete(n.conns, c)
			c.out.reset()
			c.in.reset()
		}
	}
}

// Unplug ends all connections from and to a name, for ever: its process is dead, or no longer heard of.
func (n *Net) Unplug(name string, peers ...string) {
	for _, p := range peers {
		n.Set(name, p, Link{Refuse: true})
		n.Set(p, name, Link{Refuse: true})
		n.Cut(name, p)
		n.Cut(p, name)
	}
}

// End ends all connections.
func (n *Net) End() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		c.out.reset()
		c.in.reset()
	}
	clear(n.conns)
}

type listener struct {
	net    *Net
	name   string
	addr   *net.TCPAddr
	at     string
	queue  chan *conn
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		defer l.net.mu.Unlock()
		if l.net.listeners[l.at] == l {
			delete(l.net.listeners, l.at)
		}
		close(l.closed)
		for {
			select {
			case c := <-l.queue:
				c.in.reset()
				c.out.reset()
			default:
				return
			}
		}
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// conn is one end of a connection.
type conn struct {
	net           *Net
	link          [2]string
	in, out       *half
	local, remote *net.TCPAddr
	dialled       bool
}

func (c *conn) Read(b []byte) (int, error)         { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error)        { return c.out.write(b) }
func (c *conn) LocalAddr() net.Addr                { return c.local }
func (c *conn) RemoteAddr() net.Addr               { return c.remote }
func (c *conn) SetReadDeadline(t time.Time) error  { c.in.deadline(t); return nil }
func (c *conn) SetWriteDeadline(t time.Time) error { c.out.late(t); return nil }

func (c *conn) SetDeadline(t time.Time) error {
	c.in.deadline(t)
	c.out.late(t)
	return nil
}

func (c *conn) Close() error {
	c.out.end()
	c.in.shut()
	if c.dialled { // what is held stays known until it is let go
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		if l := c.net.links[c.link]; !l.HoldUp {
			delete(c.net.conns, c)
		}
	}
	return nil
}

// gone is closed when the connection has ended, whoever ended it.
func (c *conn) gone() <-chan struct{} { return c.in.done }

// half is one direction of a connection.
type half struct {
	mu       sync.Mutex
	wake     *sync.Cond
	delay    time.Duration
	queue    []chunk
	held     bool
	ended    bool // the writer has closed it
	closed   bool // the reader has closed it
	lost     bool // it was cut
	until    time.Time
	writable time.Time
	once     sync.Once
	done     chan struct{} // nothing more can be read, or nobody reads
}

type chunk struct {
	bytes []byte
	at    time.Time
}

func newHalf(delay time.Duration) *half {
	h := &half{delay: delay, done: make(chan struct{})}
	h.wake = sync.NewCond(&h.mu)
	return h
}

func (h *half) change(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.wake.Broadcast()
}

func (h *half) hold(on bool)         { h.change(func() { h.held = on; h.settle() }) }
func (h *half) deadline(t time.Time) { h.change(func() { h.until = t }) }
func (h *half) late(t time.Time)     { h.change(func() { h.writable = t }) }
func (h *half) end()                 { h.change(func() { h.ended = true; h.settle() }) }
func (h *half) shut()                { h.change(func() { h.closed, h.queue = true, nil; h.finish() }) }

func (h *half) reset()  { h.change(func() { h.lost, h.queue = true, nil; h.finish() }) }
func (h *half) finish() { h.once.Do(func() { close(h.done) }) }

// settle lets the reader know of the end, unless that is still under way.
func (h *half) settle() {
	if h.ended && !h.held {
		h.finish()
	}
}

func (h *half) write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.lost:
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.ECONNRESET}
	case h.ended:
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: net.ErrClosed}
	case h.closed:
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}
	case !h.writable.IsZero() && !time.Now().Before(h.writable):
		return 0, &net.OpError{Op: "write", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	h.queue = append(h.queue, chunk{append([]byte(nil), b...), time.Now().Add(h.delay)})
	h.wake.Broadcast()
	return len(b), nil
}

func (h *half) read(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		now := time.Now()
		ready := len(h.queue) > 0 && !h.held && !now.Before(h.queue[0].at)
		switch {
		case h.lost:
			return 0, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
		case h.closed:
			return 0, &net.OpError{Op: "read", Net: "tcp", Err: net.ErrClosed}
		case !h.until.IsZero() && !now.Before(h.until):
			return 0, &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
		case ready:
			n := copy(b, h.queue[0].bytes)
			if h.queue[0].bytes = h.queue[0].bytes[n:]; len(h.queue[0].bytes) == 0 {
				h.queue = h.queue[1:]
			}
			return n, nil
		case h.ended && !h.held && len(h.queue) == 0:
			return 0, io.EOF
		}
		h.sleep(now)
	}
}

// sleep waits for a change, or for the time at which something is due.
func (h *half) sleep(now time.Time) {
	next := h.until
	if len(h.queue) > 0 && !h.held && (next.IsZero() || h.queue[0].at.Before(next)) {
		next = h.queue[0].at
	}
	if !next.IsZero() {
		t := time.AfterFunc(next.Sub(now), func() { h.change(func() {}) })
		defer t.Stop()
	}
	h.wake.Wait()
}
