package processor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// engine makes what workers need, without Kafka.
func (w *world) engine() *engine {
	w.t.Helper()
	return w.engineAt(w.url)
}

func (w *world) engineAt(url string) *engine {
	w.t.Helper()
	cfg := *w.cfg
	cfg.Postgres.URL = config.NewSecret(url)
	s, err := New(&cfg, logger(), prometheus.NewRegistry())
	require.NoError(w.t, err)
	db, err := store.Open(w.t.Context(), cfg.Postgres, "test")
	require.NoError(w.t, err)
	w.t.Cleanup(db.Close)
	s.setEngine(db)
	s.cfg.Processor.Migrate = false
	require.NoError(w.t, s.prepare(w.t.Context()))
	return s.engine
}

// partition is a partition of a topic that only the test knows.
func partition(n int32) store.Partition {
	return store.Partition{Topic: "t", TopicID: [16]byte{1, 2, 3}, Partition: n}
}

// take makes a worker of a partition that owns it.
func (w *world) take(eng *engine, p store.Partition) *worker {
	w.t.Helper()
	owner := uuid.New()
	pos, err := eng.store.Claim(w.t.Context(), p, 0, owner, time.Second)
	require.NoError(w.t, err)
	return newWorker(eng, p, owner, pos)
}

// log is a partition's records from offset 0 on.
func log(p store.Partition, ds ...*event.Delivery) []*kgo.Record {
	out := make([]*kgo.Record, len(ds))
	for i, d := range ds {
		r := event.Encode(d)
		r.Topic, r.Partition, r.Offset, r.Timestamp = p.Topic, p.Partition, int64(i), time.Now()
		out[i] = r
	}
	return out
}

// state is the operation of the documentation: the newest version of an order wins.
func state() settings.Operation {
	return settings.Operation{
		Name: "order-status", On: settings.On{Source: "shop"}, Entity: "body.order", Version: "body.v",
		SQL: config.Strings{`INSERT INTO orders (id, status, v) VALUES (@entity, @status, @version)
			ON CONFLICT (id) DO UPDATE SET status = excluded.status, v = excluded.v`},
		Params: map[string]string{"status": "body.status"},
	}
}

// ordersSchema keeps every write, in order: a version that went back shows.
var ordersSchema = []string{
	`CREATE TABLE orders (id text PRIMARY KEY, status text, v bigint)`,
	`CREATE TABLE history (n bigserial, id text, v bigint)`,
	`CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO history (id, v) VALUES (NEW.id, NEW.v); RETURN NEW; END $$`,
	`CREATE TRIGGER remember AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION remember()`,
}

func order(id, order string, v int, status string) *event.Delivery {
	return delivery("shop", id, "order.changed", fmt.Sprintf(`{"order":%q,"v":%d,"status":%q}`, order, v, status))
}

// Promise 3: an operation takes effect once per (source, event ID).
func TestOneEffectUnderDuplicates(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop"), ledger("bank")}
	eng := w.engine()
	var all []*event.Delivery
	for range 3 {
		for _, id := range ids("evt_", 50) {
			all = append(all, delivery("shop", id, "x", `{"who":"ann"}`))
		}
	}
	all = append(all, delivery("bank", "evt_00000", "x", `{"who":"bob"}`), // the ID alone names no event
		delivery("shop", "evt_00000", "x", `{"who":"eve"}`)) // other bytes: the first win
	var wg sync.WaitGroup
	for p := range int32(3) { // retries land on other partitions when their number changes
		wk := w.take(eng, partition(p))
		wg.Go(func() { require.NoError(t, wk.write(t.Context(), log(wk.part, all...))) })
	}
	wg.Wait()
	require.Equal(t, 51, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 50, w.count(`SELECT n FROM counters WHERE entity = 'ann'`))
	require.Equal(t, 1, w.count(`SELECT n FROM counters WHERE entity = 'bob'`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM counters WHERE entity = 'eve'`))
	require.Equal(t, 51, w.count(`SELECT count(*) FROM catchment.identities`))
	require.Equal(t, 51, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'succeeded'`))
	require.Equal(t, 3, w.count(`SELECT count(*) FROM catchment.conflicts WHERE convert_from(body, 'UTF8') = '{"who":"eve"}'`))
	// 51 deliveries were read 3 times each, and the ones above 3 times more often; a record that is read again is no delivery
	require.Equal(t, 150+1+1, w.count(`SELECT count(DISTINCT delivery_id)::int FROM (SELECT delivery_id FROM catchment.identities
		UNION ALL SELECT delivery_id FROM catchment.duplicates UNION ALL SELECT delivery_id FROM catchment.conflicts) AS d`))
}

// What a provider changes between retries of an event, as Stripe does, makes no conflict of an honest retry: in the first
// one's batch, in a later one, on another partition, and read once more. Any other change still does.
func TestHonestRetryIsNoConflict(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Sources["pay"] = settings.Source{Provider: "stripe"}
	w.cfg.Operations = []settings.Operation{ledger("pay"), ledger("shop")}
	eng := w.engine()
	try := func(source, provider, id, who string, pending int) *event.Delivery {
		d := delivery(source, id, "x", fmt.Sprintf(`{"who":%q,"pending_webhooks":%d}`, who, pending))
		d.Provider = provider
		return d
	}
	stripe := func(id, who string, pending int) *event.Delivery { return try("pay", "stripe", id, who, pending) }
	first := []*event.Delivery{
		stripe("e1", "ann", 1), stripe("e1", "ann", 2), stripe("e1", "eve", 1), stripe("e2", "bob", 1),
		try("shop", "none", "e1", "ann", 1), try("shop", "none", "e1", "ann", 2), // its provider changes nothing
	}
	long := stripe("e2", strings.Repeat("x", 4<<10), 1) // not read for the sake of comparing
	second := []*event.Delivery{stripe("e1", "ann", 1), stripe("e1", "ann", 10), stripe("e2", "bob", 0), stripe("e2", "mallory", 1), long}
	for range 2 {
		one, two := w.take(eng, partition(0)), w.take(eng, partition(1))
		require.NoError(t, one.write(t.Context(), log(one.part, first...)))
		require.NoError(t, two.write(t.Context(), log(two.part, second...)))
		require.Equal(t, "pay e1 false, pay e1 true, pay e1 true, pay e2 true",
			w.text(`SELECT string_agg(concat_ws(' ', source, event_id, changed), ', ' ORDER BY source, event_id, changed)
			FROM (SELECT source, event_id, CASE WHEN body_sha256 IS NULL THEN 'false' ELSE 'true' END AS changed FROM catchment.duplicates) AS d`))
		require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.duplicates WHERE body_sha256 = sha256('{"who":"bob","pending_webhooks":0}')`))
		require.Equal(t, "pay e1 eve, pay e2 mallory, pay e2 xxxx, shop e1 ann", w.text(`SELECT string_agg(concat_ws(' ', source, event_id,
			regexp_replace(convert_from(body, 'UTF8')::json->>'who', 'x+', 'xxxx')), ', ' ORDER BY source, event_id, body) FROM catchment.conflicts`))
		require.Equal(t, 3, w.count(`SELECT count(*) FROM ledger`))
		require.Equal(t, 1+3+1, w.count(`SELECT deliveries FROM catchment.events WHERE source = 'pay' AND event_id = 'e1'`))
		w.exec(`UPDATE catchment.progress SET next_offset = 0`)
	}
	w.exec(`DELETE FROM catchment.bodies`) // after processor.retention nobody can tell
	wk := w.take(eng, partition(2))
	require.NoError(t, wk.write(t.Context(), log(wk.part, stripe("e1", "ann", 7))))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.conflicts WHERE partition = 2`))
}

// Promise 4: an older event never overwrites a newer one, whatever order they arrive in.
func TestR31NewestWins(t *testing.T) {
	w := newDatabase(t, ordersSchema...)
	w.cfg.Operations = []settings.Operation{state()}
	eng := w.engine()
	for i, orderOf := range [][]int{{3, 1, 2}, {1, 2, 3}, {2, 3, 1}} {
		name := fmt.Sprintf("o%d", i)
		a, b := w.take(eng, partition(int32(2*i))), w.take(eng, partition(int32(2*i+1)))
		for n, v := range orderOf { // each in a batch of its own, by two workers in turn
			wk := []*worker{a, b}[n%2]
			r := log(wk.part, order(fmt.Sprintf("%s-v%d", name, v), name, v, fmt.Sprint("s", v)))
			r[0].Offset = wk.next
			require.NoError(t, wk.write(t.Context(), r))
		}
		require.Equal(t, "s3|3", w.text(`SELECT concat_ws('|', status, v) FROM orders WHERE id = $1`, name))
	}
	require.Equal(t, 0, w.count(`SELECT count(*) FROM (SELECT v, lag(v) OVER (PARTITION BY id ORDER BY n) AS before FROM history) AS h WHERE v < before`))
	require.Equal(t, 3, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'superseded'`))
	require.Equal(t, 9, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'processed'`))
	require.Equal(t, "3", w.text(`SELECT version FROM catchment.results WHERE event_id = 'o0-v3'`))

	// In one batch the versions are written in order, and a tie goes to the greater event ID.
	wk := w.take(eng, partition(9))
	require.NoError(t, wk.write(t.Context(), log(wk.part,
		order("t2", "tie", 5, "of t2"), order("t3", "tie", 5, "of t3"), order("t1", "tie", 5, "of t1"), order("t0", "tie", 4, "old"))))
	require.Equal(t, "of t3", w.text(`SELECT status FROM orders WHERE id = 'tie'`))
	wk = w.take(eng, partition(10))
	require.NoError(t, wk.write(t.Context(), log(wk.part, order("t2b", "tie", 5, "of t2b"))))
	require.Equal(t, "of t3", w.text(`SELECT status FROM orders WHERE id = 'tie'`))
}

// A version of another shape than the stored one cannot be compared: it is dead, and the versions after it still count.
func TestVersionShape(t *testing.T) {
	intText := "the version is a string, the stored one is an int"
	for _, tt := range []struct {
		name, want, error string // want: the outcomes, in the order of the event IDs
		versions          []string
	}{
		{"a string after ints", "succeeded dead succeeded superseded", intText, []string{`1`, `"50"`, `3`, `2`}},
		{"the log's first sets the shape", "succeeded dead succeeded", "the version is an int, the stored one is a string", []string{`"50"`, `7`, `"51"`}},
		{"a longer list", "succeeded dead succeeded", "is a list (int, string, int), the stored one is a list (int, string)", []string{`[1,"a"]`, `[2,"b",1]`, `[2,"b"]`}},
		{"another type within a list", "succeeded dead succeeded", "is a list (int, int), the stored one is a list (int, string)", []string{`[1,"a\u0001"]`, `[1,2]`, `[1,"b"]`}},
		{"one that fails sets nothing", "dead succeeded succeeded", "", []string{`"fail"`, `1`, `2`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newDatabase(t, `CREATE TABLE writes (n bigserial, guard text)`)
			op := settings.Operation{
				Name: "write", On: settings.On{Source: "shop"}, Entity: "body.entity", Version: "body.v",
				SQL: config.Strings{`INSERT INTO writes (guard) SELECT @entity WHERE (CASE WHEN @version::text = 'fail' THEN @version ELSE '1' END)::int = 1`},
			}
			w.cfg.Operations = []settings.Operation{op}
			eng := w.engine()
			whole, single := w.take(eng, partition(0)), w.take(eng, partition(1))
			versioned := func(entity string, i int) *event.Delivery {
				return delivery("shop", fmt.Sprint(entity, i), "x", fmt.Sprintf(`{"entity":%q,"v":%s}`, entity, tt.versions[i]))
			}
			var ds []*event.Delivery
			for i := range tt.versions {
				ds = append(ds, versioned("whole", i))
				r := log(single.part, versioned("single", i))
				r[0].Offset = single.next
				require.NoError(t, single.write(t.Context(), r))
			}
			require.NoError(t, whole.write(t.Context(), log(whole.part, ds...)))
			outcomes := `SELECT string_agg(outcome, ' ' ORDER BY event_id) FROM catchment.results WHERE entity = $1`
			require.Equal(t, tt.want, w.text(outcomes, "single"))
			if !strings.Contains(tt.want, "superseded") { // a batch runs the versions in their order
				require.Equal(t, tt.want, w.text(outcomes, "whole"))
			}
			require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.retries`))
			require.Contains(t, w.text(`SELECT string_agg(error, ' ') FROM catchment.dead_letters WHERE reason = 'expression' AND event_id LIKE 'single%'`), tt.error)
			require.Equal(t, 1, w.count(`SELECT count(DISTINCT version)::int FROM catchment.entities`), "borders of batches change nothing")
			require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.entities n JOIN catchment.dead_letters d USING (source, event_id)`))
		})
	}
}

// Each operation of a pipelined batch has a share of its time.
func TestDurations(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	wk := w.take(w.engine(), partition(0))
	var ds []*event.Delivery
	for _, id := range ids("evt_", 100) {
		ds = append(ds, delivery("shop", id, "x", `{}`))
	}
	require.NoError(t, wk.write(t.Context(), log(wk.part, ds...)))
	require.Equal(t, 100, w.count(`SELECT count(*) FROM catchment.results WHERE duration > interval '0'`))
}

// A guard is shared by operations: what one has written is not undone by an older event of the other.
func TestSharedGuard(t *testing.T) {
	w := newDatabase(t, ordersSchema...)
	paid, sent := state(), state()
	paid.Name, paid.On.Types, paid.Guard = "paid", []string{"paid"}, "orders"
	sent.Name, sent.On.Types, sent.Guard = "sent", []string{"sent", "se*"}, "orders"
	w.cfg.Operations = []settings.Operation{paid, sent}
	wk := w.take(w.engine(), partition(0))
	newer, older := order("b", "o", 2, "sent"), order("a", "o", 1, "paid")
	newer.Type, older.Type = "sent.all", "paid"
	for _, d := range []*event.Delivery{newer, older} {
		r := log(wk.part, d)
		r[0].Offset = wk.next
		require.NoError(t, wk.write(t.Context(), r))
	}
	require.Equal(t, "sent", w.text(`SELECT status FROM orders`))
	require.Equal(t, "superseded", w.text(`SELECT outcome FROM catchment.results WHERE operation = 'paid'`))
}

// A worker that lost the partition without knowing it cannot write: the owner's token is another.
func TestZombieIsFenced(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	eng := w.engine()
	zombie := w.take(eng, partition(0))
	records := log(zombie.part, delivery("shop", "a", "x", `{}`), delivery("shop", "b", "x", `{}`))
	heir := w.take(eng, partition(0))
	require.ErrorIs(t, zombie.write(t.Context(), records), store.ErrFenced)
	require.Equal(t, 0, w.count(`SELECT count(*) FROM ledger`))
	require.NoError(t, heir.write(t.Context(), records))
	require.ErrorIs(t, zombie.write(t.Context(), records), store.ErrFenced)
	require.Equal(t, 2, w.count(`SELECT count(*) FROM ledger`))

	// Its own token does not help when the position went on without it, or back in a failover.
	w.exec(`UPDATE catchment.progress SET next_offset = 1`)
	heir.next = 2
	more := log(heir.part, delivery("shop", "a", "x", `{}`), delivery("shop", "b", "x", `{}`), delivery("shop", "c", "x", `{}`))
	require.ErrorIs(t, heir.write(t.Context(), more[2:]), store.ErrMoved)
	again := w.take(eng, partition(0))
	require.Equal(t, int64(1), again.next)
	require.NoError(t, again.write(t.Context(), more[1:]))
	require.Equal(t, 3, w.count(`SELECT count(*) FROM ledger`))
}

// A zombie whose transaction is open is waited for, then its session is ended.
func TestTakeoverEndsAnOpenTransaction(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	eng := w.engine()
	zombie := w.take(eng, partition(0))
	tx, err := eng.store.Begin(t.Context(), time.Minute, time.Minute)
	require.NoError(t, err)
	id := store.Identity{Key: store.Key{Source: "shop", ID: "a"}, SHA256: []byte{1}, DeliveryID: uuid.NewString()}
	_, err = tx.Enter(t.Context(), zombie.part, zombie.owner, 0, []store.Identity{id})
	require.NoError(t, err)
	start := time.Now()
	heir := w.take(eng, partition(0))
	require.GreaterOrEqual(t, time.Since(start), time.Second)
	require.Error(t, tx.Commit(t.Context()))
	require.NoError(t, heir.write(t.Context(), log(heir.part, delivery("shop", "a", "x", `{}`))))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.events`))
}

// Poison takes one event's operation out, not the batch: the others have their effect.
func TestR29Poison(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE amounts (id text PRIMARY KEY, amount int CHECK (amount >= 0), doc jsonb)`)
	w.cfg.Operations = []settings.Operation{{
		Name: "amounts", On: settings.On{Source: "shop"}, When: `body == null || body.amount != 77`,
		SQL:    config.Strings{`INSERT INTO amounts VALUES (@id, @amount, @doc)`},
		Params: map[string]string{"amount": "body.amount", "doc": "body.?doc"},
	}}
	wk := w.take(w.engine(), partition(0))
	bodies := map[string]string{
		"good-1": `{"amount":1,"doc":{"a":[1,2]}}`, "good-2": `{"amount":2.0}`,
		"not-json": `{"amount":`, "text-nul": `{"amount":"1\u0000"}`, "json-nul": `{"amount":1,"doc":{"a":"\u0000"}}`,
		"not-int": `{"amount":"many"}`, "range": `{"amount":1e30}`, "bomb": `{"amount":1e131071}`, "negative": `{"amount":-1}`,
		"deep": `{"amount":1,"doc":` + strings.Repeat(`[`, 9000) + strings.Repeat(`]`, 9000) + `}`,
		"when": `[]`, "skipped": `{"amount":77}`,
	}
	var ds []*event.Delivery
	for id, body := range bodies {
		ds = append(ds, delivery("shop", id, "x", body))
	}
	nul := delivery("shop", "header-nul", "ty\x00pe\xff", `{"amount":3}`)
	nul.Headers = append(nul.Headers, event.Header{Name: "x-odd", Value: "a\x00\xff"})
	ds = append(ds, nul)
	start := time.Now()
	require.NoError(t, wk.write(t.Context(), log(wk.part, ds...)))
	require.Less(t, time.Since(start), 10*time.Second)
	require.Equal(t, 13, w.count(`SELECT count(*) FROM catchment.events`), "every body is kept")
	require.Equal(t, "good-1,good-2,header-nul", w.text(`SELECT string_agg(id, ',' ORDER BY id) FROM amounts WHERE id <> 'deep'`))
	require.Equal(t, "bomb,json-nul,negative,not-int,not-json,range,text-nul",
		w.text(`SELECT string_agg(event_id, ',' ORDER BY event_id) FROM catchment.dead_letters WHERE event_id <> 'deep'`))
	require.Equal(t, "skipped,when", w.text(`SELECT string_agg(event_id, ',' ORDER BY event_id) FROM catchment.events WHERE status = 'unmatched'`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.retries`))
	require.Contains(t, w.text(`SELECT error FROM catchment.dead_letters WHERE event_id = 'not-json'`), "operations[0].params.amount: body.amount")
	require.Contains(t, w.text(`SELECT note FROM catchment.bodies WHERE event_id = 'when'`), "operations[0].when")
	require.Contains(t, w.text(`SELECT error FROM catchment.results WHERE event_id = 'negative'`), "amounts_amount_check")
	require.Equal(t, bodies["text-nul"], w.text(`SELECT convert_from(body, 'UTF8') FROM catchment.events WHERE event_id = 'text-nul'`))
}

// A record that is no delivery is kept whole, and the ones around it are processed.
func TestUndecodableRecord(t *testing.T) {
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	wk := w.take(w.engine(), partition(0))
	records := log(wk.part, delivery("shop", "a", "x", `{}`), delivery("shop", strings.Repeat("i", 3000), "x", `{}`),
		delivery("shop", "nul\x00", "x", `{}`), delivery("shop", "b", "x", `{}`))
	odd := &kgo.Record{Key: []byte("k"), Value: []byte{0, 1, 0xff}, Offset: 4, Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}, {Key: "b", Value: []byte{0xff}}}}
	require.NoError(t, wk.write(t.Context(), append(records, odd)))
	require.Equal(t, 2, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 3, w.count(`SELECT count(*) FROM catchment.dead_letters WHERE reason = 'undecodable' AND operation IS NULL AND key IS NOT NULL AND value IS NOT NULL`))
	require.Equal(t, `6b|0001ff|[{"name": "h", "value": "v"}, {"name": "b", "base64": "/w=="}]|4`,
		w.text(`SELECT concat_ws('|', encode(key, 'hex'), encode(value, 'hex'), headers, "offset") FROM catchment.dead_letters WHERE source IS NULL`))
	require.Equal(t, 5, w.count(`SELECT next_offset::int FROM catchment.progress`))
}

// An operation that fails is tried again from Postgres, off the partition, and is dead after its attempts.
func TestRetriesThenDeadLetter(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE parents (id text PRIMARY KEY)`, `CREATE TABLE children (id text REFERENCES parents)`)
	retry := settings.Retry{MaxAttempts: 3, Initial: time.Millisecond, Max: time.Millisecond}
	w.cfg.Operations = []settings.Operation{
		{
			Name: "child", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO children VALUES (@parent)`}, Params: map[string]string{"parent": "body.parent"},
			Retry: settings.Retry{MaxAttempts: 1000, Initial: time.Millisecond, Max: 20 * time.Millisecond},
		},
		{Name: "none", On: settings.On{Source: "shop"}, SQL: config.Strings{`DELETE FROM parents WHERE id = 'nobody'`}, ExpectRows: "some", Retry: retry},
		{Name: "slow", On: settings.On{Source: "bank"}, SQL: config.Strings{`SELECT pg_sleep(60)`}, Timeout: 50 * time.Millisecond, Retry: retry},
		{Name: "gone", On: settings.On{Source: "bank"}, SQL: config.Strings{`SELECT raise_it()`}, Retry: retry},
	}
	w.exec(`CREATE FUNCTION raise_it() RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$`)
	eng := w.engine()
	wk := w.take(eng, partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, delivery("shop", "a", "x", `{"parent":"p"}`), delivery("bank", "b", "x", `{}`))))
	require.Equal(t, 2, w.count(`SELECT next_offset::int FROM catchment.progress`), "the partition goes on")
	require.Equal(t, 4, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'failed' AND attempt = 1`))
	require.Equal(t, 4, w.count(`SELECT count(*) FROM catchment.retries`))
	require.Equal(t, 2, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'failed'`))

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 2 {
		wg.Go(func() { eng.retries(ctx) })
	}
	w.eventually(3, `SELECT count(*) FROM catchment.dead_letters WHERE reason = 'attempts exhausted' AND attempts = 3`)
	require.Equal(t, 9, w.count(`SELECT count(*) FROM catchment.results WHERE operation <> 'child'`))
	require.Contains(t, w.text(`SELECT error FROM catchment.dead_letters WHERE operation = 'slow'`), "57014")
	require.Equal(t, "expect_rows: expected some, the statement touched 0", w.text(`SELECT error FROM catchment.dead_letters WHERE operation = 'none'`))
	w.exec(`INSERT INTO parents VALUES ('p')`) // what was missing comes
	w.eventually(0, `SELECT count(*) FROM catchment.retries`)
	require.Equal(t, 1, w.count(`SELECT count(*) FROM children`))
	require.Equal(t, "succeeded", w.text(`SELECT outcome FROM catchment.results WHERE operation = 'child' ORDER BY attempt DESC LIMIT 1`))
	require.Equal(t, 2, w.count(`SELECT count(*) FROM catchment.events WHERE status = 'dead'`))
}

// A retry of an older event does not overwrite what a newer one has written meanwhile.
func TestRetryIsSuperseded(t *testing.T) {
	w := newDatabase(t, ordersSchema...)
	op := state()
	op.SQL = append(config.Strings{`SELECT 1 / (CASE WHEN @status::text = 'late' AND NOT EXISTS (SELECT FROM orders) THEN 0 ELSE 1 END)`, `SELECT pg_notify('x', @id)`}, op.SQL...)
	op.SQL[0] = `INSERT INTO needed SELECT 1 WHERE @status::text = 'late'`
	op.Retry = settings.Retry{MaxAttempts: 100, Initial: time.Millisecond, Max: time.Millisecond}
	w.exec(`CREATE TABLE wanted (id int PRIMARY KEY)`)
	w.exec(`CREATE TABLE needed (id int REFERENCES wanted)`)
	w.cfg.Operations = []settings.Operation{op}
	eng := w.engine()
	wk := w.take(eng, partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, order("a", "o", 1, "late"), order("b", "o", 2, "new"))))
	require.Equal(t, "new", w.text(`SELECT status FROM orders`))
	w.exec(`INSERT INTO wanted VALUES (1)`)
	var err error
	ok := waitFor(func() bool { err = eng.retryDue(t.Context(), []string{op.Name}); return err == nil })
	require.True(t, ok, "%v", err)
	require.Equal(t, "superseded", w.text(`SELECT outcome FROM catchment.results WHERE event_id = 'a' AND attempt = 2`))
	require.Equal(t, "new", w.text(`SELECT status FROM orders`))
	require.Equal(t, "processed", w.text(`SELECT status FROM catchment.events WHERE event_id = 'a'`))
}

// A constraint that is checked at COMMIT only is the operation's own fault too.
func TestDeferredConstraint(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE parents (id text PRIMARY KEY)`, `CREATE TABLE children (id text REFERENCES parents DEFERRABLE INITIALLY DEFERRED)`)
	w.exec(`INSERT INTO parents VALUES ('p')`)
	w.cfg.Operations = []settings.Operation{{
		Name: "child", On: settings.On{Source: "shop"},
		SQL: config.Strings{`INSERT INTO children VALUES (@parent)`}, Params: map[string]string{"parent": "body.parent"},
	}}
	wk := w.take(w.engine(), partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, delivery("shop", "a", "x", `{"parent":"p"}`), delivery("shop", "b", "x", `{"parent":"q"}`))))
	require.Equal(t, "a:succeeded,b:failed", w.text(`SELECT string_agg(event_id || ':' || outcome, ',' ORDER BY event_id) FROM catchment.results`))
}

// Batches that touch the same rows from many partitions end, with the right sums.
func TestR24SharedEntities(t *testing.T) {
	w := newDatabase(t, append(append([]string{}, ledgerSchema...), ordersSchema...)...)
	w.cfg.Operations = []settings.Operation{state(), ledger("shop")}
	eng := w.engine()
	var wg sync.WaitGroup
	const workers, events = 4, 300
	for p := range int32(workers) {
		wk := w.take(eng, partition(p))
		var ds []*event.Delivery
		for i := range events {
			n := i
			if p%2 == 1 {
				n = events - 1 - i // the other way round
			}
			d := order(fmt.Sprintf("p%d-%d", p, n), fmt.Sprint("o", n%40), n, fmt.Sprint("s", n))
			d.Body = []byte(strings.Replace(string(d.Body), "{", fmt.Sprintf(`{"who":"w%d",`, n%7), 1))
			ds = append(ds, d)
		}
		records := log(wk.part, ds...)
		wg.Go(func() {
			for i := 0; i < events; i += 50 {
				require.NoError(t, wk.write(t.Context(), records[i:i+50]))
			}
		})
	}
	wg.Wait()
	require.Equal(t, workers*events, w.count(`SELECT sum(n)::int FROM counters`))
	require.Equal(t, 40, w.count(`SELECT count(*) FROM orders WHERE status = 's' || v`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM (SELECT v, lag(v) OVER (PARTITION BY id ORDER BY n) AS before FROM history) AS h WHERE v < before`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.dead_letters`))
	require.Equal(t, 299, w.count(`SELECT max(v)::int FROM orders`))
}

// What an operation's row keeps, and the types in which parameters arrive.
func TestParametersAndResults(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE p (i bigint, n numeric, b boolean, t timestamptz, d date, v interval, u uuid, a text[], ia int[], j jsonb, jj json, x bytea, s text, z text, raw text, by bytea, bj jsonb)`)
	w.cfg.Operations = []settings.Operation{{
		Name: "all", On: settings.On{Source: "shop"}, Entity: "body.s", Version: "[time, body.i]", ExpectRows: "one",
		SQL: config.Strings{
			`SELECT 1 -- it's a comment with @nothing
			  /* and @another /* nested */ */ WHERE 'text @id' = $$ @id $$ OR "@id" IS NULL`,
			`INSERT INTO p VALUES (@i, @n, @b, @t, @d, @v, @u, @a, @ia, @j, @jj, @x, @s, @z, @raw, @x, @body)
			 RETURNING i, n, b, t, u, a, j, x, s, z, @version::text AS ver, @time AS tm, @received_at::timestamptz > '2020-01-01' AS r, @source || @type || @id || @entity AS names, @delivery_id::uuid AS del`,
		},
		Params: map[string]string{
			"i": "body.i", "n": "body.n", "b": "body.b", "t": "timestamp(body.t)", "d": "body.t", "v": `duration("90m")`, "u": "body.u",
			"a": "body.a", "ia": "[1, 2]", "j": "body.j", "jj": "[body.j, null]", "x": "raw", "s": "body.s", "z": "body.?nope", "raw": "raw",
		},
	}}
	w.cfg.Operations[0].SQL[0] = strings.ReplaceAll(w.cfg.Operations[0].SQL[0], ` OR "@id" IS NULL`, "")
	wk := w.take(w.engine(), partition(0))
	d := delivery("shop", "e1", "x", `{"i":9007199254740993,"n":1.10,"b":true,"t":"2026-01-02T03:04:05.123456Z","u":"0198c0de-0000-7000-8000-000000000000",
		"a":["x","y\"z",null],"j":{"k":[1,{"l":null}]},"s":"é"}`)
	require.NoError(t, wk.write(t.Context(), log(wk.part, d)))
	require.Equal(t, "succeeded", w.text(`SELECT concat_ws(' ', outcome, error) FROM catchment.results`))
	require.Equal(t, `9007199254740993|1.1|t|2026-01-02 03:04:05.123456+00|2026-01-02|01:30:00|{x,"y\"z",NULL}|{1,2}|{"k": [1, {"l": null}]}|[{"k":[1,{"l":null}]},null]|é|t|t|t`,
		w.text(`SELECT concat_ws('|', i, n, b, t AT TIME ZONE 'UTC' || '+00', d, v, a, ia, j, jj, s, x = by, raw = convert_from(by, 'UTF8'), bj->>'s' = s) FROM p`))
	require.Equal(t, `é|["2026-11-01T00:00:00Z",9007199254740993]|1`, w.text(`SELECT concat_ws('|', entity, version, rows_affected) FROM catchment.results`))
	require.Equal(t, `9007199254740993|1.1|true|shopxe1é|2026-01-02T03:04:05.123456Z|true|0198c0de-0000-7000-8000-000000000000`,
		w.text(`SELECT concat_ws('|', r->>'i', r->>'n', r->>'b', r->>'names', r->>'t', r->>'r', r->>'u') FROM (SELECT returned->0 AS r FROM catchment.results) AS q`))
}

// Without prepared statements, as behind a pooler that does not know them, everything works the same.
func TestWithoutPreparedStatements(t *testing.T) {
	w := newDatabase(t, append(append([]string{}, ledgerSchema...), ordersSchema...)...)
	w.cfg.Operations = []settings.Operation{ledger("shop"), state()}
	w.cfg.Postgres.Prepared = "off"
	wk := w.take(w.engine(), partition(0))
	bad := order("c", "o", 3, "x")
	bad.Body = []byte(`{"order":"o","v":3,"status":{}`)
	require.NoError(t, wk.write(t.Context(), log(wk.part, order("b", "o", 2, "new"), order("a", "o", 1, "old"), bad, order("a", "o", 1, "old"))))
	require.Equal(t, "new", w.text(`SELECT status FROM orders`))
	require.Equal(t, 3, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.dead_letters`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.duplicates`))
}
