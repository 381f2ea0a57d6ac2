package store_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/processor/internal/store"
)

// TestVolumeOfVeryMuchIsAnEstimate counts by the index, and from a sample, which is read where the days have many pages.
func TestVolumeOfVeryMuchIsAnEstimate(t *testing.T) {
	b := newBase(t)
	db, err := pgxpool.New(t.Context(), b.url)
	require.NoError(t, err)
	t.Cleanup(db.Close)
	// Of each page a row: a body of 6,000 bytes, not compressed, in the row.
	b.exec(`ALTER TABLE catchment.bodies ALTER COLUMN body SET STORAGE PLAIN`)
	for _, day := range []string{"0", "1"} {
		b.exec(`DO $$ BEGIN EXECUTE format('ALTER TABLE catchment.bodies_%s ALTER COLUMN body SET STORAGE PLAIN', to_char((now() AT TIME ZONE 'UTC')::date - ` + day + `, 'YYYYMMDD')); END $$`)
	}
	const rows = 41_000
	b.exec(`INSERT INTO catchment.bodies (source, event_id, type, received_at, stored_at, status, provider, verdict, secret_id, content_type, headers, body,
			body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
		SELECT 's', 'e' || i, 't', now() - interval '3 hours' * (i::float8 / $1::int), now(), 'processed', 'x', 'verified', 'k', 'x', '{}', decode(repeat('00', 6000), 'hex'),
			'\x', gen_random_uuid(), 0, 't', gen_random_uuid(), 0, i, 0 FROM generate_series(1, $1::int) AS g(i)`, rows)
	volume := func(since time.Duration, parts int) (events []int64) {
		spans, err := store.Volume(t.Context(), db, time.Now().Add(-since), time.Now(), parts)
		require.NoError(t, err)
		require.Len(t, spans, parts)
		for _, s := range spans {
			events = append(events, s.Events)
		}
		return events
	}
	for _, n := range volume(time.Hour, 4) {
		require.InDelta(t, rows/12, n, rows/60)
	}
	for i, n := range volume(6*time.Hour, 6) {
		if i < 3 {
			require.LessOrEqual(t, n, int64(rows/10), "nothing was received then")
		} else {
			require.InEpsilon(t, rows/3, n, 0.25)
		}
	}
}
