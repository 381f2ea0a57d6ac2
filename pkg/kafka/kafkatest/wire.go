package kafkatest

import (
	"net"
	"sync"
)

// Link is what the connections of one of kfake's brokers do.
type Link int

// The kinds of Link.
const (
	Open      Link = iota
	BlackHole      // connections are taken, and nothing is read or answered until Open
	Mute           // requests are handled, and their answers wait until Open
	Refused        // connections end at once, those that stand as well
)

// wire is what kfake's brokers are reached through, so that a test can break it. Links go by the broker's address.
type wire struct {
	mu      sync.Mutex
	changed *sync.Cond
	links   map[string]Link
	conns   map[*wiredConn]bool
}

func newWire() *wire {
	w := &wire{links: map[string]Link{}, conns: map[*wiredConn]bool{}}
	w.changed = sync.NewCond(&w.mu)
	return w
}

func (w *wire) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	return &wiredListener{l, w}, nil
}

func (w *wire) set(address string, l Link) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.links[address] = l
	if l == Refused {
		for c := range w.conns {
			if c.broker == address {
				c.closed = true
				_ = c.Conn.Close()
			}
		}
	}
	w.changed.Broadcast()
}

// heal opens every link.
func (w *wire) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.links)
	w.changed.Broadcast()
}

type wiredListener struct {
	net.Listener
	w *wire
}

func (l *wiredListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		wc := &wiredConn{Conn: c, w: l.w, broker: l.Addr().String()}
		l.w.mu.Lock()
		refused := l.w.links[wc.broker] == Refused
		if !refused {
			l.w.conns[wc] = true
		}
		l.w.mu.Unlock()
		if !refused {
			return wc, nil
		}
		_ = c.Close()
	}
}

type wiredConn struct {
	net.Conn
	w      *wire
	broker string
	closed bool
}

// wait returns when the link does none of these, or the connection is closed.
func (c *wiredConn) wait(links ...Link) {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for !c.closed {
		stuck := false
		for _, l := range links {
			stuck = stuck || c.w.links[c.broker] == l
		}
		if !stuck {
			return
		}
		c.w.changed.Wait()
	}
}

// Read holds back also what had arrived when the link broke.
func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.wait(BlackHole)
	return n, err
}

func (c *wiredConn) Write(b []byte) (int, error) {
	c.wait(BlackHole, Mute)
	return c.Conn.Write(b)
}

func (c *wiredConn) Close() error {
	c.w.mu.Lock()
	c.closed = true
	delete(c.w.conns, c)
	c.w.changed.Broadcast()
	c.w.mu.Unlock()
	return c.Conn.Close()
}
