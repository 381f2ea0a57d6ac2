package ingress

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// lazy is a connection whose deadlines are moved on only when they are met. The server sets four for each request, nearly
// always to a later time than before; each would cost a lock and a timer of the runtime. What is set here to a later time
// is only noted: where the earlier one is met meanwhile, it is set anew, and nobody hears of it.
type lazy struct {
	net.Conn
	reading, writing deadline
}

// deadline is one direction's.
type deadline struct {
	mu     sync.Mutex
	wanted time.Time // zero: none
	set    time.Time // never later than wanted; zero: none
}

func (d *deadline) want(t time.Time, set func(time.Time) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = t
	if !d.set.IsZero() && (t.IsZero() || !t.Before(d.set)) || d.set.Equal(t) {
		return nil
	}
	d.set = t
	return set(t)
}

// early says whether err is that of a deadline that is no longer wanted. Then the wanted one is set.
func (d *deadline) early(err error, set func(time.Time) error) bool {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.wanted.IsZero() && !time.Now().Before(d.wanted) {
		return false
	}
	d.set = d.wanted
	return set(d.wanted) == nil
}

// SetDeadline sets both.
func (c *lazy) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets when reading ends.
func (c *lazy) SetReadDeadline(t time.Time) error {
	return c.reading.want(t, c.Conn.SetReadDeadline)
}

// SetWriteDeadline sets when writing ends.
func (c *lazy) SetWriteDeadline(t time.Time) error {
	return c.writing.want(t, c.Conn.SetWriteDeadline)
}

// Read reads until the deadline.
func (c *lazy) Read(p []byte) (n int, err error) {
	for {
		n, err = c.Conn.Read(p)
		if n > 0 || !c.reading.early(err, c.Conn.SetReadDeadline) {
			return n, err
		}
	}
}

// Write writes until the deadline.
func (c *lazy) Write(p []byte) (n int, err error) {
	for {
		var more int
		more, err = c.Conn.Write(p[n:])
		if n += more; !c.writing.early(err, c.Conn.SetWriteDeadline) {
			return n, err
		}
	}
}
