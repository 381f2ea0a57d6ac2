package processor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// dueAtOnce is how many retries one transaction makes at most.
const dueAtOnce = 20

const retryPoll = 500 * time.Millisecond // how long a retry may be overdue when nothing else happens

// retries makes the attempts that have become due, until ctx ends. Several may run beside each other.
func (e *engine) retries(ctx context.Context) {
	pause := firstPause
	pulse := e.dog.watch("retries")
	defer e.dog.forget(pulse)
	longest := 2 * e.txTimeout
	for _, op := range e.ops {
		longest = max(longest, 2*e.txTimeout+op.spec.Timeout)
	}
	for ctx.Err() == nil {
		wait := time.Duration(0)
		pulse.busy("a retry", longest+store.EndTimeout)
		err := e.retrySome(ctx)
		switch {
		case err == nil:
			pause = firstPause
		case errors.Is(err, store.ErrNothingDue):
			pause, wait = firstPause, retryPoll/2+rand.N(retryPoll)
		default:
			if ctx.Err() == nil {
				e.log.Warn("retries could not be made; they stay due", slog.Any("error", err))
			}
			wait = pause/2 + rand.N(pause)
			pause = min(2*pause, longestPause)
		}
		pulse.idle()
		run.Pause(ctx, wait)
	}
}

// retrySome makes some due attempts, or one of an operation whose circuit is to be tried.
func (e *engine) retrySome(ctx context.Context) error {
	if name := e.probing(); name != "" {
		if err := e.retryFew(ctx, []string{name}, 1); !errors.Is(err, store.ErrNothingDue) {
			return err
		}
	}
	return e.retryDue(ctx, e.active())
}

// active names the operations whose attempts may be made, sorted.
func (e *engine) active() []string {
	names := slices.Sorted(maps.Keys(e.byName))
	return slices.DeleteFunc(names, func(name string) bool { return e.holds(e.byName[name]) != "" })
}

// retryDue makes some due attempts in a transaction of their own. A COMMIT that nobody answers needs no care: the retries'
// rows say what is still to be done. A row whose operation is not configured here stays, for whoever has it.
func (e *engine) retryDue(ctx context.Context, names []string) error {
	return e.retryFew(ctx, names, dueAtOnce)
}

func (e *engine) retryFew(ctx context.Context, names []string, most int) error {
	if len(names) == 0 {
		return store.ErrNothingDue
	}
	ctx, cancel := context.WithTimeout(ctx, e.txTimeout)
	defer cancel()
	tx, err := e.store.Begin(ctx, statementTimeout, e.txTimeout)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	due, err := tx.Due(ctx, names, most)
	var gone *store.BodyGoneError
	if errors.As(err, &gone) {
		return e.giveUp(ctx, tx, gone)
	}
	if err != nil {
		return err
	}
	tasks := make([]*task, len(due))
	for i := range due {
		d := &due[i]
		tasks[i] = &task{op: e.byName[d.Operation], ev: &d.Event, number: d.Attempt, first: d.FirstFailed}
	}
	octx, ocancel := context.WithTimeout(context.WithoutCancel(ctx), e.txTimeout+e.byName[due[0].Operation].spec.Timeout)
	defer ocancel()
	done, err := e.perform(octx, tx, tasks, true)
	if err != nil {
		return err
	}
	return e.finish(octx, tx, done)
}

// giveUp ends retries whose events are not there any more: nothing can be run for them.
func (e *engine) giveUp(ctx context.Context, tx *store.Tx, gone *store.BodyGoneError) error {
	w, made := store.Writes{}, []store.Made{}
	for i := range gone.Retries {
		d := &gone.Retries[i]
		w.Dead = append(w.Dead, store.DeadLetter{
			Source: d.Event.Source, EventID: d.Event.ID, Operation: d.Operation, Reason: reasonBodyGone, Error: gone.Error(),
			Attempts: d.Attempt - 1, FirstFailed: d.FirstFailed, LastFailed: e.now(),
		})
		made = append(made, store.Made{Key: store.Key{Source: d.Event.Source, ID: d.Event.ID}, Operation: d.Operation})
	}
	if err := tx.Settle(ctx, &w, made); err != nil {
		return err
	}
	return tx.Commit(ctx)
}
