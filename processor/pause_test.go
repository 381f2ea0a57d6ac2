package processor

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// A paused operation's attempts wait, with a row that says so; other operations go on. What waited is run when the
// operation is resumed.
func TestPausedOperationIsDeferred(t *testing.T) {
	w := newWorld(t, 1, ledgerSchema...)
	other := settings.Operation{Name: "other", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO counters VALUES (@id, 1)`}}
	w.cfg.Operations = []settings.Operation{ledger("shop"), other}
	act := store.Act{Actor: "ann", Reason: "table is rebuilt"}
	changed, err := store.Pause(t.Context(), w.pool, "ledger-shop", act)
	require.NoError(t, err)
	require.True(t, changed)
	changed, err = store.Pause(t.Context(), w.pool, "ledger-shop", act)
	require.NoError(t, err)
	require.False(t, changed)
	r := w.start()
	for _, id := range ids("e", 50) {
		w.produce(delivery("shop", id, "x", `{}`))
	}
	w.eventually(50, `SELECT count(*) FROM catchment.events WHERE status = 'deferred'`)
	require.Equal(t, 0, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 50, w.count(`SELECT count(*) FROM counters`))
	require.Equal(t, 50, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'deferred' AND attempt = 0 AND error = 'the operation is paused'`))
	require.Equal(t, 50, w.count(`SELECT count(*) FROM catchment.retries WHERE attempt = 1 AND due_at <= now()`))
	require.Equal(t, 50.0, r.metric(t, "catchment_processor_attempts_total", "operation=ledger-shop", "outcome=deferred"))

	changed, err = store.Resume(t.Context(), w.pool, "ledger-shop", act)
	require.NoError(t, err)
	require.True(t, changed)
	w.eventually(50, `SELECT count(*) FROM ledger`)
	w.eventually(50, `SELECT count(*) FROM catchment.events WHERE status = 'processed'`)
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.retries`))
	require.Equal(t, 50, w.count(`SELECT count(*) FROM catchment.results WHERE operation = 'ledger-shop' AND outcome = 'succeeded' AND attempt = 1`))
	require.Equal(t, "operations pause|1,operations pause|0,operations resume|1", w.text(`SELECT string_agg(command || '|' || affected, ',' ORDER BY id)
		FROM catchment.actions WHERE actor = 'ann' AND reason = 'table is rebuilt' AND selection->>'operation' = 'ledger-shop'`))

	_, err = store.Pause(t.Context(), w.pool, "ledger-shop", act) // seen by a processor that runs
	require.NoError(t, err)
	require.True(t, waitFor(func() bool { return r.engine.isPaused("ledger-shop") }))
	w.produce(delivery("shop", "late", "x", `{}`))
	w.eventually(1, `SELECT count(*) FROM catchment.events WHERE event_id = 'late' AND status = 'deferred'`)
}

// Attempts that wait for a paused operation, or for one that is no longer configured, are neither lost nor in the way of
// the others.
func TestForgottenRetriesStay(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	w.exec(`CREATE TABLE wanted (id text PRIMARY KEY)`)
	w.exec(`CREATE TABLE needs (id text REFERENCES wanted)`)
	need := func(name string) settings.Operation {
		return settings.Operation{
			Name: name, On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO needs VALUES ('p')`},
			Retry: settings.Retry{MaxAttempts: 1000, Initial: time.Millisecond, Max: time.Millisecond},
		}
	}
	w.cfg.Operations = []settings.Operation{need("old"), need("new")}
	eng := w.engine()
	wk := w.take(eng, partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, delivery("shop", "a", "x", `{}`), delivery("shop", "b", "x", `{}`))))
	require.Equal(t, 4, w.count(`SELECT count(*) FROM catchment.retries`))
	w.exec(`INSERT INTO wanted VALUES ('p')`)

	w.cfg.Operations = []settings.Operation{need("new")}
	eng = w.engine()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); eng.retries(ctx) }()
	w.eventually(2, `SELECT count(*) FROM needs`)
	w.eventually(0, `SELECT count(*) FROM catchment.retries WHERE operation = 'new'`)
	cancel()
	<-done
	require.Equal(t, 2, w.count(`SELECT count(*) FROM catchment.retries WHERE operation = 'old'`))
	require.Equal(t, 2, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'failed'`))

	w.cfg.Operations = []settings.Operation{need("old")} // it comes back
	require.True(t, waitFor(func() bool { return w.engine().retryDue(t.Context(), []string{"old"}) == nil }))
	w.eventually(2, `SELECT count(*) FROM catchment.events WHERE status = 'processed'`)
}
