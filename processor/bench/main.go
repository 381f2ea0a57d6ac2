// Command bench measures what an event costs on its way from Kafka into Postgres: Catchment's processor on the job
// order-status (identity, body, result, and an order whose newest version wins), one bare statement for the same rows,
// one transaction an event, and Bento, interleaved in random order on one Kafka and one Postgres. Paths of the programs
// come in; a table goes into docs/benchmarks.md, and one JSON line of ratios goes to standard output. It never compares
// figures of two runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/benchkit"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/settings"
)

type options struct {
	root, processor, bento, report string
	brokers, postgres              string
	rounds, events, few            int
	only                           string
}

func main() { os.Exit(benchkit.Main("bench", command)) }

func command(ctx context.Context, args []string, out io.Writer) error {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.root, "root", ".", "the repository")
	fs.StringVar(&o.processor, "processor", "bin/catchment-processor", "the processor to measure")
	fs.StringVar(&o.bento, "bento", "", "Bento, built from processor/bench/bento; empty: without it")
	fs.StringVar(&o.report, "report", "", "file whose table is replaced; empty: only print it")
	fs.StringVar(&o.brokers, "brokers", os.Getenv("CATCHMENT_TEST_KAFKA"), "Kafka, by commas")
	fs.StringVar(&o.postgres, "postgres", os.Getenv("CATCHMENT_TEST_DATABASE_URL"), "a Postgres of this machine that nobody else uses, whose user may create databases")
	fs.IntVar(&o.rounds, "rounds", 5, "how often each contestant meets the events")
	fs.IntVar(&o.events, "events", 24000, "events of a round; the first quarter warms up and is not measured")
	fs.IntVar(&o.few, "few", 4000, "events for the contestants with one transaction an event")
	fs.StringVar(&o.only, "only", "", "contestants, by commas; empty: all")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "catchment-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	rows, err := measure(ctx, &o, dir)
	if err != nil {
		return err
	}
	table := markdown(rows, o.rounds, o.events)
	return benchkit.Report(out, o.report, "processor", table, ratios(rows))
}

// row is one measurement: of the events behind the warm-up.
type row struct {
	contestant                string
	events                    int
	took                      time.Duration
	postgres, client, foreign time.Duration // CPU
	memory                    int           // MiB
}

// bench is what all contestants share.
type bench struct {
	o          *options
	dir, topic string
	deliveries []*event.Delivery
	admin      *pgx.Conn
	postmaster int
}

func measure(ctx context.Context, o *options, dir string) ([]row, error) {
	b := &bench{o: o, dir: dir, topic: fmt.Sprintf("bench.%d", time.Now().UnixNano()), deliveries: deliveries(o.events)}
	var err error
	if b.admin, err = pgx.Connect(ctx, o.postgres); err != nil {
		return nil, err
	}
	defer func() { _ = b.admin.Close(context.WithoutCancel(ctx)) }()
	if b.postmaster, err = parentOf(int(b.admin.PgConn().PID())); err != nil {
		return nil, fmt.Errorf("the server of -postgres must run on this machine: %w", err)
	}
	if err := b.produce(ctx); err != nil {
		return nil, err
	}
	var rows []row
	for round := range o.rounds {
		list := b.contestants()
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, c := range list {
			r, err := b.face(ctx, c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d: %-20s %6.0f/s, Postgres %5.1f µs, client %5.1f µs, foreign %.2f cores\n", round+1, r.contestant,
				r.perSecond(), r.each(r.postgres), r.each(r.client), r.foreign.Seconds()/r.took.Seconds())
			rows = append(rows, *r)
		}
	}
	return rows, nil
}

// partitions of the topic: two transactions run beside each other, as on the two connections of the statement.
const partitions = 2

func (b *bench) produce(ctx context.Context) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.o.brokers, ",")...), kgo.DefaultProduceTopic(b.topic), kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.NoCompression())) // as the ingress writes
	if err != nil {
		return err
	}
	defer cl.Close()
	cfg := settings.Kafka{Topic: b.topic, Partitions: partitions, ReplicationFactor: 3, MinInsyncReplicas: 2, Retention: 7 * 24 * time.Hour}
	if err := kafka.EnsureTopic(ctx, cl, cfg, b.topic, 1<<20); err != nil {
		return err
	}
	records := make([]*kgo.Record, len(b.deliveries))
	for i, d := range b.deliveries {
		records[i] = event.Encode(d)
	}
	return cl.ProduceSync(ctx, records...).FirstErr()
}

// face gives the contestant an empty database and measures it.
func (b *bench) face(ctx context.Context, c contestant) (*row, error) {
	name := fmt.Sprintf("bench_%d", time.Now().UnixNano())
	if _, err := b.admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return nil, err
	}
	defer func() { _, _ = b.admin.Exec(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)") }()
	cfg, err := pgx.ParseConfig(b.o.postgres)
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("postgres://%s:%s@%s:%d/%s?sslmode=disable", cfg.User, cfg.Password, cfg.Host, cfg.Port, name)
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	for _, sql := range []string{tablesSQL, "CHECKPOINT"} {
		if _, err := db.Exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	return c.run(ctx, db, url)
}

func deliveries(n int) []*event.Delivery {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same events in each run
	out := make([]*event.Delivery, n)
	for i := range out {
		out[i] = delivery(r)
	}
	return out
}
