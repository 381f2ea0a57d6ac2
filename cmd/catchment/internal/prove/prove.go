// Package prove runs a trial of the whole system and has it judged. A seed and programs come in; a folder goes out with all that
// was sent, broken and found, and a verdict on it. It must never call a run a success in which something that had to be broken
// was not, or that did not come to rest.
package prove

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/collect"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/estate"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/judge"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/nemesis"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/workload"
)

// The estate's times, short ones so that a run sees many takeovers and many segments.
const (
	sessions = 6 * time.Second
	segment  = 4 * time.Second
)

// Options say how long and how hard the trial is.
type Options struct {
	Dir      string // of the run; must not exist, or be empty
	Seed     uint64
	Programs estate.Programs
	Env      []string // of the services, NAME=VALUE

	Events   int64          // at least so many are acknowledged
	Rate     float64        // new ones a second; 0: as fast as they are taken
	Senders  int            // at once
	Faults   int            // at least so many
	Kinds    []nemesis.Kind // which
	Duration time.Duration  // the faults last at least so long

	Drain time.Duration // how long the system may take to come to rest
	Keep  bool          // brokers' and servers' data stay in the folder
	Say   func(format string, args ...any)

	// Version is Catchment's, for run.json.
	Version string
}

// trial is one run.
type trial struct {
	Options
	run      folder.Run
	facts    folder.Facts
	estate   *estate.Estate
	cast     *workload.Cast
	journal  *journal.Journal
	progress workload.Progress
	report   *nemesis.Report

	mu sync.Mutex
}

// Run makes the trial and returns its verdict. The error says that there is none.
func Run(ctx context.Context, o Options) (verdict *judge.Verdict, err error) {
	t := &trial{Options: o}
	t.begin()
	if t.cast, err = workload.NewCast(o.Seed, filepath.Join(o.Dir, "secrets")); err != nil {
		return nil, err
	}
	if err := t.trial(ctx); err != nil {
		return nil, err
	}
	if verdict, err = judge.Judge(o.Dir); err != nil {
		return nil, err
	}
	return verdict, folder.Write(o.Dir, folder.VerdictFile, verdict)
}

func (t *trial) begin() {
	t.run = folder.Run{
		Started: time.Now(), Topic: estate.Topic, ResultsTopic: estate.Results, ProcessorGroup: estate.ProcessorGroup,
		Versions: map[string]string{"catchment": t.Version, "go": runtime.Version(), "kafka": jarVersion(t.Programs.Kafka), "cpus": strconv.Itoa(runtime.NumCPU())},
		Options: map[string]string{
			"events": strconv.FormatInt(t.Events, 10), "faults": strconv.Itoa(t.Faults), "duration": t.Duration.String(), "rate": fmt.Sprint(t.Rate),
			"session timeout": sessions.String(), "segment age": segment.String(),
		},
		Must: mustHappen(t.Seed, t.Kinds, t.Faults),
	}
	workload.Describe(&t.run, t.Seed)
	t.facts.Counters = map[string]int64{}
}

// jarVersion is the version of Kafka whose jars lie in a folder.
func jarVersion(dir string) string {
	found, _ := filepath.Glob(filepath.Join(dir, "kafka_2.13-*.jar"))
	if len(found) == 0 {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(filepath.Base(found[0]), "kafka_2.13-"), ".jar")
}

// trial goes through the phases. At its end the folder is complete, and nothing runs any more.
func (t *trial) trial(ctx context.Context) (err error) {
	t.Say("starting three brokers, two Postgres servers, an S3 server and six services in %s", t.Dir)
	t.estate, err = estate.Start(ctx, estate.Options{
		Dir: t.Dir, Programs: t.Programs, Sources: t.cast.Configuration(), SQL: []string{workload.Tables}, Sessions: sessions, Segment: segment,
		Parts: 12, Env: t.Env,
	})
	if err != nil {
		return err
	}
	defer t.estate.Close(ctx)
	if t.journal, err = journal.Open(filepath.Join(t.Dir, folder.JournalFile)); err != nil {
		return err
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- t.send(sending) }()
	var failed error
	for _, p := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"warm-up", t.warmUp},
		{"faults", t.faults},
		{"heal", t.heal},
		{"last requests", func(context.Context) error { stop(); return <-sent }},
		{"quiesce", t.quiesce},
		{"read", t.read},
	} {
		if failed = t.phase(ctx, p.name, p.do); failed != nil {
			break
		}
	}
	stop()
	return errors.Join(failed, t.end(ctx))
}

// phase is one of the phases. What goes wrong with the system is in the run's description; the error is ours.
func (t *trial) phase(ctx context.Context, name string, do func(context.Context) error) error {
	p := folder.Phase{Name: name, From: time.Now()}
	err := do(ctx)
	p.To = time.Now()
	if err != nil {
		p.Failed = err.Error()
		t.Say("%s: %v", name, err)
	}
	t.run.Phases = append(t.run.Phases, p)
	t.Say("%s: %.0f s; %d acknowledged of %d", name, p.To.Sub(p.From).Seconds(), t.progress.Acked.Load(), t.progress.Began.Load())
	return ctx.Err()
}

func (t *trial) send(ctx context.Context) error {
	var urls []string
	for _, address := range t.estate.Ingresses() {
		urls = append(urls, "http://"+address)
	}
	report, err := workload.Run(ctx, workload.Options{
		Seed: t.Seed, Cast: t.cast, URLs: urls, Journal: t.journal, Rate: t.Rate, Senders: t.Senders, Progress: &t.progress,
		Rotate: 20 * time.Second, Drain: time.Minute,
	})
	if report != nil {
		t.run.Events = int(report.Happenings)
	}
	return errors.Join(err, t.journal.Close())
}

// warmUp waits until the system takes and processes events.
func (t *trial) warmUp(ctx context.Context) error {
	if err := estate.Await(ctx, 2*time.Minute, 100*time.Millisecond, "the first events", func(ctx context.Context) error {
		done, err := t.estate.Postgres.Position(ctx)
		if err == nil && done < 100 {
			err = fmt.Errorf("%d deliveries are processed", done)
		}
		return err
	}); err != nil {
		return err
	}
	t.estate.Base(ctx)
	return nil
}

// faults makes faults until there were enough, and waits until enough was acknowledged.
func (t *trial) faults(ctx context.Context) error {
	lines, err := folder.Create(t.Dir, folder.FaultsFile)
	if err != nil {
		return err
	}
	defer func() { _ = lines.Close() }()
	until := time.Now().Add(t.Duration)
	t.report, err = nemesis.Run(ctx, nemesis.Options{
		Estate: t.estate, Seed: t.Seed, Kinds: t.Kinds, Sessions: sessions, Say: t.Say,
		Journal: func(f folder.Fault) { _ = lines.Write(f); _ = lines.Flush() },
		Timing:  func(d folder.Timing) { t.facts.Timings = append(t.facts.Timings, d) },
		Enough:  func(n int) bool { return n >= t.Faults && !time.Now().Before(until) },
		Settled: t.settled,
	})
	if err != nil {
		return err
	}
	for _, kind := range slices.Sorted(maps.Keys(t.report.Failed)) {
		t.Say("%s could not be made: %s", kind, t.report.Failed[kind])
	}
	for t.progress.Acked.Load() < t.Events {
		before := t.progress.Acked.Load()
		if err := estate.Pause(ctx, 10*time.Second); err != nil {
			return err
		}
		if t.progress.Acked.Load() == before {
			return fmt.Errorf("nothing was acknowledged for 10 s after the last fault: %d of %d", before, t.Events)
		}
	}
	return nil
}

// settled waits until a request that was sent after a slot of faults has been acknowledged.
func (t *trial) settled(ctx context.Context) error {
	since := time.Now().UnixNano()
	return estate.Await(ctx, 90*time.Second, 50*time.Millisecond, "an acknowledgement", func(context.Context) error {
		if t.progress.LastAck.Load() <= since {
			return errors.New("there was none")
		}
		return nil
	})
}

func (t *trial) heal(ctx context.Context) error { return t.estate.Heal(ctx) }

// quiesce waits until everything that was acknowledged is processed, published and archived.
func (t *trial) quiesce(ctx context.Context) error {
	since := time.Now()
	err := estate.Await(ctx, t.Drain, 500*time.Millisecond, "rest", t.atRest)
	t.timing(folder.Timing{Name: "last request, until all was processed and archived", Seconds: time.Since(since).Seconds()})
	return err
}

func (t *trial) timing(d folder.Timing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.facts.Timings = append(t.facts.Timings, d)
}

func (t *trial) atRest(ctx context.Context) error {
	ends, err := t.estate.Ends(ctx, estate.Topic)
	if err != nil {
		return err
	}
	progress, err := t.estate.Postgres.Progress(ctx)
	if err != nil {
		return err
	}
	if err := reached("processed", progress, ends); err != nil {
		return err
	}
	pending, err := t.estate.Postgres.Pending(ctx)
	if err != nil {
		return err
	}
	if pending > 0 {
		return fmt.Errorf("%d attempts and results are pending", pending)
	}
	for topic, group := range map[string]string{estate.Topic: estate.ArchiverGroup, estate.Results: estate.ArchiverResultGroup} {
		ends, err := t.estate.Ends(ctx, topic)
		if err != nil {
			return err
		}
		committed, err := t.estate.Committed(ctx, group, topic)
		if err != nil {
			return err
		}
		if err := reached(topic+" archived", committed, ends); err != nil {
			return err
		}
	}
	return nil
}

func reached(what string, at map[int32]int64, ends []int64) error {
	var behind int64
	for partition, end := range ends {
		behind += end - at[int32(partition)]
	}
	if behind > 0 {
		return fmt.Errorf("%d records are not %s", behind, what)
	}
	return nil
}

// read has everything read by readers of its own.
func (t *trial) read(ctx context.Context) error {
	return collect.Run(ctx, collect.Options{
		Dir: t.Dir, Brokers: t.estate.BrokersDirect(), Topic: estate.Topic, ResultsTopic: estate.Results, ProcessorGroup: estate.ProcessorGroup,
		DatabaseURL: t.estate.Postgres.DirectURL(), Archive: t.estate.ArchiveURL(), AccessKey: estate.AccessKey, SecretKey: estate.SecretKey,
	})
}

// end writes down what was measured, and ends everything.
func (t *trial) end(ctx context.Context) error {
	t.count(ctx)
	t.estate.Close(ctx)
	t.run.Stopped = time.Now()
	errs := []error{
		folder.Write(t.Dir, folder.RunFile, &t.run),
		folder.Write(t.Dir, folder.FactsFile, &t.facts),
		t.cast.WriteSecrets(t.Dir, t.estate.Postgres.Password(), estate.SecretKey),
	}
	if !t.Keep {
		errs = append(errs, os.RemoveAll(filepath.Join(t.Dir, "data")))
	}
	return errors.Join(errs...)
}

func (t *trial) count(ctx context.Context) {
	counters := t.estate.Counters(ctx)
	var same, other int
	for _, s := range t.estate.Store {
		a, b := s.Refused()
		same, other = same+a, other+b
	}
	t.facts.Counters = map[string]int64{
		folder.FenceRejections:   int64(estate.Sum(counters, "catchment_processor_fenced_total")),
		folder.UnknownCommits:    int64(estate.Sum(counters, "catchment_processor_unknown_commits_total")),
		folder.Rebalances:        t.estate.BrokersSaid("Stabilized group catchment-"),
		folder.LeaderChanges:     t.estate.LeaderChanges(),
		folder.Refused412Same:    int64(same),
		folder.Refused412Other:   int64(other),
		folder.NotEnoughReplicas: t.estate.BrokersSaid("NotEnoughReplicasException"),
	}
	t.facts.Requests = requests(counters)
	t.facts.RequestsComplete = t.report == nil || t.report.Faults == 0
	for _, r := range t.estate.Resources() {
		t.facts.Resources = append(t.facts.Resources, bounded(r))
	}
}

// requests are the ingresses' counters by source and outcome.
func requests(counters map[string]float64) map[string]map[string]int64 {
	found := map[string]map[string]int64{}
	for series, n := range counters {
		labels, ok := strings.CutPrefix(series, "catchment_ingress_requests_total{")
		if !ok {
			continue
		}
		source, outcome := label(labels, "source"), label(labels, "outcome")
		if found[source] == nil {
			found[source] = map[string]int64{}
		}
		found[source][outcome] += int64(n)
	}
	return found
}

func label(labels, name string) string {
	_, rest, _ := strings.Cut(labels, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

const mib = 1 << 20

// bounded is a figure with what it may be: the bounds of the services' memory are those of the product.
func bounded(r estate.Resource) folder.Resource {
	f := folder.Resource{Process: r.Process, Name: r.Name, Base: r.Base, Max: r.Max, End: r.End}
	switch r.Name {
	case "rss_bytes":
		f.Bound, f.Slack = 512*mib, 384*mib // a runtime gives memory back late
		if strings.HasPrefix(r.Process, "ingress") {
			f.Bound, f.Slack = 256*mib, 192*mib
		}
	case "goroutines":
		f.Slack = 100
	case "fds":
		f.Slack = 64
	}
	return f
}
