package processor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/expr"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

func quiet(context.Context) bool { return false }

// job asks for a job, and runs it to its end unless leave is set.
func (w *world) job(eng *engine, j store.Job) *store.Job {
	w.t.Helper()
	w.ask(&j)
	r := &runner{eng: eng, behind: quiet, size: jobChunk}
	require.True(w.t, waitFor(func() bool {
		if _, err := r.step(w.t.Context()); err != nil {
			require.NotErrorIs(w.t, err, store.ErrNothingDue)
			r.careful = true
		}
		return w.found(j.ID).State == store.JobDone
	}))
	return w.found(j.ID)
}

// ask stores a job, as the tool does.
func (w *world) ask(j *store.Job) {
	w.t.Helper()
	j.Actor, j.Reason = "ann", "a test"
	if j.Kind == store.Redrive {
		n, upto, err := store.CountLetters(w.t.Context(), w.pool, j.Selection)
		require.NoError(w.t, err)
		j.Expected, j.Upto = n, &upto
	}
	require.NoError(w.t, store.CreateJob(w.t.Context(), w.pool, j))
}

func (w *world) found(id int64) *store.Job {
	w.t.Helper()
	j, err := store.OneJob(w.t.Context(), w.pool, id)
	require.NoError(w.t, err)
	return j
}

func (w *world) store(eng *engine, p store.Partition, ds ...*event.Delivery) {
	w.t.Helper()
	wk := w.take(eng, p)
	require.NoError(w.t, wk.write(w.t.Context(), log(p, ds...)))
}

var amountsSchema = []string{`CREATE TABLE amounts (id text, amount int CONSTRAINT positive CHECK (amount >= 0))`}

func amounts() settings.Operation {
	return settings.Operation{
		Name: "amounts", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO amounts VALUES (@id, @amount)`},
		Params: map[string]string{"amount": "body.amount"}, Retry: settings.Retry{MaxAttempts: 1},
	}
}

// Dead letters are tried once more: what succeeds is gone and the event's state follows, what fails again stays with
// more attempts, and doing it twice has no second effect.
func TestRedrive(t *testing.T) {
	w := newDatabase(t, amountsSchema...)
	w.cfg.Operations = []settings.Operation{amounts()}
	eng := w.engine()
	var ds []*event.Delivery
	for i, id := range ids("e", 230) {
		ds = append(ds, delivery("shop", id, []string{"order.paid", "order.sent"}[i%2], `{"amount":-1}`))
	}
	ds = append(ds, delivery("shop", "never", "order.paid", `{"amount":"many"}`), delivery("shop", "good", "order.paid", `{"amount":1}`))
	w.store(eng, partition(0), ds...)
	require.Equal(t, 231, w.count(`SELECT count(*) FROM catchment.dead_letters`))
	w.exec(`ALTER TABLE amounts DROP CONSTRAINT positive`)

	j := w.job(eng, store.Job{Kind: store.Redrive, Selection: store.Selection{Types: []string{"order.p*"}, Since: new(time.Now().Add(-time.Hour))}})
	require.Equal(t, []any{int64(116), store.Tally{Succeeded: 115, Dead: 1}}, []any{j.Expected, j.Tally})
	require.Equal(t, 116, w.count(`SELECT count(*) FROM catchment.dead_letters`))
	require.Equal(t, 2, w.count(`SELECT attempts FROM catchment.dead_letters WHERE event_id = 'never'`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.dead_letters WHERE event_id = 'never' AND first_failed_at < last_failed_at`))
	require.Equal(t, 116, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'processed'`))
	require.Equal(t, `116|{"types": ["order.p*"]}`, w.text(`SELECT affected || '|' || ((selection->'selection') - 'since'::text) FROM catchment.actions WHERE command = 'dead-letters redrive'`))

	j = w.job(eng, store.Job{Kind: store.Redrive})
	require.Equal(t, store.Tally{Succeeded: 115, Dead: 1}, j.Tally)
	j = w.job(eng, store.Job{Kind: store.Redrive, Selection: store.Selection{Operation: "amounts", Source: "shop", Reason: "expression"}})
	require.Zero(t, j.Made())
	require.Equal(t, 231, w.count(`SELECT count(*) FROM amounts`))
	require.Equal(t, 231, w.count(`SELECT count(DISTINCT id) FROM amounts`))
	require.Equal(t, "never|3|3", w.text(`SELECT string_agg(event_id || '|' || attempts || '|' || (SELECT max(attempt) FROM catchment.results r WHERE r.event_id = d.event_id), ',')
		FROM catchment.dead_letters d`))
	require.Equal(t, 231, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'processed'`))
}

// A dead letter whose operation is gone, is paused or no longer wants the event, or whose event is gone, stays.
func TestRedriveLeavesWhatItCannotDo(t *testing.T) {
	w := newDatabase(t, amountsSchema...)
	gone, paused := amounts(), amounts()
	gone.Name, paused.Name = "gone", "paused"
	w.cfg.Operations = []settings.Operation{amounts(), gone, paused}
	w.store(w.engine(), partition(0), delivery("shop", "a", "x", `{"amount":-1}`), delivery("shop", "b", "x", `{"amount":-1}`), delivery("shop", "c", "y", `{"amount":-1}`))
	require.Equal(t, 9, w.count(`SELECT count(*) FROM catchment.dead_letters`))
	w.exec(`ALTER TABLE amounts DROP CONSTRAINT positive`)
	w.exec(`DELETE FROM catchment.bodies WHERE event_id = 'b'`)
	only := amounts()
	only.When = "type == 'x'"
	w.cfg.Operations = []settings.Operation{only, paused}
	_, err := store.Pause(t.Context(), w.pool, "paused", store.Act{Actor: "ann"})
	require.NoError(t, err)
	j := w.job(w.engine(), store.Job{Kind: store.Redrive})
	require.Equal(t, store.Tally{Succeeded: 1, Skipped: 8}, j.Tally)
	require.Equal(t, "a", w.text(`SELECT string_agg(id, ',') FROM amounts`))
	require.Equal(t, 8, w.count(`SELECT count(*) FROM catchment.dead_letters`))
}

// keep makes a dead letter of a record that could not be decoded.
func (w *world) keep(offset int, rec *kgo.Record) {
	w.t.Helper()
	var list []map[string]any
	for _, h := range rec.Headers {
		list = append(list, map[string]any{"name": h.Key, "base64": h.Value})
	}
	text, err := json.Marshal(list)
	require.NoError(w.t, err)
	w.exec(`INSERT INTO catchment.dead_letters (reason, error, attempts, first_failed_at, last_failed_at, topic, topic_id, partition, "offset", key, headers, value)
		VALUES ('undecodable', 'written by another release', 1, now(), now(), 't', '01020300-0000-0000-0000-000000000000', 0, $1, $2, $3, $4)`, offset, rec.Key, text, rec.Value)
}

// A record that could not be decoded is decoded again, and enters with its identity and its operations.
func TestRedriveRecords(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	eng := w.engine()
	d := delivery("shop", "a", "order.paid", "{\"who\":\"ann\"}")
	for i, rec := range []*kgo.Record{event.Encode(d), {Key: []byte("k"), Value: []byte{0, 1}}, event.Encode(delivery("shop", "a", "order.paid", "{}"))} {
		w.keep(i+7, rec)
	}
	j := w.job(eng, store.Job{Kind: store.Redrive, Selection: store.Selection{Reason: "undecodable"}})
	require.Equal(t, store.Tally{Succeeded: 2, Dead: 1}, j.Tally)
	require.Equal(t, 1, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, `processed|order.paid|{"who":"ann"}|7|2|`+d.DeliveryID, w.text(`SELECT concat_ws('|', status, type, convert_from(body, 'UTF8'), "offset", deliveries, delivery_id) FROM catchment.events`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.conflicts`), "the third has the first one's ID and other bytes")
	require.Equal(t, "8|2", w.text(`SELECT string_agg("offset" || '|' || attempts, ',') FROM catchment.dead_letters`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.progress`), "no position is moved")
}

// A replay runs stored events through an operation once each; with force once more. Older versions do not win.
func TestReplay(t *testing.T) {
	w := newDatabase(t, append(append([]string{}, ordersSchema...), ledgerSchema...)...)
	eng := w.engine()
	var ds []*event.Delivery
	for i, id := range ids("e", 250) {
		ds = append(ds, order(id, "o", 1000-i, fmt.Sprint(i)))
	}
	ds = append(ds, delivery("bank", "b", "x", `{}`), delivery("shop", "other", "x", `{"order":"p","v":1,"status":"s"}`))
	w.store(eng, partition(0), ds...)
	require.Equal(t, 252, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'unmatched'`))

	op, count := state(), ledger("shop")
	op.On.Types = []string{"order.*"}
	count.When = "id != 'e00007'"
	w.cfg.Operations = []settings.Operation{op, count}
	eng = w.engine()
	j := w.job(eng, store.Job{Kind: store.Replay, Operation: "order-status"})
	require.Equal(t, store.Tally{Succeeded: 1, Superseded: 249}, j.Tally)
	require.Equal(t, "0", w.text(`SELECT status FROM orders`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM history`))
	require.Equal(t, 250, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'processed'`))
	require.Equal(t, 250, w.count(`SELECT affected::int FROM catchment.actions WHERE command = 'replay'`))

	some := store.Selection{EventIDs: ids("e", 20), Source: "shop"}
	j = w.job(eng, store.Job{Kind: store.Replay, Operation: "ledger-shop", Selection: some})
	require.Equal(t, store.Tally{Succeeded: 19, Skipped: 1}, j.Tally)
	for range 2 {
		j = w.job(eng, store.Job{Kind: store.Replay, Operation: "ledger-shop"})
	}
	require.Equal(t, store.Tally{Skipped: 251}, j.Tally)
	require.Equal(t, 250, w.count(`SELECT count(*) FROM ledger`))
	j = w.job(eng, store.Job{Kind: store.Replay, Operation: "ledger-shop", Selection: some, Force: true})
	require.Equal(t, store.Tally{Succeeded: 19, Skipped: 1}, j.Tally)
	require.Equal(t, 269, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 19, w.count(`SELECT count(*) FROM catchment.results WHERE operation = 'ledger-shop' AND attempt = 2`))
	n, err := store.CountCandidates(t.Context(), w.pool, store.Selection{}, "shop", nil, "ledger-shop", false)
	require.NoError(t, err)
	require.Equal(t, int64(1), n)
}

// A replay of an operation that depends on another runs behind what became of that one: it waits and dies with it, and
// passes over the events for which it was never run, until it is replayed.
func TestReplayDependsOn(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE steps (n bigserial, event text, step text)`)
	second, first := chain()[1], chain()[2]
	d := func(id, typ, body string) *event.Delivery { return delivery("shop", id, typ, body) }
	w.store(w.engine(), partition(0), d("old", "x", `{"first":1,"second":1}`), d("dead-old", "x", `{"second":1}`)) // nothing runs yet
	first.On.Types = []string{"x"}
	first.SQL = append(config.Strings{`SELECT 1 / (CASE WHEN @id LIKE 'waits%' AND NOT EXISTS (SELECT FROM pg_class WHERE relname = 'ready') THEN missing() ELSE 1 END)`}, first.SQL...)
	first.Retry.MaxAttempts = 100
	w.exec(`CREATE FUNCTION missing() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$`)
	w.cfg.Operations = []settings.Operation{first}
	w.store(w.engine(), partition(1), d("good", "x", `{"first":1,"second":1}`), d("done", "x", `{"first":1,"second":1}`), d("dead", "x", `{"first":0,"second":1}`),
		d("waits", "x", `{"first":1,"second":1}`), d("other", "y", `{"first":1,"second":1}`))
	w.cfg.Operations = []settings.Operation{second, first}
	eng := w.engine()
	replay := func(operation string) store.Tally {
		return w.job(eng, store.Job{Kind: store.Replay, Operation: operation}).Tally
	}
	outcomes := func(operation string) string {
		return w.text(`SELECT string_agg(event_id || ':' || outcome, ' ' ORDER BY event_id) FROM (SELECT DISTINCT ON (event_id) event_id, outcome
			FROM catchment.results WHERE operation = $1 ORDER BY event_id, attempt DESC) AS last`, operation)
	}
	require.Equal(t, store.Tally{Succeeded: 2, Failed: 1, Dead: 1, Skipped: 3}, replay("second"))
	require.Equal(t, "dead:dead done:succeeded good:succeeded", outcomes("second"))
	require.Equal(t, "waits|1|t", w.text(`SELECT concat_ws('|', event_id, attempt, due_at < now() + interval '10 s') FROM catchment.retries WHERE operation = 'second'`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.dead_letters WHERE operation = 'second' AND reason = 'dependency' AND event_id = 'dead'`))
	trial, err := (&Bench{eng: eng, db: eng.store}).Try(t.Context(), "second", "shop", "old")
	require.NoError(t, err)
	require.False(t, trial.Applies)
	require.Contains(t, trial.Why, "depends_on: first has not run for this event: replay it first")

	require.Equal(t, store.Tally{Succeeded: 1, Dead: 2, Skipped: 3}, replay("first"))
	require.Equal(t, store.Tally{Succeeded: 1, Dead: 2, Skipped: 4}, replay("second"), "what is dead is tried again, and dies again")
	w.exec(`CREATE TABLE ready ()`)
	require.True(t, waitFor(func() bool {
		w.exec(`UPDATE catchment.retries SET due_at = now()`)
		_ = eng.retryDue(t.Context(), eng.active())
		return w.count(`SELECT count(*) FROM catchment.retries`) == 0
	}))
	require.Equal(t, "dead:dead dead-old:dead done:succeeded good:succeeded old:succeeded waits:succeeded", outcomes("second"))
	require.Equal(t, 4, w.count(`SELECT count(*) FROM (SELECT event FROM steps GROUP BY event HAVING array_agg(step ORDER BY n) = '{first,second}') AS x`))
	require.Equal(t, 8, w.count(`SELECT count(*) FROM steps`))
	require.Equal(t, "dead:dead dead-old:dead", w.text(`SELECT string_agg(event_id || ':' || status, ' ' ORDER BY event_id COLLATE "C") FROM catchment.events WHERE status = 'dead'`))
}

// What fails in a replay is tried again, as in live traffic, and does not take its neighbours with it.
func TestReplayFailures(t *testing.T) {
	w := newDatabase(t, amountsSchema...)
	w.store(w.engine(), partition(0), delivery("shop", "a", "x", `{"amount":1}`), delivery("shop", "b", "x", `{"amount":-1}`),
		delivery("shop", "c", "x", `{}`), delivery("shop", "d", "x", `{"amount":99}`), delivery("shop", "e", "x", `{"amount":2}`))
	op := amounts()
	op.Retry = settings.Retry{}
	op.SQL = append(config.Strings{`SELECT 1 FROM catchment.events WHERE 'x' = CASE WHEN @amount::int = 99 THEN raise_it() ELSE 'x' END`}, op.SQL...)
	w.exec(`CREATE FUNCTION raise_it() RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$`)
	w.cfg.Operations = []settings.Operation{op}
	eng := w.engine()
	j := w.job(eng, store.Job{Kind: store.Replay, Operation: "amounts"})
	require.Equal(t, store.Tally{Succeeded: 2, Failed: 1, Dead: 2}, j.Tally)
	require.Equal(t, "a,e", w.text(`SELECT string_agg(id, ',' ORDER BY id) FROM amounts`))
	require.Equal(t, "d|2", w.text(`SELECT event_id || '|' || attempt FROM catchment.retries`))
	require.Equal(t, "a:processed,b:dead,c:dead,d:failed,e:processed", w.text(`SELECT string_agg(event_id || ':' || status, ',' ORDER BY event_id) FROM catchment.events`))
}

// A rate, and live traffic that waits, hold a job back; its row says until when.
func TestJobKeepsItsRate(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	var ds []*event.Delivery
	for _, id := range ids("e", 100) {
		ds = append(ds, delivery("shop", id, "x", `{}`))
	}
	w.store(w.engine(), partition(0), ds...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	eng := w.engine()
	for name, tc := range map[string]struct {
		rate   float64
		behind bool
		most   int64
	}{
		"rate": {rate: 3, most: 3}, "live traffic waits": {behind: true, most: slowJob}, "both": {rate: 2, behind: true, most: 2},
	} {
		t.Run(name, func(t *testing.T) {
			w.exec(`DELETE FROM catchment.results`)
			j := store.Job{Kind: store.Replay, Operation: "ledger-shop", Rate: tc.rate}
			w.ask(&j)
			r := &runner{eng: eng, behind: func(context.Context) bool { return tc.behind }, size: jobChunk}
			step := func() error { _, err := r.step(t.Context()); return err }
			require.NoError(t, step()) // how far it goes
			require.NoError(t, step())
			require.Equal(t, tc.most, w.found(j.ID).Made())
			require.Positive(t, w.count(`SELECT (1000 * extract(epoch FROM next_at - started_at))::int FROM catchment.jobs WHERE id = $1`, j.ID))
			cancelled, err := store.CancelJob(t.Context(), w.pool, j.ID, store.Act{Actor: "ann"})
			require.NoError(t, err)
			require.True(t, cancelled)
			w.exec(`UPDATE catchment.jobs SET next_at = now()`)
			require.ErrorIs(t, step(), store.ErrNothingDue)
			cancelled, err = store.CancelJob(t.Context(), w.pool, j.ID, store.Act{Actor: "ann"})
			require.NoError(t, err)
			require.False(t, cancelled)
		})
	}
}

// Several processors share the jobs; sessions that end under them cost time and nothing else: each event has its effect once.
func TestJobsGoOnAfterInterruptions(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	const events = 1000
	var ds []*event.Delivery
	for _, id := range ids("e", events) {
		ds = append(ds, delivery("shop", id, "x", `{}`))
	}
	w.store(w.engine(), partition(0), ds...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	first, second := store.Job{Kind: store.Replay, Operation: "ledger-shop"}, store.Job{Kind: store.Replay, Operation: "ledger-shop"}
	w.ask(&first)
	w.ask(&second)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 2 {
		eng := w.engine()
		wg.Go(func() { eng.jobs(ctx, quiet) })
	}
	interrupted := 0
	over := func() bool {
		return w.found(first.ID).State == store.JobDone && w.found(second.ID).State == store.JobDone
	}
	for before := -1; !over() && interrupted < 8; {
		require.True(t, waitFor(func() bool { return over() || w.count(`SELECT count(*) FROM ledger`) > before }))
		before = w.count(`SELECT count(*) FROM ledger`)
		interrupted += w.count(`SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'test') AS killed`)
	}
	require.Positive(t, interrupted)
	require.True(t, waitFor(over))
	require.Equal(t, events, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, events, w.count(`SELECT count(DISTINCT event_id) FROM ledger`))
	a, b := w.found(first.ID), w.found(second.ID)
	require.Equal(t, int64(events), a.Succeeded+b.Succeeded)
	require.Equal(t, int64(events), a.Skipped+b.Skipped)
}

// The processor runs jobs beside live traffic.
func TestServiceRunsJobs(t *testing.T) {
	w := newWorld(t, 1, ledgerSchema...)
	r := w.start()
	w.produce(delivery("shop", "a", "x", `{}`), delivery("shop", "b", "x", `{}`))
	w.eventually(2, `SELECT count(*) FROM catchment.events`)
	r.stop()
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	w.start()
	j := store.Job{Kind: store.Replay, Operation: "ledger-shop"}
	w.ask(&j)
	w.produce(delivery("shop", "c", "x", `{}`))
	require.True(t, waitFor(func() bool { return w.found(j.ID).State == store.JobDone }))
	w.eventually(3, `SELECT count(*) FROM ledger`)
	require.Equal(t, 3, w.count(`SELECT count(DISTINCT event_id) FROM ledger`))
}

// A trial says that there is no version only of an operation that has none.
func TestTrialsDecisionWithoutAVersion(t *testing.T) {
	failing := &attempt{op: &operation{version: &expr.Program{}}, err: errors.New("the version is null")}
	require.Equal(t, "its version is not compared: an expression fails", decision(failing, nil))
	require.Equal(t, "the operation has no version", decision(&attempt{op: &operation{}}, nil))
}
