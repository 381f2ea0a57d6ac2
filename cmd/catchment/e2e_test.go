package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const e2eConfig = `
kafka: {brokers: ["%[1]s"], topic: %[2]s, results_topic: %[2]s.results, partitions: 3}
postgres: {url: "%[3]s"}
archive: {url: "%[4]s"}
ingress: {listen: "%[5]s", ops_listen: "%[6]s"}
processor: {ops_listen: "%[7]s", group: "%[2]s.processor"}
archiver: {ops_listen: "%[8]s", group: "%[2]s.archiver", segment_age: 1s}
` + orderStatus

// orderStatus is a source and the operation for its events.
const orderStatus = `sources:
  stripe: {provider: stripe, secrets: ["${STRIPE_WEBHOOK_SECRET}"]}
operations:
  - name: order-status
    on: {source: stripe, types: [payment_intent.succeeded, payment_intent.payment_failed]}
    entity: body.data.object.metadata.order_id
    version: time
    sql: |
      INSERT INTO orders (id, status) VALUES (@entity, @status)
      ON CONFLICT (id) DO UPDATE SET status = excluded.status
    params:
      status: '{"payment_intent.succeeded": "paid", "payment_intent.payment_failed": "failed"}[type]'
`

const e2eSecret = "whsec_end_to_end"

// deployment is the three services as three processes from one catchment.yaml.
type deployment struct {
	t       *testing.T
	bin     string // folder of the binaries
	cfg     *settings.File
	path    string
	cluster *kafkatest.Cluster
	running map[string]*exec.Cmd
	env     map[string][]string // more of each service's environment
}

func deploy(t *testing.T) *deployment {
	t.Helper()
	d := &deployment{t: t, bin: t.TempDir(), path: filepath.Join(t.TempDir(), "catchment.yaml"), cluster: kafkatest.New(t), running: map[string]*exec.Cmd{}}
	d.build()
	archiveURL := "file://" + t.TempDir()
	if bucket := s3test.New(t); bucket != nil {
		archiveURL = bucket.URL
	}
	topic := fmt.Sprintf("e2e.%d.%d", os.Getpid(), time.Now().UnixMilli())
	text := fmt.Sprintf(e2eConfig, strings.Join(d.cluster.Brokers, `", "`), topic, pgtest.New(t), archiveURL,
		proctest.FreeAddress(t), proctest.FreeAddress(t), proctest.FreeAddress(t), proctest.FreeAddress(t))
	require.NoError(t, os.WriteFile(d.path, []byte(text), 0o600))
	t.Setenv("STRIPE_WEBHOOK_SECRET", e2eSecret)
	var err error
	d.cfg, err = settings.Load(d.path, settings.Everything...)
	require.NoError(t, err)
	d.query("CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL)")
	return d
}

// build makes the three programs. What runs of them at the test's end is killed.
func (d *deployment) build() {
	d.t.Helper()
	for _, service := range []string{"ingress", "processor", "archiver"} {
		out, err := exec.CommandContext(d.t.Context(), "go", "build", "-o", filepath.Join(d.bin, service), "github.com/catchment-dev/catchment/"+service+"/cmd/"+service).CombinedOutput()
		require.NoError(d.t, err, "%s", out)
	}
	d.t.Cleanup(func() {
		for _, cmd := range d.running {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
}

func (d *deployment) start(service string) {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.bin, service+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(d.t, err)
	defer func() { require.NoError(d.t, log.Close()) }()
	cmd := exec.Command(filepath.Join(d.bin, service), "--config", d.path)
	cmd.Stderr, cmd.Env = log, append(os.Environ(), d.env[service]...)
	require.NoError(d.t, cmd.Start())
	d.running[service] = cmd
}

func (d *deployment) stop(service string) {
	d.t.Helper()
	cmd := d.running[service]
	delete(d.running, service)
	require.NoError(d.t, cmd.Process.Signal(syscall.SIGTERM))
	err := cmd.Wait()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(d.bin, service+".log"))
		d.t.Fatalf("%s: %v\n%s", service, err, log)
	}
}

func (d *deployment) ready(service string) {
	d.t.Helper()
	ops := map[string]string{"ingress": d.cfg.Ingress.OpsListen, "processor": d.cfg.Processor.OpsListen, "archiver": d.cfg.Archiver.OpsListen}[service]
	if !await(d.t, 60*time.Second, func() bool { return run.Ask(d.t.Context(), ops, false).Healthy }) {
		log, _ := os.ReadFile(filepath.Join(d.bin, service+".log"))
		d.t.Fatalf("%s is not ready\n%s", service, log)
	}
}

func await(t testing.TB, limit time.Duration, condition func() bool) bool {
	t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if condition() {
			return true
		}
		pause(t, 50*time.Millisecond)
	}
	return condition()
}

func (d *deployment) query(sql string, args ...any) (rows []string) {
	d.t.Helper()
	conn, err := pgx.Connect(d.t.Context(), d.cfg.Postgres.URL.Reveal())
	require.NoError(d.t, err)
	defer func() { require.NoError(d.t, conn.Close(context.Background())) }()
	result, err := conn.Query(d.t.Context(), sql, args...)
	require.NoError(d.t, err)
	for result.Next() {
		values, err := result.Values()
		require.NoError(d.t, err)
		rows = append(rows, fmt.Sprint(values...))
	}
	return rows
}

// send posts new genuine events until n are accepted; the first ones may meet a topic without leaders.
func (d *deployment) send(from, n int) (sent map[string][]byte) {
	d.t.Helper()
	stripe, ok := provider.ByName("stripe")
	require.True(d.t, ok)
	l := &load{url: run.BaseURL(d.cfg.Ingress.Listen) + "/webhooks/stripe", secret: e2eSecret, provider: stripe, client: &http.Client{Timeout: 10 * time.Second}, accepted: map[string]bool{}}
	sent = map[string][]byte{}
	for seq := from; seq < from+n; seq++ {
		s := stripe.Sample(rand.New(rand.NewPCG(3, uint64(seq))), provider.SampleInput{Seq: seq, Now: time.Now()})
		require.True(d.t, await(d.t, 60*time.Second, func() bool { return l.post(d.t.Context(), s) }))
		sent[s.ID] = s.Body
	}
	return sent
}

// TestOneEvent follows one signed webhook by its ID through three processes: HTTP, Kafka, Postgres, Parquet.
func TestOneEvent(t *testing.T) {
	d := deploy(t)
	for _, s := range []string{"ingress", "processor", "archiver"} {
		d.start(s)
	}
	d.ready("ingress")
	for id, body := range d.send(0, 1) {
		d.requireEverywhere(map[string][]byte{id: body})
		require.Equal(t, []string{"order-status succeeded 1"}, d.query(`SELECT operation || ' ' || outcome || ' ' || attempt FROM catchment.results WHERE event_id = $1`, id))
		require.Equal(t, []string{"paid"}, d.query("SELECT status FROM orders"))
	}
	for _, s := range []string{"ingress", "processor", "archiver"} {
		d.ready(s)
		d.stop(s)
	}
}

// TestAnyOrder starts and stops the three processes in every order, and sends in between.
func TestAnyOrder(t *testing.T) {
	d := deploy(t)
	sent := map[string][]byte{}
	orders := [][]string{
		{"ingress", "processor", "archiver"},
		{"archiver", "processor", "ingress"},
		{"processor", "ingress", "archiver"},
		{"archiver", "ingress", "processor"},
		{"ingress", "archiver", "processor"},
		{"processor", "archiver", "ingress"},
	}
	for round, order := range orders {
		for _, s := range order {
			d.start(s)
		}
		d.ready("ingress")
		for id, body := range d.send(100*round, 20) {
			sent[id] = body
		}
		for _, s := range orders[(round+3)%len(orders)] {
			d.stop(s)
		}
	}
	d.start("processor")
	d.start("archiver")
	d.requireEverywhere(sent)
}

// requireEverywhere waits until exactly these events are in Postgres and in the archive, with the same bytes.
func (d *deployment) requireEverywhere(sent map[string][]byte) {
	d.t.Helper()
	if !await(d.t, 60*time.Second, func() bool {
		return d.query("SELECT to_regclass('catchment.events') IS NOT NULL")[0] == "true" &&
			d.query("SELECT count(*) FROM catchment.events WHERE status = 'processed'")[0] == fmt.Sprint(len(sent))
	}) {
		log, _ := os.ReadFile(filepath.Join(d.bin, "processor.log"))
		d.t.Fatalf("not all of %d events were processed: %v\n%s", len(sent), d.query("SELECT status, count(*) FROM catchment.events GROUP BY 1"), log)
	}
	for id, body := range sent {
		require.Equal(d.t, []string{fmt.Sprintf("%x 1", sha256.Sum256(body))},
			d.query("SELECT encode(sha256(body), 'hex') || ' ' || deliveries FROM catchment.events WHERE source = 'stripe' AND event_id = $1", id))
	}
	store, err := archive.Open(d.t.Context(), d.cfg.Archive)
	require.NoError(d.t, err)
	archived := func() map[string]string {
		found := map[string]string{}
		for segment, err := range archive.Segments(d.t.Context(), store) {
			require.NoError(d.t, err)
			for rec, err := range archive.Records(d.t.Context(), store, segment.Key) {
				require.NoError(d.t, err)
				require.NotContains(d.t, found, rec.EventID, "archived twice")
				found[rec.EventID] = string(rec.Body)
			}
		}
		return found
	}
	if !await(d.t, 60*time.Second, func() bool { return len(archived()) >= len(sent) }) {
		log, _ := os.ReadFile(filepath.Join(d.bin, "archiver.log"))
		d.t.Fatalf("%d of %d events are archived\n%s", len(archived()), len(sent), log)
	}
	for id, body := range archived() {
		require.Equal(d.t, string(sent[id]), body, id)
	}
	var results []string
	require.True(d.t, await(d.t, 60*time.Second, func() bool {
		results = archivedResults(d.t, store)
		return len(results) >= len(sent)
	}), "%d results are archived", len(results))
	require.Equal(d.t, d.query("SELECT source || ' ' || event_id || ' ' || operation || ' ' || outcome FROM catchment.results ORDER BY 1"), results)
	problems, err := archive.Check(d.t.Context(), store, func(*archive.Record) error { return nil })
	require.NoError(d.t, err)
	require.Empty(d.t, problems)
}

// archivedResults are the results that the archive holds, sorted, each once.
func archivedResults(t *testing.T, store archive.Store) []string {
	t.Helper()
	found := map[string]bool{}
	for segment, err := range archive.SegmentsOfKind(t.Context(), store, archive.Results) {
		require.NoError(t, err)
		for w, err := range archive.Records(t.Context(), store, segment.Key) {
			require.NoError(t, err)
			r, err := event.DecodeResult(w.Record())
			require.NoError(t, err)
			found[strings.Join([]string{w.Source, w.EventID, r.Operation, r.Outcome}, " ")] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}
