package processor

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// A function that changes settings, of the transaction or of the session, changes them for nobody else: neither other
// operations, nor our own statements, nor what comes later on the same connection.
func TestSettingsOfAnOperationAreItsOwn(t *testing.T) {
	w := newWorld(t, 1, append(ledgerSchema, `CREATE SCHEMA elsewhere`, `CREATE TABLE elsewhere.ledger (LIKE ledger)`, `CREATE TABLE days (day date)`,
		`CREATE FUNCTION lasting() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET search_path TO elsewhere; SET TimeZone TO 'Pacific/Auckland'; SET lock_timeout TO '1ms'; END $$`,
		`CREATE FUNCTION fleeting() RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET LOCAL search_path TO elsewhere; SET LOCAL ROLE pg_monitor; END $$`,
	)...)
	op := func(name, sql string) settings.Operation {
		return settings.Operation{
			Name: name, On: settings.On{Source: "shop", Types: []string{name}}, SQL: config.Strings{sql},
			Retry: settings.Retry{MaxAttempts: 2, Initial: time.Millisecond, Max: time.Millisecond},
		}
	}
	w.cfg.Operations = []settings.Operation{
		op("good", `INSERT INTO ledger (source, event_id) VALUES (@source, @id)`),
		op("day", `INSERT INTO days VALUES (@time::timestamptz::date)`),
		op("lasting", `SELECT public.lasting()`), op("fleeting", `SELECT public.fleeting()`),
		op("failing", `SELECT public.fleeting(), 1 / @zero::int`),
	}
	w.cfg.Operations[4].Params = map[string]string{"zero": "0"}
	w.start()
	w.produce(delivery("shop", "first", "fleeting", `{}`)) // alone, where nothing is prepared
	w.eventually(1, `SELECT count(*) FROM catchment.events`)
	want := 0
	for round := range 5 {
		for _, name := range []string{"fleeting", "lasting", "failing", "lasting"} {
			d := delivery("shop", fmt.Sprint(name, want), name, `{}`)
			day := delivery("shop", fmt.Sprint("day", want), "day", `{}`)
			day.Time = time.Date(2026, 11, 1, 23, 0, 0, 0, time.UTC)
			w.produce(d, day, delivery("shop", fmt.Sprint("good", want), "good", `{}`))
			want++
		}
		if round > 1 { // in one batch, and each in its own
			w.eventually(want, `SELECT count(*) FROM catchment.events WHERE type = 'good'`)
		}
	}
	w.eventually(want, `SELECT count(*) FROM public.ledger`)
	w.eventually(want, `SELECT count(*) FROM public.days WHERE day = '2026-11-01'`)
	w.eventually(5, `SELECT count(*) FROM catchment.dead_letters`)
	require.Zero(t, w.count(`SELECT count(*) FROM elsewhere.ledger`))
	require.Zero(t, w.count(`SELECT count(*) FROM catchment.results WHERE operation IN ('good', 'day') AND outcome <> 'succeeded'`))
	require.Equal(t, 6, w.count(`SELECT count(*) FROM catchment.results WHERE operation = 'fleeting' AND outcome = 'succeeded'`))
}

// Timeouts that somebody gave to the role or to the database are too short for a migration, and for the wait for another
// owner's transaction: there they do not hold.
func TestTimeoutsOfTheRole(t *testing.T) {
	w := newDatabase(t)
	w.exec(`ALTER DATABASE ` + w.text(`SELECT current_database()`) + ` SET statement_timeout = '150ms'`)
	w.exec(`ALTER DATABASE ` + w.text(`SELECT current_database()`) + ` SET lock_timeout = '20ms'`)
	eng := w.engine()
	zombie := w.take(eng, partition(0))
	tx, err := eng.store.Begin(t.Context(), time.Minute, time.Minute)
	require.NoError(t, err)
	_, err = tx.Enter(t.Context(), zombie.part, zombie.owner, 0, nil)
	require.NoError(t, err)
	heir := w.take(eng, partition(0))
	require.Error(t, tx.Commit(t.Context()))
	require.NoError(t, heir.write(t.Context(), log(heir.part, delivery("shop", "a", "x", `{}`))))

	w.exec(`DROP SCHEMA catchment CASCADE`)
	lock, err := w.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = lock.Rollback(context.Background()) }()
	_, err = lock.Exec(t.Context(), `SELECT pg_advisory_xact_lock($1)`, int64(0x63617463686d6e74)) // another one migrates
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- Migrate(t.Context(), w.url) }()
	w.eventually(1, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`)
	for _, sql := range []string{`SET LOCAL statement_timeout = 0`, `SELECT pg_sleep(0.4)`} {
		_, err = lock.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	require.NoError(t, lock.Rollback(t.Context()))
	require.NoError(t, <-done)
}
