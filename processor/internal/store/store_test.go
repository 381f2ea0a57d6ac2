package store_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

var update = flag.Bool("update", false, "write schemas/tables.v1.sql")

func TestParse(t *testing.T) {
	known := func(name string) bool { return name == "id" || name == "x" }
	for _, c := range []struct{ in, out, params string }{
		{`SELECT @id, @x, @id`, `SELECT $1, $2, $1`, "id x"},
		{`SELECT '@id', "@id", E'\'@id', 'it''s @id', $$ @id $$, $q$ @id $$ $q$, @x`, `SELECT '@id', "@id", E'\'@id', 'it''s @id', $$ @id $$, $q$ @id $$ $q$, $1`, "x"},
		{"SELECT 1 -- @id\n, @x /* @id /* @id */ @id */", "SELECT 1 -- @id\n, $1 /* @id /* @id */ @id */", "x"},
		{`SELECT a @> @x, a <@ @x, a <@x, a <@ARRAY[1], t @@ q, t @@x, @ -5, name@id`, `SELECT a @> $1, a <@ $1, a <$1, a <@ARRAY[1], t @@ q, t @@x, @ -5, name@id`, "x"},
		{`SELECT 1=@id, @id::int, (@nope)`, `SELECT 1=$1, $1::int, ($2)`, "id nope"},
		{`SELECT '\', @id`, `SELECT '\', $1`, "id"},
		{`SELECT "a""@id", '@id`, `SELECT "a""@id", '@id`, ""},
		{`SELECT a$b$, @id, c$b$`, `SELECT a$b$, $1, c$b$`, "id"},
	} {
		st := store.Parse(c.in, known)
		require.Equal(t, c.out, st.SQL, c.in)
		require.Equal(t, c.params, strings.Join(st.Params, " "), c.in)
	}
	for in, number := range map[string]string{ // beside @name, Postgres would take $1 for that
		`SELECT @id, $1`: "$1", `SELECT ($12)`: "$12", `SELECT a$1, "$1", '$1', $$ $1 $$, $a$ $2 $a$ -- $3`: "", `SELECT @id, a$1$2`: "", `SELECT $a, $`: "",
	} {
		require.Equal(t, number, store.Parse(in, known).Number, in)
	}
	for in, word := range map[string]string{
		"COMMIT": "COMMIT", " -- x\n/* y */ begin": "BEGIN", "set role x": "SET", "(select 1)": "", "settle": "", "": "", "select 1": "", "; rollback": "ROLLBACK",
		"SELECT Pg_Advisory_Lock (1)": "pg_advisory_lock", "SELECT pg_advisory_xact_lock(1), 'pg_advisory_lock(1)' -- pg_advisory_lock(1)": "",
		"SELECT set_config('role', 'x', true)": "set_config of role", "SELECT set_config('app.user', @id, true), set_config(@x, '', true)": "",
		"DROP TABLE IF EXISTS catchment.bodies": "a change of the schema catchment", `drop schema if exists "catchment" cascade`: "a change of the schema catchment",
		"WITH x AS (DELETE FROM ONLY catchment.retries RETURNING 1) SELECT * FROM x": "a change of the schema catchment",
		"UPDATE catchment.bodies SET status = 'dead'":                                "a change of the schema catchment", "insert into catchment . results values (1)": "a change of the schema catchment",
		"TRUNCATE mine, catchment.outbox": "a change of the schema catchment", "SELECT catchment.drop_partition(now())": "a change of the schema catchment",
		"INSERT INTO seen SELECT event_id FROM catchment.events FOR UPDATE": "", "UPDATE catchment SET n = 1": "", "DELETE FROM mine USING catchment.events e WHERE e.event_id = mine.id": "",
		"DELETE FROM catchment WHERE E'\\'' = $$ drop table catchment.x $$": "",
	} {
		require.Equal(t, word, store.Parse(in, known).Forbidden(), in)
	}
}

// A place in the rewritten statement is told as the place in the user's own.
func TestPlace(t *testing.T) {
	st := store.Parse("INSERT é\n  (@something, @x,\n  nope)", func(string) bool { return true })
	for what, want := range map[string]string{"INSERT": "1:1", "$1": "2:4", "$2": "2:16", "nope": "3:3"} {
		at := strings.Index(st.SQL, what)
		line, col := st.Place(len([]rune(st.SQL[:at])) + 1)
		require.Equal(t, want, fmt.Sprintf("%d:%d", line, col), what)
	}
}

func TestClassify(t *testing.T) {
	for code, want := range map[string]store.Class{
		"40001": store.Transient, "40P01": store.Transient, "55P03": store.Transient, "53100": store.Transient, "53300": store.Transient,
		"08006": store.Transient, "57P01": store.Transient, "57P03": store.Transient, "25006": store.Transient, "XX000": store.Transient, "58030": store.Transient,
		"23503": store.Retryable, "57014": store.Retryable, "42P01": store.Retryable, "42501": store.Retryable, "P0001": store.Retryable, "0A000": store.Retryable,
		"22P02": store.Poison, "22021": store.Poison, "23505": store.Poison, "23502": store.Poison, "54000": store.Poison,
	} {
		require.Equal(t, want, store.Classify(fmt.Errorf("x: %w", &pgconn.PgError{Code: code})), code)
	}
	require.Equal(t, store.Transient, store.Classify(&pgconn.PgError{Code: "0A000", Message: "cached plan must not change result type"}))
	require.Equal(t, store.Transient, store.Classify(errors.New("connection reset")))
	require.Equal(t, store.Poison, store.Classify(&pgconn.PgError{Code: "23514", ConstraintName: "orders_amount_check"}))
	require.Equal(t, store.Retryable, store.Classify(&pgconn.PgError{Code: "23514", Message: `no partition of relation "orders" found for row`}))
}

func TestMigrateAtOnce(t *testing.T) {
	url := pgtest.New(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { require.NoError(t, store.Migrate(context.Background(), url)) })
	}
	wg.Wait()
	require.NoError(t, store.Migrate(t.Context(), url))
}

// The script and Migrate lead to one schema, and Migrate finds nothing to do after the script.
func TestScript(t *testing.T) {
	script, err := store.Script()
	require.NoError(t, err)
	url := pgtest.New(t)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), script)
	require.NoError(t, err)
	before := tables(t, conn)
	require.NoError(t, store.Migrate(t.Context(), url))
	require.Equal(t, before, tables(t, conn))
}

const tablesFile = "../../../schemas/tables.v1.sql"

// schemas/tables.v1.sql says what readers may rely on: it must be what the migrations make.
func TestTablesFile(t *testing.T) {
	url := pgtest.New(t)
	require.NoError(t, store.Migrate(t.Context(), url))
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	got := tables(t, conn)
	if *update {
		require.NoError(t, os.WriteFile(tablesFile, []byte(got), 0o644))
	}
	want, err := os.ReadFile(tablesFile)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "run go test ./internal/store -run TestTablesFile -update; a column may be added, never taken away or changed")
}

func tables(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("-- What readers may rely on in the schema catchment: these relations and columns stay. The processor owns the\n" +
		"-- schema and makes it (catchment migrate); this file is generated from its migrations and loads into an empty database.\n\nCREATE SCHEMA catchment;\n")
	for _, name := range []string{"events", "identities", "results", "conflicts", "dead_letters", "progress", "definitions", "actions"} {
		rows, err := conn.Query(t.Context(), `SELECT quote_ident(a.attname) || ' ' || format_type(a.atttypid, NULL) || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
			FROM pg_attribute a WHERE a.attrelid = ('catchment.' || $1)::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, name)
		require.NoError(t, err)
		columns, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		kind := ""
		if name == "events" {
			kind = " -- a view\n"
		}
		b.WriteString("\n" + kind + "CREATE TABLE catchment." + name + " (\n    " + strings.Join(columns, ",\n    ") + "\n);\n")
	}
	return strings.ReplaceAll(b.String(), "\n -- a view", "\n-- a view")
}

// The file loads, as it says.
func TestTablesFileLoads(t *testing.T) {
	text, err := os.ReadFile(tablesFile)
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), pgtest.New(t))
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), string(text))
	require.NoError(t, err)
}

func TestPasswordFile(t *testing.T) {
	file := t.TempDir() + "/password"
	require.NoError(t, os.WriteFile(file, []byte("s3cret\n"), 0o600))
	cfg, err := store.Config(settings.Postgres{URL: config.NewSecret("postgres://u@h/d"), PasswordFile: file, Prepared: "off"}, "x")
	require.NoError(t, err)
	require.NoError(t, cfg.BeforeConnect(t.Context(), cfg.ConnConfig))
	require.Equal(t, "s3cret", cfg.ConnConfig.Password)
	require.Equal(t, pgx.QueryExecModeCacheDescribe, cfg.ConnConfig.DefaultQueryExecMode)
	_, err = store.Config(settings.Postgres{URL: config.NewSecret("postgres://u:topsecret@h:notaport/d")}, "x")
	require.ErrorContains(t, err, "postgres.url")
	require.NotContains(t, err.Error(), "topsecret")
}
