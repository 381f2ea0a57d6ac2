package processor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// checkOperations finds what is wrong with the operations, by themselves and in the eyes of the database.
func checkOperations(t *testing.T, cfg *settings.File) config.Errors {
	t.Helper()
	_, errs := compile(cfg)
	if cfg.Postgres.URL.Empty() {
		return errs
	}
	more, err := CheckStatements(t.Context(), cfg)
	require.NoError(t, err)
	return append(errs, more...)
}

// Every mistake is told at once, with file, line, column and what was expected.
func TestCheckOperations(t *testing.T) {
	w := newDatabase(t, `CREATE TABLE orders (id text PRIMARY KEY, amount int)`)
	w.exec(`DO $$ BEGIN CREATE ROLE reader NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$`)
	const text = `sources: {shop: {provider: none}}
operations:
  - name: a
    on: {source: shop}
    when: body.x >
    entity: body.order
    version: nope + 1
    sql: |
      INSERT INTO orders (id, amount)
      VALUES (@id, @missing)
    params:
      unused: body.x
      item: body.y
  - name: b
    on: {source: shop}
    sql:
      - INSERT INTO orders VALUES (@id, @amount)
      - |
        UPDATE orders
           SET amuont = 1
      - COMMIT
      - SELECT @entity::text
      - SELECT @id, $1
      - SELECT @amount
      - SELECT 1; SELECT 2
    params: {amount: body.amount}
`
	cfg, err := settings.Parse("catchment.yaml", []byte(text), settings.NeedOperations)
	require.NoError(t, err)
	cfg.Postgres = w.cfg.Postgres
	got := checkOperations(t, cfg).Error()
	for _, want := range []string{
		`catchment.yaml:5:11: operations[0].when: line 1, column 9 of the expression: Syntax error`,
		`catchment.yaml:7:14: operations[0].version: line 1, column 1 of the expression: undeclared reference to 'nope'`,
		`catchment.yaml:8:10: operations[0].sql: @missing is not defined: expected it under params, or one of @body @delivery_id`,
		`catchment.yaml:12:15: operations[0].params.unused: no statement uses @unused`,
		`catchment.yaml:13:13: operations[0].params.item: the name @item is reserved`,
		`catchment.yaml:18:9: operations[1].sql[1]: expected SQL that Postgres prepares: line 2, column 8 of the statement: column "amuont"`,
		`catchment.yaml:21:9: operations[1].sql[2]: COMMIT is not allowed`,
		`operations[1].sql[3]: @entity is used: expected the key entity`,
		`operations[1].sql[4]: expected parameters by their names, such as @id, found $1`,
		`operations[1].sql[6]: expected SQL that Postgres prepares: cannot insert multiple commands`,
	} {
		require.Contains(t, got, want)
	}
	require.Equal(t, 10, strings.Count(got, "\n")+1, got)

	cfg.Sources = nil
	require.ErrorContains(t, checkOperations(t, cfg), `unknown source "shop"`)
}

// What is wrong with the file's shape hides nothing of what is wrong with the operations, and no mistake is told twice.
func TestLoadTellsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catchment.yaml")
	const text = `kafka: {brokers: [a:9092], acept: []}
sources: {shop: {provider: nobody}}
operations:
  - name: a
    on: {source: elsewhere}
    when: body.x >
    version: time
    sql: SELECT @missing
  - on: {source: shop}
    sql: ""
    params: 7
  - name: c
    on: {source: shop, tipes: []}
    sql: []
    params: {p: nope}
`
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	cfg, err := Load(path, settings.NeedKafka, settings.NeedSources, settings.NeedOperations)
	require.Nil(t, cfg)
	var wrong config.Errors
	require.ErrorAs(t, err, &wrong)
	var got []string
	for _, e := range wrong {
		got = append(got, fmt.Sprintf("%d:%d %s", e.Line, e.Col, e.Path))
	}
	require.Equal(t, []string{
		"1:28 kafka.acept",
		"2:28 sources.shop.provider",
		"5:18 operations[0].on.source",
		"6:11 operations[0].when",
		"7:14 operations[0].version",
		"8:10 operations[0].sql",
		"9:5 operations[1].name",
		"10:10 operations[1].sql",
		"11:13 operations[1].params",
		"13:24 operations[2].on.tipes",
		"14:10 operations[2].sql",
		"15:17 operations[2].params.p",
		"15:17 operations[2].params.p",
	}, got, "%v", err)

	require.NoError(t, os.WriteFile(path, []byte("kafka: {brokers: [a:9092]}\n"), 0o600))
	cfg, err = Load(path, settings.NeedKafka, settings.NeedOperations)
	require.NoError(t, err)
	require.Equal(t, []string{"a:9092"}, cfg.Kafka.Brokers)
}
