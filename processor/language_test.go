package processor

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// each runs the statements for every element; what an element does not name is bound once.
func TestEach(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE lines (event text, n int, sku text, qty int, who text, raw jsonb)`, `CREATE TABLE log (n int)`)
	w.cfg.Operations = []settings.Operation{{
		Name: "lines", On: settings.On{Source: "shop"}, Each: "body.?lines", ExpectRows: "one",
		SQL: config.Strings{
			`INSERT INTO log VALUES (@index)`,
			`INSERT INTO lines VALUES (@id, @index, @sku, @qty, @who, @item) RETURNING sku, n`,
		},
		Params: map[string]string{"sku": "item.sku", "qty": "item.?qty.orValue(index + 10)", "who": "body.?who"},
	}}
	wk := w.take(w.engine(), partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part,
		delivery("shop", "a", "x", `{"who":"ann","lines":[{"sku":"s1","qty":2},{"sku":"s2"}]}`),
		delivery("shop", "b", "x", `{"lines":[]}`), delivery("shop", "c", "x", `{}`),
		delivery("shop", "d", "x", `{"lines":[{"sku":"s3"},{"nope":1}]}`),
		delivery("shop", "e", "x", `{"lines":"text"}`),
		delivery("shop", "f", "x", `{"lines":[`+strings.Repeat(`{"sku":"many"},`, maxElements)+`{}]}`),
		delivery("shop", "g", "x", `{"lines":[{"sku":"s7"}]}`))))
	require.Equal(t, "a:0:s1:2:ann a:1:s2:11:ann g:0:s7:10", w.text(`SELECT string_agg(concat_ws(':', event, n, sku, qty, who), ' ' ORDER BY event, n) FROM lines`))
	require.Equal(t, `{"qty": 2, "sku": "s1"}`, w.text(`SELECT raw::text FROM lines WHERE sku = 's1'`))
	require.Equal(t, 3, w.count(`SELECT count(*) FROM log`))
	require.Equal(t, "a:succeeded:2 b:succeeded:0 c:succeeded:0 d:dead e:dead f:dead g:succeeded:1",
		w.text(`SELECT string_agg(concat_ws(':', event_id, outcome, rows_affected), ' ' ORDER BY event_id) FROM catchment.results`))
	require.Equal(t, `[{"n": 0, "sku": "s1"}, {"n": 1, "sku": "s2"}]`, w.text(`SELECT returned::text FROM catchment.results WHERE event_id = 'a'`))
	require.Equal(t, "element 1: operations[0].params.sku: item.sku: no such key: sku", w.text(`SELECT error FROM catchment.results WHERE event_id = 'd'`))
	require.Contains(t, w.text(`SELECT error FROM catchment.results WHERE event_id = 'e'`), "operations[0].each: body.?lines: expected a list, found string")
	require.Contains(t, w.text(`SELECT error FROM catchment.results WHERE event_id = 'f'`), "the list has 10001 elements: expected at most 10000")
}

// expect_rows holds for each element, and an attempt that fails it has no effect.
func TestEachExpectsRows(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE stock (sku text PRIMARY KEY, n int NOT NULL)`, `INSERT INTO stock VALUES ('a', 5), ('b', 5)`)
	w.cfg.Operations = []settings.Operation{{
		Name: "take", On: settings.On{Source: "shop"}, Each: "body", ExpectRows: "one",
		SQL: config.Strings{`UPDATE stock SET n = n - 1 WHERE sku = @item`},
	}}
	wk := w.take(w.engine(), partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, delivery("shop", "1", "x", `["a","b"]`), delivery("shop", "2", "x", `["a","c","b"]`))))
	require.Equal(t, "a:4 b:4", w.text(`SELECT string_agg(sku || ':' || n, ' ' ORDER BY sku) FROM stock`))
	require.Equal(t, "failed expect_rows: expected one, the statement touched 0", w.text(`SELECT outcome || ' ' || error FROM catchment.results WHERE event_id = '2'`))
}

func chain() []settings.Operation {
	step := func(name string, after ...string) settings.Operation {
		return settings.Operation{
			Name: name, On: settings.On{Source: "shop"}, DependsOn: after, Params: map[string]string{"n": "body." + name},
			SQL:   config.Strings{fmt.Sprintf(`INSERT INTO steps (event, step) SELECT @id, '%s' WHERE 1 / @n::int > 0`, name)},
			Retry: settings.Retry{MaxAttempts: 2, Initial: time.Millisecond, Max: time.Millisecond},
		}
	}
	return []settings.Operation{step("third", "second", "first"), step("second", "first"), step("first")}
}

// depends_on: an operation runs behind those that it depends on, in one batch and one transaction.
func TestDependsOn(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE steps (n bigserial, event text, step text)`)
	w.cfg.Operations = chain()
	w.cfg.Operations[1].When = `!has(body.skip)`
	wk := w.take(w.engine(), partition(0))
	var ds []*event.Delivery
	for _, id := range ids("e", 20) {
		ds = append(ds, delivery("shop", id, "x", `{"first":1,"second":1,"third":1}`))
	}
	ds = append(ds, delivery("shop", "skipped", "x", `{"first":1,"second":1,"third":1,"skip":1}`), delivery("shop", "bad1", "x", `{"first":0,"second":1,"third":1}`),
		delivery("shop", "bad2", "x", `{"first":1,"second":"x","third":1}`), delivery("shop", "bad3", "x", `{"second":1,"third":1}`))
	require.NoError(t, wk.write(t.Context(), log(wk.part, ds...)))
	require.Equal(t, 20, w.count(`SELECT count(*) FROM (SELECT event FROM steps GROUP BY event HAVING array_agg(step ORDER BY n) = '{first,second,third}') AS x`))
	require.Equal(t, "first:succeeded", w.text(`SELECT string_agg(operation || ':' || outcome, ' ' ORDER BY operation) FROM catchment.results WHERE event_id = 'skipped'`))
	require.Contains(t, w.text(`SELECT note FROM catchment.bodies WHERE event_id = 'skipped'`), "operations[0].depends_on: second does not match this event")
	// What is dead takes with it what depends on it, whether Postgres refused it (22012, 22P02) or an expression failed.
	require.Equal(t, "first:dead second:dead third:dead", w.text(`SELECT string_agg(operation || ':' || outcome, ' ' ORDER BY operation) FROM catchment.results WHERE event_id = 'bad1'`))
	require.Equal(t, "first:succeeded second:dead third:dead", w.text(`SELECT string_agg(operation || ':' || outcome, ' ' ORDER BY operation) FROM catchment.results WHERE event_id = 'bad2'`))
	require.Equal(t, "first:dead second:dead third:dead", w.text(`SELECT string_agg(operation || ':' || outcome, ' ' ORDER BY operation) FROM catchment.results WHERE event_id = 'bad3'`))
	require.Equal(t, "dependency: operations[0].depends_on: second is a dead letter for this event: redrive it first",
		w.text(`SELECT reason || ': ' || error FROM catchment.dead_letters WHERE event_id = 'bad2' AND operation = 'third'`))
	require.Equal(t, 0, w.count(`SELECT count(*) FROM steps WHERE event IN ('bad1', 'bad3')`))
}

// While the operation that it depends on waits for another attempt, so does an operation; then it runs.
func TestDependsOnWaits(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE steps (n bigserial, event text, step text)`, `CREATE TABLE ready (yes bool)`)
	w.cfg.Operations = chain()
	first := &w.cfg.Operations[2]
	first.SQL = config.Strings{`INSERT INTO steps (event, step) SELECT @id, 'first' FROM ready WHERE @n::int > 0`}
	first.ExpectRows, first.Retry.MaxAttempts = "one", 100
	eng := w.engine()
	wk := w.take(eng, partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, delivery("shop", "e", "x", `{"first":1,"second":1,"third":1}`))))
	require.Equal(t, "first:failed:1 second:deferred:0 third:deferred:0", w.text(`SELECT string_agg(concat_ws(':', operation, outcome, attempt), ' ' ORDER BY operation) FROM catchment.results`))
	require.Equal(t, "failed", w.text(`SELECT status FROM catchment.events`))
	w.exec(`UPDATE catchment.retries SET due_at = now()`)
	require.NoError(t, eng.retryDue(t.Context(), []string{"third"}))
	require.Equal(t, 3, w.count(`SELECT count(*) FROM catchment.retries`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.results WHERE operation = 'third'`), "waiting longer is no attempt")
	w.exec(`INSERT INTO ready VALUES (true)`)
	ok := waitFor(func() bool {
		w.exec(`UPDATE catchment.retries SET due_at = now()`)
		_ = eng.retryDue(t.Context(), eng.active())
		return w.count(`SELECT count(*) FROM catchment.retries`) == 0
	})
	require.True(t, ok)
	require.Equal(t, "first second third", w.text(`SELECT string_agg(step, ' ' ORDER BY n) FROM steps`))
	require.Equal(t, "processed", w.text(`SELECT status FROM catchment.events`))
}

// A dependency that uses up its attempts takes the operations with it that wait for it.
func TestDependsOnDies(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE steps (n bigserial, event text, step text)`)
	w.cfg.Operations = chain()
	w.cfg.Operations[2].SQL, w.cfg.Operations[2].ExpectRows = config.Strings{`INSERT INTO steps (event, step) SELECT @id, 'first' WHERE @n::int = 2`}, "one"
	eng := w.engine()
	wk := w.take(eng, partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, delivery("shop", "e", "x", `{"first":1,"second":1,"third":1}`))))
	ok := waitFor(func() bool {
		w.exec(`UPDATE catchment.retries SET due_at = now()`)
		_ = eng.retryDue(t.Context(), eng.active())
		return w.count(`SELECT count(*) FROM catchment.dead_letters`) == 3
	})
	require.True(t, ok)
	require.Equal(t, 0, w.count(`SELECT count(*) FROM catchment.retries`))
	require.Equal(t, "attempts exhausted,dependency,dependency", w.text(`SELECT string_agg(reason, ',' ORDER BY operation) FROM catchment.dead_letters`))
}

// What does not go together is told at load, with its place.
func TestCheckLanguage(t *testing.T) {
	const text = `sources: {shop: {provider: none}, bank: {provider: none}}
operations:
  - name: a
    on: {source: shop, types: [x.*]}
    depends_on: b
    each: body.size()
    sql: SELECT @item::text, @x::text
    params: {x: item.y}
  - name: b
    on: {source: shop}
    depends_on: [c, nobody, other]
    sql: SELECT @index::int
    params: {x: item.y}
  - name: c
    on: {source: shop}
    depends_on: [a]
    publish: {topic: "a b", value: body.}
  - name: d
    on: {source: shop, types: [y]}
    depends_on: [d, a]
    handler: go
    each: body
  - name: other
    on: {source: bank}
  - name: own
    on: {source: bank}
    expect_rows: one
    publish: {topic: catchment.events, key: item.x, value: body}
`
	_, err := settings.Parse("catchment.yaml", []byte(text), settings.NeedOperations)
	for _, want := range []string{
		`catchment.yaml:17:22: operations[2].publish.topic: expected a topic's name`,
		`catchment.yaml:22:11: operations[3].each: the operation has a handler: expected no each beside it`,
		`catchment.yaml:23:5: operations[4].sql: there is nothing to do: expected sql, handler or publish`,
		`catchment.yaml:27:18: operations[5].expect_rows: no statement runs: expected sql beside it`,
	} {
		require.ErrorContains(t, err, want)
	}
	w := newDatabase(t)
	fine := strings.NewReplacer(`"a b"`, "ab", "    each: body\n", "", "expect_rows: one", "expect_rows: any", "on: {source: bank}\n  - name: own", "on: {source: bank}\n    sql: SELECT 1\n  - name: own").Replace(text)
	cfg, err := settings.Parse("catchment.yaml", []byte(fine), settings.NeedOperations, settings.NeedKafka)
	if err != nil {
		cfg, err = settings.Parse("catchment.yaml", []byte(fine+"kafka: {brokers: [\"k:9092\"]}\n"), settings.NeedOperations, settings.NeedKafka)
	}
	require.NoError(t, err)
	cfg.Postgres = w.cfg.Postgres
	got := checkOperations(t, cfg).Error()
	for _, want := range []string{
		`catchment.yaml:5:17: operations[0].depends_on: the operation depends on itself, by way of others: expected no circle`,
		`catchment.yaml:6:11: operations[0].each: line 1, column 1 of the expression: expected a list, found int`,
		`catchment.yaml:11:21: operations[1].depends_on[1]: there is no operation named "nobody"`,
		`operations[1].depends_on[2]: other is for source bank: expected an operation for the same events`,
		`catchment.yaml:12:10: operations[1].sql: @index is used: expected the key each`,
		`catchment.yaml:13:17: operations[1].params.x: line 1, column 1 of the expression: undeclared reference to 'item'`,
		`operations[2].publish.value: line 1, column 6 of the expression: Syntax error`,
		`operations[3].depends_on[0]: an operation cannot depend on itself`,
		`operations[3].depends_on[1]: a is for none of these event types`,
		`operations[5].publish.topic: catchment.events is Catchment's own topic: expected another`,
		`operations[5].publish.key: line 1, column 1 of the expression: undeclared reference to 'item'`,
	} {
		require.Contains(t, got, want)
	}
}
