package store_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/processor/internal/store"
)

// TestListIsThatOfAPlainQuery holds pages of lists against a query that reads everything, for filters that are met by all, by
// few, by none, and by many far back, so that each way to them is taken.
func TestListIsThatOfAPlainQuery(t *testing.T) {
	b := newBase(t)
	b.exec(`INSERT INTO catchment.bodies (source, event_id, type, received_at, stored_at, status, provider, verdict, secret_id, content_type, headers, body,
			body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
		SELECT CASE WHEN i <= 6000 THEN 'old' WHEN i % 3 = 0 THEN 'bank' ELSE 'shop' END, 'e' || i, CASE WHEN i % 9999 = 7 THEN 'rare.one' WHEN i % 3 = 0 THEN 'transfer' ELSE 'order.paid' END,
			now() - interval '20 hours' * (1 - i / 30000.0) - interval '1 min' * (i % 7), now() - interval '20 hours' * (1 - i / 30000.0),
			CASE WHEN i % 5000 = 11 THEN 'dead' ELSE 'processed' END, 'x', 'verified', 'k', 'x', '{}', '\x', '\x', gen_random_uuid(), 0, 't', gen_random_uuid(), 0, i, 0
		FROM generate_series(1, 30000) AS g(i) ORDER BY i`)
	b.exec(`INSERT INTO catchment.identities SELECT source, event_id, body_sha256, stored_at, delivery_id FROM catchment.bodies`)
	b.exec(`INSERT INTO catchment.results (source, event_id, delivery_id, operation, definition_sha256, attempt, outcome, entity, started_at, duration)
		SELECT source, event_id, delivery_id, 'op', '\x', 1, 'succeeded', CASE WHEN "offset" % 10 = 0 THEN 'hot' ELSE 'o' || "offset" % 50 END, stored_at, '0' FROM catchment.bodies`)
	b.exec(`INSERT INTO catchment.results SELECT source, event_id, delivery_id, 'op', '\x', 2, 'succeeded', entity, NULL, NULL, NULL, NULL, now(), '0' FROM catchment.results WHERE entity = 'o7'`)
	b.exec(`UPDATE catchment.results SET started_at = now() WHERE entity = 'hot' AND event_id LIKE 'e1%'`) // by an operation that was replayed later
	b.exec(`ANALYZE catchment.bodies`)
	db, err := pgxpool.New(t.Context(), b.url)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d).Truncate(time.Microsecond) }
	for name, f := range map[string]store.Filter{
		"all": {}, "common": {Source: "shop"}, "far back": {Source: "old"}, "none": {Source: "nobody"}, "excluding": {Source: "shop", Types: []string{"transfer"}},
		"rare": {Types: []string{"rare.*"}}, "two types": {Types: []string{"rare.one", "transfer"}}, "dead": {Status: "dead"}, "dead of a source": {Status: "dead", Source: "bank"},
		"processed": {Status: "processed", Types: []string{"order.*"}}, "since": {Since: ago(3 * time.Hour)}, "until": {Until: ago(15 * time.Hour)},
		"rare within": {Types: []string{"rare.*"}, Since: ago(19 * time.Hour), Until: ago(time.Hour)}, "far back until": {Source: "old", Until: ago(10 * time.Hour)},
		"source within": {Source: "bank", Since: ago(11 * time.Hour), Until: ago(10 * time.Hour)}, "excluding within": {Source: "bank", Types: []string{"order.*"}, Since: ago(18 * time.Hour)},
		"entity": {Entity: "o7"}, "hot entity": {Entity: "hot", Source: "shop"}, "hot entity until": {Entity: "hot", Until: ago(5 * time.Hour)},
		"no entity": {Entity: "nothing"}, "entity and type": {Entity: "hot", Types: []string{"transfer"}}, "entity and ID": {Entity: "hot", ID: "e29990"}, "another's ID": {Entity: "hot", ID: "e29991"},
	} {
		f.Limit = 20
		order := "seq"
		if !f.Since.IsZero() || !f.Until.IsZero() {
			order = "received_at DESC, seq"
		}
		rows, err := b.owner.Query(t.Context(), `SELECT event_id FROM catchment.bodies b WHERE ($1 = '' OR source = $1) AND ($2 = '' OR status = $2) AND ($3::text[] IS NULL OR type LIKE ANY($3))
				AND received_at >= $4 AND received_at < $5 AND ($6 = '' OR EXISTS (SELECT FROM catchment.results r WHERE r.source = b.source AND r.event_id = b.event_id AND r.entity = $6))
				AND ($7 = '' OR event_id = $7)
			ORDER BY `+order+` DESC LIMIT 50`, f.Source, f.Status, likes(f.Types), f.Since, later(f.Until), f.Entity, f.ID)
		require.NoError(t, err)
		want, err := pgx.CollectRows(rows, pgx.RowTo[string])
		require.NoError(t, err)
		got := []string{}
		for range 3 {
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
		require.Equal(t, want, got[:min(len(got), 50)], name)
	}
}

func likes(types []string) []string {
	var out []string
	for _, s := range types {
		if s[len(s)-1] == '*' {
			s = s[:len(s)-1] + "%"
		}
		out = append(out, s)
	}
	return out
}

func later(t time.Time) time.Time {
	if t.IsZero() {
		return time.Now().Add(time.Hour)
	}
	return t
}

// TestCountsOfVeryMuchAreEstimates counts a table of which only a part is read.
func TestCountsOfVeryMuchAreEstimates(t *testing.T) {
	b := newBase(t)
	db, err := pgxpool.New(t.Context(), b.url)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	state := func() store.OperationState {
		states, err := store.OperationStates(t.Context(), db)
		require.NoError(t, err)
		require.Len(t, states, 1)
		return states[0]
	}
	fill := `INSERT INTO catchment.results (source, event_id, delivery_id, operation, definition_sha256, attempt, outcome, error, started_at, duration)
		SELECT 's', 'e' || i, gen_random_uuid(), 'op', '\x', 1, CASE WHEN i % 4 = 0 THEN 'superseded' ELSE 'succeeded' END,
			(SELECT string_agg(md5(i::text || j), '') FROM generate_series(1, 55) AS j), now(), '0' FROM generate_series($1::int, $2::int) AS i`
	b.exec(fill, 1, 100)
	require.Equal(t, store.OperationState{Operation: "op", Outcomes: map[string]int64{"succeeded": 75, "superseded": 25}}, state())
	rows := 4 * store.SampledPages * 3 // four to a page
	b.exec(fill, 101, rows)
	s := state()
	require.True(t, s.Estimated)
	require.InEpsilon(t, rows*3/4, s.Outcomes["succeeded"], 0.15)
	require.InEpsilon(t, rows/4, s.Outcomes["superseded"], 0.15)
	require.Equal(t, s, state(), "the same sample each time")

	b.exec(`INSERT INTO catchment.bodies (source, event_id, type, received_at, status, provider, verdict, secret_id, content_type, headers, body,
			body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
		SELECT CASE WHEN i % 2 = 0 THEN 'shop' ELSE 'bank' END, 'e' || i, 't', now(), CASE WHEN i <= 10 THEN 'failed' ELSE 'dead' END, 'x', 'verified', 'k', 'x', '{}', '\x', '\x', gen_random_uuid(), 0, 't', gen_random_uuid(), 0, i, 0
		FROM generate_series(1, 25000) AS g(i)`)
	sum, err := store.Summarize(t.Context(), db)
	require.NoError(t, err)
	require.Equal(t, []any{int64(25000), true}, []any{sum.Events, sum.Exact})
	require.Equal(t, []store.Count{
		{Source: "bank", What: "dead", N: 10_000, More: true},
		{Source: "bank", What: "failed", N: 5},
		{Source: "shop", What: "dead", N: 10_000, More: true},
		{Source: "shop", What: "failed", N: 5},
	}, sum.Unfinished)
}
