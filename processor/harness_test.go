package processor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const patience = 60 * time.Second // until a condition must hold

// world is a database, a topic and what a test says about them.
type world struct {
	t    testing.TB
	url  string
	pool *pgxpool.Pool
	kc   *kafkatest.Cluster
	cfg  *settings.File
	cl   *kgo.Client
}

// newDatabase is a world without Kafka.
func newDatabase(tb testing.TB, schema ...string) *world {
	tb.Helper()
	return newDatabaseAt(tb, pgtest.New(tb), schema...)
}

func newDatabaseAt(tb testing.TB, url string, schema ...string) *world {
	tb.Helper()
	w := &world{t: tb, url: url}
	require.NoError(tb, Migrate(tb.Context(), w.url))
	w.connect()
	for _, s := range schema {
		w.exec(s)
	}
	w.cfg = &settings.File{
		Postgres:  settings.Postgres{URL: config.NewSecret(w.url), MaxConns: 20},
		Processor: settings.Processor{Group: "g-" + uuid.NewString(), Batch: 1000, Migrate: true, TxTimeout: 20 * time.Second, Session: 6 * time.Second},
		Sources:   map[string]settings.Source{"shop": {Provider: "none"}, "bank": {Provider: "none"}},
		Index:     config.NewIndex("catchment.yaml"),
	}
	return w
}

// directName is how the sessions of the tests themselves are called.
const directName = "direct"

// connect makes the pool for the test's own queries.
func (w *world) connect() {
	w.t.Helper()
	cfg, err := pgxpool.ParseConfig(w.url)
	require.NoError(w.t, err)
	cfg.ConnConfig.RuntimeParams["application_name"] = directName
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	require.NoError(w.t, err)
	w.t.Cleanup(pool.Close)
	w.pool = pool
}

func newWorld(tb testing.TB, partitions int, schema ...string) *world {
	tb.Helper()
	return newWorldAt(tb, pgtest.New(tb), partitions, schema...)
}

func newWorldAt(tb testing.TB, url string, partitions int, schema ...string) *world {
	tb.Helper()
	w := newDatabaseAt(tb, url, schema...)
	w.on(kafkatest.New(tb), partitions)
	return w
}

// on makes the world's topic on a cluster.
func (w *world) on(kc *kafkatest.Cluster, partitions int) {
	w.t.Helper()
	w.kc = kc
	w.cfg.Kafka = kc.Config(kc.Topic(w.t, partitions))
	w.cl = kc.Client(w.t, kgo.DefaultProduceTopic(w.cfg.Kafka.Topic), kgo.ProducerLinger(time.Millisecond))
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	_, err := w.pool.Exec(context.Background(), sql, args...)
	require.NoError(w.t, err, sql)
}

// count reads one number.
func (w *world) count(sql string, args ...any) int {
	w.t.Helper()
	var n int
	require.NoError(w.t, w.pool.QueryRow(context.Background(), sql, args...).Scan(&n), sql)
	return n
}

func (w *world) text(sql string, args ...any) string {
	w.t.Helper()
	var s *string
	require.NoError(w.t, w.pool.QueryRow(context.Background(), sql, args...).Scan(&s), sql)
	if s == nil {
		return "<null>"
	}
	return *s
}

// eventually waits until a query gives a number.
func (w *world) eventually(want int, sql string, args ...any) {
	w.t.Helper()
	got := -1
	ok := waitFor(func() bool {
		if err := w.pool.QueryRow(context.Background(), sql, args...).Scan(&got); err != nil {
			return false
		}
		return got == want
	})
	require.True(w.t, ok, "expected %d, found %d: %s", want, got, sql)
}

func waitFor(cond func() bool) bool {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if cond() {
			return true
		}
		select {
		case <-deadline.C:
			return false
		case <-tick.C:
		}
	}
}

// delivery is a request of the source shop.
func delivery(source, id, typ, body string) *event.Delivery {
	return &event.Delivery{
		Source: source, Provider: "none", ID: id, Type: typ, Time: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
		ReceivedAt: time.Now().UTC(), DeliveryID: uuid.Must(uuid.NewV7()).String(), SecretID: "k_1", Method: "POST",
		Path: "/webhooks/" + source, ContentType: "application/json", Verdict: event.NewVerdict(event.FlagVerified),
		Headers: []event.Header{{Name: "x-test", Value: "1"}}, Body: []byte(body),
	}
}

func (w *world) produce(ds ...*event.Delivery) {
	w.t.Helper()
	var records []*kgo.Record
	for _, d := range ds {
		records = append(records, event.Encode(d))
	}
	w.produceRecords(records...)
}

func (w *world) produceRecords(records ...*kgo.Record) {
	w.t.Helper()
	require.NoError(w.t, w.cl.ProduceSync(context.Background(), records...).FirstErr())
}

// running is a service that a test started.
type running struct {
	*Service
	reg  *prometheus.Registry
	stop func()
}

func logger() *slog.Logger {
	out := io.Discard
	if os.Getenv("CATCHMENT_TEST_LOG") != "" {
		out = os.Stderr
	}
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// told is a logger whose lines a test reads.
func told(f func(line string)) *slog.Logger {
	return slog.New(slog.NewTextHandler(lines(f), nil))
}

type lines func(string)

func (f lines) Write(b []byte) (int, error) {
	f(string(b))
	return len(b), nil
}

// start runs the processor until stop or the test's end.
func (w *world) start(more ...kgo.Opt) *running {
	w.t.Helper()
	r := w.starting()
	r.more = more
	return w.run(r)
}

// starting is a processor that does not run yet.
func (w *world) starting() *running {
	w.t.Helper()
	reg := prometheus.NewRegistry()
	s, err := New(w.cfg, logger(), reg)
	require.NoError(w.t, err)
	return &running{Service: s, reg: reg}
}

// run runs the processor until stop or the test's end.
func (w *world) run(r *running) *running {
	w.t.Helper()
	s := r.Service
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			require.NoError(w.t, err)
		case <-time.After(patience):
			require.Fail(w.t, "the processor did not stop")
		}
	})
	w.t.Cleanup(r.stop)
	return r
}

// metric adds up the samples of a metric whose labels hold all of want, such as "outcome=duplicate".
func (r *running) metric(tb testing.TB, name string, want ...string) float64 {
	tb.Helper()
	families, err := r.reg.Gather()
	require.NoError(tb, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			all := strings.Join(labels, ",")
			matches := true
			for _, l := range want {
				matches = matches && strings.Contains(all, l)
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// ledger is an operation whose effect cannot hide a repetition: rows without a unique key, and a counter.
func ledger(source string) settings.Operation {
	return settings.Operation{
		Name: "ledger-" + source, On: settings.On{Source: source},
		SQL: config.Strings{
			`INSERT INTO ledger (source, event_id) VALUES (@source, @id)`,
			`INSERT INTO counters (entity, n) VALUES (@who, 1) ON CONFLICT (entity) DO UPDATE SET n = counters.n + 1`,
		},
		Params: map[string]string{"who": `body.?who.orValue("nobody")`},
	}
}

var ledgerSchema = []string{
	`CREATE TABLE ledger (source text, event_id text)`,
	`CREATE TABLE counters (entity text PRIMARY KEY, n int NOT NULL)`,
}

func ids(prefix string, n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%s%05d", prefix, i)
	}
	return out
}
