package processor

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/run"
)

// pausePoll is how long a pause or its end may take to be seen.
const pausePoll = 500 * time.Millisecond

// loadPaused reads which operations are paused.
func (e *engine) loadPaused(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	list, err := e.store.Paused(ctx)
	if err != nil {
		return err
	}
	now := make(map[string]bool, len(list))
	for _, p := range list {
		now[p.Operation] = true
	}
	if before := e.paused.Swap(&now); before == nil || !maps.Equal(*before, now) {
		if before != nil || len(now) > 0 {
			e.log.Info("paused operations", slog.Any("operations", slices.Sorted(maps.Keys(now))))
		}
	}
	return nil
}

// watchPaused follows what is paused, until ctx ends.
func (e *engine) watchPaused(ctx context.Context) {
	for ctx.Err() == nil {
		if err := e.loadPaused(ctx); err != nil && ctx.Err() == nil {
			e.log.Debug("paused operations could not be read", slog.Any("error", err))
		}
		run.Pause(ctx, pausePoll)
	}
}

// isPaused says whether the operation's attempts wait.
func (e *engine) isPaused(operation string) bool {
	m := e.paused.Load()
	return m != nil && (*m)[operation]
}

// deferral stands in for an attempt that is not made now: its number is 0, and the first attempt that is made is 1.
func (op *operation) deferral(ev *event.Event, why string) *attempt {
	return &attempt{op: op, ev: ev, held: why}
}

const heldByPause = "the operation is paused"
