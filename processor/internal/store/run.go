package store

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// Limits of what a results row keeps of the rows that an operation returned.
const (
	maxReturnedRows  = 100
	maxReturnedBytes = 64 << 10
)

// Call is one attempt of one operation for one event.
type Call struct {
	Statements []*Statement
	Args       [][]any // by statement
	Every      int     // the statements of one element; 0: all of them. The last one of each counts
	Timeout    time.Duration
	Func       func(context.Context, pgx.Tx) (rows int64, returned []byte, err error) // instead of statements; for Try alone
}

// counts says whether the rows of a statement count.
func (c *Call) counts(j int) bool {
	every := c.Every
	if every <= 0 {
		every = len(c.Statements)
	}
	return (j+1)%every == 0
}

// Effect is what a call did.
type Effect struct {
	Rows     int64  // that the last statement touched, of all elements
	Least    int64  // that it touched for one element; -1: there was none
	Most     int64  // likewise
	Returned []byte // JSON array of the rows that the last statement returned; nil: it returns none
	Started  time.Time
	Took     time.Duration // from the previous call's result to this one's: its share of the round trip; at least 1 µs
}

// count adds the rows of one element.
func (e *Effect) count(rows int64) {
	if e.Least < 0 || rows < e.Least {
		e.Least = rows
	}
	e.Most = max(e.Most, rows)
}

// add counts a statement's rows and keeps what it returned.
func (e *Effect) add(rows int64, returned [][]byte) {
	e.Rows += rows
	e.count(rows)
	if returned == nil {
		return
	}
	list := bytes.Join(returned, []byte{','})
	switch {
	case e.Returned == nil:
		e.Returned = append(append([]byte{'['}, list...), ']')
	case len(list) > 0 && len(e.Returned) > 2:
		e.Returned = append(append(append(e.Returned[:len(e.Returned)-1], ','), list...), ']')
	case len(list) > 0:
		e.Returned = append(append([]byte{'['}, list...), ']')
	}
}

// CallError is an error of the calls' own SQL.
type CallError struct {
	Err  error
	Call int // its index, where several were made; -1: not known
	Took time.Duration
}

func (e *CallError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }

const (
	markOperations    = `SAVEPOINT operations`
	backToOperations  = `ROLLBACK TO SAVEPOINT operations`
	releaseOperations = `RELEASE SAVEPOINT operations`
)

// Mark makes the savepoint to which Back returns.
func (t *Tx) Mark(ctx context.Context) error {
	t.marked = true
	return t.own(ctx, markOperations)
}

// Back takes back what the operations did since Mark.
func (t *Tx) Back(ctx context.Context) error {
	t.timeout = -1 // the savepoint takes the setting back
	return t.own(ctx, backToOperations)
}

// Run makes all calls in one round trip. After an error, *CallError, nothing has an effect before Back or the end of the
// transaction; the effects of the calls before the one that failed are returned for what they say.
func (t *Tx) Run(ctx context.Context, calls []Call) ([]Effect, error) {
	effects := make([]Effect, len(calls))
	b := &pgx.Batch{}
	reached, began := 0, false
	mark := time.Now() // end of the previous call
	done := func(i int) {
		now := time.Now()
		// Results that came in one packet are read within less than the column's unit.
		effects[i].Started, effects[i].Took, mark = mark, max(now.Sub(mark), time.Microsecond), now
	}
	for i, c := range calls {
		effects[i] = Effect{Least: -1, Started: mark, Took: time.Microsecond}
		t.setTimeout(b, c.Timeout)
		for j, st := range c.Statements {
			last := j == len(c.Statements)-1
			b.Queue(st.SQL, c.Args[j]...).Fn = func(br pgx.BatchResults) error {
				began = true
				err := t.read(br, c.counts(j), &effects[i])
				if last {
					done(i)
				}
				if last && err == nil {
					reached = i + 1
				}
				return err
			}
		}
	}
	if b.Len() == 0 {
		return effects, nil
	}
	ours := false
	t.queueRestore(b, &ours)
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		if ours {
			return nil, &OwnError{"restore settings", err}
		}
		if !began { // a statement was not prepared, or an argument not encoded
			reached = -1
		}
		for reached >= 0 && reached < len(calls)-1 && len(calls[reached].Statements) == 0 {
			reached++ // it had nothing that could fail
		}
		err = t.callError(ctx, err, reached)
		if ce := (*CallError)(nil); errors.As(err, &ce) {
			ce.Took = max(time.Since(mark), time.Microsecond)
		}
		return effects[:max(reached, 0)], err
	}
	return effects, nil
}

// setTimeout queues a change of statement_timeout when it is not d already; 0 leaves it.
func (t *Tx) setTimeout(b *pgx.Batch, d time.Duration) {
	if d > 0 && d != t.timeout {
		b.Queue(`SELECT set_config('statement_timeout', $1, true)`, millis(d))
		t.timeout = d
	}
}

func (t *Tx) read(br pgx.BatchResults, counts bool, e *Effect) error {
	rows, err := br.Query()
	if err != nil {
		return err
	}
	return readRows(t.tx.Conn().TypeMap(), rows, counts, e)
}

// readRows reads a statement's rows. Those of one that counts are counted, and some of what they hold is kept.
func readRows(types *pgtype.Map, rows pgx.Rows, counts bool, e *Effect) error {
	defer rows.Close()
	fields := rows.FieldDescriptions()
	var out [][]byte
	if len(fields) > 0 {
		out = [][]byte{}
	}
	size := len(e.Returned)
	for rows.Next() {
		if !counts || len(out) == maxReturnedRows || size > maxReturnedBytes {
			continue
		}
		o := object(types, fields, rows.RawValues())
		if size += len(o); size <= maxReturnedBytes {
			out = append(out, o)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if counts {
		e.add(rows.CommandTag().RowsAffected(), out)
	}
	return nil
}

// object writes a row as JSON: numbers, booleans and JSON keep their kind, all else is text.
func object(types *pgtype.Map, fields []pgconn.FieldDescription, values [][]byte) []byte {
	b := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, quote(f.Name)...), ':')
		b = append(b, jsonValue(types, f, values[i])...)
	}
	return append(b, '}')
}

func jsonValue(types *pgtype.Map, f pgconn.FieldDescription, raw []byte) []byte {
	if raw == nil {
		return []byte("null")
	}
	var v driver.Value = string(raw)
	if t, ok := types.TypeForOID(f.DataTypeOID); ok {
		if d, err := t.Codec.DecodeDatabaseSQLValue(types, f.DataTypeOID, f.Format, raw); err == nil {
			v = d
		}
	}
	switch t := v.(type) {
	case time.Time:
		return quote(t.UTC().Format(time.RFC3339Nano))
	case []byte:
		v = `\x` + hex.EncodeToString(t)
		if isJSON(f.DataTypeOID) {
			v = string(t)
		}
	}
	if s, ok := v.(string); ok {
		if (isJSON(f.DataTypeOID) || f.DataTypeOID == pgtype.NumericOID) && json.Valid([]byte(s)) {
			return []byte(s)
		}
		return quote(s)
	}
	b, err := json.Marshal(v)
	if err != nil { // NaN and the infinities
		return quote(fmt.Sprint(v))
	}
	return b
}

func isJSON(oid uint32) bool { return oid == pgtype.JSONOID || oid == pgtype.JSONBOID }

func quote(s string) []byte {
	b, _ := json.Marshal(s) // a string always has a JSON form
	return b
}

// Try makes one call within a savepoint, asks accept about its effect, and finds what its deferred constraints would
// say at COMMIT. After a *CallError the transaction goes on as if the call had not been made.
func (t *Tx) Try(ctx context.Context, c Call, accept func(Effect) error) (Effect, error) {
	if err := t.own(ctx, `SAVEPOINT call`); err != nil {
		return Effect{}, err
	}
	effect, err := t.one(ctx, c)
	if err == nil {
		if e := accept(effect); e != nil {
			err = &CallError{Err: &fault{e, Retryable}}
		}
	}
	if err == nil {
		err = t.checkDeferred(ctx)
	}
	if err == nil {
		return effect, t.own(ctx, `RELEASE SAVEPOINT call`)
	}
	var ce *CallError
	if !errors.As(err, &ce) || Classify(err) == Transient || ctx.Err() != nil {
		return Effect{}, err
	}
	t.timeout = -1 // the savepoint takes the setting back
	if err := t.own(ctx, `ROLLBACK TO SAVEPOINT call`); err != nil {
		return Effect{}, err
	}
	return Effect{}, errors.Join(ce, t.own(ctx, `RELEASE SAVEPOINT call`))
}

// Look runs one statement and returns the rows that it changes, also where it does not ask for them. After an error,
// *CallError, the transaction is void.
func (t *Tx) Look(ctx context.Context, st *Statement, args []any, timeout time.Duration) (Effect, error) {
	sql := st.SQL
	if word := strings.ToLower(st.FirstWord()); word == "insert" || word == "update" || word == "delete" || word == "with" {
		with := strings.TrimRight(sql, "; \t\r\n") + "\nRETURNING *"
		if t.Nested(ctx, func() error { _, err := t.tx.Conn().Prepare(ctx, "", with); return err }) == nil {
			sql = with
		}
	}
	effects, err := t.Run(ctx, []Call{{Statements: []*Statement{{SQL: sql}}, Args: [][]any{args}, Timeout: timeout}})
	if err != nil {
		return Effect{}, err
	}
	return effects[0], nil
}

// Nested runs f in a savepoint. After an error of f the transaction goes on as if f had done nothing, if the connection
// still lives; the error is f's.
func (t *Tx) Nested(ctx context.Context, f func() error) error {
	if err := t.own(ctx, `SAVEPOINT nested`); err != nil {
		return err
	}
	err := f()
	if err == nil {
		return t.own(ctx, `RELEASE SAVEPOINT nested`)
	}
	t.timeout = -1 // the savepoint takes the setting back
	if e := t.own(ctx, `ROLLBACK TO SAVEPOINT nested`); e != nil {
		return errors.Join(e, err)
	}
	return err
}

func (t *Tx) one(ctx context.Context, c Call) (Effect, error) {
	if c.Func != nil {
		return t.handle(ctx, &c)
	}
	effects, err := t.Run(ctx, []Call{c})
	if err != nil {
		return Effect{}, err
	}
	return effects[0], nil
}

// checkDeferred runs the deferred constraints' checks and puts their mode back, so that a failure here is the call's
// and not the whole batch's at COMMIT.
func (t *Tx) checkDeferred(ctx context.Context) error {
	if err := t.own(ctx, `SAVEPOINT deferred`); err != nil {
		return err
	}
	if _, err := t.tx.Exec(ctx, `SET CONSTRAINTS ALL IMMEDIATE`); err != nil {
		return t.callError(ctx, err, 0)
	}
	return t.own(ctx, `ROLLBACK TO SAVEPOINT deferred`)
}

// own runs a statement of ours.
func (t *Tx) own(ctx context.Context, sql string) error {
	if _, err := t.tx.Exec(ctx, sql); err != nil {
		return &OwnError{sql, err}
	}
	return nil
}

// callError blames the call for an error of the server, and for one that pgx made without the server.
func (t *Tx) callError(ctx context.Context, err error, call int) error {
	var pe *pgconn.PgError
	switch {
	case errors.As(err, &pe):
		return &CallError{Err: err, Call: call}
	case ctx.Err() == nil && !t.tx.Conn().IsClosed():
		return &CallError{Err: &fault{err, Poison}, Call: -1}
	}
	return &OwnError{"run operations", err}
}

// fault is an error of a call that did not come from the server.
type fault struct {
	error
	class Class
}

// Unwrap returns the cause.
func (f *fault) Unwrap() error { return f.error }
