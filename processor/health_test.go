package processor

import (
	"bytes"
	"context"
	"log/slog"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// Only who is silent for longer than it said is given up; who waits for work may be silent for ever.
func TestWatchdog(t *testing.T) {
	d := newWatchdog(10 * time.Second)
	p := d.watch("the worker")
	for range 100 {
		require.NoError(t, d.check(time.Second), "idle")
	}
	p.busy("a batch", 30*time.Second)
	for range 40 {
		require.NoError(t, d.check(time.Second), "within its deadline")
	}
	p.beat()
	for range 41 {
		require.NoError(t, d.check(time.Second), "it made progress")
	}
	err := d.check(time.Second)
	require.EqualError(t, err, "the worker hangs: a batch should have ended after 30s at most, and has not after 41s")
	d.forget(p)
	require.NoError(t, d.check(time.Second))
	var nobody *pulse
	nobody.beat()
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// A worker that hangs in a call without a deadline ends the processor, with a dump of what it hangs in.
func TestWedgedWorkerEndsTheProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, ledgerSchema...)
	w.cfg.Operations = []settings.Operation{ledger("shop")}
	w.cfg.Processor.StallTimeout = time.Second
	w.cfg.Processor.TxTimeout = time.Second
	w.cfg.Processor.Session = 6 * time.Second
	r := w.starting()
	var dump buffer
	r.dump = &dump
	release := make(chan struct{})
	defer close(release)
	r.now = hangIn("(*worker).once", release) // a batch asks for the time when it has run its operations
	ended := w.runs(r)
	w.produce(delivery("shop", "a", "t", `{}`))
	requireWedged(t, ended, &dump, "hangs: a batch should have ended after")
}

// runs runs a processor that ends by itself.
func (w *world) runs(r *running) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- r.Run(context.Background()) }()
	return ended
}

// requireWedged wants the processor to end with an error, and to show where it hangs.
func requireWedged(t *testing.T, ended <-chan error, dump *buffer, text string) {
	t.Helper()
	select {
	case err := <-ended:
		require.ErrorContains(t, err, text)
	case <-time.After(3 * patience):
		require.Fail(t, "the processor goes on")
	}
	dump.mu.Lock()
	defer dump.mu.Unlock()
	require.Contains(t, dump.b.String(), "hangHere")
}

// A job that hangs ends the processor too. Nothing else waits: live traffic would go on, and the job never.
func TestWedgedJobEndsTheProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, ledgerSchema...)
	w.store(w.engine(), partition(0), delivery("shop", "a", "t", `{}`))
	op := ledger("shop")
	op.Timeout = time.Second
	w.cfg.Operations = []settings.Operation{op}
	w.cfg.Processor.StallTimeout, w.cfg.Processor.TxTimeout = time.Second, time.Second
	w.ask(&store.Job{Kind: store.Replay, Operation: "ledger-shop"})
	r := w.starting()
	var dump buffer
	r.dump = &dump
	release := make(chan struct{})
	defer close(release)
	r.now = hangIn("(*runner).step", release) // it asks for the time before it makes an attempt
	requireWedged(t, w.runs(r), &dump, "jobs hangs: a job's transaction should have ended after")
}

// What hangs while it publishes ends the processor too: its topic's records would wait for ever.
func TestWedgedRelayEndsTheProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.cfg.Operations = []settings.Operation{{
		Name: "tell", On: settings.On{Source: "shop"}, Publish: &settings.Publish{Topic: w.cfg.Kafka.Topic + ".missing", Value: "raw"},
	}}
	w.cfg.Processor.StallTimeout = time.Second
	release := make(chan struct{})
	defer close(release)
	s, err := New(w.cfg, slog.New(hanging{logger().Handler(), "records wait in the outbox; trying again", release}), prometheus.NewRegistry())
	require.NoError(t, err)
	var dump buffer
	s.dump = &dump
	ended := w.runs(&running{Service: s})
	w.produce(delivery("shop", "a", "t", `{}`))
	requireWedged(t, ended, &dump, "the relay")
}

// hanging is a log that nobody reads when it says one thing.
type hanging struct {
	slog.Handler
	on      string
	release chan struct{}
}

func (h hanging) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == h.on {
		hangHere(h.release)
	}
	return h.Handler.Handle(ctx, r)
}

func (h hanging) WithAttrs(as []slog.Attr) slog.Handler {
	return hanging{h.Handler.WithAttrs(as), h.on, h.release}
}

func hangHere(release chan struct{}) { <-release }

// hangIn is a clock that stands for whoever asks from within a function, until release is closed.
func hangIn(function string, release chan struct{}) func() time.Time {
	return func() time.Time {
		if bytes.Contains(debug.Stack(), []byte(function+"(")) {
			hangHere(release)
		}
		return time.Now()
	}
}

// Nobody hangs while Postgres is away, nor while an operation runs within its timeout: the processor goes on by itself.
// Readiness says which of its parts is away.
func TestNobodyHangsWithoutPostgres(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, ledgerSchema...)
	slow := ledger("shop")
	slow.SQL = append(config.Strings{`SELECT pg_sleep(CASE @id WHEN 'slow' THEN 8 ELSE 0 END)`}, slow.SQL...)
	slow.Timeout = 20 * time.Second
	w.cfg.Operations = []settings.Operation{slow}
	w.cfg.Processor.StallTimeout = time.Second
	p, url := newProxy(t, w.url)
	w.cfg.Postgres.URL = config.NewSecret(url)
	r := w.start()
	w.produce(delivery("shop", "slow", "t", `{}`))
	w.eventually(1, `SELECT count(*) FROM ledger`)
	p.setDown(true)
	w.produce(delivery("shop", "a", "t", `{}`))
	began := time.Now()
	require.True(t, waitFor(func() bool { return time.Since(began) > 12*time.Second && r.Ready() != nil }))
	require.True(t, strings.HasPrefix(r.Ready().Error(), "postgres: "), "%v", r.Ready())
	require.NotContains(t, r.Ready().Error(), "kafka")
	p.setDown(false)
	w.eventually(2, `SELECT count(*) FROM ledger`)
	require.True(t, waitFor(func() bool { return r.Ready() == nil }), "%v", r.Ready())
}

// A schema that is too old is told as such, with what to run.
func TestReadinessTellsOfTheSchema(t *testing.T) {
	w := newWorld(t, 1)
	w.cfg.Processor.Migrate = false
	w.exec(`DELETE FROM catchment.schema_version WHERE version_id > 1`)
	r := w.start()
	r.says(t, "schema: the schema catchment is at version 1, this release needs ")
	r.says(t, "run catchment migrate")
	w.exec(`DROP SCHEMA catchment CASCADE`)
	r.says(t, "schema: the database has no schema catchment")
	require.NoError(t, Migrate(t.Context(), w.url))
	require.True(t, waitFor(func() bool { return r.Ready() == nil }), "%v", r.Ready())
}
