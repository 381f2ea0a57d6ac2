package pgtest_test

import (
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
