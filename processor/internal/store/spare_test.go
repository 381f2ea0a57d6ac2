package store_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// A role called catchment finds our tables without their schema. No operation changes them by any name; its own tables in
// that schema it may change.
func TestNoStatementChangesOurTables(t *testing.T) {
	url := pgtest.New(t)
	require.NoError(t, store.Migrate(t.Context(), url))
	conn := connect(t, url)
	rows, err := conn.Query(t.Context(), `SELECT relname FROM pg_class WHERE relnamespace = 'catchment'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') AND NOT relispartition`)
	require.NoError(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Contains(t, all, "jobs")
	for _, sql := range []string{
		"CREATE TABLE catchment.orders (id text)", "CREATE TABLE public.orders (id text)", "CREATE TABLE public.jobs (id text)",
		"CREATE VIEW public.seen AS SELECT * FROM catchment.results",
	} {
		_, err := conn.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	s, err := store.Open(t.Context(), settings.Postgres{URL: config.NewSecret(withPath(url, "catchment,public")), MaxConns: 2}, "catchment-processor")
	require.NoError(t, err)
	t.Cleanup(s.Close)
	refused := map[string]string{
		"DELETE FROM results WHERE event_id = @id": "results", "WITH d AS (DELETE FROM identities WHERE event_id = @id RETURNING 1) INSERT INTO orders SELECT 1 FROM d": "identities",
		"UPDATE jobs SET reason = @id": "jobs", "UPDATE seen SET error = @id": "results", `INSERT INTO U&"\0063atchment".outbox DEFAULT VALUES`: "outbox",
		"DELETE FROM identities_3": "identities_3", "TRUNCATE orders, results": "results", "LOCK TABLE bodies": "bodies", "DROP TABLE IF EXISTS entities_x, retries": "retries",
	}
	for _, name := range all {
		if name != "events" { // a view that nobody can change
			refused["DELETE FROM "+name] = name
		}
		refused["DROP TABLE "+name] = name
	}
	for sql, name := range refused {
		require.ErrorContains(t, s.Describe(t.Context(), store.Parse(sql, known)), "it changes catchment."+name+", ", sql)
	}
	for _, sql := range []string{
		"INSERT INTO orders SELECT event_id FROM events WHERE event_id = @id", "DELETE FROM public.jobs WHERE id = @id", "TRUNCATE orders",
		"DELETE FROM orders USING results r WHERE r.event_id = orders.id", "SELECT 1",
	} {
		require.NoError(t, s.Describe(t.Context(), store.Parse(sql, known)), sql)
	}
}

func known(name string) bool { return name == "id" }

func withPath(url, path string) string {
	sign := "?"
	if strings.Contains(url, "?") {
		sign = "&"
	}
	return url + sign + "search_path=" + path
}
