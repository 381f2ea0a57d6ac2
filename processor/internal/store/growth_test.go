package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// base is a migrated database, seen by its owner, and by a store under another role that may change no schema.
type base struct {
	t     *testing.T
	owner *pgx.Conn
	store *store.Store
	url   string // of the other role
}

func newBase(t *testing.T) *base {
	t.Helper()
	b := &base{t: t, url: pgtest.New(t)}
	require.NoError(t, store.Migrate(t.Context(), b.url))
	b.owner = connect(t, b.url)
	role := "runtime_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	b.exec(`CREATE ROLE ` + role + ` LOGIN PASSWORD 'x'`)
	t.Cleanup(func() {
		_, err := b.owner.Exec(context.Background(), `DROP OWNED BY `+role+`; DROP ROLE `+role)
		require.NoError(t, err)
	})
	b.exec(`GRANT USAGE ON SCHEMA catchment TO ` + role)
	b.exec(`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA catchment TO ` + role)
	b.exec(`GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA catchment TO ` + role)
	u, err := url.Parse(b.url)
	require.NoError(t, err)
	u.User = url.UserPassword(role, "x")
	b.url = u.String()
	b.store, err = store.Open(t.Context(), settings.Postgres{URL: config.NewSecret(b.url), MaxConns: 4}, "catchment-processor")
	require.NoError(t, err)
	t.Cleanup(b.store.Close)
	return b
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (b *base) exec(sql string, args ...any) {
	b.t.Helper()
	_, err := b.owner.Exec(context.Background(), sql, args...)
	require.NoError(b.t, err, sql)
}

func (b *base) count(sql string, args ...any) (n int) {
	b.t.Helper()
	require.NoError(b.t, b.owner.QueryRow(context.Background(), sql, args...).Scan(&n), sql)
	return n
}

// day makes the partition of so many days ago.
func (b *base) day(ago int) {
	b.t.Helper()
	b.exec(`DO $$ DECLARE d date := (now() AT TIME ZONE 'UTC')::date - ` + fmt.Sprint(ago) + `; BEGIN
		EXECUTE format('CREATE TABLE IF NOT EXISTS catchment.%I PARTITION OF catchment.bodies FOR VALUES FROM (%L) TO (%L)',
			'bodies_' || to_char(d, 'YYYYMMDD'), d::text || ' 00:00+00', (d + 1)::text || ' 00:00+00'); END $$`)
}

// event stores an event of so many days ago.
func (b *base) event(id, status string, ago int) {
	b.t.Helper()
	b.exec(`WITH i AS (INSERT INTO catchment.identities SELECT 'shop', $1, '\x01', now() - make_interval(days => $3), gen_random_uuid() RETURNING *)
		INSERT INTO catchment.bodies (source, event_id, stored_at, type, received_at, status, provider, verdict, secret_id, content_type, headers, body,
			body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
		SELECT source, event_id, first_seen_at, 't', first_seen_at, $2, 'none', 'verified', 'k', 'text/plain', '{}', 'hi', '\x01', delivery_id, 0, 't',
			gen_random_uuid(), 0, 0, 0 FROM i`, id, status, ago)
}

func (b *base) result(id string, ago int) {
	b.t.Helper()
	b.exec(`INSERT INTO catchment.results (source, event_id, delivery_id, operation, definition_sha256, attempt, outcome, started_at, duration)
		VALUES ('shop', $1, gen_random_uuid(), 'op', '\x02', 1, 'succeeded', now() - make_interval(days => $2), '0')`, id, ago)
}

func (b *base) retry(id string) {
	b.t.Helper()
	b.exec(`INSERT INTO catchment.retries (source, event_id, operation, attempt, due_at, first_failed_at, error) VALUES ('shop', $1, 'op', 2, now(), now(), 'x')`, id)
}

// A role that may not change the schema makes the next days' partitions, and drops old ones. One that may only read does
// neither.
func TestPartitionsUnderTheRuntimeRole(t *testing.T) {
	b := newBase(t)
	ahead, err := b.store.PartitionsAhead(t.Context())
	require.NoError(t, err)
	require.Equal(t, 7, ahead, "catchment migrate makes the first")
	b.exec(`SELECT catchment.drop_partition(now() + interval '3 days') FROM generate_series(1, 20)`)
	ahead, err = b.store.PartitionsAhead(t.Context())
	require.NoError(t, err)
	require.Equal(t, -1, ahead)
	made, err := b.store.MakePartitions(t.Context())
	require.NoError(t, err)
	require.Positive(t, made)
	ahead, err = b.store.PartitionsAhead(t.Context())
	require.NoError(t, err)
	require.Equal(t, 7, ahead)
	b.day(5)
	d, err := b.store.DropPartition(t.Context(), 72*time.Hour)
	require.NoError(t, err)
	require.Equal(t, time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -5).Format(time.DateOnly), d.Day.Format(time.DateOnly))
	d, err = b.store.DropPartition(t.Context(), 72*time.Hour)
	require.NoError(t, err)
	require.Nil(t, d)
	var pe *pgconn.PgError
	_, err = connect(t, b.url).Exec(t.Context(), `CREATE TABLE catchment.x ()`)
	require.ErrorAs(t, err, &pe)
	require.Equal(t, "42501", pe.Code, "the role may change the schema: the test shows nothing")

	b.exec(`REVOKE INSERT, DELETE ON catchment.bodies FROM ` + b.role())
	_, err = b.store.MakePartitions(t.Context())
	require.ErrorAs(t, err, &pe)
	require.Equal(t, "42501", pe.Code)
	_, err = b.store.DropPartition(t.Context(), 72*time.Hour)
	require.ErrorAs(t, err, &pe)
	require.Equal(t, "42501", pe.Code)
}

// Nobody calls the functions by being there: neither with the right to call them alone, nor with that on the table alone.
// Who worked before the migration that took the right from everybody still works after it.
func TestWhoMayChangePartitions(t *testing.T) {
	b := newBase(t)
	migration, err := os.ReadFile("migrations/00005_functions.sql")
	require.NoError(t, err)
	functions := map[string]string{"INSERT": "make_partitions(integer)", "DELETE": "drop_partition(timestamptz)"}
	may := func(f string) bool {
		return b.count(`SELECT has_function_privilege($1, 'catchment.' || $2, 'EXECUTE')::int`, b.role(), f) == 1
	}
	for _, f := range functions {
		require.True(t, may(f), f)
		require.Equal(t, 0, b.count(`SELECT count(*) FROM aclexplode((SELECT proacl FROM pg_proc WHERE oid = ('catchment.' || $1)::regprocedure)) WHERE grantee = 0`, f), f)
	}
	b.exec(`REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA catchment FROM ` + b.role())
	var pe *pgconn.PgError
	_, err = b.store.MakePartitions(t.Context())
	require.ErrorAs(t, err, &pe)
	require.Equal(t, "42501", pe.Code)
	require.Contains(t, pe.Message, "make_partitions")
	for right := range functions {
		b.exec(`REVOKE INSERT, DELETE ON catchment.bodies FROM ` + b.role())
		b.exec(`REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA catchment FROM ` + b.role())
		b.exec(`GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA catchment TO PUBLIC`)
		b.exec(`GRANT ` + right + ` ON catchment.bodies TO ` + b.role())
		b.exec(string(migration))
		for r, f := range functions {
			require.Equal(t, r == right, may(f), "%s with the right to %s", f, right)
		}
	}
}

func (b *base) role() string {
	u, err := url.Parse(b.url)
	require.NoError(b.t, err)
	return u.User.Username()
}

// A day that is dropped leaves the identities, and the events that are not done with, until they are.
func TestDroppedDayKeepsWhatIsOpen(t *testing.T) {
	b := newBase(t)
	b.day(10)
	for i := range 50 {
		b.event(fmt.Sprintf("done%d", i), "processed", 10)
	}
	b.event("failed", "failed", 10)
	b.event("dead", "dead", 10)
	b.event("replayed", "processed", 10)
	b.retry("replayed")
	b.event("new", "processed", 0)
	d, err := b.store.DropPartition(t.Context(), 9*24*time.Hour)
	require.NoError(t, err)
	require.Equal(t, int64(3), d.Kept)
	require.Equal(t, 4, b.count(`SELECT count(*) FROM catchment.events`))
	require.Equal(t, 54, b.count(`SELECT count(*) FROM catchment.identities`))
	require.Equal(t, 3, b.count(`SELECT count(*) FROM catchment.bodies WHERE stored_at < now() - interval '9 days'`))

	tx, err := b.store.Begin(t.Context(), time.Minute, time.Minute)
	require.NoError(t, err)
	due, err := tx.Due(t.Context(), []string{"op"}, 20)
	require.NoError(t, err)
	require.Equal(t, []string{"replayed", "hi"}, []string{due[0].Event.ID, string(due[0].Event.Body)}, "what is kept can be retried")
	require.NoError(t, tx.Settle(t.Context(), &store.Writes{}, []store.Made{{Key: store.Key{Source: "shop", ID: "replayed"}, Operation: "op"}}))
	require.NoError(t, tx.Commit(t.Context()))

	d, err = b.store.DropPartition(t.Context(), 9*24*time.Hour)
	require.NoError(t, err)
	require.Nil(t, d)
	require.Equal(t, 3, b.count(`SELECT count(*) FROM catchment.events`))
	b.exec(`UPDATE catchment.bodies SET status = 'processed' WHERE event_id IN ('failed', 'dead')`)
	d, err = b.store.DropPartition(t.Context(), 9*24*time.Hour)
	require.NoError(t, err)
	require.NotNil(t, d)
	require.Equal(t, 1, b.count(`SELECT count(*) FROM catchment.events`))
	require.Zero(t, b.count(`SELECT count(*) FROM pg_class WHERE relname LIKE 'bodies\_%\_open%'`))
}

// A day is dropped while events are written and read: a long query puts it off, and makes no writer wait for itself.
func TestDropMakesNobodyWait(t *testing.T) {
	b := newBase(t)
	b.day(10)
	b.event("old", "processed", 10)
	reader := connect(t, b.url)
	_, err := reader.Exec(t.Context(), `BEGIN; SELECT count(*) FROM catchment.events`)
	require.NoError(t, err)
	writer := connect(t, b.url)
	stop, slowest := make(chan struct{}), make(chan time.Duration, 1)
	var failure error
	go func() {
		var longest time.Duration
		for n := 0; ; n++ {
			select {
			case <-stop:
				slowest <- longest
				return
			default:
			}
			began := time.Now()
			_, err := writer.Exec(context.Background(), `INSERT INTO catchment.bodies (source, event_id, type, received_at, status, provider, verdict, secret_id,
				content_type, headers, body, body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
				VALUES ('shop', $1, 't', now(), 'processed', '', '', '', '', '{}', '', '', gen_random_uuid(), 0, '', gen_random_uuid(), 0, 0, 0)`, fmt.Sprint(n))
			failure = errors.Join(failure, err)
			longest = max(longest, time.Since(began))
		}
	}()
	for range 5 {
		_, err = b.store.DropPartition(t.Context(), 9*24*time.Hour)
		require.True(t, store.IsBusy(err), "%v", err)
	}
	_, err = reader.Exec(t.Context(), `COMMIT`)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		d, err := b.store.DropPartition(t.Context(), 9*24*time.Hour)
		return err == nil && d != nil
	}, time.Minute, 10*time.Millisecond)
	close(stop)
	require.Less(t, <-slowest, 5*time.Second)
	require.NoError(t, failure)
}

// However many days there are, a retry and a look at an event open those that they need.
func TestOneDayIsOpened(t *testing.T) {
	b := newBase(t)
	for ago := 2; ago < 120; ago++ {
		b.day(ago)
	}
	b.event("e", "failed", 60)
	b.retry("e")
	locks := `SELECT count(DISTINCT relation) FROM pg_locks WHERE relation::regclass::text LIKE 'catchment.bodies\_%' AND pid <> pg_backend_pid()
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	for range 10 { // Postgres makes a plan for any values after the fifth
		tx, err := b.store.Begin(t.Context(), time.Minute, time.Minute)
		require.NoError(t, err)
		_, err = tx.Due(t.Context(), []string{"op"}, 20)
		if err == nil {
			err = tx.Settle(t.Context(), &store.Writes{}, []store.Made{{Key: store.Key{Source: "shop", ID: "e"}, Operation: "op", Again: true}})
		}
		opened := b.count(locks)
		tx.Rollback(t.Context())
		require.NoError(t, err)
		require.Positive(t, opened)
		require.Less(t, opened, 8, "a table, its five indexes")
	}
}

// A retry whose event is gone says so.
func TestDueWithoutBody(t *testing.T) {
	b := newBase(t)
	b.event("e", "failed", 0)
	b.exec(`DELETE FROM catchment.bodies`)
	b.retry("e")
	tx, err := b.store.Begin(t.Context(), time.Minute, time.Minute)
	require.NoError(t, err)
	defer tx.Rollback(t.Context())
	_, err = tx.Due(t.Context(), []string{"op"}, 20)
	var gone *store.BodyGoneError
	require.ErrorAs(t, err, &gone)
	require.Equal(t, "e", gone.Retries[0].Event.ID)
}

// Rows go by their age, with the exception of what belongs to an event that is not done with.
func TestSweep(t *testing.T) {
	b := newBase(t)
	b.day(100)
	b.event("open", "dead", 100)
	b.event("gone", "processed", 100)
	b.event("new", "processed", 0)
	for _, id := range []string{"open", "gone"} {
		b.result(id, 100)
		b.exec(`INSERT INTO catchment.duplicates VALUES ('shop', $1, gen_random_uuid(), now(), now() - interval '100 days', 't', gen_random_uuid(), 1, 2)`, id)
	}
	b.result("new", 0)
	b.exec(`INSERT INTO catchment.identities SELECT 'shop', 'old' || g, '\x01', now() - interval '100 days', gen_random_uuid() FROM generate_series(1, 20000) g`)
	d, err := b.store.DropPartition(t.Context(), 90*24*time.Hour)
	require.NoError(t, err)
	require.Equal(t, int64(1), d.Kept)
	steps := 0
	sweep := func(kind store.Aged) int64 {
		n, err := b.store.Sweep(t.Context(), kind, 90*24*time.Hour, func(time.Duration) error { steps++; return nil })
		require.NoError(t, err)
		return n
	}
	require.Equal(t, int64(1), sweep(store.AgedResults()))
	require.Equal(t, int64(1), sweep(store.AgedRepeats()))
	require.Equal(t, int64(20001), sweep(store.AgedIdentities()))
	require.Zero(t, sweep(store.AgedIdentities()))
	require.Equal(t, 2, b.count(`SELECT count(*) FROM catchment.identities`))
	require.Equal(t, 2, b.count(`SELECT count(*) FROM catchment.results`))
	require.Greater(t, steps, 8)
}

// A release works on the schema of the next one, and says what it needs on that of an older one.
func TestCheckSchema(t *testing.T) {
	b := newBase(t)
	require.NoError(t, b.store.CheckSchema(t.Context()))
	b.exec(`INSERT INTO catchment.schema_version (version_id, is_applied) VALUES (99, true)`)
	b.exec(`ALTER TABLE catchment.bodies ADD COLUMN next_release text`)
	require.NoError(t, b.store.CheckSchema(t.Context()))
	require.NoError(t, store.Migrate(t.Context(), b.owner.Config().ConnString()), "an older release that migrates leaves it")
	require.Equal(t, 99, b.count(`SELECT max(version_id) FROM catchment.schema_version`))
	b.exec(`DELETE FROM catchment.schema_version WHERE version_id > 0`)
	err := b.store.CheckSchema(t.Context())
	require.ErrorIs(t, err, store.ErrNoSchema)
	require.Regexp(t, `^the schema catchment is at version 0, this release needs \d+: run catchment migrate$`, err.Error())
	b.exec(`DROP SCHEMA catchment CASCADE`)
	err = b.store.CheckSchema(t.Context())
	require.ErrorIs(t, err, store.ErrNoSchema)
	require.Regexp(t, `^the database has no schema catchment, this release needs its version \d+: run catchment migrate$`, err.Error())
}
