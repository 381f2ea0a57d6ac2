package processor

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// While a batch is written the next one is prepared. What is prepared is judged by what holds when it is written: that an
// operation is paused, that an event is known, that a record is not at the position.
func TestNextBatchIsPrepared(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Processor.Batch = 10
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	eng := w.engine()
	wk := w.take(eng, partition(0))
	var ds []*event.Delivery
	for _, id := range append(ids("a", 30), ids("a", 15)...) {
		ds = append(ds, delivery("shop", id, "t", `{"who":"x"}`))
	}
	records := log(partition(0), ds...)
	wk.add(records, int64(len(records)))
	next := func() {
		t.Helper()
		require.NoError(t, wk.write(context.Background(), wk.take(context.Background(), eng.batch)))
	}
	prepared := func() (planned int) {
		t.Helper()
		require.NotNil(t, wk.ahead)
		<-wk.ahead.done
		for i, items := range wk.ahead.items {
			require.Same(t, wk.ahead.records[i], items[0].rec)
			if items[0].plan != nil && items[0].plan.list[0].made != nil {
				planned++
			}
		}
		return planned
	}

	next() // 0–9
	require.Equal(t, 10, prepared())
	require.Equal(t, 10, w.count(`SELECT count(*) FROM ledger`), "nothing of the next batch is written")
	eng.paused.Store(&map[string]bool{"ledger-shop": true})
	next() // 10–19, whose attempts were planned before the pause
	require.Equal(t, 10, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 10, w.count(`SELECT count(*) FROM catchment.retries`))
	require.Equal(t, 0, prepared(), "no expressions are evaluated for an operation that is paused")
	eng.paused.Store(&map[string]bool{})
	next() // 20–29
	require.Equal(t, 20, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 10, prepared())
	next() // the first ten again
	require.Equal(t, 20, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 10, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'deferred'`))
	next()
	require.Nil(t, wk.ahead)
	require.Equal(t, 45, w.count(`SELECT next_offset FROM catchment.progress`))
	require.Equal(t, 20, w.count(`SELECT count(*) FROM ledger`))
}

// A batch that fails keeps nothing of what was prepared for it: each try begins with the expressions.
func TestPreparedBatchIsTriedAgain(t *testing.T) {
	w := newDatabase(t, append(ledgerSchema, `CREATE TABLE picky (id text CHECK (id <> 'a00013'))`)...)
	w.cfg.Processor.Batch = 10
	op := ledger("shop")
	op.SQL = append(op.SQL, `INSERT INTO picky VALUES (@id)`)
	w.cfg.Operations = []settings.Operation{op, {
		Name: "after", On: settings.On{Source: "shop"}, DependsOn: config.Strings{op.Name}, SQL: config.Strings{`INSERT INTO ledger VALUES ('after', @id)`},
	}}
	eng := w.engine()
	wk := w.take(eng, partition(0))
	var ds []*event.Delivery
	for _, id := range ids("a", 30) {
		ds = append(ds, delivery("shop", id, "t", `{"who":"x"}`))
	}
	records := log(partition(0), ds...)
	wk.add(records, 30)
	for wk.next < 30 {
		require.NoError(t, wk.write(context.Background(), wk.take(context.Background(), eng.batch)))
	}
	require.Equal(t, 29, w.count(`SELECT count(*) FROM ledger WHERE source = 'shop'`))
	require.Equal(t, 29, w.count(`SELECT count(*) FROM ledger WHERE source = 'after'`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.dead_letters WHERE operation = 'after'`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'dead'`))
}
