package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Outcome is what became of one call of RunApart.
type Outcome struct {
	Effect Effect
	Err    error // a *CallError, and not Transient: the call has no effect, the others have theirs
}

// RunApart makes the calls in order, each in a savepoint, and all in one round trip. With deferred it asks after each
// call what the deferred constraints would say at COMMIT, and a failure there is the call's. An error means that the
// transaction is void.
//
// The server goes on by itself after a failure. Behind each call come
//
//	RELEASE call; SAVEPOINT call; Sync; ROLLBACK TO call; Sync
//
// Where the call succeeded, the rollback finds a savepoint that was made just now and takes nothing back. Where it
// failed, the server skips everything up to the first Sync, and the rollback takes back the call.
func (t *Tx) RunApart(ctx context.Context, calls []Call, deferred bool) ([]Outcome, error) {
	a := &apart{t: t, calls: calls, deferred: deferred, out: make([]Outcome, len(calls)), refused: map[string]error{}}
	pg := t.tx.Conn().PgConn()
	a.known = prepared(pg)
	a.named = t.tx.Conn().Config().DefaultQueryExecMode == pgx.QueryExecModeCacheStatement
	a.p = pg.StartPipeline(ctx)
	a.send()
	err := a.p.Sync()
	if err == nil {
		a.mark = time.Now()
		err = a.receive(ctx)
	}
	if e := a.p.Close(); err == nil && e != nil && !isPg(e) {
		err = e
	}
	switch {
	case err == nil:
		return a.out, nil
	case stale(err):
		_ = t.tx.Conn().Close(ctx) // a new connection has no old plans
		return nil, &OwnError{"run operations", err}
	case isPg(err):
		return nil, &CallError{Err: err}
	}
	return nil, &OwnError{"run operations", err}
}

func isPg(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe)
}

// stale says whether a prepared statement is gone, or no longer fits its tables.
func stale(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && (pe.Code == "26000" || pe.Code == "0A000" && Classify(err) == Transient)
}

// prepared is the set of statements, by name, that RunApart has prepared on a connection.
func prepared(pg *pgconn.PgConn) map[string]bool {
	const key = "catchment"
	known, ok := pg.CustomData()[key].(map[string]bool)
	if !ok {
		known = map[string]bool{}
		pg.CustomData()[key] = known
	}
	return known
}

// apart is one round trip of RunApart. The pipeline's answers come in segments, each of which a Sync ends.
type apart struct {
	t        *Tx
	calls    []Call
	deferred bool
	out      []Outcome
	refused  map[string]error // statements that Postgres did not prepare
	named    bool             // statements may be prepared by name
	known    map[string]bool  // those that it has prepared
	p        *pgconn.Pipeline
	segments []segment
	now      segment // the one that is being sent
	mark     time.Time
}

// segment is what is sent between two Syncs.
type segment struct {
	call    int                                // index; -1: not a call
	prepare string                             // name of the statement that it prepares
	fatal   bool                               // no error is expected
	results []func(*pgconn.ResultReader) error // by statement; nil: nothing to read
}

const (
	savepointCall = "SAVEPOINT call"
	releaseCall   = "RELEASE SAVEPOINT call"
	backToCall    = "ROLLBACK TO SAVEPOINT call"
)

func (a *apart) send() {
	a.begin(segment{call: -1, fatal: true})
	a.own(savepointCall)
	a.sync()
	if a.named {
		for i := range a.calls {
			for _, st := range a.calls[i].Statements {
				a.prepare(st)
			}
		}
	}
	for i := range a.calls {
		a.call(i)
	}
	a.begin(segment{call: -1, fatal: true})
	if as := a.t.as; as != nil {
		a.p.SendQueryParams(restore, [][]byte{[]byte(textArray(as.names)), []byte(textArray(as.values))}, nil, nil, nil)
		a.now.results = append(a.now.results, nil)
	}
	a.own(releaseCall)
	a.segments = append(a.segments, a.now) // the last Sync is Sync itself
}

func (a *apart) begin(s segment) { a.now = s }

func (a *apart) sync() {
	a.p.SendPipelineSync()
	a.segments = append(a.segments, a.now)
}

// own queues a statement of ours, which returns nothing.
func (a *apart) own(sql string) {
	a.p.SendQueryParams(sql, nil, nil, nil, nil)
	a.now.results = append(a.now.results, nil)
}

// back takes back what failed since the savepoint.
func (a *apart) back() {
	a.begin(segment{call: -1, fatal: true})
	a.own(backToCall)
	a.sync()
}

func (a *apart) prepare(st *Statement) {
	if a.known[st.name] {
		return
	}
	a.known[st.name] = true
	a.begin(segment{call: -1, prepare: st.name})
	a.p.SendPrepare(st.name, st.SQL, st.oids)
	a.now.results = append(a.now.results, nil)
	a.sync()
	a.back()
}

func (a *apart) call(i int) {
	c := &a.calls[i]
	a.out[i].Effect.Least = -1
	types := a.t.tx.Conn().TypeMap()
	built := make([]pgx.ExtendedQueryBuilder, len(c.Statements))
	for j, st := range c.Statements {
		if err := built[j].Build(types, &pgconn.StatementDescription{ParamOIDs: st.oids}, c.Args[j]); err != nil {
			a.out[i].Err = &CallError{Err: &fault{fmt.Errorf("parameters: %w", err), Poison}}
			return
		}
	}
	a.begin(segment{call: i})
	if c.Timeout > 0 && c.Timeout != a.t.timeout {
		a.t.timeout = c.Timeout
		a.own(`SET LOCAL statement_timeout = ` + millis(c.Timeout))
		a.own(releaseCall) // the setting outlives the call
		a.own(savepointCall)
	}
	for j, st := range c.Statements {
		b := &built[j]
		if a.named {
			a.p.SendQueryPrepared(st.name, b.ParamValues, b.ParamFormats, nil)
		} else {
			a.p.SendQueryParams(st.SQL, b.ParamValues, st.oids, b.ParamFormats, nil)
		}
		a.now.results = append(a.now.results, func(rr *pgconn.ResultReader) error {
			return readRows(types, pgx.RowsFromResultReader(types, rr), c.counts(j), &a.out[i].Effect)
		})
	}
	if a.deferred {
		a.own(`SAVEPOINT deferred`)
		a.own(`SET CONSTRAINTS ALL IMMEDIATE`)
		a.own(`ROLLBACK TO SAVEPOINT deferred`) // each constraint has its own mode again
	}
	a.own(releaseCall)
	a.own(savepointCall)
	a.sync()
	a.back()
}

// receive reads all segments. The error is the transaction's.
func (a *apart) receive(ctx context.Context) error {
	for _, s := range a.segments {
		err, broken := a.read(s)
		if broken != nil {
			return broken
		}
		if s.call >= 0 {
			now := time.Now()
			o := &a.out[s.call]
			o.Effect.Started, o.Effect.Took, a.mark = a.mark, max(now.Sub(a.mark), time.Microsecond), now
			if e := a.unprepared(s.call); e != nil {
				err = e
			}
		}
		switch {
		case err == nil:
		case s.fatal, Classify(err) == Transient, ctx.Err() != nil:
			return err
		case s.prepare != "":
			a.refused[s.prepare] = err
			delete(a.known, s.prepare)
		default:
			a.out[s.call].Err = &CallError{Err: err}
		}
	}
	return nil
}

// unprepared is the error that kept one of the call's statements from being prepared.
func (a *apart) unprepared(call int) error {
	for _, st := range a.calls[call].Statements {
		if err := a.refused[st.name]; err != nil {
			return err
		}
	}
	return nil
}

// read takes the answers up to the next Sync. err is the server's; broken says that nothing more can be read.
func (a *apart) read(s segment) (err, broken error) {
	for n := 0; ; n++ {
		res, e := a.p.GetResults()
		switch r := res.(type) {
		case *pgconn.PipelineSync:
			return err, nil
		case *pgconn.ResultReader:
			if n < len(s.results) && s.results[n] != nil {
				e = s.results[n](r)
			} else {
				_, e = r.Close()
			}
		case nil:
			if e == nil {
				return nil, errors.New("the connection ended")
			}
		}
		if e != nil && !isPg(e) {
			return nil, e
		}
		if err == nil {
			err = e
		}
	}
}
