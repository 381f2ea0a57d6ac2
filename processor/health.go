package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/processor/internal/store"
)

// What the processor stands on, as readiness names it.
const (
	onPostgres = "postgres"
	onKafka    = "kafka"
	onSchema   = "schema"
)

// fault is why the last try of something failed.
type fault struct {
	err error
	at  time.Time
}

// databasePart says whether the database or what is in it is to blame.
func databasePart(err error) string {
	var rights *store.RightsError
	if errors.Is(err, store.ErrNoSchema) || errors.As(err, &rights) {
		return onSchema
	}
	return onPostgres
}

// faultsNow joins the faults that are younger than faultShows, or all of them.
func (s *Service) faultsNow(all bool) error {
	var errs []error
	for _, part := range slices.Sorted(maps.Keys(s.faults)) {
		f := s.faults[part]
		if all || time.Since(f.at) < faultShows {
			text := f.err.Error()
			if !strings.HasPrefix(text, part+": ") {
				text = part + ": " + text
			}
			errs = append(errs, errors.New(text))
		}
	}
	return errors.Join(errs...)
}

// pulse is how a goroutine shows that it lives: it says for how long it may be silent.
type pulse struct {
	name string

	mu    sync.Mutex
	what  string // what it does; empty: it waits for work
	limit time.Duration
	beats uint64
}

// busy says what begins now, and after how long at most there is another beat.
func (p *pulse) busy(what string, limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.limit, p.beats = what, limit, p.beats+1
}

// beat says that what goes on makes progress.
func (p *pulse) beat() {
	if p == nil {
		return // nobody waits for it
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beats++
}

// idle says that there is nothing to do.
func (p *pulse) idle() { p.busy("", 0) }

func (p *pulse) read() (what string, limit time.Duration, beats uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.what, p.limit, p.beats
}

// watchdog notices a goroutine that is silent for longer than it said, by more than patience. All that it does has a
// deadline, so it then hangs in a call that knows none, and would for ever: Kafka's client goes on with its heartbeats, and
// nobody else gets the partition.
type watchdog struct {
	patience time.Duration

	mu     sync.Mutex
	silent map[*pulse]*silence
}

type silence struct {
	beats uint64
	since time.Duration // of our own ticks: a process that was stopped, or got no CPU, was not silent
}

func newWatchdog(patience time.Duration) *watchdog {
	return &watchdog{patience: patience, silent: map[*pulse]*silence{}}
}

// watch adds a goroutine, until it is forgotten.
func (d *watchdog) watch(name string) *pulse {
	p := &pulse{name: name}
	d.add(p)
	return p
}

func (d *watchdog) add(p *pulse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.silent[p] = &silence{}
}

func (d *watchdog) forget(p *pulse) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.silent, p)
}

// check adds a tick to all silences, and returns the first that is too long; nil: there is none.
func (d *watchdog) check(tick time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p, s := range d.silent {
		what, limit, beats := p.read()
		if what == "" || beats != s.beats {
			s.beats, s.since = beats, 0
			continue
		}
		if s.since += tick; s.since > limit+d.patience {
			return &wedgedError{p.name, what, s.since, limit}
		}
	}
	return nil
}

// wedgedError ends the process.
type wedgedError struct {
	who, what     string
	silent, limit time.Duration
}

func (e *wedgedError) Error() string {
	return fmt.Sprintf("%s hangs: %s should have ended after %s at most, and has not after %s", e.who, e.what, e.limit, e.silent.Round(time.Second))
}

// guard runs f, and returns without it when a goroutine hangs: after a dump of all goroutines, and after the others had
// the time of a drain to end what they do.
func (s *Service) guard(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	tick := time.NewTicker(s.tick)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
		err := s.dog.check(s.tick)
		if err == nil {
			continue
		}
		s.log.Error("a part of the processor hangs: the process ends, so that another one goes on", slog.Any("error", err))
		if _, e := s.dump.Write(stacks()); e != nil {
			err = errors.Join(err, e)
		}
		cancel()
		t := time.NewTimer(drain)
		defer t.Stop()
		select {
		case late := <-ended:
			err = errors.Join(err, late)
		case <-t.C:
		}
		return err
	}
}

// stacks is what all goroutines do.
func stacks() []byte {
	for size := 1 << 20; ; size *= 2 {
		b := make([]byte, size)
		if n := runtime.Stack(b, true); n < size || size >= 64<<20 {
			return append(b[:n], '\n')
		}
	}
}

// errNoFetches ends a session whose client brings nothing although there is something.
var errNoFetches = errors.New("Kafka has records, and none comes")

// checkFetches makes the check that says when partitions wait for records that are there: a new session has a new client.
func (ses *session) checkFetches() func(context.Context) error {
	type waiting struct {
		next   int64
		checks int
	}
	seen := map[int32]waiting{}
	patience := max(2, int(2*ses.svc.dog.patience/topicCheck)+1)
	return func(ctx context.Context) error {
		if ses.eng.gapsOK {
			return nil // the end of a compacted log may hold no record
		}
		tctx, cancel := context.WithTimeout(ctx, topicCheck)
		defer cancel()
		ends, err := ses.admin.ListEndOffsets(tctx, ses.topic)
		now := map[int32]waiting{}
		for p, next := range ses.thirsting() {
			end, ok := ends.Lookup(ses.topic, p)
			if err != nil || !ok || end.Err != nil || end.Offset <= next {
				continue
			}
			now[p] = waiting{next, 1}
			if before := seen[p]; before.next == next {
				now[p] = waiting{next, before.checks + 1}
			}
			if now[p].checks > patience {
				ses.log.Error("records are not fetched: joining the group again", slog.Int("partition", int(p)), slog.Int64("next_offset", next))
				return errNoFetches
			}
		}
		seen = now
		return nil
	}
}

// thirsting are the partitions without records, and the offsets that they wait for.
func (ses *session) thirsting() map[int32]int64 {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	out := map[int32]int64{}
	for p, w := range ses.workers {
		w.mu.Lock()
		if len(w.queue) == 0 && !w.ended {
			out[p] = w.next
		}
		w.mu.Unlock()
	}
	return out
}
