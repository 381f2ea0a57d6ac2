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
	Together int            // at most so many at the same time, 1 or more
	Plan     []nemesis.Slot // exactly these faults, in place of the seed's
	Duration time.Duration  // the faults last at least so long
	Limit    int            // no more events than these, also when faults go on; 0: for as long as they do
	Again    time.Duration  // how long after their acknowledgement events are sent again

	Drain time.Duration // how long the system may take to come to rest
	Heal  time.Duration // and to be ready again after the faults; 0: each program takes its time
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

	signer, verifier string // of the archive's checkpoints

	mu sync.Mutex
}

// Run makes the trial and returns its verdict. The error says that there is none.
func Run(ctx context.Context, o Options) (verdict *judge.Verdict, err error) {
	t := &trial{Options: o}
	if t.cast, err = workload.NewCast(o.Seed, filepath.Join(o.Dir, "secrets")); err != nil {
		return nil, err
	}
	t.begin()
	if t.signer, t.verifier, err = collect.NewKey("catchment-prove"); err != nil {
		return nil, err
	}
	if err := t.trial(ctx); err != nil {
		return nil, err
	}
	return judged(o.Dir)
}

// judged has the folder of a run judged, and writes the verdict into it.
func judged(dir string) (*judge.Verdict, error) {
	verdict, err := judge.Judge(dir)
	if err != nil {
		return nil, err
	}
	return verdict, folder.Write(dir, folder.VerdictFile, verdict)
}

func (t *trial) begin() {
	t.run = folder.Run{
		Started: time.Now(), Topic: estate.Topic, ResultsTopic: estate.Results, ProcessorGroup: estate.ProcessorGroup,
		Versions: map[string]string{"catchment": t.Version, "go": runtime.Version(), "kafka": jarVersion(t.Programs.Kafka), "cpus": strconv.Itoa(runtime.NumCPU())},
		Options: map[string]string{
			"events": strconv.FormatInt(t.Events, 10), "faults": strconv.Itoa(t.Faults), "duration": t.Duration.String(), "rate": fmt.Sprint(t.Rate), "together": strconv.Itoa(t.Together),
			"session timeout": sessions.String(), "segment age": segment.String(),
		},
		Must: []string{},
	}
	if t.Plan == nil {
		t.run.Must = mustHappen(nemesis.Schedule(t.Seed, t.Kinds, t.Together), t.Faults)
	}
	t.cast.Describe(&t.run, t.Seed)
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
		Parts: 12, Env: t.Env, Key: t.signer,
	})
	if err != nil {
		return err
	}
	defer t.estate.Close(ctx)
	failed := t.conduct(ctx, t.urls(), []phase{
		{"warm-up", t.warmUp},
		{"faults", t.faults},
		{"heal", t.heal},
		lastRequests,
		{"quiesce", func(ctx context.Context) error { return t.quiesce(ctx, t.estate.Observer(), estateNames) }},
		{"read", t.read},
	})
	return errors.Join(failed, t.end(ctx))
}

// phase is a part of a trial.
type phase struct {
	name string
	do   func(context.Context) error
}

// lastRequests is the phase that ends the sending.
var lastRequests = phase{name: "last requests"}

// conduct plays the providers and goes through the phases meanwhile.
func (t *trial) conduct(ctx context.Context, urls []string, phases []phase) (err error) {
	if t.journal, err = journal.Open(filepath.Join(t.Dir, folder.JournalFile)); err != nil {
		return err
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	sent := make(chan error, 1)
	go func() { sent <- t.send(sending, urls) }()
	for _, p := range phases {
		if p.do == nil {
			p.do = func(context.Context) error { stop(); return <-sent }
		}
		if err := t.phase(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// phase goes through one of the phases. What goes wrong with the system is in the run's description; the error is ours.
func (t *trial) phase(ctx context.Context, p phase) error {
	said := folder.Phase{Name: p.name, From: time.Now()}
	err := p.do(ctx)
	said.To = time.Now()
	if err != nil {
		said.Failed = err.Error()
		t.Say("%s: %v", p.name, err)
	}
	t.run.Phases = append(t.run.Phases, said)
	t.Say("%s: %.0f s; %d acknowledged of %d", p.name, said.To.Sub(said.From).Seconds(), t.progress.Acked.Load(), t.progress.Began.Load())
	return ctx.Err()
}

func (t *trial) urls() (urls []string) {
	for _, address := range t.estate.Ingresses() {
		urls = append(urls, "http://"+address)
	}
	return urls
}

// send plays the providers until ctx ends. Secrets are changed where the system reads the files of the cast.
func (t *trial) send(ctx context.Context, urls []string) error {
	rotate := 20 * time.Second
	if t.estate == nil {
		rotate = 0
	}
	report, err := workload.Run(ctx, workload.Options{
		Seed: t.Seed, Cast: t.cast, URLs: urls, Journal: t.journal, Events: t.Limit, Again: t.Again, Rate: t.Rate, Senders: t.Senders, Progress: &t.progress,
		Rotate: rotate, Drain: time.Minute,
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
		Estate: t.estate, Seed: t.Seed, Kinds: t.Kinds, Together: t.Together, Plan: t.Plan, Sessions: sessions, Say: t.Say,
		Journal: func(f folder.Fault) { _ = lines.Write(f); _ = lines.Flush() },
		Timing:  func(d folder.Timing) { t.facts.Timings = append(t.facts.Timings, d) },
		Enough:  func(n int) bool { return t.Plan == nil && n >= t.Faults && !time.Now().Before(until) },
		Settled: t.settled,
	})
	if err != nil {
		return err
	}
	for _, kind := range slices.Sorted(maps.Keys(t.report.Failed)) {
		t.Say("%s could not be made: %s", kind, t.report.Failed[kind])
	}
	return t.enough(ctx)
}

// enough waits until so many events are acknowledged as were asked for.
func (t *trial) enough(ctx context.Context) error {
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
	if t.Limit > 0 {
		return nil // none may be left to send
	}
	since := time.Now().UnixNano()
	return estate.Await(ctx, 90*time.Second, 50*time.Millisecond, "an acknowledgement", func(context.Context) error {
		if t.progress.LastAck.Load() <= since {
			return errors.New("there was none")
		}
		return nil
	})
}

func (t *trial) heal(ctx context.Context) error {
	if t.Heal > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, t.Heal)
		defer cancel()
	}
	return t.estate.Heal(ctx)
}

// names are those of topics and groups.
type names struct{ topic, results, archiver, resultsArchiver string }

var estateNames = names{estate.Topic, estate.Results, estate.ArchiverGroup, estate.ArchiverResultGroup}

// quiesce waits until everything that was acknowledged is processed, published and archived.
func (t *trial) quiesce(ctx context.Context, o *estate.Observer, n names) error {
	since := time.Now()
	err := estate.Await(ctx, t.Drain, 500*time.Millisecond, "rest", func(ctx context.Context) error { return atRest(ctx, o, n) })
	t.timing(folder.Timing{Name: "last request, until all was processed and archived", Seconds: time.Since(since).Seconds()})
	return err
}

func (t *trial) timing(d folder.Timing) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.facts.Timings = append(t.facts.Timings, d)
}

func atRest(ctx context.Context, o *estate.Observer, n names) error {
	ends, err := o.Ends(ctx, n.topic)
	if err != nil {
		return err
	}
	progress, err := o.Progress(ctx)
	if err != nil {
		return err
	}
	if err := reached("processed", progress, ends); err != nil {
		return err
	}
	pending, err := o.Pending(ctx)
	if err != nil {
		return err
	}
	if pending > 0 {
		return fmt.Errorf("%d attempts and results are pending", pending)
	}
	for topic, group := range map[string]string{n.topic: n.archiver, n.results: n.resultsArchiver} {
		if topic == "" {
			continue
		}
		ends, err := o.Ends(ctx, topic)
		if err != nil {
			return err
		}
		committed, err := o.Committed(ctx, group, topic)
		if err != nil {
			return err
		}
		if err := reached(topic+" archived", committed, ends); err != nil {
			return err
		}
	}
	return nil
}

func reached(what string, at, ends map[int32]int64) error {
	var behind int64
	for partition, end := range ends {
		behind += end - at[partition]
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
		Verifier: t.verifier,
	})
}

// end writes down what was measured, and ends everything.
func (t *trial) end(ctx context.Context) error {
	t.count(ctx)
	t.estate.Close(ctx)
	err := t.writeDown(t.estate.Postgres.Password(), estate.SecretKey, t.signer)
	if !t.Keep {
		err = errors.Join(err, os.RemoveAll(filepath.Join(t.Dir, "data")))
	}
	return err
}

// writeDown completes the folder. secrets are those of the system, beside the cast's.
func (t *trial) writeDown(secrets ...string) error {
	t.run.Stopped = time.Now()
	return errors.Join(
		folder.Write(t.Dir, folder.RunFile, &t.run),
		folder.Write(t.Dir, folder.FactsFile, &t.facts),
		t.cast.WriteSecrets(t.Dir, secrets...),
	)
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
		folder.Halted:            int64(t.estate.Gauge(ctx, "catchment_processor_halted")),
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
