package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// cancelSettles is how long the server may take from having a cancel request until the session has its signal. A
// statement that is sent before could be cancelled in its place.
const cancelSettles = 100 * time.Millisecond

// canceller asks the server to end the statement whose context has ended. It hears the request out, also when the
// statement ends meanwhile: where the request's connection is closed before it was passed on, PgBouncer may end with
// "bad client state" (pgbouncer/pgbouncer#801), and all its clients lose their connections. pgx's own closes it.
type canceller struct {
	conn *pgconn.PgConn
	done chan struct{}
}

// HandleCancel asks, and gives the statement up after cancelGrace.
func (c *canceller) HandleCancel(context.Context) {
	deadline := time.Now().Add(cancelGrace)
	_ = c.conn.Conn().SetDeadline(deadline)
	done := make(chan struct{})
	c.done = done
	go func() { //nolint:contextcheck // the statement's context has ended
		defer close(done)
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		defer cancel()
		if c.conn.CancelRequest(ctx) == nil {
			<-time.After(cancelSettles)
		}
	}()
}

// HandleUnwatchAfterCancel waits for the request's end.
func (c *canceller) HandleUnwatchAfterCancel() {
	<-c.done
	_ = c.conn.Conn().SetDeadline(time.Time{})
}
