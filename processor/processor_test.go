package processor

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
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
}

// Postgres goes back in time, as after a failover to a standby that lagged: what it lost is read again.
func TestPostgresWentBack(t *testing.T) {
	w := newWorld(t, 1, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	for _, id := range ids("e", 20) {
		w.produce(delivery("shop", id, "x", `{}`))
	}
	r := w.start()
	w.eventually(20, `SELECT count(*) FROM ledger`)
	w.exec(`BEGIN; DELETE FROM catchment.identities WHERE event_id >= 'e00010'; DELETE FROM catchment.bodies WHERE event_id >= 'e00010';
		DELETE FROM catchment.results WHERE event_id >= 'e00010'; DELETE FROM ledger WHERE event_id >= 'e00010';
		UPDATE counters SET n = 10; UPDATE catchment.progress SET next_offset = 10; COMMIT`)
	w.produce(delivery("shop", "e00020", "x", `{}`)) // meets the older position: the partition is taken over again
	w.eventually(21, `SELECT count(*) FROM ledger`)
	require.Equal(t, 21, w.count(`SELECT n FROM counters`))
	require.Positive(t, r.metric(t, "catchment_processor_fenced_total"))
}

// Two processors share the partitions and hand them over under load: every event has its effect once.
func TestRebalanceUnderLoad(t *testing.T) {
	w := newWorld(t, 6, append(append([]string{}, ledgerSchema...), ordersSchema...)...)
	w.cfg.Operations = []settings.Operation{ledger("shop"), state()}
	w.cfg.Processor.Batch = 20
	const events = 3000
	produced := make(chan struct{})
	go func() {
		defer close(produced)
		for i := range events {
			d := order(ids("e", events)[i], "o", i, "s")
			w.cl.Produce(context.Background(), event.Encode(d), nil)
			if i%10 == 0 {
				w.cl.Produce(context.Background(), event.Encode(d), nil)
			}
			if i%300 == 0 {
				_ = w.cl.Flush(context.Background())
			}
		}
		_ = w.cl.Flush(context.Background())
	}()
	first := w.start()
	for range 3 {
		before := w.count(`SELECT count(*) FROM ledger`)
		other := w.start()
		waitFor(func() bool { n := w.count(`SELECT count(*) FROM ledger`); return n > before+200 || n == events })
		first.stop()
		first = other
	}
	<-produced
	w.eventually(events, `SELECT count(DISTINCT event_id)::int FROM ledger`)
	require.Equal(t, events, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, events, w.count(`SELECT n FROM counters`))
	require.Equal(t, events, w.count(`SELECT count(*) FROM catchment.events`))
	w.eventually(events+events/10, `SELECT sum(next_offset)::int FROM catchment.progress`)
	require.Equal(t, 0, w.count(`SELECT count(*) FROM (SELECT v, lag(v) OVER (PARTITION BY id ORDER BY n) AS before FROM history) AS h WHERE v < before`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.dead_letters`)+w.count(`SELECT count(*) FROM catchment.conflicts`))
}

// Kafka's retention overtook the position: the partition halts with an alarm, and never jumps.
func TestLostPositionHalts(t *testing.T) {
	w := newWorld(t, 2, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	topic := w.cfg.Kafka.Topic
	to := func(p int32, id string) {
		r := event.Encode(delivery("shop", id, "x", `{}`))
		r.Topic, r.Partition = topic, p
		cl := w.kc.Client(t, kgo.RecordPartitioner(kgo.ManualPartitioner()))
		require.NoError(t, cl.ProduceSync(t.Context(), r).FirstErr())
	}
	to(0, "a")
	to(1, "b")
	r := w.start()
	w.eventually(2, `SELECT count(*) FROM ledger`)
	r.stop()
	for _, id := range []string{"lost-1", "lost-2", "kept"} {
		to(0, id)
	}
	var del kadm.Offsets
	del.Add(kadm.Offset{Topic: topic, Partition: 0, At: 3})
	_, err := kadm.NewClient(w.cl).DeleteRecords(t.Context(), del)
	require.NoError(t, err)

	r = w.start()
	to(1, "c")
	w.eventually(1, `SELECT count(*) FROM ledger WHERE event_id = 'c'`) // the other partition goes on
	ok := waitFor(func() bool { return r.metric(t, "catchment_processor_halted", "partition=0") == 1 })
	require.True(t, ok)
	require.ErrorContains(t, r.Ready(), "partition 0 is halted")
	require.Equal(t, 0, w.count(`SELECT count(*) FROM ledger WHERE event_id = 'kept'`))
	require.Equal(t, 1, w.count(`SELECT next_offset::int FROM catchment.progress WHERE partition = 0`))
}

// The log ends below the position, as after an unclean election that cut it: new records must not be mistaken for
// those that were read.
func TestCutLogHalts(t *testing.T) {
	w := newWorld(t, 1, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	w.produce(delivery("shop", "a", "x", `{}`))
	r := w.start()
	w.eventually(1, `SELECT count(*) FROM ledger`)
	r.stop()
	w.exec(`UPDATE catchment.progress SET next_offset = 3`) // there were three records once
	r = w.start()
	require.True(t, waitFor(func() bool { return r.metric(t, "catchment_processor_halted", "partition=0") == 1 }))
	w.produce(delivery("shop", "b", "x", `{}`), delivery("shop", "c", "x", `{}`), delivery("shop", "d", "x", `{}`))
	require.ErrorContains(t, r.Ready(), "partition 0 is halted")
	require.Equal(t, 3, w.count(`SELECT next_offset::int FROM catchment.progress`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM ledger`))
}

// A topic that was deleted and made anew is another one: its offsets begin again, and so does the position.
func TestTopicMadeAnew(t *testing.T) {
	w := newWorld(t, 1, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	w.produce(delivery("shop", "a", "x", `{}`), delivery("shop", "b", "x", `{}`))
	w.start()
	w.eventually(2, `SELECT count(*) FROM ledger`)
	adm := kadm.NewClient(w.cl)
	_, err := adm.DeleteTopic(t.Context(), w.cfg.Kafka.Topic)
	require.NoError(t, err)
	require.True(t, waitFor(func() bool {
		_, err := adm.CreateTopic(t.Context(), 1, 3, nil, w.cfg.Kafka.Topic)
		return err == nil
	}))
	w.cl = w.kc.Client(t, kgo.DefaultProduceTopic(w.cfg.Kafka.Topic), kgo.UnknownTopicRetries(-1))
	w.produce(delivery("shop", "b", "x", `{}`), delivery("shop", "c", "x", `{}`))
	w.eventually(3, `SELECT count(*) FROM ledger`)
	require.Equal(t, 2, w.count(`SELECT count(DISTINCT topic_id) FROM catchment.progress`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.duplicates`)+w.count(`SELECT count(*) FROM catchment.conflicts`))
}

// The services start in any order: Postgres, the schema and the topic are waited for.
func TestWaitsForItsParts(t *testing.T) {
	w := newWorld(t, 1, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	p, url := newProxy(t, w.url)
	p.setDown(true)
	w.cfg.Postgres.URL = config.NewSecret(url)
	topic := w.cfg.Kafka.Topic + ".later"
	w.cfg.Kafka.Topic = topic
	r := w.start()
	ready := func(text string) func() bool {
		return func() bool { err := r.Ready(); return err != nil && strings.Contains(err.Error(), text) }
	}
	require.True(t, waitFor(ready("waiting for Postgres: ")))
	p.setDown(false)
	require.True(t, waitFor(ready("waiting for Kafka: ")))
	adm := kadm.NewClient(w.cl)
	_, err := adm.CreateTopic(t.Context(), 1, 3, nil, topic)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = adm.DeleteTopic(context.Background(), topic) })
	w.cl = w.kc.Client(t, kgo.DefaultProduceTopic(topic))
	w.produce(delivery("shop", "a", "x", `{}`))
	w.eventually(1, `SELECT count(*) FROM ledger`)
	require.True(t, waitFor(func() bool { return r.Ready() == nil }))
}

// A password that is wrong is told and tried again; SQL that does not prepare ends the service.
func TestWrongConfiguration(t *testing.T) {
	w := newWorld(t, 1)
	good := w.cfg.Postgres.URL
	u, err := url.Parse(good.Reveal())
	require.NoError(t, err)
	u.User = url.UserPassword("nobody-of-that-name", "wrong")
	w.cfg.Postgres.URL = config.NewSecret(u.String())
	r := w.start()
	require.True(t, waitFor(func() bool {
		err := r.Ready()
		return err != nil && strings.Contains(err.Error(), "nobody-of-that-name")
	}))
	r.stop()

	w.cfg.Postgres.URL = good
	w.cfg.Operations = []settings.Operation{{Name: "x", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO missing VALUES (1)`}}}
	s, err := New(w.cfg, logger(), prometheus.NewRegistry())
	require.NoError(t, err)
	var wrong config.Errors
	require.ErrorAs(t, s.Run(t.Context()), &wrong)
	require.ErrorContains(t, wrong, `operations[0].sql: expected SQL that Postgres prepares: line 1, column 13 of the statement: relation "missing" does not exist`)

	w.cfg.Operations[0].When = "1 + 1"
	_, err = New(w.cfg, logger(), prometheus.NewRegistry())
	require.ErrorAs(t, err, &wrong)
}
