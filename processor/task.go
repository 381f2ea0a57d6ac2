package processor

import (
	"context"
	"errors"
	"time"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// taskTime is after how long no further task of a transaction is begun, so that it does not hold its locks for long.
const taskTime = time.Second

// errCareful asks for tasks to be performed again, each in a savepoint of its own: a constraint failed at COMMIT.
var errCareful = errors.New("an operation failed: run with savepoints")

// task is an attempt that is made outside of a batch: a retry, or one that somebody asked for.
type task struct {
	op     *operation
	ev     *event.Event
	number int
	first  time.Time // when it failed first; zero: it has not failed yet
	final  bool      // a failure is a dead letter at once
}

// outcome is what became of a task.
type outcome struct {
	*task
	*settlement
}

// perform makes the attempts of tasks of distinct events or operations in one transaction, in which their events are
// locked: all in one round trip where that succeeds, else, and with careful, each in a savepoint and in their order. Then it
// may stop after the first ones: it returns those that were made.
func (e *engine) perform(ctx context.Context, tx *store.Tx, tasks []*task, careful bool) ([]outcome, error) {
	plans := make([]*attempt, len(tasks))
	for i, t := range tasks {
		plans[i] = t.op.plan(t.ev, input(t.ev), t.number) //nolint:contextcheck // an expression has a deadline of its own
		plans[i].first, plans[i].place = t.first, i
	}
	if err := inquire(ctx, tx, plans); err != nil {
		return nil, err
	}
	held, err := tx.Hold(ctx, nil, wanted(plans))
	if err != nil {
		return nil, err
	}
	w := &walk{tx: tx, now: e.now, plans: plans, held: held, deferred: true, until: e.now().Add(taskTime)}
	if err := w.run(ctx, careful); err != nil || len(w.settled) == 0 {
		return nil, err
	}
	writes := store.Writes{Newest: w.written}
	made, done := make([]store.Made, len(w.settled)), make([]outcome, len(w.settled))
	for i, s := range w.settled {
		t := tasks[s.attempt.place]
		t.fit(s, e.now())
		s.appendTo(&writes)
		made[i] = store.Made{Key: s.result.Key, Operation: s.result.Operation, Again: s.retry != nil, Alive: s.letter == nil}
		done[i] = outcome{t, s}
	}
	return done, tx.Settle(ctx, &writes, made)
}

// fit makes of an attempt's outcome what it is for the task: it may have waited before, or be the last one.
func (t *task) fit(s *settlement, now time.Time) {
	if s.attempt.held != "" {
		s.postponed, s.retry.Attempt = true, max(t.number, 1)
		if !t.first.IsZero() {
			s.retry.In = again(now.Sub(t.first))
		}
	}
	if t.final && !s.postponed && s.retry != nil {
		s.retry, s.result.Outcome = nil, dead
		s.letter = s.attempt.letter(reasonExhausted, s.result.Error, now)
	}
	if s.letter != nil && !t.first.IsZero() {
		s.letter.FirstFailed = t.first
	}
}

// finish commits what perform did.
func (e *engine) finish(ctx context.Context, tx *store.Tx, done []outcome) error {
	if err := tx.Commit(ctx); err != nil {
		if !errors.Is(err, store.ErrUnknown) && store.Classify(err) != store.Transient {
			return errors.Join(errCareful, err)
		}
		return err
	}
	for _, o := range done {
		e.metrics.operations.WithLabelValues(o.op.spec.Name, o.result.Outcome).Inc()
		e.learn(o.op, o.result.Error, o.sign)
	}
	return nil
}
