package processor

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/inspect"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// What a trial shows.
type (
	// Trial is what an operation would do for an event.
	Trial = inspect.Trial
	// StatementEffect is what one statement would change.
	StatementEffect = inspect.StatementEffect
)

// Bench makes attempts that have no effect: each is rolled back.
type Bench struct {
	eng *engine
	db  *store.Store
}

// OpenBench compiles the configuration's operations and prepares them on its database. Close it after use. The error is
// config.Errors when an operation is wrong.
func OpenBench(ctx context.Context, cfg *settings.File, log *slog.Logger) (*Bench, error) {
	s, db, err := unattended(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	return &Bench{eng: s.engine, db: db}, nil
}

// unattended makes an engine for the tool, without Kafka.
func unattended(ctx context.Context, cfg *settings.File, log *slog.Logger) (*Service, *store.Store, error) {
	c := *cfg
	c.Processor.Migrate = false
	s, err := New(&c, log, prometheus.NewRegistry(), absent(cfg)...)
	if err != nil {
		return nil, nil, err
	}
	for _, op := range s.ops {
		op.away = op.spec.Handler != ""
	}
	db, err := store.Open(ctx, c.Postgres, "catchment-tool")
	if err != nil {
		return nil, nil, err
	}
	s.setEngine(db)
	if err := s.prepare(ctx); err != nil {
		db.Close()
		return nil, nil, err
	}
	return s, db, nil
}

// absent stands in for the handlers in Go, which only the processor's own program has. Their operations are held.
func absent(cfg *settings.File) (handlers []Handler) {
	names := map[string]bool{}
	for _, op := range cfg.Operations {
		if op.Handler != "" {
			names[op.Handler] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		handlers = append(handlers, Handle(name, func(context.Context, pgx.Tx, event.Event) (Result, error) {
			return Result{}, errors.New(heldByAbsence)
		}))
	}
	return handlers
}

const heldByAbsence = "its handler in Go is not in this program"

// Close gives the connections back.
func (b *Bench) Close() { b.db.Close() }

// Operation says whether the configuration has an operation of that name.
func (b *Bench) Operation(name string) error {
	if b.eng.byName[name] == nil {
		return fmt.Errorf("there is no operation %q in the configuration: expected one of %s", name, strings.Join(slices.Sorted(maps.Keys(b.eng.byName)), ", "))
	}
	return nil
}

// errRollback ends a trial's savepoint.
var errRollback = errors.New("a trial has no effect")

// Try runs an operation for a stored event and takes it back. Locks are held until it returns; sequences move on all the
// same. The error wraps inspect.ErrNoEvent when there is no such event.
func (b *Bench) Try(ctx context.Context, operation, source, id string) (*Trial, error) {
	if err := b.Operation(operation); err != nil {
		return nil, err
	}
	op := b.eng.byName[operation]
	if op.away {
		return nil, fmt.Errorf("operation %s cannot be tried here: %s", operation, heldByAbsence)
	}
	tx, err := b.db.Begin(ctx, statementTimeout, b.eng.txTimeout)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(ctx)
	key := store.Key{Source: source, ID: id}
	events, err := tx.LockEvents(ctx, []store.Key{key})
	if err != nil {
		return nil, err
	}
	ev := events[key]
	if ev == nil {
		return nil, fmt.Errorf("%w: source %s, ID %s", store.ErrNoEvent, source, id)
	}
	work := store.Work{Key: key, Operation: operation}
	before, err := tx.Before(ctx, []store.Work{work})
	if err != nil {
		return nil, err
	}
	t := &Trial{
		Operation: operation, Source: source, EventID: id, Type: ev.Type, Before: before[work].Attempts, Effect: before[work].Effect,
		Params: map[string]any{}, Changes: []StatementEffect{},
	}
	if t.Why = op.whyNot(ev); t.Why != "" { //nolint:contextcheck // an expression has a deadline of its own
		return t, nil
	}
	never, err := neverRan(ctx, tx, op, []store.Key{key})
	if err != nil {
		return nil, err
	}
	if name := never[key]; name != "" {
		t.Why = op.wrap("depends_on", fmt.Errorf("%s has not run for this event: replay it first", name)).Error()
		return t, nil
	}
	t.Applies = true
	return t, b.attempt(ctx, tx, op, ev, t)
}

// whyNot says why an operation is not for an event; empty: it is.
func (op *operation) whyNot(ev *event.Event) string {
	if !op.wants(ev.Source, ev.Type) {
		return "on: the operation is for source " + op.spec.On.Source + " and types " + strings.Join(op.spec.On.Types, ", ")
	}
	ok, err := op.holds(input(ev))
	switch {
	case err != nil:
		return op.wrap("when", err).Error()
	case !ok:
		return "when: " + op.spec.When + " is false"
	}
	return ""
}

// attempt makes the attempt as the processor would, and then its statements one by one, to see their rows.
func (b *Bench) attempt(ctx context.Context, tx *store.Tx, op *operation, ev *event.Event, t *Trial) error {
	a := op.plan(ev, input(ev), t.Before+1) //nolint:contextcheck // an expression has a deadline of its own
	t.Entity = a.entity
	if a.version != nil {
		t.Version = &a.version.Text
	}
	for i, st := range a.call.Statements {
		if i >= len(a.call.Args) {
			break
		}
		for j, name := range st.Params {
			t.Params[name] = shown(a.call.Args[i][j])
		}
	}
	newest, err := tx.Hold(ctx, nil, wanted([]*attempt{a}))
	if err != nil {
		return err
	}
	t.Decision = decision(a, newest)
	ok, failure := admit(a, newest)
	if !ok {
		s := judge(a, nil, failure, b.eng.now())
		t.Outcome, t.Error = s.result.Outcome, s.result.Error
		return nil
	}
	var s *settlement
	if err := tx.Nested(ctx, func() error {
		effect, err := tryOne(ctx, tx, a)
		if err != nil && !isOwn(err) {
			return err
		}
		s = judge(a, &effect, err, b.eng.now())
		if err == nil {
			t.Rows = &effect.Rows
		}
		return errRollback
	}); err != nil && !errors.Is(err, errRollback) {
		return err
	}
	t.Outcome, t.Error = s.result.Outcome, s.result.Error
	err = tx.Nested(ctx, func() error {
		for i, st := range a.call.Statements {
			effect, err := tx.Look(ctx, st, a.call.Args[i], a.call.Timeout)
			if err != nil {
				return err // told by the attempt
			}
			t.Changes = append(t.Changes, StatementEffect{SQL: st.Source, Rows: effect.Rows, Seen: effect.Returned})
		}
		return errRollback
	})
	if err == nil || errors.Is(err, errRollback) || isOwn(err) {
		return nil
	}
	return err
}

// decision says what the guard says of the attempt's version.
func decision(a *attempt, newest map[store.Guard]store.Newest) string {
	switch {
	case a.op.version == nil:
		return "the operation has no version"
	case !a.guarded():
		return "its version is not compared: an expression fails"
	}
	held := newest[a.target()]
	switch {
	case len(held.Version) == 0:
		return "it is the first version of " + *a.entity
	case a.newest().Less(held):
		return "older than what event " + held.ID + " of " + held.Source + " has written"
	case held.ID == a.ev.ID && held.Source == a.ev.Source:
		return "it is the newest: this event has written last"
	}
	return "newer than what event " + held.ID + " of " + held.Source + " has written"
}

// shown is a parameter's value as JSON can hold it.
func shown(v any) any {
	if b, ok := v.([]byte); ok {
		return `\x` + hex.EncodeToString(b)
	}
	return v
}

// DryRun tries an operation for the selected events for which it has had no effect yet, or, with force, for all, up to
// limit of them, each on its own. An event that goes meanwhile is left out.
func (b *Bench) DryRun(ctx context.Context, operation string, sel store.Selection, force bool, limit int) ([]*Trial, error) {
	if err := b.Operation(operation); err != nil {
		return nil, err
	}
	op := b.eng.byName[operation]
	keys, err := b.db.CandidateKeys(ctx, sel, op.spec.On.Source, op.spec.On.Types, operation, force, limit)
	if err != nil {
		return nil, err
	}
	out := []*Trial{}
	for _, k := range keys {
		t, err := b.Try(ctx, operation, k.Source, k.ID)
		if errors.Is(err, store.ErrNoEvent) {
			continue
		}
		if err != nil {
			return out, err
		}
		out = append(out, t)
	}
	return out, nil
}

// DryRuns makes dry runs of the configuration's operations, for the console: each opens a bench of its own, as DryRun does.
func DryRuns(cfg *settings.File, log *slog.Logger) func(context.Context, string, inspect.Selection, bool, int) ([]*Trial, error) {
	return func(ctx context.Context, operation string, sel inspect.Selection, force bool, limit int) ([]*Trial, error) {
		b, err := OpenBench(ctx, cfg, log)
		if err != nil {
			return nil, fmt.Errorf("the operations cannot be tried: %w", err)
		}
		defer b.Close()
		return b.DryRun(ctx, operation, sel, force, limit)
	}
}
