package processor

import (
	"context"
	"log/slog"
	"time"

	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

const positionCheck = 5 * time.Second

// checkPositions says when Postgres no longer has what a worker has committed: a standby that lagged took over, or another
// owner. A worker with records finds that out by itself; one without would leave what was lost unread.
func (ses *session) checkPositions(ctx context.Context) error {
	err := ses.comparePositions(ctx)
	if err != nil && ctx.Err() == nil {
		ses.eng.metrics.fenced.Inc()
		ses.log.Warn("the stored positions are not ours: joining the group again", slog.Any("error", err))
	}
	return err
}

// comparePositions returns ErrMoved or ErrFenced; nil also when Postgres does not answer.
func (ses *session) comparePositions(ctx context.Context) error {
	type mark struct {
		w    *worker
		next int64
	}
	marks := map[int32]mark{}
	ses.mu.Lock()
	for p, w := range ses.workers {
		marks[p] = mark{w, w.position()}
	}
	ses.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	stored, err := ses.eng.store.Positions(ctx, ses.topicID)
	if err != nil {
		return nil // asked again; who writes finds out
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	for p, m := range marks {
		held, ok := stored[p]
		switch {
		case ses.workers[p] != m.w: // revoked meanwhile
		case mutant.On(mutant.M5):
		case !ok, held.Next < m.next: // it only grows: what was committed before we asked is there
			return store.ErrMoved
		case held.Owner != m.w.owner:
			return store.ErrFenced
		}
	}
	return nil
}
