package processor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// R29: one record in eight is poison, each of another kind. Each becomes one dead letter, which keeps it whole, and all
// the others have their effect.
func TestR29PoisonInTheStream(t *testing.T) {
	t.Parallel()
	const rounds = 40
	w := newWorld(t, 3, `CREATE TABLE amounts (id text, amount int CHECK (amount >= 0))`)
	w.cfg.Operations = []settings.Operation{{
		Name: "amounts", On: settings.On{Source: "shop"},
		SQL: config.Strings{`INSERT INTO amounts VALUES (@id, @amount)`}, Params: map[string]string{"amount": "body.amount"},
	}}
	w.cfg.Processor.Batch = 50
	poison := []func(id string) *kgo.Record{
		func(id string) *kgo.Record { return event.Encode(delivery("shop", id, "x", `{"amount":`)) },          // no JSON
		func(id string) *kgo.Record { return event.Encode(delivery("shop", id, "x", `{"amount":"\u0000"}`)) }, // no text
		func(id string) *kgo.Record { return event.Encode(delivery("shop", id, "x", `{"amount":1e131071}`)) }, // no number
		func(id string) *kgo.Record { return event.Encode(delivery("shop", id, "x", `{"amount":-1}`)) },       // no amount
		func(id string) *kgo.Record {
			return event.Encode(delivery("shop", strings.Repeat(id, 1000), "x", `{}`))
		}, // no ID
		func(id string) *kgo.Record { return &kgo.Record{Key: []byte(id), Value: []byte("\x00\xff")} }, // no delivery
		func(id string) *kgo.Record {
			return event.Encode(delivery("shop", id, "x", strings.Repeat(`[`, 100_000)))
		}, // no end
		func(id string) *kgo.Record {
			return event.Encode(delivery("shop", id, "x", `{"amount":99999999999999999}`))
		}, // no int
	}
	var records []*kgo.Record
	for i := range rounds {
		for k, make := range poison {
			for n := range 7 {
				records = append(records, event.Encode(delivery("shop", fmt.Sprint("good-", i, "-", k, "-", n), "x", `{"amount":1}`)))
			}
			records = append(records, make(fmt.Sprint("bad-", i, "-", k)))
		}
	}
	w.produceRecords(records...)
	w.start()
	w.eventually(len(records), positions)
	require.Equal(t, rounds*len(poison)*7, w.count(`SELECT count(*) FROM amounts`))
	require.Equal(t, rounds*len(poison)*7, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'processed'`))
	require.Equal(t, rounds*len(poison), w.count(`SELECT count(*) FROM catchment.dead_letters`))
	require.Equal(t, rounds*2, w.count(`SELECT count(*) FROM catchment.dead_letters WHERE reason = 'undecodable' AND value IS NOT NULL`))
	require.Equal(t, rounds*6, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'dead'`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.retries`))
}

// R32: events of one version with other content. The one with the greatest ID wins, in whatever order and in whatever
// batches they come.
func TestR32EqualVersions(t *testing.T) {
	w := newDatabase(t, ordersSchema...)
	w.cfg.Operations = []settings.Operation{state()}
	eng := w.engine()
	n := 0
	for _, perm := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		for _, size := range []int{1, 2, 3} {
			n++
			var ds []*event.Delivery
			for _, i := range perm {
				ds = append(ds, order(fmt.Sprint(n, "-", i), fmt.Sprint("o", n), 5, fmt.Sprint("of ", i)))
			}
			wk := w.take(eng, partition(int32(n)))
			for records := log(wk.part, ds...); len(records) > 0; records = records[min(size, len(records)):] {
				require.NoError(t, wk.write(t.Context(), records[:min(size, len(records))]))
			}
			require.Equal(t, "of 2", w.text(`SELECT status FROM orders WHERE id = $1`, fmt.Sprint("o", n)), "%v in batches of %d", perm, size)
		}
	}
}
