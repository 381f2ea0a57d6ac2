package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
)

const desk = `
kafka: {brokers: ["%s"], topic: %s, create_topic: false}
postgres: {url: "%s"}
ingress: {ops_listen: "127.0.0.1:1"}
processor: {group: "%[2]s.processor", ops_listen: "127.0.0.1:1"}
archiver: {ops_listen: "127.0.0.1:1"}
archive: {url: "%[4]s"}
sources:
  shop: {provider: stripe, secrets: ["${A_SECRET_THAT_THE_TOOL_NEED_NOT_HAVE}"]}
operations:
  - name: amounts
    on: {source: shop, types: [paid]}
    entity: body.order
    version: body.v
    retry: {max_attempts: 1}
    sql: INSERT INTO amounts (id, amount) VALUES (@id, @amount)
    params: {amount: body.amount}
`

const deskLater = `  - name: totals
    on: {source: shop}
    when: type != "ignored"
    sql:
      - INSERT INTO totals (id) VALUES (@id)
      - UPDATE totals SET seen = true WHERE id = @id RETURNING seen
`

// office is a processor, its database, and the configuration with which the tool is called.
type office struct {
	t       testing.TB
	cluster *kafkatest.Cluster
	topic   string
	url     string
	archive string
	config  string
	db      *pgx.Conn
	cl      *kgo.Client
	service *processor.Service
	stop    func()
}

func newOffice(t testing.TB) *office {
	t.Helper()
	o := &office{t: t, cluster: kafkatest.New(t), url: pgtest.New(t), archive: "file://" + t.TempDir()}
	o.topic = o.cluster.Topic(t, 1)
	require.NoError(t, processor.Migrate(t.Context(), o.url))
	var err error
	o.db, err = pgx.Connect(t.Context(), o.url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = o.db.Close(context.Background()) })
	o.exec(`CREATE TABLE amounts (id text, amount int CONSTRAINT positive CHECK (amount >= 0))`)
	o.exec(`CREATE TABLE totals (id text, seen boolean)`)
	o.cl = o.cluster.Client(t, kgo.DefaultProduceTopic(o.topic))
	o.configure("")
	return o
}

// configure writes the configuration, with more operations, and starts the processor anew.
func (o *office) configure(more string) {
	o.t.Helper()
	o.config = writeConfig(o.t, fmt.Sprintf(desk, strings.Join(o.cluster.Brokers, `", "`), o.topic, o.url, o.archive)+more)
	o.restart()
}

func (o *office) restart() {
	o.t.Helper()
	if o.stop != nil {
		o.stop()
	}
	cfg, err := settings.Load(o.config, settings.NeedKafka, settings.NeedProcessor, settings.NeedPostgres, settings.NeedOperations)
	require.NoError(o.t, err)
	p, err := processor.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.NoError(o.t, err)
	o.service = p
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	stopped := false
	o.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(o.t, <-done)
		}
	}
	o.t.Cleanup(o.stop)
}

// halted says why the partition stands; empty: it does not.
func (o *office) halted() string {
	if err := o.service.Ready(); err != nil && strings.Contains(err.Error(), "is halted") {
		return err.Error()
	}
	return ""
}

func (o *office) exec(sql string, args ...any) {
	o.t.Helper()
	_, err := o.db.Exec(context.Background(), sql, args...)
	require.NoError(o.t, err, sql)
}

func (o *office) count(sql string) (n int) {
	o.t.Helper()
	require.NoError(o.t, o.db.QueryRow(context.Background(), sql).Scan(&n), sql)
	return n
}

func (o *office) eventually(want int, sql string) {
	o.t.Helper()
	got := -1
	require.True(o.t, await(o.t, 60*time.Second, func() bool { got = o.count(sql); return got == want }), "expected %d, found %d: %s", want, got, sql)
}

func (o *office) receive(id, typ, body string) {
	o.t.Helper()
	d := &event.Delivery{
		Source: "shop", Provider: "stripe", ID: id, Type: typ, Time: time.Now().UTC(), ReceivedAt: time.Now().UTC(), DeliveryID: uuid.Must(uuid.NewV7()).String(),
		SecretID: "k_1", Method: "POST", Path: "/webhooks/shop", ContentType: "application/json", Verdict: event.NewVerdict(event.FlagVerified), Body: []byte(body),
	}
	require.NoError(o.t, o.cl.ProduceSync(o.t.Context(), event.Encode(d)).FirstErr())
}

// run calls the tool, wants an exit code, and returns what it says as JSON, when into is given, or else its standard error.
func (o *office) run(code int, into any, args ...string) string {
	o.t.Helper()
	args = append(args, "--config", o.config)
	if into != nil {
		args = append(args, "--output", "json")
	}
	got, stdout, stderr := tool(o.t, args...)
	require.Equal(o.t, code, got, "%v\n%s\n%s", args, stdout, stderr)
	if into != nil {
		require.NoError(o.t, json.Unmarshal([]byte(stdout), into), stdout)
		return stderr
	}
	return stdout + stderr
}

// status is the page of that name; whether the topic is safe, and so the exit code, is up to the test's Kafka.
func (o *office) status() string {
	o.t.Helper()
	_, stdout, _ := tool(o.t, "status", "--config", o.config)
	return stdout
}

type object = map[string]any

// TestDeadLettersByTool lists, shows and redrives dead letters.
func TestDeadLettersByTool(t *testing.T) {
	o := newOffice(t)
	o.receive("good", "paid", `{"order":"a","v":1,"amount":5}`)
	o.receive("bad-1", "paid", `{"order":"b","v":1,"amount":-5}`)
	o.receive("bad-2", "paid", `{"order":"c","v":1,"amount":-6}`)
	require.NoError(t, o.cl.ProduceSync(t.Context(), &kgo.Record{Key: []byte("k"), Value: []byte("no delivery")}).FirstErr())
	o.eventually(3, `SELECT count(*)::int FROM catchment.dead_letters`)

	var letters []object
	o.run(0, &letters, "dead-letters", "list")
	require.Len(t, letters, 3)
	o.run(0, &letters, "dead-letters", "list", "--limit", "2")
	require.Len(t, letters, 2)
	o.run(0, &letters, "dead-letters", "list", "--before", fmt.Sprint(letters[1]["id"]))
	require.Len(t, letters, 1)
	require.Equal(t, "bad-1", letters[0]["event_id"])
	o.run(0, &letters, "dead-letters", "list", "--type", "pa*", "--failure", "refused", "--operation", "amounts", "--source", "shop", "--id", "bad-2", "--since", "1h")
	require.Len(t, letters, 1)
	require.Contains(t, letters[0]["error"], "positive")
	o.run(0, &letters, "dead-letters", "list", "--reason", "undecodable")
	require.Len(t, letters, 1)
	id := fmt.Sprint(letters[0]["id"])
	require.NotContains(t, o.run(0, nil, "dead-letters", "show", id), "no delivery")
	require.Equal(t, 0, o.count(`SELECT count(*)::int FROM catchment.actions`))
	require.Contains(t, o.run(0, nil, "dead-letters", "show", id, "--payload", "--actor", "ann", "--reason", "a ticket"), "no delivery")
	require.Equal(t, 1, o.count(`SELECT count(*)::int FROM catchment.actions WHERE command = 'dead-letters show' AND actor = 'ann' AND reason = 'a ticket'`))
	require.Contains(t, o.run(1, nil, "dead-letters", "show", "99999"), "there is no dead letter 99999")

	require.Contains(t, o.run(2, nil, "dead-letters", "redrive", "--rate", "-1"), "--rate")
	require.Contains(t, o.run(2, nil, "dead-letters", "redrive"), "Try 3 dead letters once more? There is no terminal to answer at: add --yes")
	missing := o.run(2, nil, "dead-letters", "redrive", "--id", "bad-1", "--id", "nope")
	require.Contains(t, missing, `No dead letter of event "nope" fits.`)
	require.Contains(t, missing, "Try 1 dead letters once more?")
	require.NotContains(t, missing, `"bad-1"`)
	require.Contains(t, o.run(0, nil, "dead-letters", "redrive", "--letter", "99999"), "No dead letter 99999 fits.")
	require.Equal(t, 0, o.count(`SELECT count(*)::int FROM catchment.jobs`))
	o.exec(`ALTER TABLE amounts DROP CONSTRAINT positive`)
	var job object
	stderr := o.run(1, &job, "dead-letters", "redrive", "--yes", "--wait", "--reason", "the constraint is gone")
	require.Contains(t, stderr, "1 attempts failed: `catchment dead-letters list`")
	require.Equal(t, []any{"done", 2.0, 1.0, 3.0}, []any{job["state"], job["succeeded"], job["dead"], job["expected"]})
	require.Equal(t, 3, o.count(`SELECT count(*)::int FROM amounts`))
	require.Equal(t, 3, o.count(`SELECT affected::int FROM catchment.actions WHERE command = 'dead-letters redrive' AND reason = 'the constraint is gone'`))
	o.run(0, &letters, "dead-letters", "list")
	require.Len(t, letters, 1)
	require.Contains(t, o.run(0, nil, "dead-letters", "redrive", "--operation", "amounts"), "nothing to do")
	require.Contains(t, o.run(0, nil, "jobs", "list", "--all"), "redrive")
}

// TestOperationsByTool pauses, resumes and tries operations; status names what stands.
func TestOperationsByTool(t *testing.T) {
	o := newOffice(t)
	o.receive("first", "paid", `{"order":"a","v":1,"amount":5}`)
	o.eventually(1, `SELECT count(*)::int FROM amounts`)
	state := func() (operations []object) { o.run(0, &operations, "operations", "list"); return operations }
	require.Equal(t, []any{"active", 1.0}, []any{state()[0]["state"], state()[0]["outcomes"].(object)["succeeded"]})
	require.Contains(t, o.run(2, nil, "operations", "pause", "amount"), "expected one of amounts")
	require.Contains(t, o.run(0, nil, "operations", "pause", "amounts", "--reason", "a migration"), "paused")
	require.Contains(t, o.run(0, nil, "operations", "pause", "amounts"), "was paused already")
	o.restart() // sees it at once
	o.receive("second", "paid", `{"order":"a","v":2,"amount":6}`)
	o.eventually(1, `SELECT count(*)::int FROM catchment.events WHERE status = 'deferred'`)
	require.Equal(t, []any{"paused", 1.0}, []any{state()[0]["state"], state()[0]["pending"]})
	page := o.status()
	require.Contains(t, page, "amounts is paused since")
	require.Contains(t, page, "1 of amounts wait until it is resumed")

	var trial object
	o.run(0, &trial, "operations", "try", "amounts", "--event", "second")
	require.Equal(t, []any{"succeeded", "a", "2", "6", "newer than what event first of shop has written"},
		[]any{trial["outcome"], trial["entity"], trial["version"], trial["params"].(object)["amount"], trial["decision"]})
	require.Equal(t, []any{object{"sql": "INSERT INTO amounts (id, amount) VALUES (@id, @amount)", "rows_affected": 1.0, "rows": []any{object{"id": "second", "amount": 6.0}}}}, trial["statements"])
	require.Equal(t, 1, o.count(`SELECT count(*)::int FROM amounts`))
	require.Contains(t, o.run(0, nil, "operations", "try", "amounts", "--event", "first", "--source", "shop"), "it has had its effect already")
	o.exec(`ALTER TABLE amounts ADD CONSTRAINT few CHECK (amount < 6)`)
	require.Contains(t, o.run(1, nil, "operations", "try", "amounts", "--event", "second"), "SQLSTATE 23514")
	o.exec(`ALTER TABLE amounts DROP CONSTRAINT few`)
	o.exec(`ALTER TABLE amounts RENAME TO gone`)
	require.Contains(t, o.run(2, nil, "operations", "try", "amounts", "--event", "second"), `relation "amounts" does not exist`)
	o.exec(`ALTER TABLE gone RENAME TO amounts`)
	require.Contains(t, o.run(1, nil, "operations", "try", "amounts", "--event", "none"), "no source has an event")
	require.Contains(t, o.run(2, nil, "operations", "try", "amounts"), "--event ID")

	require.Contains(t, o.run(0, nil, "operations", "resume", "amounts"), "resumed")
	o.eventually(2, `SELECT count(*)::int FROM amounts`)
	require.Equal(t, "active", state()[0]["state"])
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "catchment_processor_circuit_open{operation=\"amounts\"} 1\n")
	}))
	t.Cleanup(metrics.Close)
	t.Setenv("CATCHMENT_PROCESSOR__OPS_LISTEN", metrics.Listener.Addr().String())
	require.Equal(t, "circuit open", state()[0]["state"])
	o.exec(`INSERT INTO catchment.retries SELECT source, event_id, 'gone', 2, now(), now(), 'why' FROM catchment.bodies LIMIT 1`)
	require.Equal(t, []any{"gone", "not configured", 1.0}, []any{state()[1]["name"], state()[1]["state"], state()[1]["pending"]})
	require.Contains(t, o.status(), "1 of gone wait for ever: the operation is not in this configuration")
}

// TestReplayByTool tries a new operation on stored events, and then runs them through it.
func TestReplayByTool(t *testing.T) {
	o := newOffice(t)
	for i := range 30 {
		o.receive(fmt.Sprintf("e%02d", i), []string{"paid", "ignored"}[i%2], fmt.Sprintf(`{"order":"o","v":%d,"amount":1}`, i))
	}
	o.eventually(30, `SELECT count(*)::int FROM catchment.events`)
	o.configure(deskLater)
	require.Contains(t, o.run(2, nil, "replay"), "--operation NAME")
	require.Contains(t, o.run(2, nil, "replay", "--operation", "total"), "expected one of amounts, totals")
	require.Contains(t, o.run(2, nil, "replay", "--operation", "totals", "--force"), "say why with --reason")
	var dry object
	o.run(0, &dry, "replay", "--operation", "totals", "--dry-run", "--limit", "5")
	require.Equal(t, []any{30.0, 5.0, 3.0, object{"succeeded": 3.0, "does not apply": 2.0}}, []any{dry["events"], dry["tried"], dry["rows_affected"], dry["totals"]})
	statements := dry["results"].([]any)[0].(object)["statements"].([]any)
	require.Equal(t, []any{object{"id": "e00", "seen": nil}}, statements[0].(object)["rows"])
	require.Equal(t, []any{object{"seen": true}}, statements[1].(object)["rows"])
	require.Equal(t, 0, o.count(`SELECT count(*)::int FROM totals`))
	require.Equal(t, 0, o.count(`SELECT count(*)::int FROM catchment.actions`))

	var job object
	require.Contains(t, o.run(2, nil, "replay", "--operation", "totals", "--id", "e00", "--id", "nope"), `Event "nope" is not stored.`)
	o.run(0, &job, "replay", "--operation", "totals", "--id", "e00", "--id", "e01", "--yes", "--wait")
	require.Equal(t, []any{"done", 1.0, 1.0}, []any{job["state"], job["succeeded"], job["skipped"]})
	o.run(0, &job, "replay", "--operation", "totals", "--yes", "--wait", "--rate", "1000")
	require.Equal(t, []any{14.0, 16.0, 29.0}, []any{job["succeeded"], job["skipped"], job["expected"]})
	require.Equal(t, 15, o.count(`SELECT count(DISTINCT id)::int FROM totals`))
	require.Equal(t, 15, o.count(`SELECT count(*)::int FROM totals`))
	o.run(0, &job, "replay", "--operation", "totals", "--type", "paid", "--force", "--reason", "a test", "--yes", "--wait")
	require.Equal(t, 30, o.count(`SELECT count(*)::int FROM totals`))

	require.Contains(t, o.run(0, nil, "operations", "pause", "totals"), "paused")
	o.run(0, &job, "replay", "--operation", "totals", "--force", "--reason", "a test", "--yes", "--rate", "0.1")
	id := fmt.Sprint(job["id"])
	require.Contains(t, o.status(), "replay "+id)
	require.Contains(t, o.run(0, nil, "jobs", "list"), "replay")
	o.run(0, &job, "jobs", "cancel", id)
	require.Equal(t, "cancelled", job["state"])
	o.run(1, &job, "jobs", "show", id, "--wait")
	require.Contains(t, o.run(0, nil, "jobs", "cancel", id), "was over already")
	require.Contains(t, o.run(1, nil, "jobs", "show", "999"), "there is no job 999")
	require.Contains(t, o.run(2, nil, "jobs", "show", "x"), "expected a number")
}
