package processor

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const benchBatch = 1000

// benchBody is JSON of about size bytes, which compresses as webhooks do.
func benchBody(r *rand.Rand, n, size int) string {
	var b strings.Builder
	fmt.Fprintf(&b, `{"id":"evt_%d","data":{"object":{"amount":%d,"currency":"eur","metadata":{"order_id":"o%d"},"lines":[`, n, r.IntN(1e6), n)
	for b.Len() < size-80 {
		fmt.Fprintf(&b, `{"id":"li_%016x","description":"Subscription","quantity":%d},`, r.Uint64(), r.IntN(9))
	}
	return strings.TrimSuffix(b.String(), ",") + `]}}}`
}

func benchRecords(wk *worker, round, size int) []*kgo.Record {
	r := rand.New(rand.NewPCG(1, uint64(round)))
	out := make([]*kgo.Record, benchBatch)
	for i := range out {
		n := round*benchBatch + i
		out[i] = event.Encode(delivery("shop", fmt.Sprintf("evt_%016x", r.Uint64()), "payment_intent.succeeded", benchBody(r, n, size)))
		out[i].Offset, out[i].Timestamp = wk.next+int64(i), time.Now()
	}
	return out
}

// BenchmarkBatch writes batches of 1,000 new events, and in the same run the limit: COPY of the same rows into three
// bare tables.
func BenchmarkBatch(b *testing.B) {
	for _, size := range []int{1 << 10, 2 << 10} {
		b.Run(fmt.Sprintf("%dKiB/copy", size>>10), func(b *testing.B) { benchCopy(b, size) })
		b.Run(fmt.Sprintf("%dKiB/no-operation", size>>10), func(b *testing.B) { benchWrite(b, size) })
		b.Run(fmt.Sprintf("%dKiB/operation", size>>10), func(b *testing.B) {
			benchWrite(b, size, settings.Operation{
				Name: "orders", On: settings.On{Source: "shop"}, SQL: config.Strings{`INSERT INTO orders VALUES (@id, @amount)`},
				Params: map[string]string{"amount": "body.data.object.amount"},
			})
		})
		b.Run(fmt.Sprintf("%dKiB/guarded-operation", size>>10), func(b *testing.B) {
			benchWrite(b, size, settings.Operation{
				Name: "orders", On: settings.On{Source: "shop"}, Entity: "body.data.object.metadata.order_id", Version: "time",
				SQL:    config.Strings{`INSERT INTO orders VALUES (@entity, @amount) ON CONFLICT (id) DO UPDATE SET amount = excluded.amount`},
				Params: map[string]string{"amount": "body.data.object.amount"},
			})
		})
	}
}

func benchWrite(b *testing.B, size int, ops ...settings.Operation) {
	b.Helper()
	w := newDatabase(b, `CREATE TABLE orders (id text PRIMARY KEY, amount bigint)`)
	w.cfg.Operations = ops
	wk := w.take(w.engine(), partition(0))
	round := benchRounds(b, w, wk, size, func(records []*kgo.Record) error { return wk.write(context.Background(), records) })
	require.Equal(b, round*benchBatch, w.count(`SELECT count(*) FROM catchment.bodies`))
}

func benchCopy(b *testing.B, size int) {
	b.Helper()
	w := newDatabase(b,
		`CREATE TABLE i (source text, event_id text, body_sha256 bytea, first_seen_at timestamptz, delivery_id uuid, PRIMARY KEY (source, event_id))`,
		`CREATE TABLE e (source text, event_id text, type text, received_at timestamptz, headers jsonb, body bytea, delivery_id uuid, PRIMARY KEY (source, event_id))`,
		`CREATE TABLE r (source text, event_id text, operation text, attempt int, outcome text, started_at timestamptz, PRIMARY KEY (source, event_id, operation, attempt))`)
	wk := w.take(w.engine(), partition(0))
	benchRounds(b, w, wk, size, func(records []*kgo.Record) error { return copyAll(w, records) })
}

// BenchmarkResults says what publishing every result costs a batch: its results go into the outbox, or do not.
func BenchmarkResults(b *testing.B) {
	for _, topic := range []string{"off", "catchment.results"} {
		b.Run(topic, func(b *testing.B) {
			w := newDatabase(b, `CREATE TABLE orders (id text PRIMARY KEY, amount bigint)`)
			w.cfg.Kafka.ResultsTopic = topic
			w.cfg.Operations = []settings.Operation{{
				Name: "orders", On: settings.On{Source: "shop"}, Entity: "body.data.object.metadata.order_id", Version: "time",
				SQL:    config.Strings{`INSERT INTO orders VALUES (@entity, @amount) ON CONFLICT (id) DO UPDATE SET amount = excluded.amount`},
				Params: map[string]string{"amount": "body.data.object.amount"},
			}}
			wk := w.take(w.engine(), partition(0))
			round := benchRounds(b, w, wk, 1<<10, func(records []*kgo.Record) error { return wk.write(context.Background(), records) })
			if bytes := w.count(`SELECT coalesce(sum(octet_length(packed)), 0) FROM catchment.outbox`); bytes > 0 {
				b.ReportMetric(float64(bytes)/float64(round*benchBatch), "outbox-B/row")
			}
		})
	}
}

// benchRounds writes batch after batch and reports rows a second and, where the system tells, the CPU time of
// Postgres' backends, which is worth more on a busy machine.
func benchRounds(b *testing.B, w *world, wk *worker, size int, write func([]*kgo.Record) error) (round int) {
	b.Helper()
	before := backendCPU(w)
	for b.Loop() {
		b.StopTimer()
		records := benchRecords(wk, round, size)
		round++
		b.StartTimer()
		require.NoError(b, write(records))
	}
	b.StopTimer()
	rows := float64(round * benchBatch)
	b.ReportMetric(rows/b.Elapsed().Seconds(), "rows/s")
	if cpu := backendCPU(w) - before; cpu > 0 {
		b.ReportMetric(float64(cpu.Microseconds())/rows, "postgres-µs/row")
	}
	return round
}

// backendCPU adds up the CPU time of this database's backends from Linux's /proc; 0: there is none.
func backendCPU(w *world) (sum time.Duration) {
	rows, err := w.pool.Query(context.Background(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database()`)
	require.NoError(w.t, err)
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	require.NoError(w.t, err)
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ") // state is field 3, utime 14, stime 15, in hundredths of a second
		f := strings.Fields(rest)
		for _, field := range f[11:13] {
			n, err := strconv.Atoi(field)
			require.NoError(w.t, err)
			sum += time.Duration(n) * 10 * time.Millisecond
		}
	}
	return sum
}

func copyAll(w *world, records []*kgo.Record) error {
	ctx := context.Background()
	tx, err := w.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(ctx) }()
	now := time.Now()
	var ids, bodies, results [][]any
	for _, r := range records {
		it := new(reader).read(partition(0), r)[0]
		delivery := uuid.MustParse(it.ev.DeliveryID)
		ids = append(ids, []any{it.ev.Source, it.ev.ID, it.digest, now, delivery})
		bodies = append(bodies, []any{it.ev.Source, it.ev.ID, it.ev.Type, now, `{"x-test":["1"]}`, it.ev.Body, delivery})
		results = append(results, []any{it.ev.Source, it.ev.ID, "orders", 1, succeeded, now})
	}
	for _, c := range []struct {
		table   string
		columns []string
		rows    [][]any
	}{
		{"i", []string{"source", "event_id", "body_sha256", "first_seen_at", "delivery_id"}, ids},
		{"e", []string{"source", "event_id", "type", "received_at", "headers", "body", "delivery_id"}, bodies},
		{"r", []string{"source", "event_id", "operation", "attempt", "outcome", "started_at"}, results},
	} {
		if _, err := tx.CopyFrom(ctx, pgx.Identifier{c.table}, c.columns, pgx.CopyFromRows(c.rows)); err != nil {
			return err
		}
	}
	return tx.Commit(ctx)
}

// BenchmarkPrepare says what an event costs before its transaction: decoding, digest and expressions.
func BenchmarkPrepare(b *testing.B) {
	w := newDatabase(b, `CREATE TABLE orders (id text PRIMARY KEY, amount bigint, status text)`)
	w.cfg.Operations = []settings.Operation{{
		Name: "orders", On: settings.On{Source: "shop"}, When: "has(body.data.object.metadata.order_id)",
		Entity: "body.data.object.metadata.order_id", Version: "time",
		SQL: config.Strings{`INSERT INTO orders VALUES (@entity, @amount, @status) ON CONFLICT (id) DO UPDATE SET amount = excluded.amount`},
		Params: map[string]string{
			"amount": "body.data.object.amount", "status": `{"payment_intent.succeeded": "paid", "payment_intent.payment_failed": "failed"}[type]`,
		},
	}}
	eng := w.engine()
	wk := w.take(eng, partition(0))
	records := benchRecords(wk, 0, 2<<10)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		it := wk.read(records[i%len(records)])[0]
		require.Len(b, eng.intend(it.ev).list, 1)
	}
}
