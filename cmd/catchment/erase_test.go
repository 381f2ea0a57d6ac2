package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const secretBody = "canary-4711"

// encrypted adds archive.encryption to the office's configuration.
func (o *office) encrypted() *keys.Ring {
	o.t.Helper()
	text, err := os.ReadFile(o.config)
	require.NoError(o.t, err)
	encryption := fmt.Sprintf(`archive: {encryption: {keys_url: "file://%s", master_key: "%s"}, `, o.t.TempDir(), strings.Repeat("01", 32))
	require.NoError(o.t, os.WriteFile(o.config, []byte(strings.Replace(string(text), "archive: {", encryption, 1)), 0o600))
	cfg, err := settings.Load(o.config, settings.NeedArchive)
	require.NoError(o.t, err)
	ring, err := keys.Open(o.t.Context(), cfg.Archive)
	require.NoError(o.t, err)
	return ring
}

// sealed is a record as the archive has it.
func (o *office) sealed(ring *keys.Ring, source string, at time.Time) *archive.Record {
	o.t.Helper()
	w := &archive.Record{Source: source, KafkaTimestamp: at, BodySHA256: sha256.Sum256(nil)}
	require.NoError(o.t, ring.Seal(o.t.Context(), w))
	return w
}

// filled has events of yesterday in every state, and one of today.
func (o *office) filled() (since, until string) {
	o.t.Helper()
	for i := range 20 {
		o.receive(fmt.Sprintf("e%02d", i), "paid", fmt.Sprintf(`{"order":"o%d","v":1,"amount":%d,"name":"%s"}`, i, 10-i, secretBody)) // the last are refused
	}
	o.receive("e01", "paid", `{"other":"`+secretBody+`"}`)
	require.NoError(o.t, o.cl.ProduceSync(o.t.Context(), &kgo.Record{Key: []byte("k"), Value: []byte(secretBody)}).FirstErr())
	o.receive("today", "paid", `{"order":"t","v":1,"amount":1}`)
	o.eventually(23, `SELECT coalesce(max(next_offset), 0)::int FROM catchment.progress`)
	o.exec(`INSERT INTO catchment.retries SELECT source, event_id, 'later', 2, now() + interval '1 day', now(), 'x' FROM catchment.bodies WHERE event_id = 'e00'`)
	o.exec(`UPDATE catchment.results SET returned = to_jsonb($1::text) WHERE event_id = 'e02'`, secretBody)
	for table, column := range map[string]string{"bodies": "received_at", "conflicts": "received_at", "results": "started_at", "dead_letters": "first_failed_at"} {
		o.exec(`UPDATE catchment.` + table + ` SET ` + column + ` = ` + column + ` - interval '1 day' WHERE event_id IS DISTINCT FROM 'today'`)
	}
	today := time.Now().UTC().Truncate(24 * time.Hour)
	return today.AddDate(0, 0, -1).Format(time.DateOnly), today.Format(time.DateOnly)
}

// holding counts the rows of Catchment's tables in which the canary is found.
func (o *office) holding() int {
	o.t.Helper()
	return o.count(`SELECT (SELECT count(*) FROM catchment.bodies WHERE convert_from(body, 'UTF8') LIKE '%canary%')::int
		+ (SELECT count(*) FROM catchment.conflicts WHERE convert_from(body, 'UTF8') LIKE '%canary%')::int
		+ (SELECT count(*) FROM catchment.dead_letters d WHERE convert_from(coalesce(value, ''), 'UTF8') || d.error LIKE '%canary%')::int
		+ (SELECT count(*) FROM catchment.results r WHERE r.returned::text || coalesce(r.error, '') LIKE '%canary%')::int`)
}

func TestEraseDays(t *testing.T) {
	o := newOffice(t)
	since, until := o.filled()
	ring := o.encrypted()
	yesterday := time.Now().AddDate(0, 0, -1)
	gone, other, stays := o.sealed(ring, "shop", yesterday), o.sealed(ring, "other", yesterday), o.sealed(ring, "shop", time.Now())
	require.Equal(t, 23, o.holding())
	identities := o.count(`SELECT count(*)::int FROM catchment.identities`)
	results := o.count(`SELECT count(*)::int FROM catchment.results`)
	days := []string{"erase", "--source", "shop", "--since", since, "--until", until}

	for want, args := range map[string][]string{
		"--source is missing":                {"erase", "--since", since, "--until", until},
		"--reason is missing":                days,
		"a day that is not over":             {"erase", "--source", "shop", "--since", until, "--until", "2999-01-01", "--reason", "x"},
		"expected --since before --until":    {"erase", "--source", "shop", "--since", until, "--until", since, "--reason", "x"},
		"the archive forgets whole days":     {"erase", "--source", "shop", "--since", "7d", "--reason", "x"},
		"either --event or":                  {"erase", "--source", "shop", "--since", since, "--event", "e01", "--reason", "x"},
		"There is no terminal to answer at:": append(append([]string{}, days...), "--reason", "x"),
	} {
		require.Contains(t, o.run(2, nil, args...), want)
	}
	var v object
	o.run(0, &v, append(days, "--dry-run")...)
	require.Equal(t, []any{20.0, 1.0}, []any{v["postgres"].(object)["events"], v["postgres"].(object)["conflicts"]})
	require.Equal(t, []any{"shop/" + since + "/0"}, v["destroyed_keys"])
	require.Equal(t, 23, o.holding())
	require.Equal(t, 0, o.count(`SELECT count(*)::int FROM catchment.actions`))
	open := *gone
	require.NoError(t, ring.Unseal(t.Context(), &open))

	o.run(0, &v, append(days, "--yes", "--reason", "request 12", "--actor", "ann")...)
	require.Equal(t, 20.0, v["postgres"].(object)["events"])
	require.Len(t, v["elsewhere"], 6)
	require.Equal(t, 1, o.holding(), "the record that names no source")
	require.Equal(t, 1, o.count(`SELECT count(*)::int FROM catchment.bodies`))
	require.Equal(t, 0, o.count(`SELECT count(*)::int FROM catchment.retries`))
	require.Equal(t, 0, o.count(`SELECT count(*)::int FROM catchment.dead_letters WHERE operation IS NOT NULL`))
	require.Equal(t, identities, o.count(`SELECT count(*)::int FROM catchment.identities`))
	require.Equal(t, results, o.count(`SELECT count(*)::int FROM catchment.results`))
	require.Equal(t, 1, o.count(`SELECT count(*)::int FROM catchment.conflicts WHERE length(body_sha256) = 32`))
	require.Equal(t, 1, o.count(`SELECT count(*)::int FROM catchment.actions WHERE command = 'erase' AND actor = 'ann' AND reason = 'request 12'
		AND selection->>'state' = 'done' AND (selection->'erased'->>'events')::int = 20 AND selection->'keys' ? ('shop/`+since+`/0') AND affected > 20`))
	cfg, err := settings.Load(o.config, settings.NeedArchive)
	require.NoError(t, err)
	reader, err := keys.Open(t.Context(), cfg.Archive)
	require.NoError(t, err)
	erased, ok := errors.AsType[*keys.ErasedError](reader.Unseal(t.Context(), gone))
	require.True(t, ok)
	require.Equal(t, []string{"ann", "request 12"}, []string{erased.Actor, erased.Reason})
	require.NoError(t, reader.Unseal(t.Context(), other))
	require.NoError(t, reader.Unseal(t.Context(), stays))

	o.receive("e03", "paid", `{"order":"o3","v":1,"amount":7,"name":"`+secretBody+`"}`) // the provider sends it again
	o.eventually(24, `SELECT coalesce(max(next_offset), 0)::int FROM catchment.progress`)
	require.Equal(t, 1, o.holding(), "a repetition is known by its identity, and its body is not kept")
	require.Contains(t, o.run(1, nil, "events", "show", "e03"), "catchment erase")

	o.run(0, &v, append(days, "--yes", "--reason", "again")...)
	require.Equal(t, 0.0, v["postgres"].(object)["events"])
	require.Empty(t, v["destroyed_keys"])
	require.Contains(t, v["destroyed_earlier"].([]any)[0], "by ann: request 12")
	o.run(0, &v, "erase", "--source", "_", "--since", since, "--until", until, "--yes", "--reason", "request 12")
	require.Equal(t, 1.0, v["postgres"].(object)["dead_letters"])
	require.Equal(t, 0, o.holding())
}

// Without encryption, and for one event, the archive keeps what it has, and the tool says so.
func TestEraseOneEvent(t *testing.T) {
	o := newOffice(t)
	since, until := o.filled()
	require.Contains(t, o.run(0, nil, "erase", "--source", "shop", "--since", since, "--until", until, "--dry-run"), "still holds bodies and headers in the clear")
	require.Contains(t, o.run(0, nil, "erase", "--source", "shop", "--event", "e01", "--yes", "--reason", "request 13"), "it can only forget whole days")
	require.Equal(t, 21, o.holding(), "its body and its conflict are gone")
	require.Contains(t, o.run(1, nil, "events", "show", "e01"), "request 13")
	require.Contains(t, o.run(0, nil, "erase", "--source", "shop", "--event", "nobody", "--dry-run", "--reason", "x"), "note          nothing was found\n")
	require.Contains(t, o.run(0, nil, "erase", "--source", "shopp", "--since", since, "--until", until, "--dry-run"), "nothing was found, and the configuration has no source of that name: is it right?")
	require.Equal(t, 1, o.count(`SELECT (selection->'erased'->>'events')::int FROM catchment.actions WHERE selection->>'event_id' = 'e01'`))
}

// An erasure that is killed is gone on with, wherever that was.
func TestEraseIsKilled(t *testing.T) {
	o := newOffice(t)
	since, until := o.filled()
	o.stop()
	o.exec(`INSERT INTO catchment.bodies (source, event_id, type, received_at, stored_at, status, provider, verdict, secret_id, content_type, headers, body, body_sha256,
			delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch)
		SELECT source, 'f' || to_char(n, 'FM0000'), type, received_at, stored_at, status, provider, verdict, secret_id, content_type, headers, body, body_sha256,
			delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch FROM catchment.bodies, generate_series(1, 1200) AS n WHERE event_id = 'e00'`)
	ring := o.encrypted()
	gone := o.sealed(ring, "shop", time.Now().AddDate(0, 0, -1))
	lock, err := pgx.Connect(t.Context(), o.url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = lock.Close(context.Background()) })

	killedAt := func(hold string, reached func() bool) {
		tx, err := lock.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), hold)
		require.NoError(t, err)
		cmd := exec.Command(os.Args[0], "erase", "--source", "shop", "--since", since, "--until", until, "--yes", "--reason", "request 14", "--config", o.config)
		cmd.Env = append(os.Environ(), runMain+"=1")
		require.NoError(t, cmd.Start())
		arrived := await(t, 60*time.Second, reached)
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait(), "it was killed, and had not ended")
		require.True(t, arrived)
		require.NoError(t, tx.Rollback(t.Context()))
	}
	waits := func() bool {
		return o.count(`SELECT count(*)::int FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
	}
	killedAt(`LOCK TABLE catchment.actions IN EXCLUSIVE MODE`, waits)
	there, destroyed, err := ring.List(t.Context(), "shop", time.Time{}, time.Now())
	require.NoError(t, err)
	require.Len(t, there, 1, "nothing is destroyed before that is recorded")
	require.Empty(t, destroyed)

	killedAt(`SELECT FROM catchment.bodies WHERE event_id = 'f0700' FOR UPDATE`, func() bool {
		return o.count(`SELECT coalesce(sum(affected), 0)::int FROM catchment.actions`) >= 500 && waits()
	})
	there, destroyed, err = ring.List(t.Context(), "shop", time.Time{}, time.Now())
	require.NoError(t, err)
	require.Empty(t, there, "the key goes first")
	require.Len(t, destroyed, 1)
	require.Equal(t, 1, o.count(`SELECT count(*)::int FROM catchment.actions WHERE selection->>'state' = 'begun'`))

	o.run(0, nil, "erase", "--source", "shop", "--since", since, "--until", until, "--yes", "--reason", "request 14")
	require.Equal(t, 1, o.count(`SELECT count(*)::int FROM catchment.bodies`))
	require.Equal(t, 1, o.count(`SELECT count(*)::int FROM catchment.actions`), "it is one erasure")
	require.Equal(t, 1220, o.count(`SELECT (selection->'erased'->>'events')::int FROM catchment.actions WHERE selection->>'state' = 'done'`))
	cfg, err := settings.Load(o.config, settings.NeedArchive)
	require.NoError(t, err)
	reader, err := keys.Open(t.Context(), cfg.Archive)
	require.NoError(t, err)
	_, ok := errors.AsType[*keys.ErasedError](reader.Unseal(t.Context(), gone))
	require.True(t, ok)
}

// A backfill reads what is encrypted. What was erased before it was processed stops it, until somebody says to go on without.
func TestBackfillOfSealedAndErased(t *testing.T) {
	o := newOffice(t)
	ring := o.encrypted()
	receive := func(from int) {
		for i := range 5 {
			o.receive(fmt.Sprintf("e%02d", from+i), "paid", fmt.Sprintf(`{"order":"o%d","v":1,"amount":1,"name":"%s"}`, from+i, secretBody))
		}
	}
	receive(0)
	o.eventually(5, `SELECT count(*)::int FROM amounts`)
	o.stop()
	receive(5)
	o.archiveUntil(10)
	o.overtake(10)
	o.run(0, nil, "backfill", "--reason", "x")
	require.Equal(t, 10, o.count(`SELECT count(*)::int FROM amounts`))
	require.Equal(t, 10, o.count(`SELECT count(*)::int FROM catchment.bodies WHERE convert_from(body, 'UTF8') LIKE '%canary%'`))

	receive(10)
	o.archiveUntil(15)
	o.overtake(15)
	there, _, err := ring.List(t.Context(), "shop", time.Time{}, time.Now().AddDate(0, 0, 2))
	require.NoError(t, err)
	require.NotEmpty(t, there)
	for _, id := range there {
		require.NoError(t, ring.Destroy(t.Context(), keys.Erasure{ID: id, At: time.Now(), Actor: "ann", Reason: "request 15"}))
	}
	said := o.run(1, nil, "backfill", "--reason", "x")
	require.Contains(t, said, "by ann: request 15")
	require.Contains(t, said, "--skip-erased")
	require.Equal(t, 10, o.count(`SELECT next_offset::int FROM catchment.progress`))
	o.run(0, nil, "backfill", "--skip-erased", "--reason", "x")
	require.Equal(t, 15, o.count(`SELECT next_offset::int FROM catchment.progress`))
	require.Equal(t, 5, o.count(`SELECT count(*)::int FROM catchment.dead_letters WHERE reason = 'erased' AND coalesce(length(value), 0) = 0`))
	require.Equal(t, 10, o.count(`SELECT count(*)::int FROM amounts`))
}
