package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
)

// receiveBatch enqueues a delivery with several events of SendGrid's form.
func (o *office) receiveBatch(key string, elements ...string) {
	o.t.Helper()
	d := &event.Delivery{
		Source: "mail", Provider: "sendgrid", ID: key, Time: time.Now().UTC(), ReceivedAt: time.Now().UTC(), DeliveryID: uuid.Must(uuid.NewV7()).String(),
		SecretID: "k_1", Method: "POST", Path: "/webhooks/mail", ContentType: "application/json",
		Verdict: event.NewVerdict(event.FlagVerified, event.FlagBatch), Body: []byte("[" + strings.Join(elements, ",") + "]"),
	}
	require.NoError(o.t, o.cl.ProduceSync(o.t.Context(), event.Encode(d)).FirstErr())
}

func element(id, who string) string {
	return fmt.Sprintf(`{"sg_event_id":%q,"event":"open","who":%q}`, id, who)
}

// store fills database and archive with a record of each kind, in several segments. It returns how many records there are.
func (o *office) store() int {
	o.t.Helper()
	o.configure(`  - {name: fussy, on: {source: shop}, retry: {max_attempts: 1}, entity: body.nothing, version: time, sql: SELECT 1}
`)
	offsets := 0
	step := func(f func(), n int) { f(); offsets += n }
	paid := func(id string, v int) func() {
		return func() { o.receive(id, "paid", fmt.Sprintf(`{"order":"%s","v":%d,"amount":1}`, id, v)) }
	}
	for i := range 5 {
		step(paid(fmt.Sprintf("e%d", i), 1), 1)
	}
	o.archiveUntil(int64(offsets))
	step(paid("e1", 1), 1) // a repetition
	step(paid("e2", 2), 1) // a conflict
	step(func() { o.receiveBatch("k1", element("m1", "ann"), element("m2", "bob"), `{"event":"click"}`) }, 1)
	step(func() {
		o.receiveBatch("k2", element("m2", "bob"), element("m1", "eve"), element("m3", "bob"), element("m3", "bob"), element("m3", "eve"))
	}, 1)
	step(func() {
		require.NoError(o.t, o.cl.ProduceSync(o.t.Context(), &kgo.Record{Key: []byte("k"), Value: []byte("no delivery")}).FirstErr())
	}, 1)
	o.archiveUntil(int64(offsets))
	step(paid("e5", 1), 1)
	step(func() { o.receive("refused", "paid", `{"order":"a","v":1,"amount":-1}`) }, 1)
	o.archiveUntil(int64(offsets))
	o.eventually(offsets, `SELECT next_offset::int FROM catchment.progress`)
	return offsets
}

// segmentFiles are the archive's segments in the order of their offsets.
func (o *office) segmentFiles() []string {
	o.t.Helper()
	files, err := filepath.Glob(filepath.Join(o.archive[len("file://"):], "events", "*", "*.parquet"))
	require.NoError(o.t, err)
	return files
}

func (o *office) checkpointFiles() []string {
	o.t.Helper()
	files, err := filepath.Glob(filepath.Join(o.archive[len("file://"):], "checkpoints", "*", "*"))
	require.NoError(o.t, err)
	return files
}

// audited is what an audit that ends with the code says.
func (o *office) audited(code int, args ...string) (report object, faults []object) {
	o.t.Helper()
	o.run(code, &report, append([]string{"audit"}, args...)...)
	for _, f := range report["faults"].([]any) {
		faults = append(faults, f.(object))
	}
	return report, faults
}

// TestAudit wants the audit to find everything whole, then each thing that is taken away, changed or added, by its name.
func TestAudit(t *testing.T) {
	o := newOffice(t)
	n := o.store()
	o.receive("young", "paid", `{"order":"y","v":1,"amount":1}`) // not archived: pending, and no fault
	o.eventually(n+1, `SELECT next_offset::int FROM catchment.progress`)
	report, _ := o.audited(0)
	total := report["total"].(object)
	require.Equal(t, []any{true, float64(n), 1.0, 12.0, 3.0, 3.0, 1.0, 1.0, 0.0}, []any{
		report["ok"], total["archived"], total["only_in_kafka"], total["identities"], total["repeats"], total["conflicts"], total["dead_letters"], total["pending"], total["faults"],
	}, "%v", report)
	require.Contains(t, o.run(0, nil, "audit", "--bodies"), "whole")
	require.Contains(t, o.run(0, nil, "audit", "--since", "1h"), "whole")
	require.Contains(t, o.run(0, nil, "audit", "--partition", "0"), "not looked at: whether each identity is of a delivery")
	require.Contains(t, o.run(1, nil, "audit", "--pending-after", "1ms"), "FAULT not archived: "+o.topic+fmt.Sprintf(" partition 0 offset %d, the oldest waits", n))
	require.Contains(t, o.run(2, nil, "audit", "--since", "yesterday"), "--since")
	require.Contains(t, o.run(2, nil, "audit", "--limit", "0"), "--limit")
	o.archiveUntil(int64(n + 1))
	o.stop()

	move := func(from, to string) func() {
		return func() {
			require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
			require.NoError(t, os.Rename(from, to))
		}
	}
	segments, checkpoints := o.segmentFiles(), o.checkpointFiles()
	require.GreaterOrEqual(t, len(segments), 4)
	require.Len(t, checkpoints, len(segments))
	away := filepath.Join(t.TempDir(), "away")
	double := func(path string) (do, undo func()) {
		return func() {
			b, err := os.ReadFile(segments[1])
			require.NoError(t, err)
			require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
			require.NoError(t, os.WriteFile(path, b, 0o600))
		}, func() { require.NoError(t, os.Remove(path)) }
	}
	sql := func(do, undo string) func() (func(), func()) {
		return func() (func(), func()) { return func() { o.exec(do) }, func() { o.exec(undo) } }
	}
	taken := func(table, where string) func() (func(), func()) {
		return sql(fmt.Sprintf(`CREATE TABLE kept AS SELECT * FROM catchment.%[1]s WHERE %[2]s; DELETE FROM catchment.%[1]s WHERE %[2]s`, table, where),
			fmt.Sprintf(`INSERT INTO catchment.%s OVERRIDING SYSTEM VALUE SELECT * FROM kept; DROP TABLE kept`, table))
	}
	files := func(do, undo func()) func() (func(), func()) { return func() (func(), func()) { return do, undo } }
	changed := func(path string) (do, undo func()) {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		return func() { require.NoError(t, os.WriteFile(path, append([]byte("x"), b...), 0o600)) },
			func() { require.NoError(t, os.WriteFile(path, b, 0o600)) }
	}
	changeSegment, mendSegment := changed(segments[1])
	twin, noTwin := double(filepath.Join(filepath.Dir(filepath.Dir(segments[1])), "date=2020-01-02", filepath.Base(segments[1])))
	overlap, noOverlap := double(strings.Replace(segments[1], fmt.Sprintf("%020d.parquet", 5), fmt.Sprintf("%020d.parquet", 6), 1))
	for _, c := range []struct {
		name string
		how  func() (do, undo func())
		kind string
		want map[string]any
	}{
		{"identity of a single event", taken("identities", `event_id = 'e0'`), "missing identity", object{"source": "shop", "event_id": "e0", "offset": 0.0}},
		{"identity of a part", taken("identities", `event_id = 'm3'`), "missing identity", object{"source": "mail", "event_id": "m3", "offset": 8.0}},
		{"identity of a part without an ID", taken("identities", `event_id = 'k1/2'`), "missing identity", object{"event_id": "k1/2", "offset": 7.0}},
		{"repetition", taken("duplicates", `event_id = 'e1'`), "missing repeat", object{"event_id": "e1", "offset": 5.0}},
		{"conflict", taken("conflicts", `event_id = 'e2'`), "missing conflict", object{"source": "shop", "event_id": "e2", "offset": 6.0}},
		{"conflict of a part", taken("conflicts", `event_id = 'm1'`), "missing conflict", object{"event_id": "m1", "offset": 8.0}},
		{"conflict within a delivery", taken("conflicts", `event_id = 'm3'`), "missing conflict", object{"event_id": "m3", "offset": 8.0}},
		{"dead letter of a record", taken("dead_letters", `reason = 'undecodable'`), "missing dead letter", object{"offset": 9.0, "partition": 0.0}},
		{"dead letter of an operation", taken("dead_letters", `event_id = 'refused' AND operation = 'amounts'`), "missing dead letter", object{"event_id": "refused", "operation": "amounts"}},
		{"digest of an identity", sql(`UPDATE catchment.identities SET body_sha256 = sha256(body_sha256) WHERE event_id = 'e0'`,
			`UPDATE catchment.identities i SET body_sha256 = b.body_sha256 FROM catchment.bodies b WHERE b.event_id = 'e0' AND i.event_id = 'e0'`), "altered identity", object{"event_id": "e0", "offset": 0.0}},
		{"digest of a conflict", sql(`UPDATE catchment.conflicts SET body_sha256 = sha256(body_sha256) WHERE event_id = 'e2'`,
			`UPDATE catchment.conflicts SET body_sha256 = sha256(body) WHERE event_id = 'e2'`), "altered conflict", object{"event_id": "e2", "offset": 6.0}},
		{"delivery of an identity", sql(`UPDATE catchment.identities SET delivery_id = 'ffffffff-0000-7000-8000-000000000000' WHERE event_id = 'e0'`,
			`UPDATE catchment.identities i SET delivery_id = b.delivery_id FROM catchment.bodies b WHERE b.event_id = 'e0' AND i.event_id = 'e0'`), "invented identity", object{"event_id": "e0"}},
		{"invented identity", sql(`INSERT INTO catchment.identities VALUES ('shop', 'nobody', 'x', now(), gen_random_uuid())`,
			`DELETE FROM catchment.identities WHERE event_id = 'nobody'`), "invented identity", object{"source": "shop", "event_id": "nobody"}},
		{"invented conflict", sql(`INSERT INTO catchment.conflicts SELECT source, event_id, delivery_id, received_at, body, body_sha256, headers, topic, topic_id, partition, 4, seen_at, delivery_index FROM catchment.conflicts WHERE event_id = 'e2'`,
			`DELETE FROM catchment.conflicts WHERE "offset" = 4`), "invented row", object{"event_id": "e2", "offset": 4.0}},
		{"repetition of another partition", sql(`INSERT INTO catchment.duplicates SELECT source, event_id, delivery_id, received_at, seen_at, topic, topic_id, 77, "offset", delivery_index FROM catchment.duplicates WHERE event_id = 'e1'`,
			`DELETE FROM catchment.duplicates WHERE partition = 77`), "invented row", object{"event_id": "e1", "partition": 77.0}},
		{"dead letter behind the log", sql(`INSERT INTO catchment.dead_letters (reason, error, attempts, first_failed_at, last_failed_at, topic, topic_id, partition, "offset")
			SELECT 'undecodable', 'x', 1, now(), now(), topic, topic_id, partition, 500 FROM catchment.progress`, `DELETE FROM catchment.dead_letters WHERE "offset" = 500`), "invented row", object{"offset": 500.0}},
		{"position behind", sql(`UPDATE catchment.progress SET next_offset = next_offset - 3`, `UPDATE catchment.progress SET next_offset = next_offset + 3`), "wrong position", object{"event_id": "e5"}},
		{"position ahead", sql(`UPDATE catchment.progress SET next_offset = next_offset + 1`, `UPDATE catchment.progress SET next_offset = next_offset - 1`), "wrong position", object{"offset": float64(n + 2)}},
		{"no position", taken("progress", `true`), "wrong position", object{"event_id": "e0"}},
		{"segment", files(move(segments[1], away), move(away, segments[1])), "missing segment", object{"offset": 5.0, "last_offset": 9.0, "object": o.key(segments[1])}},
		{"last segment", files(move(segments[3], away), move(away, segments[3])), "missing segment", object{"offset": float64(n), "object": o.key(segments[3])}},
		{"changed segment", files(changeSegment, mendSegment), "damaged segment", object{"offset": 5.0, "last_offset": 9.0, "object": o.key(segments[1])}},
		{"checkpoint", files(move(checkpoints[1], away), move(away, checkpoints[1])), "missing checkpoint", object{"offset": 5.0, "last_offset": 9.0, "object": o.key(checkpoints[1])}},
		{"first checkpoint", files(move(checkpoints[0], away), move(away, checkpoints[0])), "missing checkpoint", object{"offset": 0.0, "last_offset": 4.0, "object": o.key(checkpoints[0])}},
		{"last checkpoint", files(move(checkpoints[3], away), move(away, checkpoints[3])), "not archived", object{"offset": float64(n)}},
		{"segment of another day", files(twin, noTwin), "doubled segment", object{"offset": 5.0}},
		{"overlapping segment", files(overlap, noOverlap), "doubled segment", object{"offset": 6.0}},
		{"strange object", files(func() {
			require.NoError(t, os.WriteFile(filepath.Join(filepath.Dir(segments[1]), "x.parquet"), nil, 0o600))
		},
			func() { require.NoError(t, os.Remove(filepath.Join(filepath.Dir(segments[1]), "x.parquet"))) }), "foreign object", object{}},
	} {
		do, undo := c.how()
		do()
		args := []string{}
		if c.kind == "not archived" {
			args = append(args, "--pending-after", "1ms")
		}
		_, faults := o.audited(1, args...)
		found := false
		for _, f := range faults {
			match := f["kind"] == c.kind
			for k, v := range c.want {
				match = match && f[k] == v
			}
			found = found || match
		}
		require.True(t, found, "%s: expected %s %v, found %v", c.name, c.kind, c.want, faults)
		require.LessOrEqual(t, len(faults), 4, "%s: %v", c.name, faults)
		t.Logf("%s: %d faults: %v", c.name, len(faults), kinds(faults))
		undo()
		_, faults = o.audited(0)
		require.Empty(t, faults, c.name)
	}
}

func kinds(faults []object) (out []any) {
	for _, f := range faults {
		out = append(out, f["kind"])
	}
	return out
}

// key is a file's key in the archive.
func (o *office) key(path string) string {
	o.t.Helper()
	key, err := filepath.Rel(o.archive[len("file://"):], path)
	require.NoError(o.t, err)
	return filepath.ToSlash(key)
}

// TestAuditUnderLoad audits again and again while events come in and each service is killed and started again: nothing is
// ever called a fault that only waits its turn. The segments lie in S3, and the audit's role may only read.
func TestAuditUnderLoad(t *testing.T) {
	d := deploy(t)
	services := []string{"ingress", "processor", "archiver"}
	for _, s := range services {
		d.start(s)
	}
	for _, s := range services {
		d.ready(s)
	}
	sent := d.send(0, 5)
	config := d.reader()
	over, ended := make(chan struct{}), make(chan struct{})
	var wrong []string
	runs := 0
	go func() {
		defer close(ended)
		for {
			if code, out, errs := tool(t, "audit", "--config", config); code != 0 {
				wrong = append(wrong, out+errs)
			}
			runs++
			select {
			case <-over:
				return
			default:
			}
		}
	}()
	rounds := 6
	if d.cluster.Fake() != nil { // kfake never notices that a member is dead which died while it waited for another dead one
		rounds = len(services)
	}
	for round := range rounds {
		for id, body := range d.send(100*(round+1), 30) {
			sent[id] = body
		}
		service := services[round%len(services)]
		require.NoError(t, d.running[service].Process.Kill())
		_ = d.running[service].Wait()
		if service != "ingress" {
			for id, body := range d.send(100*(round+1)+50, 10) {
				sent[id] = body
			}
		}
		d.start(service)
		d.ready("ingress")
	}
	d.requireEverywhere(sent)
	close(over)
	<-ended
	require.Empty(t, wrong)
	require.Greater(t, runs, 6)
	t.Logf("%d audits, %d events", runs, len(sent))

	var report object
	require.True(t, await(t, 60*time.Second, func() bool {
		code, out, errs := tool(t, "audit", "--config", config, "--output", "json")
		require.Equal(t, 0, code, "%s%s", out, errs)
		require.NoError(t, json.Unmarshal([]byte(out), &report))
		return report["total"].(object)["pending"] == 0.0
	}), "%v", report)
	require.EqualValues(t, len(sent), report["total"].(object)["identities"])
	d.query(`DELETE FROM catchment.identities WHERE event_id = (SELECT min(event_id) FROM catchment.identities)`)
	code, out, errs := tool(t, "audit", "--config", config)
	require.Equal(t, 1, code, "%s%s", out, errs)
	require.Contains(t, out, "FAULT missing identity: event "+slices.Min(slices.Collect(maps.Keys(sent)))+" of source stripe")
}

// reader writes a configuration whose role may read the schema and nothing else.
func (d *deployment) reader() string {
	d.t.Helper()
	role := fmt.Sprintf("auditor_%d", os.Getpid())
	for _, sql := range []string{
		`CREATE ROLE ` + role + ` LOGIN PASSWORD 'reads'`,
		`GRANT USAGE ON SCHEMA catchment TO ` + role,
		`GRANT SELECT ON ALL TABLES IN SCHEMA catchment TO ` + role,
	} {
		d.query(sql)
	}
	d.t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), d.cfg.Postgres.URL.Reveal())
		require.NoError(d.t, err)
		_, err = conn.Exec(context.Background(), `DROP OWNED BY `+role+`; DROP ROLE `+role)
		require.NoError(d.t, errors.Join(err, conn.Close(context.Background())))
	})
	text, err := os.ReadFile(d.path)
	require.NoError(d.t, err)
	u, err := url.Parse(d.cfg.Postgres.URL.Reveal())
	require.NoError(d.t, err)
	own := u.String()
	u.User = url.UserPassword(role, "reads")
	path := filepath.Join(d.t.TempDir(), "catchment.yaml")
	changed := strings.Replace(string(text), own, u.String(), 1)
	require.NotEqual(d.t, string(text), changed)
	require.NoError(d.t, os.WriteFile(path, []byte(changed), 0o600))
	return path
}

// TestAuditSealed audits an archive whose bodies are encrypted: with the keys as any other, without them as far as the
// columns go that are not sealed.
func TestAuditSealed(t *testing.T) {
	o := newOffice(t)
	plain, err := os.ReadFile(o.config)
	require.NoError(t, err)
	url := fmt.Sprintf("{url: %q}", o.archive)
	sealed := strings.Replace(string(plain), url, fmt.Sprintf("{url: %q, encryption: {keys_url: %q, master_key: %q}}", o.archive, "file://"+t.TempDir(), base64.StdEncoding.EncodeToString(make([]byte, 32))), 1)
	require.NotEqual(t, string(plain), sealed)
	require.NoError(t, os.WriteFile(o.config, []byte(sealed), 0o600))
	o.receive("e0", "paid", `{"order":"a","v":1,"amount":1}`)
	o.receiveBatch("k1", element("m1", "ann"), element("m2", "bob"))
	require.NoError(t, o.cl.ProduceSync(t.Context(), &kgo.Record{Key: []byte("k"), Value: []byte("no delivery")}).FirstErr())
	o.archiveUntil(3)
	o.eventually(3, `SELECT next_offset::int FROM catchment.progress`)
	for _, args := range [][]string{nil, {"--bodies"}} {
		report, _ := o.audited(0, args...)
		total := report["total"].(object)
		require.Equal(t, []any{3.0, 3.0, 1.0, 0.0}, []any{total["archived"], total["identities"], total["dead_letters"], total["sealed"]})
	}
	require.NoError(t, os.WriteFile(o.config, plain, 0o600))
	report, _ := o.audited(0)
	total := report["total"].(object)
	require.Equal(t, []any{3.0, 1.0, 1.0, 1.0}, []any{total["archived"], total["identities"], total["dead_letters"], total["sealed"]})
	o.exec(`DELETE FROM catchment.identities WHERE event_id = 'e0'`)
	_, faults := o.audited(1)
	require.Equal(t, []any{"missing identity"}, kinds(faults))
	require.NoError(t, os.WriteFile(o.config, []byte(sealed), 0o600))
	o.exec(`DELETE FROM catchment.identities WHERE event_id = 'm2'`)
	_, faults = o.audited(1)
	require.Equal(t, []any{"missing identity", "missing identity"}, kinds(faults))
}
