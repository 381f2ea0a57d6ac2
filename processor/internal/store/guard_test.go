package store_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// A guard's row holds what was written, whatever was wanted when it was locked.
func TestGuardsHoldWhatWasWritten(t *testing.T) {
	url := pgtest.New(t)
	require.NoError(t, store.Migrate(t.Context(), url))
	db, err := store.Open(t.Context(), settings.Postgres{URL: config.NewSecret(url)}, "test")
	require.NoError(t, err)
	t.Cleanup(db.Close)
	newest := func(v byte) store.Newest {
		return store.Newest{Version: []byte{v}, ID: string('a' + rune(v)), Source: "s"}
	}
	key := func(entity string) store.Guard { return store.Guard{Scope: "g", Entity: entity} }
	batch := func(want, written map[store.Guard]store.Newest) map[store.Guard]store.Newest {
		tx, err := db.Begin(t.Context(), time.Minute, time.Minute)
		require.NoError(t, err)
		defer tx.Rollback(t.Context())
		held, err := tx.Hold(t.Context(), nil, want)
		require.NoError(t, err)
		require.NoError(t, tx.WriteFree(t.Context(), &store.Writes{Newest: written}))
		require.NoError(t, tx.Commit(t.Context()))
		return held
	}
	held := batch(
		map[store.Guard]store.Newest{key("whole"): newest(2), key("part"): newest(2), key("none"): newest(2)},
		map[store.Guard]store.Newest{key("whole"): newest(2), key("part"): newest(1)})
	require.Empty(t, held)
	held = batch(
		map[store.Guard]store.Newest{key("whole"): newest(3), key("part"): newest(3), key("none"): newest(3), key("other"): newest(3)},
		map[store.Guard]store.Newest{key("part"): newest(3), key("other"): newest(3)})
	require.Equal(t, map[store.Guard]store.Newest{key("whole"): newest(2), key("part"): newest(1), key("none"): {Version: []byte{}}}, held)
	held = batch(map[store.Guard]store.Newest{key("whole"): newest(4), key("part"): newest(4), key("other"): newest(4)}, nil)
	require.Equal(t, map[store.Guard]store.Newest{key("whole"): newest(2), key("part"): newest(3), key("other"): newest(3)}, held)
}

// Bodies are compressed by LZ4 where the server has it, also those of days that are made later.
func TestBodiesAreCompressed(t *testing.T) {
	url := pgtest.New(t)
	require.NoError(t, store.Migrate(t.Context(), url))
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(t.Context()) }()
	var has bool
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'`).Scan(&has))
	_, err = conn.Exec(t.Context(), `SELECT catchment.make_partitions(9)`)
	require.NoError(t, err)
	var tables, compressed int
	require.NoError(t, conn.QueryRow(t.Context(), `SELECT count(*), count(*) FILTER (WHERE a.attcompression = 'l') FROM pg_attribute a
		WHERE a.attrelid::regclass::text ~ '^catchment.bodies(_\d+)?$' AND a.attname = 'body'`).Scan(&tables, &compressed))
	require.Equal(t, 12, tables, "the table, yesterday, today and nine days ahead")
	require.Equal(t, map[bool]int{true: tables}[has], compressed)
}
