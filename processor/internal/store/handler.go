package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Dead marks an error as one that another attempt cannot repair.
func Dead(err error) error { return &fault{err, Poison} }

// ErrOurs is what a handler gets when it ends or leaves the transaction.
var ErrOurs = errors.New("the transaction is the processor's: a handler must not end it")

// handle makes a call of Go code.
func (t *Tx) handle(ctx context.Context, c *Call) (Effect, error) {
	b := &pgx.Batch{}
	t.setTimeout(b, c.Timeout)
	if c.Timeout >= t.idle { // the server may hear nothing from a handler for all of its time
		b.Queue(`SELECT set_config('idle_in_transaction_session_timeout', $1, true)`, millis(c.Timeout+cancelGrace))
	}
	if b.Len() > 0 {
		if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
			return Effect{}, &OwnError{"set timeout", err}
		}
	}
	hctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	e := Effect{Started: time.Now(), Least: -1}
	var err error
	e.Rows, e.Returned, err = c.Func(hctx, handlerTx{t.tx})
	e.Took = max(time.Since(e.Started), time.Microsecond)
	status := t.tx.Conn().PgConn().TxStatus()
	switch {
	case ctx.Err() != nil:
		return Effect{}, &OwnError{"run handler", errors.Join(ctx.Err(), err)}
	case t.tx.Conn().IsClosed():
		return Effect{}, &OwnError{"run handler", errors.Join(errors.New("the connection ended"), err)}
	case status == 'I':
		_ = t.tx.Conn().Close(ctx)
		return Effect{}, &OwnError{"run handler", errors.Join(ErrOurs, err)}
	case err == nil && hctx.Err() != nil:
		err = hctx.Err()
	case err == nil && status == 'E':
		err = errors.New("a statement failed, and the handler went on as if it had not")
	}
	if err == nil {
		e.count(e.Rows)
		return e, t.restoreNow(ctx)
	}
	if errors.Is(err, context.DeadlineExceeded) || hctx.Err() != nil {
		return Effect{}, &CallError{Err: &fault{fmt.Errorf("the handler took longer than %s: %w", c.Timeout, err), Retryable}}
	}
	var f *fault
	var pe *pgconn.PgError
	if !errors.As(err, &f) && !errors.As(err, &pe) {
		err = &fault{err, Retryable}
	}
	return Effect{}, &CallError{Err: err}
}

// handlerTx is the batch's transaction without its ends.
type handlerTx struct{ pgx.Tx }

// Commit fails.
func (handlerTx) Commit(context.Context) error { return ErrOurs }

// Rollback fails.
func (handlerTx) Rollback(context.Context) error { return ErrOurs }

// Exec refuses statements that would leave the transaction.
func (t handlerTx) Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error) {
	if err := stays(sql); err != nil {
		return pgconn.CommandTag{}, err
	}
	return t.Tx.Exec(ctx, sql, args...)
}

// Query refuses statements that would leave the transaction.
func (t handlerTx) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	if err := stays(sql); err != nil {
		return nil, err
	}
	return t.Tx.Query(ctx, sql, args...)
}

// QueryRow refuses statements that would leave the transaction.
func (t handlerTx) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	if err := stays(sql); err != nil {
		return errRow{err}
	}
	return t.Tx.QueryRow(ctx, sql, args...)
}

type errRow struct{ error }

func (r errRow) Scan(...any) error { return r.error }

func stays(sql string) error {
	if word := (&Statement{Source: sql}).Forbidden(); word != "" {
		return fmt.Errorf("%s: %w", word, ErrOurs)
	}
	return nil
}
