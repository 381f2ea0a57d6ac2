package processor

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// One event's way: record, identity, operation, result and position, in one transaction.
func TestOneEvent(t *testing.T) {
	w := newWorld(t, 3, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	w.produce(delivery("shop", "evt_1", "order.paid", `{"who":"ann"}`), delivery("bank", "evt_1", "x", `{}`))
	r := w.start()
	w.eventually(2, `SELECT count(*) FROM catchment.events`)
	require.Equal(t, 1, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, "processed|order.paid|{\"who\":\"ann\"}|1|application/json", w.text(
		`SELECT concat_ws('|', status, type, convert_from(body, 'UTF8'), deliveries, content_type) FROM catchment.events WHERE source = 'shop'`))
	require.Equal(t, "unmatched", w.text(`SELECT status FROM catchment.events WHERE source = 'bank'`))
	require.Equal(t, "succeeded|1|1|t", w.text(`SELECT concat_ws('|', outcome, attempt, rows_affected, duration > interval '0') FROM catchment.results`))
	require.Equal(t, 2, w.count(`SELECT sum(next_offset)::int FROM catchment.progress`))
	require.NoError(t, r.Ready())
	require.Equal(t, 1.0, r.metric(t, "catchment_processor_events_total", "outcome=processed", "source=shop"))
	_ = event.Position{}
}
