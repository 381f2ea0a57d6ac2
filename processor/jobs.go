package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/expr"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

const (
	jobPoll  = time.Second // how long a job may wait for a processor that has nothing else to do
	jobChunk = 100         // attempts of one transaction at most
	slowJob  = 10          // attempts a second while live traffic is behind

	lookEvery  = time.Second // how old the answer may be whether live traffic is behind
	lagTimeout = 5 * time.Second
)

// runner runs redrives and replays. The job's row moves on in the transaction that holds the effects, so that a job goes on
// where it was, whoever dies.
type runner struct {
	eng     *engine
	behind  func(context.Context) bool // live traffic waits
	careful bool
	size    int
}

// jobs runs jobs, one chunk after the other, until ctx ends. Several processors share the jobs.
func (e *engine) jobs(ctx context.Context, behind func(context.Context) bool) {
	r := &runner{eng: e, behind: behind, size: jobChunk}
	pulse := e.dog.watch("jobs")
	defer e.dog.forget(pulse)
	pause := firstPause
	for ctx.Err() == nil {
		pulse.busy("a job's transaction", r.limit()+store.EndTimeout)
		job, err := r.step(ctx)
		wait := time.Duration(0)
		switch {
		case err == nil:
			pause, r.careful, r.size = firstPause, false, min(2*r.size, jobChunk)
		case errors.Is(err, store.ErrNothingDue):
			pause, wait = firstPause, jobPoll/2+rand.N(jobPoll)
		case errors.Is(err, errCareful) && !r.careful:
			r.careful = true
		case ctx.Err() == nil:
			r.careful, r.size = true, max(1, r.size/2)
			wait = pause/2 + rand.N(pause)
			pause = min(2*pause, longestPause)
			pulse.busy("why a job stands", statementTimeout+store.EndTimeout)
			e.hinder(ctx, job, err, wait)
		}
		pulse.idle()
		run.Pause(ctx, wait)
	}
}

// hinder lets the job's row say why it stands.
func (e *engine) hinder(ctx context.Context, job *store.Job, cause error, pause time.Duration) {
	if job == nil {
		e.log.Warn("no job could be looked for", slog.Any("error", cause))
		return
	}
	e.log.Warn("a job could not go on; it is tried again", slog.Int64("job", job.ID), slog.Any("error", cause))
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	if err := e.store.Hinder(ctx, job.ID, store.Message(cause), pause); err != nil {
		e.log.Debug("why a job stands could not be noted", slog.Int64("job", job.ID), slog.Any("error", err))
	}
}

// limit is the time of one transaction.
func (r *runner) limit() time.Duration {
	limit := r.eng.txTimeout
	for _, op := range r.eng.ops {
		limit += op.spec.Timeout
	}
	return limit
}

// step moves one job on by one transaction. A COMMIT that nobody answers needs no care: the job's row says how far it is.
func (r *runner) step(ctx context.Context) (*store.Job, error) {
	e := r.eng
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.limit())
	defer cancel()
	tx, err := e.store.Begin(ctx, statementTimeout, e.txTimeout)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(ctx)
	job, err := tx.Job(ctx, e.active())
	if err != nil {
		return nil, err
	}
	failpoint.Hit(failpoint.JobClaimed)
	if job.Upto == nil {
		upto, err := tx.Ceiling(ctx)
		if err != nil {
			return job, err
		}
		job.Upto = &upto
		if err := tx.Advance(ctx, job, job.Last, store.Tally{}, 0, false); err != nil {
			return job, err
		}
		return job, tx.Commit(ctx)
	}
	c := &chunk{runner: r, tx: tx, job: job, last: job.Last}
	pace := job.Rate
	if r.behind(ctx) && (pace <= 0 || pace > slowJob) {
		pace = slowJob
	}
	c.limit = r.size
	if pace > 0 {
		c.limit = min(c.limit, int(math.Ceil(pace)))
	}
	if job.Kind == store.Redrive {
		err = c.redrive(ctx)
	} else {
		err = c.replay(ctx)
	}
	if err != nil {
		return job, err
	}
	var pause time.Duration
	if pace > 0 {
		pause = time.Duration(float64(c.tally.Made()) / pace * float64(time.Second))
	}
	if err := tx.Advance(ctx, job, c.last, c.tally, pause, c.over); err != nil {
		return job, err
	}
	failpoint.Hit(failpoint.JobBeforeCommit)
	if err := e.finish(ctx, tx, c.done); err != nil {
		return job, err
	}
	failpoint.Hit(failpoint.JobAfterCommit)
	if c.over {
		e.log.Info("job done", slog.Int64("job", job.ID), slog.String("kind", job.Kind))
	}
	return job, nil
}

// chunk is one transaction of a job.
type chunk struct {
	*runner
	tx    *store.Tx
	job   *store.Job
	limit int

	last  int64
	over  bool // nothing is left
	tally store.Tally
	done  []outcome
}

// entry is one row that a chunk has looked at.
type entry struct {
	cursor int64
	task   *task // nil: skipped
}

// replay runs the job's operation for the next events.
func (c *chunk) replay(ctx context.Context) error {
	op := c.eng.byName[c.job.Operation]
	found, err := c.tx.Candidates(ctx, c.job.Selection, op.spec.On.Source, op.spec.On.Types, c.last, *c.job.Upto, c.limit)
	if err != nil {
		return err
	}
	c.over = len(found) < c.limit
	works, keys := make([]store.Work, len(found)), make([]store.Key, len(found))
	for i := range found {
		keys[i] = keyOf(&found[i].Event)
		works[i] = store.Work{Key: keys[i], Operation: c.job.Operation}
	}
	before, err := c.tx.Before(ctx, works)
	if err != nil {
		return err
	}
	never, err := neverRan(ctx, c.tx, op, keys)
	if err != nil {
		return err
	}
	entries := make([]entry, len(found))
	for i := range found {
		f, b := &found[i], before[works[i]]
		entries[i].cursor = f.Cursor
		if b.Pending || b.Effect && !c.job.Force || never[keys[i]] != "" || !c.eng.applies(op, &f.Event) { //nolint:contextcheck // an expression has a deadline of its own
			continue
		}
		entries[i].task = &task{op: op, ev: &f.Event, number: b.Attempts + 1}
	}
	return c.perform(ctx, entries, c.careful)
}

func keyOf(ev *event.Event) store.Key { return store.Key{Source: ev.Source, ID: ev.ID} }

// applies says whether the operation is for the event.
func (e *engine) applies(op *operation, ev *event.Event) bool {
	if !op.wants(ev.Source, ev.Type) {
		return false
	}
	ok, err := op.holds(input(ev))
	if err != nil {
		e.metrics.whenErrors.WithLabelValues(op.spec.Name).Inc()
	}
	return ok && err == nil
}

// holds evaluates the operation's condition.
func (op *operation) holds(in *expr.Input) (bool, error) {
	if op.when == nil {
		return true, nil
	}
	return op.when.EvalBool(in)
}

// perform makes the entries' attempts and counts them, up to the last one that was made.
func (c *chunk) perform(ctx context.Context, entries []entry, careful bool) error {
	var tasks []*task
	for _, e := range entries {
		if e.task != nil {
			tasks = append(tasks, e.task)
		}
	}
	if len(tasks) > 0 {
		var err error
		if c.done, err = c.eng.perform(ctx, c.tx, tasks, careful); err != nil {
			return err
		}
	}
	made := map[*task]string{}
	for _, o := range c.done {
		made[o.task] = o.result.Outcome
	}
	for _, e := range entries {
		if e.task == nil {
			c.tally.Skipped++
		} else if outcome, ok := made[e.task]; ok {
			c.count(outcome)
		} else {
			c.over = false
			return nil
		}
		c.last = e.cursor
	}
	return nil
}

func (c *chunk) count(outcome string) {
	switch outcome {
	case succeeded:
		c.tally.Succeeded++
	case superseded:
		c.tally.Superseded++
	case failed, deferred:
		c.tally.Failed++
	default:
		c.tally.Dead++
	}
}

// redrive tries the next dead letters once more: as many operations' ones as follow each other, or one whole record.
func (c *chunk) redrive(ctx context.Context) error {
	letters, err := c.tx.DeadLetters(ctx, c.job.Selection, c.last, *c.job.Upto, c.limit)
	if err != nil {
		return err
	}
	n := 0
	for n < len(letters) && letters[n].Operation != nil {
		n++
	}
	c.over = len(letters) < c.limit && n == len(letters)
	if n > 0 {
		return c.operations(ctx, letters[:n])
	}
	if len(letters) > 0 {
		c.last = letters[0].ID
		return c.record(ctx, &letters[0])
	}
	return nil
}

func (c *chunk) operations(ctx context.Context, letters []store.Whole) error {
	var keys []store.Key
	var works []store.Work
	for i := range letters {
		w := workOf(&letters[i])
		keys, works = append(keys, w.Key), append(works, w)
	}
	events, err := c.tx.LockEvents(ctx, keys)
	if err != nil {
		return err
	}
	before, err := c.tx.Before(ctx, works)
	if err != nil {
		return err
	}
	entries := make([]entry, len(letters))
	for i := range letters {
		l, w := &letters[i], works[i]
		entries[i].cursor = l.ID
		op, ev := c.eng.byName[w.Operation], events[w.Key]
		if op == nil || ev == nil || c.eng.holds(op) != "" || before[w].Pending || !c.eng.applies(op, ev) { //nolint:contextcheck // an expression has a deadline of its own
			continue // the letter stays
		}
		entries[i].task = &task{op: op, ev: ev, number: before[w].Attempts + 1, first: l.FirstFailedAt, final: true}
	}
	return c.perform(ctx, entries, true)
}

func workOf(l *store.Whole) store.Work {
	w := store.Work{Operation: *l.Operation}
	if l.Source != nil {
		w.Source = *l.Source
	}
	if l.EventID != nil {
		w.ID = *l.EventID
	}
	return w
}

// record reads a whole record again, with the codec of this release, and enters its events as if it came from Kafka.
func (c *chunk) record(ctx context.Context, l *store.Whole) error {
	part := store.Partition{Topic: l.Topic, TopicID: l.TopicID, Partition: l.Partition}
	rec := &kgo.Record{Topic: l.Topic, Partition: l.Partition, Offset: l.Offset, LeaderEpoch: -1, Key: l.Key, Value: l.Value}
	for _, h := range l.Headers {
		rec.Headers = append(rec.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
	}
	b := &batch{eng: c.eng, part: part, items: c.eng.reader.read(part, rec), apart: true, deferred: true, free: true} //nolint:contextcheck // an expression has a deadline of its own
	for _, it := range b.items {
		if it.err != nil {
			c.tally.Dead++
			return c.tx.FailedAgain(ctx, l.ID, it.reason, store.Message(it.err))
		}
	}
	if err := c.tx.Nested(ctx, func() error { return b.within(ctx, c.tx) }); err != nil {
		var own *store.OwnError
		if !errors.As(err, &own) || store.Classify(err) != store.Poison {
			return fmt.Errorf("dead letter %d: %w", l.ID, err)
		}
		c.tally.Dead++
		return c.tx.FailedAgain(ctx, l.ID, reasonUnstorable, store.Message(err))
	}
	c.tally.Succeeded++
	return c.tx.Bury(ctx, l.ID)
}

// behind returns a function that says whether live traffic waits: more than a batch of records of a partition, of whichever
// processor, or nobody can say. Its answer may be some time old.
func (s *Service) behind() func(context.Context) bool {
	var asked time.Time
	var answer bool
	return func(ctx context.Context) bool {
		if time.Since(asked) < lookEvery {
			return answer
		}
		lag, err := s.longestLag(ctx)
		if err != nil {
			s.log.Debug("whether live traffic waits is not known", slog.Any("error", err))
		}
		asked, answer = time.Now(), err != nil || lag > int64(s.cfg.Processor.Batch)
		return answer
	}
}

// longestLag is how many records wait in the partition in which most of them do.
func (s *Service) longestLag(ctx context.Context) (int64, error) {
	s.mu.Lock()
	ses := s.session
	s.mu.Unlock()
	if ses == nil {
		return 0, errors.New("Kafka is not reached")
	}
	ctx, cancel := context.WithTimeout(ctx, lagTimeout)
	defer cancel()
	places, err := s.engine.store.Places(ctx)
	if err != nil {
		return 0, err
	}
	ends, err := ses.admin.ListEndOffsets(ctx, ses.topic)
	if err != nil {
		return 0, fmt.Errorf("ask for the log's end: %w", err)
	}
	longest := int64(0)
	for _, p := range places {
		if end, ok := ends.Lookup(ses.topic, p.Partition); ok && end.Err == nil && p.TopicID == ses.topicID {
			longest = max(longest, end.Offset-p.NextOffset)
		}
	}
	return longest, nil
}
