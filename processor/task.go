package processor

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// taskTime is after how long no further task of a transaction is begun, so that it does not hold its locks for long.
const taskTime = time.Second

// errCareful asks for tasks to be performed again, each in a savepoint of its own.
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

// perform makes the attempts of tasks of distinct events or operations in one transaction: in their order, each within a
// savepoint, or, without careful, all in one round trip. Their events must be locked. It may stop after the first ones:
// it returns those that were made. errCareful: it must be done again, carefully.
func (e *engine) perform(ctx context.Context, tx *store.Tx, tasks []*task, careful bool) ([]outcome, error) {
	began := e.now()
	plans := make([]*attempt, len(tasks))
	for i, t := range tasks {
		plans[i] = t.op.plan(t.ev, input(t.ev), t.number) //nolint:contextcheck // an expression has a deadline of its own
		plans[i].first = t.first
	}
	if err := inquire(ctx, tx, plans); err != nil {
		return nil, err
	}
	newest, err := tx.Hold(ctx, nil, wanted(plans))
	if err != nil {
		return nil, err
	}
	r := &round{eng: e, tx: tx, newest: newest, writes: store.Writes{Newest: map[store.Guard]store.Newest{}}}
	if careful || slices.ContainsFunc(plans, (*attempt).alone) {
		for i, a := range plans {
			if i > 0 && e.now().Sub(began) > taskTime {
				break
			}
			if err := r.one(ctx, tasks[i], a); err != nil {
				return nil, err
			}
		}
	} else if err := r.all(ctx, tasks, plans); err != nil {
		return nil, err
	}
	if len(r.done) == 0 {
		return nil, nil
	}
	return r.done, tx.Settle(ctx, &r.writes, r.made)
}

// round is the work of one perform.
type round struct {
	eng    *engine
	tx     *store.Tx
	newest map[store.Guard]store.Newest
	writes store.Writes
	made   []store.Made
	done   []outcome
}

func (r *round) one(ctx context.Context, t *task, a *attempt) error {
	if ok, err := admit(a, r.newest); !ok {
		r.settle(t, a, nil, err)
		return nil
	}
	effect, err := tryOne(ctx, r.tx, a)
	switch {
	case err == nil:
		note(a, r.newest, r.writes.Newest)
		r.settle(t, a, &effect, nil)
	case isOwn(err):
		r.settle(t, a, nil, err)
	default:
		return err
	}
	return nil
}

func (r *round) all(ctx context.Context, tasks []*task, plans []*attempt) error {
	var calls []store.Call
	var called []int
	for i, a := range plans {
		if ok, err := admit(a, r.newest); !ok {
			r.settle(tasks[i], a, nil, err)
			continue
		}
		note(a, r.newest, r.writes.Newest)
		calls, called = append(calls, a.call), append(called, i)
	}
	if len(calls) == 0 {
		return nil
	}
	effects, err := r.tx.Run(ctx, calls)
	if isOwn(err) && ctx.Err() == nil {
		return errCareful
	}
	if err != nil {
		return err
	}
	for j, i := range called {
		if plans[i].accept(effects[j]) != nil {
			return errCareful
		}
		r.settle(tasks[i], plans[i], &effects[j], nil)
	}
	return nil
}

func (r *round) settle(t *task, a *attempt, effect *store.Effect, err error) {
	s := judge(a, effect, err, r.eng.now())
	if a.held != "" { // it has waited before
		s.postponed = true
		s.retry.In, s.retry.Attempt = again(r.eng.now().Sub(t.first)), max(t.number, 1)
	}
	if t.final && !s.postponed && s.retry != nil {
		s.retry, s.result.Outcome = nil, dead
		s.letter = a.letter(reasonExhausted, s.result.Error, r.eng.now())
	}
	if s.letter != nil && !t.first.IsZero() {
		s.letter.FirstFailed = t.first
	}
	s.appendTo(&r.writes)
	r.made = append(r.made, store.Made{Key: a.key(), Operation: a.op.spec.Name, Again: s.retry != nil, Alive: s.letter == nil})
	r.done = append(r.done, outcome{t, s})
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
