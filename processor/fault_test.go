package processor

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// When nobody answers a COMMIT, the position says whether it took place; either way the effect is there once.
func TestUnknownCommit(t *testing.T) {
	for name, mode := range map[string]int32{"committed": cutAfter, "not committed": cutBefore} {
		t.Run(name, func(t *testing.T) {
			w := newDatabase(t, ledgerSchema...)
			w.cfg.Operations = []settings.Operation{ledger("shop")}
			p, url := newProxy(t, w.url)
			eng := w.engineAt(url)
			wk := w.take(eng, partition(0))
			p.mode.Store(mode)
			records := log(wk.part, delivery("shop", "a", "x", `{}`), delivery("shop", "b", "x", `{}`))
			require.NoError(t, wk.write(t.Context(), records))
			require.Equal(t, int32(1), p.cuts.Load(), "the COMMIT was cut")
			require.Equal(t, 2, w.count(`SELECT count(*) FROM ledger`))
			require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.duplicates`))
			require.Equal(t, 2, w.count(`SELECT next_offset::int FROM catchment.progress`))
			_, _, fault := wk.state()
			require.NoError(t, fault)
		})
	}
}

// Sessions that Postgres ends, and a database that is away, cost time and nothing else.
func TestR22SessionsEnded(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	p, url := newProxy(t, w.url)
	eng := w.engineAt(url)
	wk := w.take(eng, partition(0))
	const events = 2000
	var ds []*event.Delivery
	for _, id := range ids("e", events) {
		ds = append(ds, delivery("shop", id, "x", `{"who":"ann"}`))
	}
	records := log(wk.part, ds...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; i < events; i += 100 {
			if err := wk.write(t.Context(), records[i:i+100]); err != nil {
				return
			}
		}
	}()
	interrupted := 0
	for n := 0; n < 10; n++ {
		before := w.count(`SELECT count(*) FROM ledger`)
		waitFor(func() bool { return w.count(`SELECT count(*) FROM ledger`) > before || before == events })
		if n == 5 {
			p.setDown(true)
			ok := waitFor(func() bool { _, _, fault := wk.state(); return fault != nil || before >= events-200 })
			require.True(t, ok)
			p.setDown(false)
		}
		interrupted += w.count(`SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'test') AS killed`)
	}
	<-done
	require.Positive(t, interrupted)
	require.Equal(t, events, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, events, w.count(`SELECT n FROM counters`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.dead_letters`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.results WHERE outcome <> 'succeeded'`))
}

// A batch that takes longer than a transaction may is cut into smaller ones, until it ends.
func TestSlowBatchShrinks(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	op := ledger("shop")
	op.SQL = append([]string{`SELECT pg_sleep(0.1)`}, op.SQL...)
	w.cfg.Operations = []settings.Operation{op}
	w.cfg.Processor.TxTimeout = time.Second
	wk := w.take(w.engine(), partition(0))
	var ds []*event.Delivery
	for _, id := range ids("e", 24) {
		ds = append(ds, delivery("shop", id, "x", `{}`))
	}
	require.NoError(t, wk.write(t.Context(), log(wk.part, ds...)))
	require.Equal(t, 24, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 24, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'succeeded'`))
}

// Events that Postgres does not take as rows of ours become dead letters, one by one.
func TestUnstorableEvent(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	eng := w.engine()
	w.exec(`ALTER TABLE catchment.bodies ADD CONSTRAINT test CHECK (event_id <> 'bad')`)
	wk := w.take(eng, partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part,
		delivery("shop", "a", "x", `{}`), delivery("shop", "bad", "x", `{}`), delivery("shop", "c", "x", `{}`), delivery("shop", "d", "x", `{}`))))
	require.Equal(t, "a,c,d", w.text(`SELECT string_agg(event_id, ',' ORDER BY event_id) FROM ledger`))
	require.Equal(t, "unstorable|bad|{}", w.text(`SELECT concat_ws('|', reason, event_id, convert_from(value, 'UTF8')) FROM catchment.dead_letters`))
}

// What Postgres refuses because of its own state is never an event's fault.
func TestR22TransientStates(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	op := ledger("shop")
	w.exec(`CREATE TABLE trouble (code text)`)
	w.exec(`CREATE FUNCTION trouble() RETURNS void LANGUAGE plpgsql AS $$ DECLARE c text; BEGIN
		SELECT code INTO c FROM trouble; IF c IS NOT NULL THEN RAISE EXCEPTION 'injected' USING ERRCODE = c; END IF; END $$`)
	op.SQL = append([]string{`SELECT trouble()`}, op.SQL...)
	w.cfg.Operations = []settings.Operation{op}
	eng := w.engine()
	for i, code := range []string{"40001", "40P01", "55P03", "53100", "53300", "25006", "57P01", "57P02", "57P03", "08006"} {
		w.exec(`INSERT INTO trouble VALUES ($1)`, code)
		wk := w.take(eng, partition(int32(i)))
		done := make(chan error, 1)
		go func() { done <- wk.write(t.Context(), log(wk.part, delivery("shop", "e"+code, "x", `{}`))) }()
		var fault error
		ok := waitFor(func() bool { _, _, fault = wk.state(); return fault != nil && strings.Contains(fault.Error(), code) })
		require.True(t, ok, code)
		require.Contains(t, fault.Error(), "operation "+op.Name+", event e"+code+" of shop: ", "who is on call looks for it")
		w.exec(`DELETE FROM trouble`)
		require.NoError(t, <-done, code)
	}
	require.Equal(t, 10, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.dead_letters`)+w.count(`SELECT count(*) FROM catchment.retries`))
}
