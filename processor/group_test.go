package processor

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// commands is how many statements wrote a table's rows in one transaction.
const commands = `SELECT count(DISTINCT cmin::text)::int FROM %s`

// An operation of one plain INSERT is made for many events by one statement, and its results are those of each event.
func TestSets(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE orders (id text PRIMARY KEY, status text, v bigint)`, `CREATE TABLE plain (id text PRIMARY KEY, note text)`)
	newest, plain := state(), settings.Operation{
		Name: "plain", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO plain (id, note) VALUES (@id, @status) ON CONFLICT (id) DO NOTHING`},
		Params: map[string]string{"status": "body.status"},
	}
	w.cfg.Operations = []settings.Operation{newest, plain}
	eng := w.engine()
	wk := w.take(eng, partition(0))
	var ds []*event.Delivery
	for i := range 60 { // three versions of each of 20 orders
		ds = append(ds, order(fmt.Sprintf("e%02d", i), fmt.Sprint("o", i%20), 59-i, fmt.Sprint("s", i)))
	}
	require.NoError(t, wk.write(t.Context(), log(wk.part, ds...)))
	require.Equal(t, 1, w.count(fmt.Sprintf(commands, "plain")))
	require.Equal(t, 1, w.count(fmt.Sprintf(commands, "orders")))
	require.Equal(t, 120, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'succeeded' AND rows_affected = 1 AND duration > interval '0'`))
	require.Equal(t, 20, w.count(`SELECT count(*) FROM orders WHERE v >= 40 AND status = 's' || 59 - v`))
	require.Equal(t, 20, w.count(`SELECT count(*) FROM catchment.entities n JOIN orders o ON o.id = n.entity AND n.event_id = 'e' || lpad((59 - o.v)::text, 2, '0')`))

	// What is there already is not touched: only the events can say it, one by one.
	w.exec(`INSERT INTO plain SELECT 'f' || lpad(n::text, 2, '0') FROM generate_series(0, 9) AS n`)
	ds = nil
	for i := range 20 {
		ds = append(ds, order(fmt.Sprintf("f%02d", i), fmt.Sprint("p", i), 1, `a"b\c{},NULL`))
	}
	require.NoError(t, wk.write(t.Context(), placedAt(log(wk.part, ds...), 60)))
	require.Equal(t, 10, w.count(`SELECT count(*) FROM catchment.results WHERE operation = 'plain' AND rows_affected = 0 AND event_id LIKE 'f%'`))
	require.Equal(t, 10, w.count(`SELECT count(*) FROM plain WHERE note = 'a"b\c{},NULL'`))
	require.Equal(t, 20, w.count(`SELECT count(*) FROM orders WHERE status = 'a"b\c{},NULL'`))

	// A failure within a set is one event's.
	ds = nil
	for i := range 20 {
		ds = append(ds, order(fmt.Sprintf("g%02d", i), fmt.Sprint("q", i), 1, []string{"fine", "nul\x00"}[i%2]))
		ds[i].Body = []byte(strings.ReplaceAll(string(ds[i].Body), `\x00`, `\u0000`))
	}
	require.NoError(t, wk.write(t.Context(), placedAt(log(wk.part, ds...), 80)))
	require.Equal(t, 20, w.count(`SELECT count(*) FROM catchment.dead_letters WHERE event_id LIKE 'g%'`))
	require.Equal(t, 10, w.count(`SELECT count(*) FROM orders WHERE id LIKE 'q%'`))
	require.Equal(t, 10, w.count(`SELECT count(*) FROM plain WHERE id LIKE 'g%'`))
}

// Events that touch one row of each other are not one statement's: a counter counts each of them.
func TestSetOverlaps(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE daily (day text PRIMARY KEY, n bigint)`, `CREATE TABLE seen (id text PRIMARY KEY)`)
	w.cfg.Operations = []settings.Operation{
		{Name: "seen", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO seen (id) VALUES (@id)`}},
		{
			Name: "daily", On: settings.On{Source: "shop"}, Params: map[string]string{"n": "body.n"},
			SQL: config.Strings{`INSERT INTO daily (day, n) VALUES ('today', @n) ON CONFLICT (day) DO UPDATE SET n = daily.n + excluded.n`},
		},
	}
	eng := w.engine()
	wk := w.take(eng, partition(0))
	for batch := range 2 {
		var ds []*event.Delivery
		for i := range 50 {
			ds = append(ds, delivery("shop", fmt.Sprintf("e%d-%d", batch, i), "x", fmt.Sprintf(`{"n":%d}`, i)))
		}
		require.NoError(t, wk.write(t.Context(), placedAt(log(wk.part, ds...), int64(50*batch))))
	}
	require.Equal(t, 2*49*50/2, w.count(`SELECT n::int FROM daily`))
	require.Equal(t, 100, w.count(`SELECT count(*) FROM seen`))
	require.Equal(t, 200, w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'succeeded' AND rows_affected = 1`))
	require.Nil(t, eng.byName["daily"].set(), "it is not tried again")
	require.NotNil(t, eng.byName["seen"].set())
}

// Where it would show that several events share a statement, they do not.
func TestNoSet(t *testing.T) {
	w := newDatabase(t, append(append([]string{}, ordersSchema...),
		`CREATE TABLE parted (id text PRIMARY KEY) PARTITION BY HASH (id)`, `CREATE VIEW seen AS SELECT id FROM orders`,
		`CREATE TABLE ruled (id text)`, `CREATE RULE r AS ON INSERT TO ruled DO ALSO DELETE FROM ruled WHERE id = 'x'`,
		`CREATE TABLE lists (id text, list text[])`, `CREATE DOMAIN short AS int[]`, `CREATE TABLE domains (id short)`,
	)...)
	for _, sql := range []string{
		`INSERT INTO orders (id) VALUES (@id)`, // has a trigger
		`INSERT INTO parted (id) VALUES (@id)`, `INSERT INTO seen (id) VALUES (@id)`, `INSERT INTO ruled (id) VALUES (@id)`,
		`INSERT INTO lists (id, list) VALUES (@id, @list)`, `INSERT INTO domains (id) VALUES (@list)`,
	} {
		op := settings.Operation{Name: "x", On: settings.On{Source: "shop"}, SQL: config.Strings{sql}}
		if strings.Contains(sql, "@list") {
			op.Params = map[string]string{"list": `["a"]`}
		}
		w.cfg.Operations = []settings.Operation{op}
		require.Nil(t, w.engine().byName["x"].set(), sql)
	}
}

// Parameters of each type arrive in a set as they do alone.
func TestSetTypes(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE p (id text PRIMARY KEY, i bigint, s smallint, m integer, n numeric(12, 3), f double precision, r real, b boolean, t timestamptz,
		ts timestamp, d date, v interval, u uuid, j jsonb, jj json, x bytea, c varchar(6), z text)`)
	w.cfg.Operations = []settings.Operation{{
		Name: "all", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO p (id, i, s, m, n, f, r, b, t, ts, d, v, u, j, jj, x, c, z)
			VALUES (@id, @i, @s, @m, @n, @f, @r, @b, @time, @ts, @d, @v, @u, @j, @jj, @x, @c, @z)`},
		Params: map[string]string{
			"i": "body.i", "s": "body.i", "m": "body.i", "n": "body.n", "f": "body.n", "r": "body.n", "ts": "time", "d": "time", "jj": "body.j", "b": "body.b", "v": `duration("90m")`, "u": `"0198c0de-0000-7000-8000-000000000000"`, "j": "body.j", "x": "raw",
			"c": "body.c", "z": "body.?z",
		},
	}}
	eng := w.engine()
	require.NotNil(t, eng.byName["all"].set())
	bodies := []string{
		`{"i":7,"n":1.25,"b":true,"j":{"k":["\"","\\",null]},"c":"é\"\\{}","z":"NULL"}`,
		`{"i":-8,"n":"1e3","b":false,"j":"null","c":"","z":"a\nb,\t'"}`,
		`{"i":null,"n":null,"b":null,"j":null,"c":null,"z":null}`, `{"i":"9","n":2,"b":"t","j":[1],"c":"x"}`,
	}
	alone, together := w.take(eng, partition(0)), w.take(eng, partition(1))
	var ds []*event.Delivery
	for i, body := range bodies {
		require.NoError(t, alone.write(t.Context(), placedAt(log(alone.part, delivery("shop", fmt.Sprint("a", i), "x", body)), int64(i))))
		ds = append(ds, delivery("shop", fmt.Sprint("t", i), "x", body))
	}
	require.NoError(t, together.write(t.Context(), log(together.part, ds...)))
	require.Equal(t, "succeeded", w.text(`SELECT string_agg(DISTINCT outcome || coalesce(error, ''), ' ') FROM catchment.results`))
	require.Equal(t, 1, w.count(`SELECT count(DISTINCT cmin::text)::int FROM p WHERE id LIKE 't%'`))
	row := `SELECT string_agg((to_jsonb(p) - 'id')::text, E'\n' ORDER BY id) FROM p WHERE id LIKE $1`
	require.Equal(t, w.text(row, "a%"), w.text(row, "t%"))
}
