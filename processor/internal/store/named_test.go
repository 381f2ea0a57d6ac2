package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/processor/internal/store"
)

// TestEveryPage turns all pages of lists, of entities of many events above all, and holds them against a query that reads everything:
// events of the same times, some stored hours after they were received, or before by another clock, some stored in another order
// than seq's, some tried again much later, or for another delivery, some whose delivery's ID says no time.
func TestEveryPage(t *testing.T) {
	b := newBase(t)
	for ago := range 6 {
		b.day(ago)
	}
	b.exec(`CREATE FUNCTION delivery(at timestamptz) RETURNS uuid LANGUAGE sql AS $$
		SELECT encode(substring(int8send((extract(epoch FROM at) * 1000)::bigint) FROM 3) || '\x7000' || substring(uuid_send(gen_random_uuid()) FROM 9), 'hex')::uuid $$`)
	b.exec(`INSERT INTO catchment.bodies (source, event_id, type, received_at, stored_at, status, provider, verdict, secret_id, content_type, headers, body,
			body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
		SELECT CASE WHEN i % 4 = 0 THEN 'bank' ELSE 'shop' END, 'e' || i, CASE WHEN i % 500 = 7 THEN 'rare.one' WHEN i % 2 = 0 THEN 'transfer' ELSE 'order.paid' END,
			received, stored, CASE WHEN i % 700 = 11 THEN 'dead' ELSE 'processed' END, 'x', 'verified', 'k', 'x', '{}', '\x', '\x',
			CASE WHEN i % 50 = 3 THEN gen_random_uuid() ELSE delivery(received - interval '3 s') END, 0, 't', gen_random_uuid(), 0, i, 0
		FROM generate_series(1, 9000) AS g(i), LATERAL (SELECT now() - interval '90 hours' * (1 - (i / 10) / 900.0) - interval '30 min' * (i % 97 / 96) AS stored) AS s,
			LATERAL (SELECT CASE WHEN i % 3 = 2 THEN stored + interval '5 hours' WHEN i % 11 = 4 THEN stored + interval '50 min' WHEN i / 10 % 7 = 5 THEN stored - interval '9 hours' ELSE stored - interval '1 s' END AS received) AS r
		ORDER BY i`)
	b.exec(`INSERT INTO catchment.identities SELECT source, event_id, body_sha256, stored_at, delivery_id FROM catchment.bodies`)
	b.exec(`INSERT INTO catchment.results (source, event_id, delivery_id, operation, definition_sha256, attempt, outcome, entity, started_at, duration)
		SELECT source, event_id, delivery_id, 'op', '\x', 1, 'succeeded', CASE WHEN "offset" % 3 = 2 THEN 'ahead' ELSE 'hot' END, stored_at, '0' FROM catchment.bodies`)
	again := `INSERT INTO catchment.results SELECT source, event_id, %s, 'op', '\x', %s, 'succeeded', entity, NULL, NULL, NULL, NULL, %s, '0'
		FROM catchment.results WHERE attempt = 1 AND substring(event_id FROM 2)::int %% %s = 0`
	for _, a := range [][4]any{{"delivery_id", "2", "now()", "2"}, {"delivery(started_at - interval '30 hours')", "3", "started_at - interval '29 hours'", "13"}, {"gen_random_uuid()", "4", "now()", "17"}} {
		b.exec(fmt.Sprintf(again, a[:]...))
	}
	b.exec(`INSERT INTO catchment.results SELECT source, event_id, delivery_id, 'op' || i, '\x', 1, 'succeeded', 'everybody', NULL, NULL, NULL, NULL, started_at, '0'
		FROM catchment.results, generate_series(2, 3) AS i WHERE attempt = 1 AND substring(event_id FROM 2)::int % 7 <> 0`) // so many that they are looked for among all
	b.exec(`ANALYZE catchment.bodies, catchment.results`)
	db, err := pgxpool.New(t.Context(), b.url)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d).Truncate(time.Microsecond) }
	for name, f := range map[string]store.Filter{
		"all": {Entity: "hot"}, "another's clock": {Entity: "ahead"}, "source": {Entity: "hot", Source: "bank"}, "rare type": {Entity: "hot", Types: []string{"rare.*"}},
		"a type of many": {Entity: "hot", Types: []string{"transfer"}}, "none": {Entity: "hot", Types: []string{"nothing"}}, "dead": {Entity: "hot", Status: "dead"},
		"until": {Entity: "hot", Until: ago(20 * time.Hour)}, "within": {Entity: "hot", Since: ago(30 * time.Hour), Until: ago(20 * time.Hour)},
		"dead within": {Entity: "hot", Status: "dead", Since: ago(30 * time.Hour), Until: ago(2 * time.Hour)},
		"together":    {Entity: "hot", Source: "shop", Types: []string{"order.*"}, Status: "processed", Since: ago(39 * time.Hour)},
	} {
		order, until := "seq", time.Now().Add(24*time.Hour)
		if !f.Since.IsZero() || !f.Until.IsZero() {
			order = "received_at DESC, seq"
		}
		if !f.Until.IsZero() {
			until = f.Until
		}
		rows, err := b.owner.Query(t.Context(), `SELECT event_id FROM catchment.bodies b WHERE ($1 = '' OR source = $1) AND ($2 = '' OR status = $2) AND ($3::text[] IS NULL OR type LIKE ANY($3))
				AND received_at >= $4 AND received_at < $5 AND ($6 = '' OR EXISTS (SELECT FROM catchment.results r WHERE r.source = b.source AND r.event_id = b.event_id AND r.entity = $6))
			ORDER BY `+order+` DESC`, f.Source, f.Status, likes(f.Types), f.Since, until, f.Entity)
		require.NoError(t, err)
		want, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		require.Equal(t, name == "none", len(want) == 0, name)
		got := []string{}
		for f.Limit = 230; ; {
			found, err := store.Events(t.Context(), db, f)
			require.NoError(t, err, name)
			for _, e := range found {
				got = append(got, e.ID)
				f.Before = e.Cursor
			}
			if len(found) < f.Limit {
				break
			}
		}
		if len(want) == 0 {
			want = []string{}
		}
		require.Equal(t, want, got, name)
	}
}

// TestLittleOfALargeEntity lists the few events of an entity that fit, behind more than are looked at first, among many of others' that fit.
func TestLittleOfALargeEntity(t *testing.T) {
	b := newBase(t)
	for ago := range 2 {
		b.day(ago)
	}
	b.exec(`INSERT INTO catchment.bodies (source, event_id, type, received_at, stored_at, status, provider, verdict, secret_id, content_type, headers, body,
			body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
		SELECT 'shop', 'e' || i, CASE WHEN i <= 6300 THEN 'rare' ELSE 'order.paid' END, at, at, 'processed', 'x', 'verified', 'k', 'x', '{}', '\x', '\x', gen_random_uuid(), 0, 't', gen_random_uuid(), 0, i, 0
		FROM generate_series(1, 22300) AS g(i), LATERAL (SELECT now() - interval '1 s' * (22300 - i) AS at) AS a ORDER BY i`)
	b.exec(`INSERT INTO catchment.identities SELECT source, event_id, body_sha256, stored_at, delivery_id FROM catchment.bodies`)
	b.exec(`INSERT INTO catchment.results (source, event_id, delivery_id, operation, definition_sha256, attempt, outcome, entity, started_at, duration)
		SELECT source, event_id, delivery_id, 'op', '\x', 1, 'succeeded', CASE WHEN "offset" BETWEEN 301 AND 6300 THEN 'other' ELSE 'large' END, stored_at, '0' FROM catchment.bodies`)
	b.exec(`ANALYZE catchment.bodies, catchment.results`)
	db, err := pgxpool.New(t.Context(), b.url)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	f := store.Filter{Entity: "large", Types: []string{"rare"}, Limit: 200}
	found, err := store.Events(t.Context(), db, f)
	require.NoError(t, err)
	require.Len(t, found, 200)
	require.Equal(t, "e300", found[0].ID)
	f.Before = found[199].Cursor
	found, err = store.Events(t.Context(), db, f)
	require.NoError(t, err)
	require.Len(t, found, 100)
	require.Equal(t, "e1", found[99].ID)
}
