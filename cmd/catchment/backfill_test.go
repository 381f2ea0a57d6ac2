package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// archiveUntil lets an archiver run until it has stored a number of records.
func (o *office) archiveUntil(records int64) {
	o.t.Helper()
	o.archiveWithin(60*time.Second, time.Second, records)
}

// archiveWithin is archiveUntil with a limit, and with the age at which segments are closed.
func (o *office) archiveWithin(limit, age time.Duration, records int64) {
	o.t.Helper()
	cfg, err := settings.Load(o.config, settings.NeedKafka, settings.NeedArchive, settings.NeedArchiver)
	require.NoError(o.t, err)
	cfg.Archiver.Group, cfg.Archiver.SegmentAge = o.topic+".archiver", age
	cfg.Kafka.ResultsTopic = "off" // it is all tests'
	s, err := archiver.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(o.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	adm := kadm.NewClient(o.cl)
	require.True(o.t, await(o.t, limit, func() bool {
		p, err := committed(o.t.Context(), adm, cfg.Archiver.Group, o.topic)
		return err == nil && p.at[0] >= records
	}))
	cancel()
	require.NoError(o.t, <-done)
}

// overtake lets Kafka forget what lies before an offset.
func (o *office) overtake(offset int64) {
	o.t.Helper()
	var del kadm.Offsets
	del.Add(kadm.Offset{Topic: o.topic, Partition: 0, At: offset})
	_, err := kadm.NewClient(o.cl).DeleteRecords(o.t.Context(), del)
	require.NoError(o.t, err)
}

// R35: Kafka's retention overtakes the position. The partition halts; a backfill takes what is missing from the archive,
// once, and the processor goes on by itself. A hole in the archive stops the backfill, and nothing is skipped.
func TestR35Backfill(t *testing.T) {
	o := newOffice(t)
	o.exec(`CREATE TABLE ledger (event_id text)`)
	o.configure(`  - name: ledger
    on: {source: shop}
    sql: INSERT INTO ledger (event_id) VALUES (@id)
`)
	inGo := `  - {name: in-go, on: {source: shop}, handler: in-go}
`
	text, err := os.ReadFile(o.config)
	require.NoError(t, err)
	receive := func(from, n int) {
		for i := range n {
			o.receive(fmt.Sprintf("e%03d", from+i), "paid", fmt.Sprintf(`{"order":"o%d","v":1,"amount":1}`, from+i))
		}
	}
	receive(0, 10)
	o.eventually(10, `SELECT count(*)::int FROM ledger`)
	require.Contains(t, o.run(0, nil, "backfill"), "Nothing is missing")
	o.stop()
	receive(10, 40)
	require.NoError(t, o.cl.ProduceSync(t.Context(), &kgo.Record{Key: []byte("k"), Value: []byte("no delivery"), Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{0xff}}}}).FirstErr())
	o.receive("e011", "paid", `{"order":"o11","v":1,"amount":1}`) // a duplicate
	o.archiveUntil(52)
	receive(50, 10) // not archived
	o.overtake(52)
	o.restart()
	require.True(t, await(t, 60*time.Second, func() bool { return o.halted() != "" }), "the partition halts")
	require.Contains(t, o.status(), "Kafka has removed 42 records that it had not read: see docs/operations.md")
	require.Equal(t, 10, o.count(`SELECT count(*)::int FROM ledger`))

	segments, err := filepath.Glob(filepath.Join(o.archive[len("file://"):], "events", "*", "*.parquet"))
	require.NoError(t, err)
	require.NotEmpty(t, segments)
	last := segments[len(segments)-1]
	require.NoError(t, os.Rename(last, last+".away"))
	require.Contains(t, o.run(1, nil, "backfill"), "partition 0")
	require.NotEmpty(t, o.halted(), "it still halts")
	require.NoError(t, os.Rename(last+".away", last))

	// The tool does not have the processor's handlers in Go: their attempts wait for a processor that has them.
	require.NoError(t, os.WriteFile(o.config, append(text, inGo...), 0o600))
	require.Contains(t, o.run(1, nil, "operations", "try", "in-go", "--event", "e001"), "its handler in Go is not in this program")
	var ranges []object
	o.run(0, &ranges, "backfill", "--partition", "0", "--actor", "ann", "--reason", "the database was down for long")
	require.Len(t, ranges, 1)
	require.Equal(t, 52.0, ranges[0]["next"])
	o.eventually(60, `SELECT count(*)::int FROM ledger`) // the processor goes on
	require.Equal(t, 60, o.count(`SELECT count(DISTINCT event_id)::int FROM ledger`))
	require.Equal(t, 60, o.count(`SELECT count(*)::int FROM amounts`))
	require.Equal(t, 1, o.count(`SELECT count(*)::int FROM catchment.duplicates`))
	require.Equal(t, 40, o.count(`SELECT count(*)::int FROM catchment.retries WHERE operation = 'in-go'`))
	require.Equal(t, 1, o.count(`SELECT count(*)::int FROM catchment.dead_letters WHERE reason = 'undecodable' AND "offset" = 50 AND value = 'no delivery' AND headers->0->>'base64' = '/w=='`))
	require.Equal(t, 62, o.count(`SELECT next_offset::int FROM catchment.progress`))
	require.Equal(t, 42, o.count(`SELECT sum(affected)::int FROM catchment.actions WHERE command = 'backfill'`))
	require.True(t, await(t, 60*time.Second, func() bool { return o.halted() == "" }))
	require.Contains(t, o.run(0, nil, "backfill"), "Nothing is missing")

	o.stop() // what lies neither in Kafka nor in the archive
	receive(60, 5)
	o.overtake(65)
	require.Contains(t, o.run(1, nil, "backfill"), "not in the archive")
	require.Equal(t, 62, o.count(`SELECT next_offset::int FROM catchment.progress`))
}
