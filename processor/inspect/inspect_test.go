package inspect_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/inspect"
)

const event = `INSERT INTO catchment.bodies (source, event_id, type, received_at, status, provider, verdict, secret_id, content_type, headers, body,
		body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
	VALUES ($1, $2, $3, $4, $5, 'none', 'verified', 'k', 'text/plain', '{"x-a":["1","2"]}', 'hi', '\x01', gen_random_uuid(), 0, 't',
		'01000000-0000-0000-0000-000000000000', 3, 7, 0)`

func TestReads(t *testing.T) {
	url := pgtest.New(t)
	pg := settings.Postgres{URL: config.NewSecret(url)}
	_, err := inspect.Open(t.Context(), pg)
	require.ErrorIs(t, err, inspect.ErrNoSchema)
	require.NoError(t, processor.Migrate(t.Context(), url))
	db, err := inspect.Open(t.Context(), pg)
	require.NoError(t, err)
	defer db.Close()
	exec := func(sql string, args ...any) {
		_, err := db.Exec(context.Background(), sql, args...)
		require.NoError(t, err, sql)
	}
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for i, e := range [][3]string{{"shop", "a", "order.paid"}, {"shop", "b", "order_paid"}, {"bank", "a", "x"}, {"shop", "c", "order.sent"}} {
		exec(`INSERT INTO catchment.identities VALUES ($1, $2, '\x01', now(), gen_random_uuid())`, e[0], e[1])
		exec(event, e[0], e[1], e[2], at.Add(time.Duration(i)*time.Hour), []string{"processed", "failed", "unmatched", "dead"}[i])
		exec(`UPDATE catchment.identities SET first_seen_at = (SELECT stored_at FROM catchment.bodies WHERE source = $1 AND event_id = $2) WHERE source = $1 AND event_id = $2`, e[0], e[1])
	}
	exec(`INSERT INTO catchment.results VALUES ('shop', 'b', gen_random_uuid(), 'op', '\x02', 1, 'failed', 'e', 'v', 1, '[{"n":1}]', 'why', now(), interval '2 s')`)
	exec(`INSERT INTO catchment.retries VALUES ('shop', 'b', 'op', 2, now(), now(), 'why')`)
	exec(`INSERT INTO catchment.duplicates VALUES ('shop', 'b', gen_random_uuid(), now(), now(), 't', gen_random_uuid(), 1, 2)`)
	exec(`INSERT INTO catchment.conflicts VALUES ('shop', 'b', gen_random_uuid(), now(), 'ho', '\x03', '{}', 't', gen_random_uuid(), 1, 3)`)
	exec(`INSERT INTO catchment.dead_letters (source, event_id, operation, reason, error, attempts, first_failed_at, last_failed_at, topic, topic_id, partition, "offset")
		VALUES ('shop', 'c', 'op', 'refused', 'no', 1, now(), now(), 't', gen_random_uuid(), 1, 4)`)
	exec(`INSERT INTO catchment.progress (topic, topic_id, partition, next_offset, owner) VALUES ('t', gen_random_uuid(), 3, 8, gen_random_uuid())`)

	list := func(f inspect.Filter) (out []string) {
		events, err := inspect.Events(t.Context(), db, f)
		require.NoError(t, err)
		for _, e := range events {
			out = append(out, e.Source+"/"+e.ID)
		}
		return out
	}
	require.Equal(t, []string{"shop/c", "bank/a", "shop/b", "shop/a"}, list(inspect.Filter{}))
	require.Equal(t, []string{"shop/c", "shop/a"}, list(inspect.Filter{Types: []string{"order.*"}}))
	require.Equal(t, []string{"shop/b"}, list(inspect.Filter{Types: []string{"order_paid", "nope"}}))
	require.Equal(t, []string{"bank/a", "shop/a"}, list(inspect.Filter{ID: "a"}))
	require.Equal(t, []string{"bank/a", "shop/b"}, list(inspect.Filter{Since: at.Add(time.Hour), Until: at.Add(3 * time.Hour)}))
	require.Equal(t, []string{"shop/b"}, list(inspect.Filter{Source: "shop", Status: "failed"}))
	first, err := inspect.Events(t.Context(), db, inspect.Filter{Limit: 2})
	require.NoError(t, err)
	require.Equal(t, []string{"shop/b", "shop/a"}, list(inspect.Filter{Limit: 2, Before: first[1].Cursor}))

	sources, err := inspect.Sources(t.Context(), db, "a")
	require.NoError(t, err)
	require.Equal(t, []string{"bank", "shop"}, sources)
	d, err := inspect.Show(t.Context(), db, "shop", "b")
	require.NoError(t, err)
	require.Equal(t, "hi", string(d.Body))
	require.Equal(t, []string{"1", "2"}, d.Headers["x-a"])
	require.Equal(t, 3, d.Deliveries)
	require.Equal(t, []any{"failed", 2 * time.Second, `[{"n": 1}]`}, []any{d.Results[0].Outcome, d.Results[0].Duration, *d.Results[0].Returned})
	require.Equal(t, []any{1, 1, 1, 0, int64(3), 2}, []any{len(d.Duplicates), len(d.Conflicts), len(d.Waiting), len(d.DeadLetters), d.Conflicts[0].Offset, d.Waiting[0].Attempt})
	_, err = inspect.Show(t.Context(), db, "bank", "b")
	require.ErrorIs(t, err, inspect.ErrNoEvent)

	s, err := inspect.Status(t.Context(), db)
	require.NoError(t, err)
	require.Equal(t, int64(4), s.Events)
	require.Equal(t, []inspect.Count{{Source: "shop", What: "dead", N: 1}, {Source: "shop", What: "failed", N: 1}}, s.Unfinished)
	require.Equal(t, []inspect.Count{{Source: "shop", What: "refused", N: 1}}, s.DeadLetters)
	require.Equal(t, []any{int64(1), int64(8)}, []any{s.Retries, s.Places[0].NextOffset})
	letters, err := inspect.DeadLetters(t.Context(), db, inspect.Selection{Types: []string{"order.*"}, Reason: "refused"}, 0, 10)
	require.NoError(t, err)
	require.Len(t, letters, 1)
}

// Transactions commit in another order than they draw cursors: none is passed over.
func TestTailWaitsForGaps(t *testing.T) {
	url := pgtest.New(t)
	require.NoError(t, processor.Migrate(t.Context(), url))
	db, err := inspect.Open(t.Context(), settings.Postgres{URL: config.NewSecret(url)})
	require.NoError(t, err)
	defer db.Close()
	insert := func(q interface {
		Exec(context.Context, string, ...any) (pgconn.CommandTag, error)
	}, id string,
	) {
		_, err := q.Exec(t.Context(), event, "shop", id, "x", time.Now(), "processed")
		require.NoError(t, err)
	}
	tail, err := inspect.Tail(t.Context(), db, inspect.Filter{Source: "shop"})
	require.NoError(t, err)
	slow, err := db.BeginTx(t.Context(), pgx.TxOptions{})
	require.NoError(t, err)
	insert(slow, "first")
	insert(db, "second")
	got, err := tail.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, "second", got[0].ID)
	require.NoError(t, slow.Commit(t.Context()))
	got, err = tail.Next(t.Context())
	require.NoError(t, err)
	require.Len(t, got, 1)
	require.Equal(t, "first", got[0].ID)
	got, err = tail.Next(t.Context())
	require.NoError(t, err)
	require.Empty(t, got)
}
