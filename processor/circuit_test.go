package processor

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// R30: a deployment that is broken (a missing table) makes no dead letters, whatever the number of attempts. Its circuit
// opens, other operations go on, and once it is repaired every event has its effect, once.
func TestR30BrokenDeployment(t *testing.T) {
	w := newDatabase(t, append([]string{`CREATE TABLE effects (id text)`}, ledgerSchema...)...)
	retry := settings.Retry{MaxAttempts: 1, Initial: time.Millisecond, Max: time.Millisecond}
	w.cfg.Operations = []settings.Operation{
		ledger("shop"),
		{Name: "broken", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO effects VALUES (@id)`}, Retry: retry},
	}
	eng, second := w.engine(), w.engine()
	w.exec(`ALTER TABLE effects RENAME TO effects_of_tomorrow`)
	wk, other := w.take(eng, partition(0)), w.take(eng, partition(1))
	var ds, more []*event.Delivery
	for i := range 200 {
		ds = append(ds, delivery("shop", fmt.Sprintf("a%03d", i), "x", `{}`))
		more = append(more, delivery("shop", fmt.Sprintf("b%03d", i), "x", `{}`))
	}
	require.NoError(t, wk.write(t.Context(), log(wk.part, ds...)))
	require.NoError(t, other.write(t.Context(), log(other.part, more...)))
	require.Equal(t, 400, w.count(`SELECT count(*) FROM ledger`), "the others go on")
	require.Equal(t, 50, w.count(`SELECT count(*) FROM catchment.results WHERE operation = 'broken' AND outcome = 'failed' AND attempt = 1`))
	require.Equal(t, 350, w.count(`SELECT count(*) FROM catchment.results WHERE operation = 'broken' AND outcome = 'deferred' AND error LIKE '%circuit%'`))
	require.Equal(t, 350, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'deferred'`))
	require.Equal(t, 400, w.count(`SELECT count(*) FROM catchment.retries`))
	require.True(t, eng.byName["broken"].circuit.isOpen())
	require.False(t, eng.byName["ledger-shop"].circuit.isOpen())

	// Two processes retry, one of which knows nothing of the circuit yet.
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, e := range []*engine{eng, eng, second} {
		wg.Go(func() { e.retries(ctx) })
	}
	require.True(t, waitFor(func() bool { return second.byName["broken"].circuit.isOpen() }))
	made := w.count(`SELECT count(*) FROM catchment.results WHERE operation = 'broken' AND outcome = 'failed'`)
	require.True(t, waitFor(func() bool { // a probe
		return w.count(`SELECT count(*) FROM catchment.results WHERE operation = 'broken' AND outcome = 'failed'`) > made
	}))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.dead_letters`))
	w.exec(`ALTER TABLE effects_of_tomorrow RENAME TO effects`)
	w.eventually(0, `SELECT count(*) FROM catchment.retries`)
	require.Equal(t, 400, w.count(`SELECT count(DISTINCT id) FROM effects`))
	require.Equal(t, 400, w.count(`SELECT count(*) FROM effects`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.dead_letters`))
	require.Equal(t, 400, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'processed'`))
}

// One event whose SQL is refused, while others succeed, opens nothing and becomes a dead letter.
func TestOneRefusedEvent(t *testing.T) {
	w := newDatabase(t, `CREATE FUNCTION odd(id text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		IF id LIKE 'bad%' THEN RAISE EXCEPTION 'no such table' USING ERRCODE = '42P01'; END IF; END $$`)
	w.cfg.Operations = []settings.Operation{{
		Name: "odd", On: settings.On{Source: "shop"}, SQL: config.Strings{`SELECT odd(@id)`},
		Retry: settings.Retry{MaxAttempts: 2, Initial: time.Millisecond, Max: time.Millisecond},
	}}
	eng := w.engine()
	wk := w.take(eng, partition(0))
	write := func(offset int64, id string) {
		require.NoError(t, wk.write(t.Context(), placedAt(log(wk.part, delivery("shop", id, "x", `{}`)), offset)))
	}
	write(0, "bad")
	retry := func() {
		require.True(t, waitFor(func() bool { return eng.retryDue(t.Context(), eng.active()) == nil }))
	}
	for range 3 {
		retry() // nothing has worked yet: more attempts than it has
	}
	require.Equal(t, "4|failed", w.text(`SELECT concat_ws('|', attempt, outcome) FROM catchment.results ORDER BY attempt DESC LIMIT 1`))
	write(1, "good")
	retry()
	require.Equal(t, "5|dead", w.text(`SELECT concat_ws('|', attempt, outcome) FROM catchment.results WHERE event_id = 'bad' ORDER BY attempt DESC LIMIT 1`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.dead_letters WHERE event_id = 'bad' AND reason = 'attempts exhausted'`))
	require.False(t, eng.byName["odd"].circuit.isOpen())
}

// A circuit opens after failures in a row alone, and a probe is for one caller.
func TestCircuit(t *testing.T) {
	now := time.Now()
	var c circuit
	for range circuitOpens - 1 {
		require.False(t, c.note(now, refused))
	}
	require.False(t, c.note(now, accepted), "what Postgres takes breaks the row")
	for range circuitOpens - 1 {
		c.note(now, refused, noSign)
	}
	require.False(t, c.mayProbe(now))
	require.True(t, c.note(now, refused))
	require.True(t, c.isOpen())
	require.False(t, c.mayProbe(now))
	later := now.Add(firstProbe)
	require.True(t, c.mayProbe(later))
	require.False(t, c.mayProbe(later), "one at a time")
	for range 20 {
		later = later.Add(longestProbe)
		require.True(t, c.mayProbe(later))
	}
	require.False(t, c.note(later, refused), "it stays open")
	require.True(t, c.note(later, worked))
	require.False(t, c.isOpen())
	require.Zero(t, c.refusals())
}
