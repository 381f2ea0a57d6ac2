package ingress

import (
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// counted counts the deadlines that reach a connection.
type counted struct {
	net.Conn
	reads int
}

func (c *counted) SetReadDeadline(t time.Time) error {
	c.reads++
	return c.Conn.SetReadDeadline(t)
}

func pipe(t *testing.T) (ours *lazy, inner *counted, theirs net.Conn) {
	a, b := net.Pipe()
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	inner = &counted{Conn: a}
	return &lazy{Conn: inner}, inner, b
}

// TestDeadlinesAreMet: however they are moved, reading and writing end at the last one that was set.
func TestDeadlinesAreMet(t *testing.T) {
	c, inner, other := pipe(t)
	var buf [4]byte
	soon := func(d time.Duration) time.Time { return time.Now().Add(d) }

	// Later and later, as for one request after the other.
	for range 100 {
		require.NoError(t, c.SetReadDeadline(soon(time.Hour)))
	}
	require.Equal(t, 1, inner.reads)

	// An earlier one counts at once, also for a read that waits.
	ended := make(chan error, 1)
	go func() { _, err := c.Read(buf[:]); ended <- err }()
	require.NoError(t, c.SetReadDeadline(soon(10*time.Millisecond)))
	require.ErrorIs(t, <-ended, os.ErrDeadlineExceeded)

	// One that has been met counts until it is moved on.
	_, err := c.Read(buf[:])
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	for _, later := range []time.Time{soon(time.Hour), {}} {
		require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
		require.NoError(t, c.SetReadDeadline(later))
		go func() { _, _ = other.Write([]byte("ok")) }()
		n, err := io.ReadFull(c, buf[:2])
		require.NoError(t, err)
		require.Equal(t, "ok", string(buf[:n]))
	}

	// One that is met while a later one is wanted ends nothing.
	require.NoError(t, c.SetReadDeadline(soon(5*time.Millisecond)))
	began := time.Now()
	require.NoError(t, c.SetReadDeadline(began.Add(50*time.Millisecond)))
	_, err = c.Read(buf[:])
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.GreaterOrEqual(t, time.Since(began), 50*time.Millisecond)
}

// TestALateWriteGoesOn: what a deadline that is no longer wanted has cut in two arrives whole.
func TestALateWriteGoesOn(t *testing.T) {
	c, _, other := pipe(t)
	require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Millisecond)))
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Hour)))
	want := "a first half and a second half"
	written := make(chan error, 1)
	go func() { _, err := io.WriteString(c, want); written <- err }()
	got := make([]byte, len(want))
	_, err := io.ReadFull(other, got[:10])
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		c.writing.mu.Lock()
		defer c.writing.mu.Unlock()
		return c.writing.set.Equal(c.writing.wanted)
	}, 10*time.Second, time.Millisecond)
	_, err = io.ReadFull(other, got[10:])
	require.NoError(t, err)
	require.NoError(t, <-written)
	require.Equal(t, want, string(got))

	require.NoError(t, c.SetWriteDeadline(time.Now().Add(10*time.Millisecond)))
	_, err = io.WriteString(c, want)
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}
