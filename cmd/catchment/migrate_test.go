package main

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/pgtest"
)

// TestMigrateScript applies the printed script, after which there is nothing left to migrate.
func TestMigrateScript(t *testing.T) {
	url := pgtest.New(t)
	code, script, stderr := tool(t, "migrate", "--sql")
	require.Equal(t, 0, code, stderr)
	code, printed, stderr := tool(t, "migrate", "--sql", "--output", "json")
	require.Equal(t, 0, code, stderr)
	var got struct{ SQL string }
	require.NoError(t, json.Unmarshal([]byte(printed), &got))
	require.Equal(t, script, got.SQL)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	_, err = conn.Exec(t.Context(), script)
	require.NoError(t, err)
	tables := func() (n int) {
		require.NoError(t, conn.QueryRow(t.Context(), "TABLE catchment.schema_version").Scan(new(int), new(int64), new(bool), nil))
		require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*) FROM information_schema.tables WHERE table_schema = 'catchment'`).Scan(&n))
		return n
	}
	before := tables()
	config := writeConfig(t, "postgres: {url: \""+url+"\"}\n")
	code, stdout, stderr := tool(t, "migrate", "--config", config)
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stdout, "this release's")
	require.Equal(t, before, tables())

	code, stdout, stderr = tool(t, "events", "list", "--config", config)
	require.Equal(t, 0, code, stdout+stderr)
	require.Contains(t, stdout, "RECEIVED")
	code, _, stderr = tool(t, "events", "show", "evt_none", "--config", config)
	require.NotEqual(t, 0, code)
	require.NotEmpty(t, stderr)
}
