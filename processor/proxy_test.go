package processor

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between a client and Postgres. It can cut connections, at a COMMIT as well, let them hang, and lead new
// ones to another server.
type proxy struct {
	l     net.Listener
	mode  atomic.Int32
	cuts  atomic.Int32
	atCut func() // run at a cut, while the client waits

	hang sync.RWMutex // locked: nothing comes through

	mu     sync.Mutex
	server string
	open   map[net.Conn]bool
	down   bool
}

// What the proxy does with the next COMMIT.
const (
	pass     = iota
	cutAfter // the server commits, the client never hears of it
	cutBefore
	hold // it goes on to the server when atCut is done
)

func newProxy(t *testing.T, database string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(database)
	require.NoError(t, err)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{server: u.Host, l: l, open: map[net.Conn]bool{}, atCut: func() {}}
	if h := u.Query().Get("host"); h != "" {
		require.Fail(t, "the test database is reached by a socket", h)
	}
	t.Cleanup(func() { _ = p.l.Close(); p.cutAll() })
	go p.serve()
	u.Host = l.Addr().String()
	return p, u.String()
}

func (p *proxy) serve() {
	for {
		c, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		down, server := p.down, p.server
		p.mu.Unlock()
		s, err := new(net.Dialer).DialContext(context.Background(), "tcp", server)
		if err != nil || down {
			_ = c.Close()
			continue
		}
		p.mu.Lock()
		p.open[c], p.open[s] = true, true
		p.mu.Unlock()
		go p.forward(c, s)
	}
}

func (p *proxy) write(c net.Conn, b []byte) error {
	p.hang.RLock()
	defer p.hang.RUnlock()
	_, err := c.Write(b)
	return err
}

// forward carries one connection. After a COMMIT that is to be cut it waits for the server's answer and drops it.
func (p *proxy) forward(c, s net.Conn) {
	var swallow atomic.Bool
	answered := make(chan struct{}, 1)
	go func() {
		defer func() { _ = c.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := s.Read(buf)
			if swallow.Load() && n > 0 {
				answered <- struct{}{}
				return
			}
			if n > 0 {
				if err := p.write(c, buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() { _ = s.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			if bytes.Contains(buf[:n], []byte("commit\x00")) {
				if p.mode.CompareAndSwap(cutBefore, pass) {
					p.atCut()
					p.cuts.Add(1)
					_ = c.Close()
					return
				}
				if p.mode.CompareAndSwap(hold, pass) {
					p.atCut()
					p.cuts.Add(1)
				}
				if p.mode.CompareAndSwap(cutAfter, pass) {
					swallow.Store(true)
					_, _ = s.Write(buf[:n])
					<-answered
					p.atCut()
					p.cuts.Add(1)
					_ = c.Close()
					return
				}
			}
			if err := p.write(s, buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = c.Close()
			}
			return
		}
	}
}

func (p *proxy) setDown(down bool) {
	p.mu.Lock()
	p.down = down
	p.mu.Unlock()
	if down {
		p.cutAll()
	}
}

// lead takes new connections to the server of another URL; those that stand go on.
func (p *proxy) lead(t *testing.T, to string) {
	t.Helper()
	u, err := url.Parse(to)
	require.NoError(t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = u.Host
}

func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
		delete(p.open, c)
	}
}
