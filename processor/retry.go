package processor

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/catchment-dev/catchment/processor/internal/store"
)

const retryPoll = 500 * time.Millisecond // how long a retry may be overdue when nothing else happens

// retries makes the attempts that have become due, until ctx ends. Several may run beside each other.
func (e *engine) retries(ctx context.Context) {
	names := slices.Sorted(maps.Keys(e.byName))
	if len(names) == 0 {
		return
	}
	pause := firstPause
	for ctx.Err() == nil {
		wait := time.Duration(0)
		err := e.retryOne(ctx, names)
		switch {
		case err == nil:
			pause = firstPause
		case errors.Is(err, store.ErrNothingDue):
			pause, wait = firstPause, retryPoll/2+rand.N(retryPoll)
		default:
			if ctx.Err() == nil {
				e.log.Warn("a retry could not be made; it stays due", slog.Any("error", err))
			}
			wait = pause/2 + rand.N(pause)
			pause = min(2*pause, longestPause)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// retryOne makes one due attempt in a transaction of its own. A COMMIT that nobody answers needs no care: the retry's
// row says what is still to be done.
func (e *engine) retryOne(ctx context.Context, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, e.txTimeout)
	defer cancel()
	tx, err := e.store.Begin(ctx, statementTimeout, e.txTimeout)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	due, err := tx.Due(ctx, names)
	if err != nil {
		return err
	}
	op := e.byName[due.Operation]
	octx, ocancel := context.WithTimeout(context.WithoutCancel(ctx), e.txTimeout+op.spec.Timeout)
	defer ocancel()
	return e.retry(octx, tx, op, due)
}

func (e *engine) retry(ctx context.Context, tx *store.Tx, op *operation, due *store.Due) error {
	a := op.plan(&due.Event, input(&due.Event), due.Attempt) //nolint:contextcheck // an expression has a deadline of its own
	newest, err := lockGuards(ctx, tx, []*attempt{a})
	if err != nil {
		return err
	}
	written := map[store.Guard]store.Newest{}
	var effect *store.Effect
	var failure error
	if admit(a, newest) {
		done, err := tryOne(ctx, tx, a)
		switch {
		case err == nil:
			effect = &done
			note(a, newest, written)
		case isOwn(err):
			failure = err
		default:
			return err
		}
	} else {
		failure = a.err
	}
	s := judge(a, effect, failure, e.now())
	if s.letter != nil {
		s.letter.FirstFailed = due.FirstFailed
	}
	w := store.Writes{Newest: written}
	s.appendTo(&w)
	if err := tx.Settle(ctx, &w, a.key(), op.spec.Name, s.retry != nil); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	e.metrics.operations.WithLabelValues(op.spec.Name, s.result.Outcome).Inc()
	return nil
}
