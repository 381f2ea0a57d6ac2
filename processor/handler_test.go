package processor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// with makes an engine whose operation "own" is f.
func (w *world) with(log *slog.Logger, f HandlerFunc) *engine {
	w.t.Helper()
	w.cfg.Operations = append(w.cfg.Operations, settings.Operation{
		Name: "own", On: settings.On{Source: "shop"}, Handler: "own", Entity: "body.order", Version: "body.v", Timeout: 5 * time.Second,
		Retry: settings.Retry{MaxAttempts: 3, Initial: time.Millisecond, Max: time.Millisecond},
	})
	s, err := New(w.cfg, log, prometheus.NewRegistry(), Handle("own", f))
	require.NoError(w.t, err)
	db, err := store.Open(w.t.Context(), w.cfg.Postgres, "test")
	require.NoError(w.t, err)
	w.t.Cleanup(db.Close)
	s.setEngine(db)
	s.cfg.Processor.Migrate = false
	require.NoError(w.t, s.prepare(w.t.Context()))
	return s.engine
}

// The ends of a handler, and what becomes of its event and of the others in the batch.
func TestHandler(t *testing.T) {
	w := newDatabase(t, append([]string{`CREATE TABLE own (id text, v int)`}, ledgerSchema...)...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	var logged bytes.Buffer
	eng := w.with(slog.New(slog.NewTextHandler(&logged, nil)), func(ctx context.Context, tx pgx.Tx, ev event.Event) (Result, error) {
		tag, err := tx.Exec(ctx, `INSERT INTO own VALUES ($1, 1)`, ev.ID)
		if err != nil {
			return Result{}, err
		}
		ev.Body[0], ev.Headers["x-test"][0] = 'X', "changed" // its own copy
		fine := Result{Rows: tag.RowsAffected(), Returned: map[string]any{"id": ev.ID}}
		switch ev.Type {
		case "panic":
			panic("oh, s3cret")
		case "error":
			return fine, errors.New("not now")
		case "dead":
			return fine, Dead(errors.New("never"))
		case "data":
			_, err := tx.Exec(ctx, `SELECT 'x'::text::int`)
			return fine, fmt.Errorf("reading: %w", err)
		case "swallowed":
			_, _ = tx.Exec(ctx, `SELECT 1/0`)
		case "commit":
			return fine, tx.Commit(ctx)
		case "sql-commit":
			_, err := tx.Exec(ctx, " /* now */ COMMIT")
			return fine, err
		case "nested":
			inner, err := tx.Begin(ctx)
			if err != nil {
				return fine, err
			}
			_, _ = inner.Exec(ctx, `SELECT 1/0`)
			return fine, inner.Rollback(ctx)
		case "json":
			return Result{Returned: func() {}}, nil
		}
		return fine, nil
	})
	types := []string{"fine", "panic", "error", "dead", "data", "swallowed", "commit", "sql-commit", "nested", "json"}
	wk := w.take(eng, partition(0))
	var ds []*event.Delivery
	for _, typ := range types {
		ds = append(ds, delivery("shop", typ, typ, fmt.Sprintf(`{"order":%q,"v":1,"secret":"s3cret"}`, typ)))
	}
	ds = append(ds, delivery("shop", "old", "fine", `{"order":"fine","v":0}`))
	require.NoError(t, wk.write(t.Context(), log(wk.part, ds...)))
	require.Equal(t, "commit:failed data:dead dead:dead error:failed fine:succeeded:1 json:dead nested:succeeded:1 old:succeeded:1 panic:failed sql-commit:failed swallowed:failed",
		w.text(`SELECT string_agg(concat_ws(':', event_id, outcome, rows_affected), ' ' ORDER BY event_id) FROM catchment.results WHERE operation = 'own'`))
	require.Equal(t, "fine nested old", w.text(`SELECT string_agg(id, ' ' ORDER BY id) FROM own`), "a failed attempt has no effect")
	require.Equal(t, len(ds), w.count(`SELECT count(*) FROM ledger`), "the others have theirs")
	require.Equal(t, `{"id": "fine"}`, w.text(`SELECT returned::text FROM catchment.results WHERE operation = 'own' AND event_id = 'fine'`))
	for id, want := range map[string]string{
		"panic": "panic: oh, s3cret", "error": "not now", "dead": "never", "data": "invalid input syntax for type integer: \"x\" (SQLSTATE 22P02)",
		"swallowed": "a statement failed, and the handler went on as if it had not", "commit": "the transaction is the processor's: a handler must not end it",
		"sql-commit": "COMMIT: the transaction is the processor's: a handler must not end it",
	} {
		require.Equal(t, want, w.text(`SELECT error FROM catchment.results WHERE operation = 'own' AND event_id = $1`, id))
	}
	require.Equal(t, len(ds), w.count(`SELECT count(*) FROM catchment.events WHERE body_sha256 = sha256(body) AND headers = '{"x-test": ["1"]}'`))
	require.Contains(t, logged.String(), "handler_test.go", "the stack")
	require.NotContains(t, logged.String(), "s3cret")
	// Another attempt: what is superseded by then is not run.
	require.NoError(t, wk.write(t.Context(), nextOf(wk, paidOrder("newer", "error", 2))))
	ok := waitFor(func() bool {
		w.exec(`UPDATE catchment.retries SET due_at = now()`)
		_ = eng.retryDue(t.Context(), eng.active())
		return w.count(`SELECT count(*) FROM catchment.retries`) == 0
	})
	require.True(t, ok)
	require.Equal(t, "superseded", w.text(`SELECT outcome FROM catchment.results WHERE operation = 'own' AND event_id = 'error' AND attempt = 2`))
	require.Equal(t, "attempts exhausted", w.text(`SELECT reason FROM catchment.dead_letters WHERE event_id = 'panic'`))
}

// nextOf is the partition's next record.
func nextOf(wk *worker, d *event.Delivery) []*kgo.Record {
	r := log(wk.part, d)
	r[0].Offset = wk.next
	return r
}

// A handler that takes too long has failed; its connection goes on.
func TestHandlerTimeout(t *testing.T) {
	w := newDatabase(t)
	eng := w.with(logger(), func(ctx context.Context, tx pgx.Tx, ev event.Event) (Result, error) {
		switch ev.Type {
		case "sql":
			_, err := tx.Exec(ctx, `SELECT pg_sleep(60)`)
			return Result{}, err
		case "go":
			<-ctx.Done()
			return Result{}, ctx.Err()
		}
		return Result{}, nil
	})
	eng.ops[0].spec.Timeout = 200 * time.Millisecond
	wk := w.take(eng, partition(0))
	order := func(id string) *event.Delivery {
		return delivery("shop", id, id, fmt.Sprintf(`{"order":%q,"v":1}`, id))
	}
	require.NoError(t, wk.write(t.Context(), log(wk.part, order("sql"), order("go"), order("fine"))))
	require.Equal(t, "fine:succeeded go:failed sql:failed", w.text(`SELECT string_agg(event_id || ':' || outcome, ' ' ORDER BY event_id) FROM catchment.results`))
}

// A handler may do something else than SQL for as long as its operation's timeout says, also where that is longer than a
// batch may take: the server does not end its session, which would be tried again for ever.
func TestHandlerThinksForLong(t *testing.T) {
	w := newDatabase(t)
	calls := 0
	w.cfg.Processor.TxTimeout = time.Second
	eng := w.with(logger(), func(ctx context.Context, tx pgx.Tx, ev event.Event) (Result, error) {
		calls++
		select {
		case <-ctx.Done():
			return Result{}, ctx.Err()
		case <-time.After(3 * time.Second):
		}
		_, err := tx.Exec(ctx, `SELECT 1`)
		return Result{Rows: 1}, err
	})
	eng.ops[0].spec.Timeout = patience
	wk := w.take(eng, partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, delivery("shop", "e", "x", `{"order":"o","v":1}`))))
	require.Equal(t, "succeeded", w.text(`SELECT string_agg(outcome, ' ') FROM catchment.results`))
	require.Equal(t, 1, calls)
}

// An error of the database's own state is nobody's failed attempt.
func TestHandlerTransient(t *testing.T) {
	w := newDatabase(t)
	calls := 0
	eng := w.with(logger(), func(ctx context.Context, tx pgx.Tx, _ event.Event) (Result, error) {
		if calls++; calls == 1 {
			_, err := tx.Exec(ctx, `DO $$ BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = '40001'; END $$`)
			return Result{}, fmt.Errorf("wrapped: %w", err)
		}
		if calls == 2 {
			_, err := tx.Exec(ctx, `SELECT pg_terminate_backend(pg_backend_pid())`)
			return Result{}, err
		}
		return Result{}, nil
	})
	wk := w.take(eng, partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, paidOrder("a", "o", 1))))
	require.Equal(t, 3, calls)
	require.Equal(t, "succeeded 1", w.text(`SELECT outcome || ' ' || attempt FROM catchment.results`))
}

// Handlers and operations that do not fit together are told at load.
func TestHandlersFit(t *testing.T) {
	f := func(context.Context, pgx.Tx, event.Event) (Result, error) { return Result{}, nil }
	cfg := &settings.File{
		Sources:    map[string]settings.Source{"shop": {Provider: "none"}},
		Operations: []settings.Operation{{Name: "a", On: settings.On{Source: "shop"}, Handler: "there"}, {Name: "b", On: settings.On{Source: "shop"}, Handler: "gone"}},
		Index:      config.NewIndex("catchment.yaml"),
	}
	_, err := New(cfg, logger(), prometheus.NewRegistry(), Handle("there", f), Handle("nil", nil))
	require.ErrorContains(t, err, `operations[1].handler: this program has no handler "gone": it has ["nil" "there"]`)
	require.ErrorContains(t, err, `handler "nil": expected one function`)
	_, err = New(cfg, logger(), prometheus.NewRegistry(), Handle("there", f), Handle("there", f))
	require.ErrorContains(t, err, `handler "there": expected one function`)
}
