package processor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/catchment-dev/catchment/pkg/expr"
	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// walk is one way through attempts: it makes them in a transaction that has locked their guards, and says what they wrote
// to the guards, and what became of them.
type walk struct {
	tx       *store.Tx
	now      func() time.Time
	plans    []*attempt
	held     map[store.Guard]store.Newest // as locked
	deferred bool                         // deferred constraints are checked after each attempt
	until    time.Time                    // when no further attempt is begun, each of which is made on its own; zero: never

	newest  map[store.Guard]store.Newest // with what the walk has written
	written map[store.Guard]store.Newest
	settled []*settlement
}

func (w *walk) begin() {
	w.newest, w.written, w.settled = maps.Clone(w.held), map[store.Guard]store.Newest{}, make([]*settlement, 0, len(w.plans))
}

// run makes the attempts: all together, and after a failure, or with apart, each in a savepoint.
func (w *walk) run(ctx context.Context, apart bool) error {
	if err := w.tx.Mark(ctx); err != nil {
		return err
	}
	for again := !apart && !slices.ContainsFunc(w.plans, (*attempt).alone); again; {
		ok, overlap, err := w.together(ctx)
		if ok || err != nil {
			return err
		}
		if err := w.tx.Back(ctx); err != nil {
			return err
		}
		again = overlap
	}
	for try := 1; ; try++ {
		err := w.oneByOne(ctx, try > maxSuspects)
		if !errors.Is(err, errSuspect) {
			return err
		}
		if err := w.tx.Back(ctx); err != nil {
			return err
		}
	}
}

// maxSuspects is how often the operations run again because of one that is to be run on its own, before all that might
// be are.
const maxSuspects = 3

// settle notes an attempt's outcome: effect and no error: succeeded; neither: superseded.
func (w *walk) settle(a *attempt, effect *store.Effect, err error) {
	if err == nil && effect != nil && a.guarded() {
		w.newest[a.target()], w.written[a.target()] = a.newest(), a.newest()
	}
	w.settled = append(w.settled, judge(a, effect, err, w.now()))
}

// together makes all attempts in one round trip. ok is false where one of them failed; with overlap the failure is only
// that of a set, which is not used again.
func (w *walk) together(ctx context.Context) (ok, overlap bool, err error) {
	w.begin()
	var called []*attempt
	written := maps.Clone(w.held) // as if all succeed
	for _, a := range w.plans {
		if ok, err := admit(a, written); !ok {
			w.settle(a, nil, err)
			continue
		}
		if a.guarded() {
			written[a.target()] = a.newest()
		}
		called = append(called, a)
	}
	groups := groupSets(called)
	calls := make([]store.Call, len(groups))
	for i := range groups {
		calls[i] = groups[i].call()
	}
	if len(calls) == 0 {
		return true, false, nil
	}
	effects, err := w.tx.Run(ctx, calls)
	ok = true
	for i := range effects {
		switch g := &groups[i]; {
		case !g.whole(effects[i]):
			g.set.Retire()
			ok, overlap = false, true
		case !g.accept(effects[i]):
			ok = false
		case err == nil:
			for _, a := range g.attempts {
				effect := g.share(effects[i])
				w.settle(a, &effect, nil)
			}
		}
	}
	if err != nil && (!isOwn(err) || ctx.Err() != nil) {
		var ce *store.CallError
		if errors.As(err, &ce) && ce.Call >= 0 {
			err = named(err, groups[ce.Call].attempts)
		}
		return false, false, err
	}
	if err != nil {
		return false, overlap || blame(groups, err, ok), nil
	}
	return ok, overlap, nil
}

// blame finds whose failure err is; fine: all before it did what they must. overlap: it is only that of a set.
func blame(groups []group, err error, fine bool) (overlap bool) {
	var ce *store.CallError
	if !errors.As(err, &ce) || ce.Call < 0 {
		return false
	}
	switch g := &groups[ce.Call]; {
	case g.set != nil && store.Overlaps(err):
		g.set.Retire()
		return true
	case g.set == nil && fine:
		g.attempts[0].failure, g.attempts[0].took = err, ce.Took // a timeout is not waited for again
	}
	return false
}

// oneByOne makes the attempts each in a savepoint, and as many as possible in one round trip. alone: those of which rows
// are expected are made on their own. With until, each is, and the walk may end before the last.
func (w *walk) oneByOne(ctx context.Context, alone bool) error {
	w.begin()
	var next []*attempt
	flush := func() error {
		err := w.several(ctx, next)
		next = next[:0]
		return err
	}
	for i, a := range w.plans {
		if i > 0 && !w.until.IsZero() && w.now().After(w.until) {
			break
		}
		single := !w.until.IsZero() || a.suspect || a.alone() || alone && a.op.spec.ExpectRows != "any"
		if single || dependsOn(a, next) {
			if err := flush(); err != nil {
				return err
			}
		}
		ok, err := admit(a, w.newest)
		switch {
		case !ok:
			w.settle(a, nil, err)
		case a.failure != nil:
			w.settle(a, nil, a.failure)
		case single:
			err = w.single(ctx, a)
			if err != nil {
				return err
			}
		default:
			next = append(next, a)
		}
	}
	return flush()
}

// dependsOn says whether what a may do depends on what becomes of the attempts before it. For a guard it does not where
// all versions have one shape: they come in their order, so that none of them is older than those that were written.
func dependsOn(a *attempt, before []*attempt) bool {
	if slices.ContainsFunc(a.deps, func(o *attempt) bool { return slices.Contains(before, o) }) {
		return true
	}
	return a.guarded() && slices.ContainsFunc(before, func(o *attempt) bool {
		return o.guarded() && o.target() == a.target() && !expr.SameShape(o.version.Key, a.version.Key)
	})
}

// several makes attempts in one round trip, each in a savepoint.
func (w *walk) several(ctx context.Context, attempts []*attempt) error {
	if len(attempts) == 0 {
		return nil
	}
	calls := make([]store.Call, len(attempts))
	for i, a := range attempts {
		calls[i] = a.call
	}
	outcomes, err := w.tx.RunApart(ctx, calls, w.deferred)
	if err != nil {
		return err
	}
	var again error
	for i, a := range attempts {
		o := &outcomes[i]
		switch {
		case o.Err != nil:
			a.took = o.Effect.Took
			w.settle(a, nil, o.Err)
		case a.accept(o.Effect) != nil:
			a.suspect, again = true, errSuspect
		default:
			w.settle(a, &o.Effect, nil)
		}
	}
	return again
}

// single makes one attempt on its own.
func (w *walk) single(ctx context.Context, a *attempt) error {
	effect, err := tryOne(ctx, w.tx, a)
	switch {
	case err == nil:
		w.settle(a, &effect, nil)
	case isOwn(err) && ctx.Err() == nil:
		w.settle(a, nil, err)
	default:
		return named(err, []*attempt{a})
	}
	return nil
}

// named says in the statement of which attempts, of one operation, err came up: for whoever looks for the reason why a batch is tried again.
func named(err error, attempts []*attempt) error {
	var ce *store.CallError
	if !errors.As(err, &ce) {
		return err
	}
	a := attempts[0]
	if len(attempts) > 1 {
		return fmt.Errorf("operation %s, %d events from %s of %s on: %w", a.op.spec.Name, len(attempts), a.ev.ID, a.ev.Source, err)
	}
	return fmt.Errorf("operation %s, event %s of %s: %w", a.op.spec.Name, a.ev.ID, a.ev.Source, err)
}

// tryOne makes an attempt in a savepoint.
func tryOne(ctx context.Context, tx *store.Tx, a *attempt) (store.Effect, error) {
	start := time.Now()
	effect, err := tx.Try(ctx, a.call, a.accept)
	a.took = time.Since(start)
	return effect, err
}

// isOwn says whether err is the operation's own, so that the batch goes on without it.
func isOwn(err error) bool {
	var ce *store.CallError
	return errors.As(err, &ce) && store.Classify(err) != store.Transient
}

// admit says whether an attempt may write: its version is not older than the newest. Where the two cannot be compared,
// or an expression failed, that is the attempt's error.
func admit(a *attempt, newest map[store.Guard]store.Newest) (bool, error) {
	if a.number > 0 && len(a.deps) > 0 {
		var err error
		if a.held, err = a.wait(); err != nil {
			return false, err
		}
	}
	if a.held != "" {
		return false, nil
	}
	if !a.guarded() {
		return a.err == nil, a.err
	}
	held := newest[a.target()]
	if len(held.Version) > 0 && !expr.SameShape(a.version.Key, held.Version) {
		return false, &shapeError{a.op.wrap("version", fmt.Errorf("%s: the version is %s, the stored one is %s",
			a.op.version, expr.Shape(a.version.Key), expr.Shape(held.Version)))}
	}
	return !a.newest().Less(held) || mutant.On(mutant.M9), nil
}
