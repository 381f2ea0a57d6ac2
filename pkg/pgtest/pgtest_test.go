package pgtest_test

import (
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/pgtest"
)

func TestDatabasesAreApart(t *testing.T) {
	ctx := t.Context()
	count := func(databaseURL, statement string) (n int) {
		conn, err := pgx.Connect(ctx, databaseURL)
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(ctx)) }()
		require.NoError(t, conn.QueryRow(ctx, statement).Scan(&n))
		return n
	}
	first, second := pgtest.New(t), pgtest.New(t)
	require.NotEqual(t, first, second)
	const tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
	require.Zero(t, count(first, tables))
	conn, err := pgx.Connect(ctx, first)
	require.NoError(t, err)
	_, err = conn.Exec(ctx, "CREATE TABLE orders (id int)")
	require.NoError(t, err)
	require.NoError(t, conn.Close(ctx))
	require.Equal(t, 1, count(first, tables))
	require.Zero(t, count(second, tables))
}

// A standby has what its primary had, and takes writes when it is promoted; a server that crashed comes back.
func TestBreakable(t *testing.T) {
	primary := pgtest.Breakable(t)
	databaseURL := primary.Database("app")
	run := func(databaseURL, statement string) (n int) {
		conn, err := pgx.Connect(t.Context(), databaseURL)
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(t.Context())) }()
		require.NoError(t, conn.QueryRow(t.Context(), statement).Scan(&n))
		return n
	}
	u, err := url.Parse(databaseURL)
	require.NoError(t, err)
	standby := primary.Standby(u.Host, "standby")
	require.Equal(t, 1, run(standby.Of("app"), "SELECT pg_is_in_recovery()::int"))
	primary.Stop(pgtest.Immediate)
	primary.Start()
	require.Equal(t, 0, run(databaseURL, "SELECT pg_is_in_recovery()::int"))
	primary.Stop(pgtest.Fast)
	standby.Promote()
	require.Equal(t, 0, run(standby.Of("app"), "SELECT pg_is_in_recovery()::int"))
}
