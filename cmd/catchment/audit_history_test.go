package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// producersTime lets the topic take the producer's times: a broker's clock cannot be set.
func (o *office) producersTime() {
	o.t.Helper()
	_, err := kadm.NewClient(o.cl).AlterTopicConfigs(o.t.Context(),
		[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: "message.timestamp.type", Value: kadm.StringPtr("CreateTime")}}, o.topic)
	require.NoError(o.t, err)
}

// came enqueues what was received at a time. A key of several events is a batch of SendGrid's.
func (o *office) came(at time.Time, source, id, body string) {
	o.t.Helper()
	d := &event.Delivery{
		Source: source, Provider: "stripe", ID: id, Type: "paid", Time: at, ReceivedAt: at, DeliveryID: uuid.Must(uuid.NewV7()).String(), SecretID: "k_1",
		Method: "POST", Path: "/webhooks/" + source, ContentType: "application/json", Verdict: event.NewVerdict(event.FlagVerified), Body: []byte(body),
	}
	if source == "mail" {
		d.Provider, d.Verdict = "sendgrid", event.NewVerdict(event.FlagVerified, event.FlagBatch)
	}
	r := event.Encode(d)
	r.Timestamp = at
	require.NoError(o.t, o.cl.ProduceSync(o.t.Context(), r).FirstErr())
}

// checkpointed lets an archiver run until there are so many checkpoints.
func (o *office) checkpointed(n int) {
	o.t.Helper()
	cfg, err := settings.Load(o.config, settings.NeedKafka, settings.NeedArchive, settings.NeedArchiver)
	require.NoError(o.t, err)
	cfg.Archiver.Group, cfg.Archiver.SegmentAge, cfg.Kafka.ResultsTopic = o.topic+".archiver", time.Second, "off"
	s, err := archiver.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(o.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	require.True(o.t, await(o.t, 60*time.Second, func() bool { return len(o.checkpointFiles()) >= n }))
	cancel()
	require.NoError(o.t, <-done)
}

func positionIs(n int) (int, string) {
	return n, `SELECT coalesce(sum(next_offset), 0)::int FROM catchment.progress`
}

// An audit after an erasure of days and of a single event is as whole as before, and still names what is taken away.
func TestAuditAfterErase(t *testing.T) {
	o := newOffice(t)
	o.encrypted()
	o.producersTime()
	today := time.Now().UTC().Truncate(24 * time.Hour)
	yesterday := today.Add(-12 * time.Hour)
	for i := range 5 {
		o.came(yesterday, "shop", fmt.Sprintf("e%d", i), fmt.Sprintf(`{"order":"o%d","v":1,"amount":1,"name":"%s"}`, i, secretBody))
	}
	o.came(yesterday, "shop", "e1", `{"order":"o1","v":1,"amount":1,"name":"`+secretBody+`"}`) // a repetition
	o.came(yesterday, "shop", "e2", `{"order":"o2","v":2,"amount":2,"name":"`+secretBody+`"}`) // a conflict
	o.came(yesterday, "mail", "k1", "["+element("m1", secretBody)+","+element("m2", secretBody)+"]")
	r := &kgo.Record{Value: []byte(secretBody), Timestamp: yesterday}
	require.NoError(t, o.cl.ProduceSync(t.Context(), r).FirstErr())
	o.came(time.Now(), "shop", "today", `{"order":"t","v":1,"amount":1,"name":"`+secretBody+`"}`)
	o.eventually(positionIs(10))
	o.checkpointed(2) // of two days
	o.stop()

	totals := func(args ...string) []any {
		report, faults := o.audited(0, args...)
		require.Empty(t, faults)
		n := report["total"].(object)
		return []any{n["archived"], n["identities"], n["repeats"], n["conflicts"], n["dead_letters"], n["sealed"]}
	}
	before := []any{10.0, 8.0, 1.0, 1.0, 1.0, 0.0}
	require.Equal(t, before, totals())
	for _, source := range []string{"shop", "mail", "_"} {
		o.run(0, nil, "erase", "--source", source, "--since", yesterday.Format(time.DateOnly), "--until", today.Format(time.DateOnly), "--yes", "--reason", "request 12")
	}
	o.run(0, nil, "erase", "--source", "shop", "--event", "today", "--yes", "--reason", "request 13")
	require.Equal(t, 0, o.count(`SELECT count(*)::int FROM catchment.bodies WHERE body <> ''`))
	after := []any{10.0, 6.0, 1.0, 1.0, 1.0, 1.0} // the batch cannot be taken apart any more
	for _, args := range [][]string{nil, {"--bodies"}, {"--since", "3d"}} {
		require.Equal(t, after, totals(args...), "%v", args)
	}
	require.Contains(t, o.run(0, nil, "archive", "verify"), "nothing was altered")
	for _, c := range []struct{ table, where, kind, id string }{
		{"identities", `event_id = 'e0'`, "missing identity", "e0"},
		{"duplicates", `event_id = 'e1'`, "missing repeat", "e1"},
		{"conflicts", `event_id = 'e2'`, "missing conflict", "e2"},
	} {
		o.exec(fmt.Sprintf(`CREATE TABLE kept AS SELECT * FROM catchment.%[1]s WHERE %[2]s; DELETE FROM catchment.%[1]s WHERE %[2]s`, c.table, c.where))
		_, faults := o.audited(1)
		require.Equal(t, []any{c.kind}, kinds(faults))
		require.Equal(t, c.id, faults[0]["event_id"])
		o.exec(fmt.Sprintf(`INSERT INTO catchment.%s OVERRIDING SYSTEM VALUE SELECT * FROM kept; DROP TABLE kept`, c.table))
	}
	o.exec(`DELETE FROM catchment.dead_letters`) // of a record that cannot be read any more: nobody can tell
	after[4], after[5] = 0.0, 2.0
	require.Equal(t, after, totals())
}

// Offsets that neither the archive nor Kafka has are lost until somebody says so; from then on they are counted, and what lies
// on either side of them is still held.
func TestAuditAcrossGap(t *testing.T) {
	o := newOffice(t)
	paid := func(id string) { o.receive(id, "paid", `{"order":"`+id+`","v":1,"amount":1}`) }
	for i := range 5 {
		paid(fmt.Sprintf("e%d", i))
	}
	o.archiveUntil(5)
	for i := range 4 { // processed, and overtaken before they are archived
		paid(fmt.Sprintf("g%d", i))
	}
	paid("e1") // a repetition, in the gap
	o.eventually(positionIs(10))
	o.overtake(10)
	paid("e5")
	paid("g1") // a repetition of what is lost
	o.eventually(positionIs(12))
	o.stop()
	report, faults := o.audited(1)
	require.Equal(t, []any{"lost"}, kinds(faults))
	require.Equal(t, []any{5.0, 9.0}, []any{faults[0]["offset"], faults[0]["last_offset"]})
	require.Equal(t, false, report["ok"])
	require.Contains(t, faults[0]["do"], "catchment archive gap")

	o.run(0, nil, "archive", "gap", "--partition", "0", "--reason", "the bucket was away", "--yes")
	o.archiveUntil(12)
	report, faults = o.audited(0)
	require.Empty(t, faults)
	total := report["total"].(object)
	require.Equal(t, []any{7.0, 5.0, 6.0}, []any{total["archived"], total["admitted"], total["identities"]}, "%v", total)
	require.Contains(t, o.run(0, nil, "audit"), "5 offsets are in gaps that were admitted")
	o.audited(0, "--since", "1h")
	o.exec(`DELETE FROM catchment.identities WHERE event_id IN ('e0', 'e5')`)
	_, faults = o.audited(1)
	require.Equal(t, []any{"missing identity", "missing identity"}, kinds(faults))
	require.Equal(t, []any{"e0", "e5"}, []any{faults[0]["event_id"], faults[1]["event_id"]})

	gap := o.checkpointFiles()[1]
	object, err := os.ReadFile(gap)
	require.NoError(t, err)
	require.NoError(t, os.Remove(gap))
	_, faults = o.audited(1)
	require.Contains(t, kinds(faults), "missing checkpoint", "what was admitted is no hole only as long as that stands there")
	require.NoError(t, os.WriteFile(gap, object, 0o600))
}

// A topic that was deleted and made again has new offsets. The archive holds both incarnations, and both are audited.
func TestAuditTopicMadeAnew(t *testing.T) {
	o := newOffice(t)
	paid := func(id string, v int) { o.receive(id, "paid", fmt.Sprintf(`{"order":"%s","v":%d,"amount":1}`, id, v)) }
	for i := range 5 {
		paid(fmt.Sprintf("e%d", i), 1)
	}
	o.eventually(positionIs(5))
	o.checkpointed(1)
	o.stop()
	adm := kadm.NewClient(o.cl)
	_, err := adm.DeleteTopic(t.Context(), o.topic)
	require.NoError(t, err)
	require.True(t, await(t, 60*time.Second, func() bool { _, err := adm.CreateTopic(t.Context(), 1, 3, nil, o.topic); return err == nil }))
	report, _ := o.audited(0)
	require.Equal(t, 5.0, report["total"].(object)["identities"], "%v", report)

	o.cl = o.cluster.Client(t, kgo.DefaultProduceTopic(o.topic), kgo.UnknownTopicRetries(-1))
	o.restart()
	paid("e0", 1) // a repetition of the other incarnation
	paid("e1", 2) // and a conflict
	paid("n0", 1)
	o.eventually(positionIs(8))
	report, _ = o.audited(0) // those three are in Kafka only
	require.Equal(t, []any{5.0, 3.0}, []any{report["total"].(object)["archived"], report["total"].(object)["only_in_kafka"]})
	o.checkpointed(2)
	o.stop()
	report, _ = o.audited(0)
	require.Len(t, report["partitions"], 2)
	total := report["total"].(object)
	require.Equal(t, []any{8.0, 6.0, 1.0, 1.0, 0.0}, []any{total["archived"], total["identities"], total["repeats"], total["conflicts"], total["pending"]}, "%v", total)
	ids := map[any]any{} // of the topic, by whether it is gone
	for _, p := range report["partitions"].([]any) {
		ids[p.(object)["gone"]] = p.(object)["topic_id"]
	}
	require.Len(t, ids, 2)
	for _, c := range []struct {
		table, id, kind string
		gone            bool
		offset          float64
	}{
		{"identities", "e3", "missing identity", true, 3},
		{"identities", "n0", "missing identity", false, 2},
		{"duplicates", "e0", "missing repeat", false, 0},
		{"conflicts", "e1", "missing conflict", false, 1},
	} {
		o.exec(fmt.Sprintf(`CREATE TABLE kept AS SELECT * FROM catchment.%[1]s WHERE event_id = '%[2]s'; DELETE FROM catchment.%[1]s WHERE event_id = '%[2]s'`, c.table, c.id))
		_, faults := o.audited(1)
		require.Equal(t, []any{c.kind}, kinds(faults))
		require.Equal(t, []any{c.id, ids[c.gone], c.offset}, []any{faults[0]["event_id"], faults[0]["topic_id"], faults[0]["offset"]})
		o.exec(fmt.Sprintf(`INSERT INTO catchment.%s OVERRIDING SYSTEM VALUE SELECT * FROM kept; DROP TABLE kept`, c.table))
	}
	for _, file := range o.segmentFiles() { // one of each
		away := filepath.Join(t.TempDir(), "away")
		require.NoError(t, os.Rename(file, away))
		_, faults := o.audited(1)
		require.Equal(t, []any{"missing segment"}, kinds(faults))
		require.Equal(t, o.key(file), faults[0]["object"])
		require.NoError(t, os.Rename(away, file))
	}
	o.audited(0)
}
