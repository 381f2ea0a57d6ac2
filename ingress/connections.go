package ingress

import (
	"bytes"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// connections is a listener that holds at most so many connections. When they are used up, the one that has been
// without a request for longest is closed for the new one: whoever opens thousands and sends nothing shuts nobody out.
// Where all are busy the new one is closed.
type connections struct {
	net.Listener
	most int
	h2c  bool
	raw  bool // what comes is not HTTP yet

	mu   sync.Mutex
	open int
	idle conn // head of a ring, longest first
}

func newConnections(l net.Listener, most int, h2c, raw bool) *connections {
	c := &connections{Listener: l, most: most, h2c: h2c, raw: raw}
	c.idle.next, c.idle.prev = &c.idle, &c.idle
	return c
}

// conn is one connection, a member of the ring while it is idle.
type conn struct {
	lazy
	owner      *connections
	peer       netip.Addr // the other end; zero: it has no address
	next, prev *conn
	closed     bool
	frames     *framing // nil: not looked at
	preface    int      // how much of HTTP/2's preface has come; -1: it is something else
	lookout    lookout
}

// lookout is net/http's look-out for a sender that hangs up before it has its answer: a read of one byte, in a goroutine
// of its own, as soon as the body has been read. What a request becomes does not depend on its sender's still being
// there, and to begin and break off that read is a tenth of what a request costs. While the look-out is off, such a read
// ends at once without a byte. Nothing else reads a single byte, for a body of known length comes in larger pieces.
type lookout struct{ off bool }

func (o *lookout) skips(p []byte) bool { return o.off && len(p) == 1 }

// looksOut finds the look-out of a request's connection; nil: it has none, as in HTTP/2.
func looksOut(nc net.Conn) *lookout {
	switch c := nc.(type) {
	case *conn:
		return &c.lookout
	case *secured:
		return &c.lookout
	}
	return nil
}

// Accept waits for the next connection that there is room for.
func (l *connections) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		t := &conn{lazy: lazy{Conn: c}, owner: l, preface: -1}
		if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
			t.peer = a.AddrPort().Addr().Unmap().WithZone("")
		}
		if !l.raw {
			t.frames = newFraming()
		}
		if l.h2c {
			t.preface = 0
		}
		if victim, ok := l.add(t); !ok {
			_ = c.Close()
			continue
		} else if victim != nil {
			_ = victim.Close()
		}
		return t, nil
	}
}

func (l *connections) add(c *conn) (victim *conn, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.most {
		if victim = l.idle.next; victim == &l.idle {
			return nil, false
		}
		victim.unlink()
		victim.closed = true
		l.open--
	}
	l.open++
	l.rest(c)
	return victim, true
}

// rest puts c at the end of the ring.
func (l *connections) rest(c *conn) {
	c.prev, c.next = l.idle.prev, &l.idle
	c.prev.next, l.idle.prev = c, c
}

func (c *conn) unlink() {
	if c.next != nil {
		c.prev.next, c.next.prev = c.next, c.prev
		c.next, c.prev = nil, nil
	}
}

// noteState is the server's ConnState hook.
func (l *connections) noteState(nc net.Conn, state http.ConnState) {
	c := trackedOf(nc)
	if c == nil {
		return
	}
	if o := looksOut(nc); o != nil && state == http.StateIdle {
		o.off = false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case c.closed:
	case state == http.StateActive:
		c.unlink()
	case state == http.StateIdle && c.next == nil:
		l.rest(c)
	}
}

func trackedOf(nc net.Conn) *conn {
	switch c := nc.(type) {
	case *conn:
		return c
	case *tls.Conn:
		t, _ := c.NetConn().(*conn)
		return t
	case *secured:
		t, _ := c.NetConn().(*conn)
		return t
	}
	return nil
}

// Close makes room for another connection.
func (c *conn) Close() error {
	c.owner.mu.Lock()
	if !c.closed {
		c.closed = true
		c.owner.open--
	}
	c.unlink()
	c.owner.mu.Unlock()
	return c.Conn.Close()
}

// CloseWrite lets the server's last answer arrive before the connection is reset.
func (c *conn) CloseWrite() error {
	if t, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return t.CloseWrite()
	}
	return nil
}

const http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Read reads from the connection, and spoils what must not pass.
func (c *conn) Read(p []byte) (int, error) {
	if c.lookout.skips(p) {
		return 0, nil
	}
	n, err := c.lazy.Read(p)
	if c.preface >= 0 && n > 0 {
		c.detect(p[:n])
	}
	if c.frames != nil {
		c.frames.pass(p[:n])
	}
	return n, err
}

// detect stops looking at HTTP/1's framing once the connection has turned out to speak HTTP/2.
func (c *conn) detect(p []byte) {
	want := http2Preface[c.preface:]
	n := min(len(want), len(p))
	switch {
	case !bytes.Equal(p[:n], []byte(want[:n])):
		c.preface = -1
	case n == len(want):
		c.preface, c.frames = -1, nil
	default:
		c.preface += n
	}
}

// secured is a TLS connection that speaks HTTP/1, with its framing looked at.
type secured struct {
	*tls.Conn
	frames  *framing
	state   tls.ConnectionState
	lookout lookout
}

// Read reads what was decrypted, and spoils what must not pass.
func (c *secured) Read(p []byte) (int, error) {
	if c.lookout.skips(p) {
		return 0, nil
	}
	n, err := c.Conn.Read(p)
	c.frames.pass(p[:n])
	return n, err
}

// handshakes is a listener whose connections have done TLS's handshake, so that what speaks HTTP/1 can be wrapped.
type handshakes struct {
	net.Listener
	config *tls.Config
	limit  time.Duration
	ready  chan net.Conn
	failed chan error
	closed chan struct{}
	once   sync.Once
}

func newHandshakes(l net.Listener, config *tls.Config, limit time.Duration) *handshakes {
	h := &handshakes{
		Listener: l, config: config, limit: limit,
		ready: make(chan net.Conn), failed: make(chan error, 1), closed: make(chan struct{}),
	}
	go h.accept()
	return h
}

func (h *handshakes) accept() {
	for {
		c, err := h.Listener.Accept()
		if err != nil {
			h.failed <- err
			return
		}
		go h.shake(c)
	}
}

func (h *handshakes) shake(raw net.Conn) {
	c := tls.Server(raw, h.config)
	_ = c.SetDeadline(time.Now().Add(h.limit))
	if err := c.Handshake(); err != nil { //nolint:noctx // the deadline ends it
		_ = raw.Close()
		return
	}
	_ = c.SetDeadline(time.Time{})
	var ready net.Conn = c
	if state := c.ConnectionState(); state.NegotiatedProtocol != "h2" {
		ready = &secured{Conn: c, frames: newFraming(), state: state}
	}
	select {
	case h.ready <- ready:
	case <-h.closed:
		_ = raw.Close()
	}
}

// Accept returns the next connection whose handshake is done.
func (h *handshakes) Accept() (net.Conn, error) {
	select {
	case c := <-h.ready:
		return c, nil
	case err := <-h.failed:
		return nil, err
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close stops listening; handshakes that go on are given up.
func (h *handshakes) Close() error {
	h.once.Do(func() { close(h.closed) })
	return h.Listener.Close()
}
