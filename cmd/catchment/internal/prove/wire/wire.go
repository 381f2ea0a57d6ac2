// Package wire stands between two processes and breaks what they say to each other. Connections come in; their bytes go
// out to the other side, or late, slowly, in one direction only, or not at all.
// It must never change a byte that it passes on, nor pass one on in another order.
package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	chunk       = 32 << 10 // bytes that are passed on at once
	dialTimeout = 2 * time.Second
)

// Mode is how a Link treats what passes through. The zero Mode passes everything on.
type Mode struct {
	Refuse   bool          // new connections are closed at once
	HoldUp   bool          // nothing gets from the client to the server: it is kept, and comes when this ends
	HoldDown bool          // nothing gets from the server to the client
	Latency  time.Duration // how much later each piece arrives, in each direction
	Rate     int           // bytes a second in each direction of one connection; 0: any number
}

// Link is a listener on this machine before one server.
type Link struct {
	Name string

	l     net.Listener
	ended <-chan struct{} // that the link is closed
	close context.CancelFunc
	done  sync.WaitGroup

	accepted, cut atomic.Int64

	mu      sync.Mutex
	target  string
	mode    Mode
	changed chan struct{} // closed when the mode changes
	open    map[*net.TCPConn]struct{}
	trap    *trap
}

// trap cuts the next connection on which a client sends a text.
type trap struct {
	text  []byte
	after bool // the server is to get it first, and to answer
	left  int
	hits  int
}

// New listens on a free port of loopback, for a server at target, which may be set later.
func New(ctx context.Context, name, target string) (*Link, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	k := &Link{Name: name, l: l, target: target, changed: make(chan struct{}), open: map[*net.TCPConn]struct{}{}}
	ctx, k.close = context.WithCancel(context.WithoutCancel(ctx))
	k.ended = ctx.Done()
	k.done.Add(1)
	go k.serve(ctx)
	return k, nil
}

// Address is where the link listens, as host:port.
func (k *Link) Address() string { return k.l.Addr().String() }

// Port is the port of Address.
func (k *Link) Port() int {
	a, _ := k.l.Addr().(*net.TCPAddr)
	return a.Port
}

// Close ends the link and every connection through it.
func (k *Link) Close() {
	k.close()
	_ = k.l.Close()
	k.Cut()
	k.done.Wait()
}

// Set changes how everything is treated from now on, also on connections that are there.
func (k *Link) Set(m Mode) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mode = m
	close(k.changed)
	k.changed = make(chan struct{})
}

// Lead takes new connections to another server; those that stand go on.
func (k *Link) Lead(target string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.target = target
}

// Cut resets every connection, and says how many there were.
func (k *Link) Cut() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for c := range k.open {
		_ = c.SetLinger(0)
		_ = c.Close()
		delete(k.open, c)
		n++
	}
	k.cut.Add(int64(n / 2))
	return n / 2
}

// Trap cuts the next n connections whose client sends the text: before the server has it, or after the server has
// answered it, so that the client never hears. n = 0 takes the trap away. It returns how often the last one was hit.
func (k *Link) Trap(text string, after bool, n int) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	hits := 0
	if k.trap != nil {
		hits = k.trap.hits
	}
	k.trap = nil
	if n > 0 {
		k.trap = &trap{text: []byte(text), after: after, left: n}
	}
	return hits
}

// Sprung says how often the trap was hit.
func (k *Link) Sprung() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.trap == nil {
		return 0
	}
	return k.trap.hits
}

// Seen says how many connections came, and how many were cut.
func (k *Link) Seen() (accepted, cut int64) { return k.accepted.Load(), k.cut.Load() }

func (k *Link) state() (Mode, <-chan struct{}) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mode, k.changed
}

func (k *Link) serve(ctx context.Context) {
	defer k.done.Done()
	for {
		c, err := k.l.Accept()
		if err != nil {
			return
		}
		client, ok := c.(*net.TCPConn)
		if !ok {
			continue
		}
		k.accepted.Add(1)
		k.done.Add(1)
		go func() {
			defer k.done.Done()
			k.carry(ctx, client)
		}()
	}
}

// carry takes one connection to the server and back until either side ends it.
func (k *Link) carry(ctx context.Context, client *net.TCPConn) {
	defer func() { _ = client.Close() }()
	mode, _ := k.state()
	if mode.Refuse {
		_ = client.SetLinger(0)
		return
	}
	server, err := k.dial(ctx)
	if err != nil {
		_ = client.SetLinger(0)
		return
	}
	defer func() { _ = server.Close() }()
	k.mu.Lock()
	k.open[client], k.open[server] = struct{}{}, struct{}{}
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.open, client)
		delete(k.open, server)
	}()
	p := &pair{link: k, client: client, server: server}
	var both sync.WaitGroup
	both.Add(2)
	go func() { defer both.Done(); p.pass(client, server, true) }()
	go func() { defer both.Done(); p.pass(server, client, false) }()
	both.Wait()
}

func (k *Link) dial(ctx context.Context) (*net.TCPConn, error) {
	k.mu.Lock()
	target := k.target
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", target)
	if err != nil {
		return nil, err
	}
	server, ok := c.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(errors.New("no TCP connection"), c.Close())
	}
	return server, nil
}

// pair is one connection, as both sides see it.
type pair struct {
	link           *Link
	client, server *net.TCPConn
	deaf           atomic.Bool // the client hears no more
}

// pass carries one direction. An end of file is passed on; an error ends both.
func (p *pair) pass(from, to *net.TCPConn, up bool) {
	buf := make([]byte, chunk)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.deliver(to, buf[:n], up) {
			_, _ = p.client.Close(), p.server.Close()
			return
		}
		if err != nil {
			if to.CloseWrite() != nil {
				_, _ = p.client.Close(), p.server.Close()
			}
			return
		}
	}
}

// deliver passes a piece on as the mode wants it, and says whether the connection goes on.
func (p *pair) deliver(to *net.TCPConn, piece []byte, up bool) bool {
	if up {
		switch sprung, after := p.sprung(piece); {
		case sprung && !after:
			return false
		case sprung:
			p.deaf.Store(true)
		}
	}
	if !p.wait(len(piece), up) {
		return false
	}
	if !up && p.deaf.Load() { // the server has answered
		_ = p.client.SetLinger(0)
		p.link.cut.Add(1)
		return false
	}
	_, err := to.Write(piece)
	return err == nil
}

// sprung says whether a piece of the client's is what the trap waits for.
func (p *pair) sprung(piece []byte) (sprung, after bool) {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	t := p.link.trap
	if t == nil || t.left == 0 || !bytes.Contains(piece, t.text) {
		return false, false
	}
	t.left--
	t.hits++
	return true, t.after
}

// wait lets the time pass that a piece of n bytes takes; false: the link has ended.
func (p *pair) wait(n int, up bool) bool {
	for waited := false; ; {
		mode, changed := p.link.state()
		held := up && mode.HoldUp || !up && mode.HoldDown
		delay := mode.Latency
		if mode.Rate > 0 {
			delay += time.Duration(float64(n) / float64(mode.Rate) * float64(time.Second))
		}
		switch {
		case held:
			select {
			case <-changed:
			case <-p.link.ended:
				return false
			}
			continue
		case delay == 0 || waited:
			return true
		}
		select {
		case <-time.After(delay):
			waited = true
		case <-changed:
		case <-p.link.ended:
			return false
		}
	}
}
