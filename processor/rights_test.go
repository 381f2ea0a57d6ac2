package processor

import (
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// aRole makes a role without any right, after the migration, and has the processor run under it.
func (w *world) aRole() string {
	w.t.Helper()
	role := "Runtime-" + uuid.NewString()
	w.exec(`CREATE ROLE "` + role + `" LOGIN PASSWORD 'x'`)
	w.t.Cleanup(func() { w.exec(`DROP OWNED BY "` + role + `"`); w.exec(`DROP ROLE "` + role + `"`) })
	u, err := url.Parse(w.url)
	require.NoError(w.t, err)
	u.User = url.UserPassword(role, "x")
	w.cfg.Postgres.URL = config.NewSecret(u.String())
	w.cfg.Processor.Migrate = false
	return role
}

// A role that was made after the migration has no right. Readiness says which GRANT is missing, and whoever types what it
// says gets a processor that works, retries, replays nothing twice, makes days and removes them.
func TestMissingRightsAreTold(t *testing.T) {
	w := newWorld(t, 1, ledgerSchema...)
	role := w.aRole()
	w.exec(`GRANT SELECT, INSERT, UPDATE ON ledger, counters TO "` + role + `"`)
	flaky := ledger("bank")
	flaky.SQL = append(flaky.SQL, `INSERT INTO ledger (source, event_id) SELECT 'ref', id FROM needed WHERE id = @id`)
	flaky.ExpectRows, flaky.Retry = "one", settings.Retry{MaxAttempts: 2, Initial: time.Millisecond, Max: time.Millisecond}
	w.exec(`CREATE TABLE needed (id text)`)
	w.exec(`GRANT SELECT ON needed TO "` + role + `"`)
	w.cfg.Operations = []settings.Operation{ledger("shop"), flaky}
	p := &w.cfg.Processor
	p.Retention, p.ResultsRetention, p.IdentityRetention = 30*24*time.Hour, 60*24*time.Hour, 90*24*time.Hour
	s := w.starting()
	s.upkeep = upkeep{partitions: 20 * time.Millisecond, drop: 20 * time.Millisecond, sweep: 20 * time.Millisecond}
	r := w.run(s)
	grants := regexp.MustCompile(`GRANT [^;]+;`)
	for step, want := range []string{"GRANT USAGE ON SCHEMA catchment", "GRANT SELECT ON catchment.schema_version", "GRANT EXECUTE ON FUNCTION catchment.make_partitions(integer), catchment.drop_partition("} {
		var said string
		require.True(t, waitFor(func() bool {
			err := r.Ready()
			if err != nil {
				said = err.Error()
			}
			return err != nil && strings.Contains(said, want)
		}), "step %d: %v", step, r.Ready())
		require.Contains(t, said, `the role "`+role+`" lacks rights`)
		if step == 0 { // all tables would be granted at once: here only what the next step says is
			w.exec(`GRANT USAGE ON SCHEMA catchment TO "` + role + `"`)
			continue
		}
		for _, g := range grants.FindAllString(strings.ReplaceAll(said, "; GRANT", ";; GRANT"), -1) {
			w.exec(g)
		}
	}
	require.True(t, waitFor(func() bool { return r.Ready() == nil }), "%v", r.Ready())
	w.produce(delivery("shop", "a", "t", `{}`), delivery("shop", "a", "t", `{}`), delivery("shop", "a", "t", `{"other": 1}`), delivery("bank", "b", "t", `{}`))
	w.eventually(1, `SELECT count(*) FROM ledger`)
	w.eventually(1, `SELECT count(*) FROM catchment.dead_letters`)
	w.eventually(1, `SELECT count(*) FROM catchment.duplicates`)
	w.eventually(1, `SELECT count(*) FROM catchment.conflicts`)
	w.exec(`UPDATE catchment.identities SET first_seen_at = now() - interval '100 days' WHERE event_id = 'a'`)
	w.exec(`UPDATE catchment.results SET started_at = now() - interval '100 days' WHERE event_id = 'a'`)
	w.exec(`DELETE FROM catchment.bodies WHERE event_id = 'a'`)
	w.eventually(1, `SELECT count(*) FROM catchment.identities`)
	w.eventually(2, `SELECT count(*) FROM catchment.results`)

	w.exec(`REVOKE EXECUTE ON FUNCTION catchment.make_partitions FROM "` + role + `"`)
	require.True(t, waitFor(func() bool {
		err := r.Ready()
		return err != nil && strings.Contains(err.Error(), "7 from tomorrow on are there") && strings.Contains(err.Error(), "GRANT EXECUTE ON FUNCTION catchment.make_partitions(integer) TO")
	}), "told a week before it hurts: %v", r.Ready())
	w.produce(delivery("shop", "c", "t", `{}`))
	w.eventually(2, `SELECT count(*) FROM ledger`)
}

// A right on one's own tables is asked for at load as well, whatever the values would be.
func TestMissingRightsOnTablesAreTold(t *testing.T) {
	w := newDatabase(t, append(ledgerSchema, `CREATE SCHEMA hidden`, `CREATE TABLE hidden.t (id text)`,
		`CREATE FUNCTION touchy(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN IF $1 IS NULL THEN RAISE 'null'; END IF; RETURN $1; END $$`)...)
	role := w.aRole()
	w.exec(`GRANT USAGE ON SCHEMA catchment TO "` + role + `"`)
	w.exec(`GRANT INSERT, SELECT ON counters TO "` + role + `"`)
	w.exec(`GRANT UPDATE (n) ON counters TO "` + role + `"`)
	op := func(name, sql string) settings.Operation {
		return settings.Operation{Name: name, On: settings.On{Source: "shop"}, SQL: config.Strings{sql}}
	}
	const count = `INSERT INTO counters (entity, n) VALUES (@id, 1) ON CONFLICT (entity) DO `
	w.cfg.Operations = []settings.Operation{
		op("allowed", count+`NOTHING`),
		op("touchy", `SELECT touchy(@id)`),
		op("lock", `LOCK TABLE counters IN ROW EXCLUSIVE MODE`),
		op("ledger", `INSERT INTO ledger (source) VALUES (@source)`),
		op("by column", `UPDATE counters SET n = n + 1 -- all of them`),
		op("other column", `UPDATE counters SET entity = @id;`),
		op("query", `SELECT (SELECT count(*) FROM ledger) + @id::int`),
	}
	for range 2 { // what one look leaves behind on a connection does not blind the next
		errs, err := CheckStatements(t.Context(), w.cfg)
		require.NoError(t, err)
		require.Len(t, errs, 4, "%v", errs)
		for i, want := range []string{
			"operations[3].sql: expected SQL that Postgres prepares: permission denied for table ledger (SQLSTATE 42501): the role of postgres.url needs a GRANT", "operations[5].sql", "operations[6].sql",
			"postgres.url: the role \"" + role + "\" lacks rights: the owner of the schema catchment must run GRANT SELECT ON catchment.schema_version, catchment.identities",
		} {
			require.ErrorContains(t, errs[i], want)
		}
	}
}
