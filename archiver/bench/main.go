// Command bench measures what the archive costs: rows into segments beside zstd of the same rows as lines of JSON, the
// archiver as it is shipped beside Bento's parquet_encode on the same topic, and DuckDB looking for one event in a million
// with bloom filters and without. Paths of the programs come in; a table goes into docs/benchmarks.md, and one JSON line of
// ratios goes to standard output. It never compares figures of two runs.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"

	"github.com/catchment-dev/catchment/pkg/benchkit"
)

type options struct {
	root, archiver, bento, python, report string
	brokers                               string
	rounds, rows, events, found           int
}

func main() { os.Exit(benchkit.Main("bench", command)) }

func command(ctx context.Context, args []string, out io.Writer) error {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.root, "root", ".", "the repository")
	fs.StringVar(&o.archiver, "archiver", "bin/catchment-archiver", "the archiver to measure")
	fs.StringVar(&o.bento, "bento", "", "Bento, built from ingress/bench/bento; empty: without it")
	fs.StringVar(&o.python, "python", "", "a Python with DuckDB (scripts/foreign.sh); empty: no look-ups")
	fs.StringVar(&o.report, "report", "", "file whose table is replaced; empty: only print it")
	fs.StringVar(&o.brokers, "brokers", os.Getenv("CATCHMENT_TEST_KAFKA"), "Kafka, by commas; empty: only what needs none")
	fs.IntVar(&o.rounds, "rounds", 5, "how often each contestant has its turn")
	fs.IntVar(&o.rows, "rows", 50_000, "rows that are encoded in a round")
	fs.IntVar(&o.events, "events", 300_000, "events of the topic")
	fs.IntVar(&o.found, "found", 1_000_000, "events of the archive in which one is looked for")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "catchment-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{o: &o, dir: dir}
	if err := b.measure(ctx); err != nil {
		return err
	}
	return benchkit.Report(out, o.report, "archiver", b.markdown(), b.ratios())
}

// figures of one turn of one contestant; what does not apply is 0.
type figures struct {
	cpu      float64 // µs an event
	rate     float64 // MB of bodies and headers a second
	size     float64 // bytes an event
	memory   float64 // MiB, the most that was resident
	absent   float64 // ms to find that an ID is not there
	present  float64 // ms to find one, with its body
	foreign  float64 // cores that other programs took
	contests string
}

type bench struct {
	o    *options
	dir  string
	rows []figures
}

// contestant has one turn.
type contestant struct {
	name string
	turn func(ctx context.Context, f *figures) error
}

func (b *bench) measure(ctx context.Context) error {
	encoders, err := b.encoders()
	if err != nil {
		return err
	}
	groups := [][]contestant{encoders}
	if b.o.brokers != "" {
		jobs, err := b.jobs(ctx)
		if err != nil {
			return err
		}
		groups = append(groups, jobs)
	}
	for _, group := range groups {
		for round := range b.o.rounds {
			rand.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
			for _, c := range group {
				f := figures{contests: c.name}
				if err := c.turn(ctx, &f); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				fmt.Fprintf(os.Stderr, "round %d: %-28s %6.1f µs, %6.1f MB/s, %4.0f B, %4.0f MiB\n", round+1, f.contests, f.cpu, f.rate, f.size, f.memory)
				b.rows = append(b.rows, f)
			}
		}
		clear(group) // and the rows that they hold
	}
	if b.o.python == "" {
		return nil
	}
	return b.lookUps(ctx)
}

// meter takes time and CPU of a process.
type meter struct {
	pid          int
	at           time.Time
	cpu, machine time.Duration
}

func begin(pid int) (m meter, err error) {
	m = meter{pid: pid, at: time.Now()}
	if m.cpu, err = benchkit.CPU(pid); err == nil {
		m.machine, err = benchkit.MachineCPU()
	}
	return m, err
}

// end sets the figures of so many events, which were so many bytes.
func (m meter) end(f *figures, events int, bytes int64) error {
	now, err := begin(m.pid)
	if err != nil {
		return err
	}
	took, cpu := now.at.Sub(m.at).Seconds(), now.cpu-m.cpu
	f.cpu = float64(cpu.Microseconds()) / float64(events)
	f.rate = float64(bytes) / 1e6 / took
	f.foreign = max(0, (now.machine-m.machine-cpu).Seconds()/took)
	return nil
}
