package store_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

const cancelRequest = 80877102 // where a start-up message has its version

// A statement ends by itself while the request to cancel it is on its way: the request's connection stays until the
// server closes it, and only then is the session used again.
func TestCancelIsHeardOut(t *testing.T) {
	u, err := url.Parse(pgtest.New(t))
	require.NoError(t, err)
	server := u.Host
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	asked, answer, gone := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				head := make([]byte, 8)
				if _, err := io.ReadFull(c, head); err != nil {
					return
				}
				if binary.BigEndian.Uint32(head[4:]) == cancelRequest {
					close(asked)
					_, _ = io.CopyN(io.Discard, c, 8)
					go func() {
						_, err := c.Read(make([]byte, 1)) // the client says no more, and waits
						gone <- err
					}()
					<-answer
					return
				}
				s, err := net.Dial("tcp", server)
				if err != nil {
					return
				}
				defer func() { _ = s.Close() }()
				_, _ = s.Write(head)
				go func() { _, _ = io.Copy(c, s) }()
				_, _ = io.Copy(s, c)
			}()
		}
	}()
	u.Host = l.Addr().String()
	cfg, err := store.Config(settings.Postgres{URL: config.NewSecret(u.String()), MaxConns: 1}, "test")
	require.NoError(t, err)
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	require.NoError(t, err)
	defer pool.Close()
	require.NoError(t, pool.Ping(t.Context()))

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := pool.Exec(ctx, `SELECT pg_sleep(0.5)`)
		ended <- err
	}()
	require.Eventually(t, func() bool { return pool.Stat().AcquiredConns() == 1 }, 20*time.Second, time.Millisecond)
	cancel()
	<-asked
	select {
	case err := <-gone:
		require.Fail(t, "the request's connection was given up", "%v", err)
	case err := <-ended:
		require.Fail(t, "the session was given back before the request was answered", "%v", err)
	case <-time.After(time.Second): // the statement has ended
	}
	close(answer)
	require.NoError(t, <-ended)
	require.NoError(t, pool.Ping(t.Context()))
}
