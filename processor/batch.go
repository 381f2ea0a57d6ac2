package processor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/expr"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// Outcomes of an attempt, and the states of an event that follow from them.
const (
	succeeded  = "succeeded"
	superseded = "superseded"
	failed     = "failed"
	dead       = "dead"
	deferred   = "deferred"

	processed = "processed"
	unmatched = "unmatched"
)

// Reasons of dead letters.
const (
	reasonUndecodable  = "undecodable"        // the record is no delivery
	reasonUnsplittable = "unsplittable"       // the delivery carries several events, and cannot be taken apart
	reasonUnstorable  = "unstorable"         // Postgres refused the event's own row
	reasonExpression  = "expression"         // an expression of the operation failed
	reasonRefused     = "refused"            // Postgres refused the operation's data for good
	reasonExhausted   = "attempts exhausted" // the last of max_attempts failed
)

// item is one event of a batch's records, or a record that holds none. The items of a record follow each other.
type item struct {
	rec     *kgo.Record
	ev      *event.Event // nil: no event
	digest  []byte
	verdict string
	err     error  // why the record is no event
	reason  string // of the dead letter
	skip    bool   // a control record
}

func (it *item) key() store.Key { return store.Key{Source: it.ev.Source, ID: it.ev.ID} }

// errCareful asks for the batch to be run again, each operation in a savepoint of its own.
var errCareful = errors.New("an operation failed: run with savepoints")

// summary is what a committed batch did, for the metrics.
type summary struct {
	events     map[[2]string]int // source, outcome
	operations map[[2]string]int // operation, outcome
	whenErrors map[string]int    // operation
}

func newSummary() *summary {
	return &summary{events: map[[2]string]int{}, operations: map[[2]string]int{}, whenErrors: map[string]int{}}
}

// batch is one transaction's work.
type batch struct {
	eng      *engine
	part     store.Partition
	owner    uuid.UUID
	expected int64
	items    []item
	careful  bool

	tx     *store.Tx
	writes store.Writes
	sum    *summary
	plans  []*attempt
	states map[store.Key]string // of the events with operations
	notes  map[store.Key]string
}

// next is the position after the batch.
func (b *batch) next() store.Position {
	last := b.items[len(b.items)-1].rec
	return store.Position{Next: last.Offset + 1, LeaderEpoch: last.LeaderEpoch}
}

// commit runs the batch. nil: it is committed, once, whatever happened before.
func (b *batch) commit(ctx context.Context) error {
	b.sum, b.writes, b.plans = newSummary(), store.Writes{}, nil
	b.states, b.notes = map[store.Key]string{}, map[store.Key]string{}
	tx, err := b.eng.store.Begin(ctx, statementTimeout, b.eng.txTimeout)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	b.tx = tx
	first, ids := b.identities()
	fresh, err := tx.Enter(ctx, b.part, b.owner, b.expected, ids)
	if err != nil {
		return err
	}
	if err := b.repeats(ctx, first, fresh); err != nil {
		return err
	}
	b.planAll(first, fresh) //nolint:contextcheck // an expression has a deadline of its own
	if err := b.run(ctx); err != nil {
		return err
	}
	failpoint.Hit(failpoint.InTransaction)
	b.events(first, fresh)
	b.undecodable()
	if err := tx.Write(ctx, &b.writes, b.part, b.owner, b.next()); err != nil {
		return err
	}
	failpoint.Hit(failpoint.BeforeCommit)
	if err := tx.Commit(ctx); err != nil {
		if !errors.Is(err, store.ErrUnknown) && store.Classify(err) != store.Transient {
			return fmt.Errorf("%w: %w", errCareful, err)
		}
		return err
	}
	failpoint.Hit(failpoint.AfterCommit)
	return nil
}

// identities lists the batch's distinct events, sorted, and the first item of each.
func (b *batch) identities() (map[store.Key]int, []store.Identity) {
	first := make(map[store.Key]int, len(b.items))
	ids := make([]store.Identity, 0, len(b.items))
	for i := range b.items {
		it := &b.items[i]
		if it.ev == nil {
			continue
		}
		k := it.key()
		if _, ok := first[k]; !ok {
			first[k] = i
			ids = append(ids, store.Identity{Key: k, SHA256: it.digest, DeliveryID: it.ev.DeliveryID})
		}
	}
	slices.SortFunc(ids, func(a, b store.Identity) int { return a.Key.Compare(b.Key) })
	return first, ids
}

// repeats sorts further deliveries of known events into duplicates and conflicts.
func (b *batch) repeats(ctx context.Context, first map[store.Key]int, fresh map[store.Key]bool) error {
	var stale []store.Key
	for k := range first {
		if !fresh[k] {
			stale = append(stale, k)
		}
	}
	var known map[store.Key]store.Identity
	if len(stale) > 0 {
		slices.SortFunc(stale, store.Key.Compare)
		var err error
		if known, err = b.tx.Known(ctx, stale); err != nil {
			return err
		}
	}
	again := map[store.Key]bool{}
	for i := range b.items {
		it := &b.items[i]
		if it.ev == nil || fresh[it.key()] && first[it.key()] == i {
			continue
		}
		digest := b.items[first[it.key()]].digest
		if id, ok := known[it.key()]; ok {
			if id.DeliveryID == it.ev.DeliveryID && !again[it.key()] {
				again[it.key()] = true
				continue // the same record, read again; a further event of its ID in it is a repetition
			}
			digest = id.SHA256
		}
		r := store.Repeat{Event: it.ev, SHA256: it.digest, Conflict: !bytes.Equal(digest, it.digest)}
		b.writes.Repeats = append(b.writes.Repeats, r)
		b.sum.events[[2]string{it.ev.Source, map[bool]string{false: "duplicate", true: "conflict"}[r.Conflict]}]++
	}
	return nil
}

// planAll evaluates the expressions of the operations that the new events match.
func (b *batch) planAll(first map[store.Key]int, fresh map[store.Key]bool) {
	for i := range b.items {
		it := &b.items[i]
		if it.ev == nil || !fresh[it.key()] || first[it.key()] != i {
			continue
		}
		in := input(it.ev)
		for _, op := range b.eng.bySource[it.ev.Source] {
			if !op.wants(it.ev.Source, it.ev.Type) || !b.matches(op, it, in) {
				continue
			}
			a := op.deferral(it.ev, heldByPause)
			if !b.eng.isPaused(op.spec.Name) {
				a = op.plan(it.ev, in, 1)
			}
			a.place = i
			b.plans = append(b.plans, a)
		}
	}
	markOdd(b.plans)
	slices.SortFunc(b.plans, compareAttempts)
}

// markOdd finds the attempts whose version has another shape than the first one of their entity in the log, so that it is
// the log that decides which shape an entity without a version gets, and not where a batch ends.
func markOdd(plans []*attempt) {
	first := make(map[store.Guard][]byte, len(plans))
	for _, a := range plans {
		if !a.guarded() {
			continue
		}
		if key, ok := first[a.target()]; ok {
			a.odd = !expr.SameShape(key, a.version.Key)
		} else {
			first[a.target()] = a.version.Key
		}
	}
}

func (b *batch) matches(op *operation, it *item, in *expr.Input) bool {
	if op.when == nil {
		return true
	}
	ok, err := op.when.EvalBool(in)
	if err != nil {
		b.sum.whenErrors[op.spec.Name]++
		note := op.wrap("when", err).Error()
		if old := b.notes[it.key()]; old != "" {
			note = old + "\n" + note
		}
		b.notes[it.key()] = note
	}
	return ok && err == nil
}

// run makes the attempts: all at once, or one by one after a failure.
func (b *batch) run(ctx context.Context) error {
	newest, err := lockGuards(ctx, b.tx, b.plans)
	if err != nil {
		return err
	}
	written := map[store.Guard]store.Newest{}
	if b.careful {
		for _, a := range b.plans {
			if err := b.try(ctx, a, newest, written); err != nil {
				return err
			}
		}
	} else if err := b.runAll(ctx, newest, written); err != nil {
		return err
	}
	b.writes.Newest = written
	return nil
}

// lockGuards locks what the attempts would write.
func lockGuards(ctx context.Context, tx *store.Tx, plans []*attempt) (map[store.Guard]store.Newest, error) {
	want := map[store.Guard]bool{}
	for _, a := range plans {
		if a.guarded() {
			want[a.target()] = true
		}
	}
	if len(want) == 0 {
		return nil, nil
	}
	return tx.Guards(ctx, store.SortedGuards(want))
}

func (b *batch) runAll(ctx context.Context, newest, written map[store.Guard]store.Newest) error {
	var calls []store.Call
	var called []*attempt
	for _, a := range b.plans {
		if !admit(a, newest) {
			b.settle(a, nil, a.err)
			continue
		}
		note(a, newest, written)
		calls, called = append(calls, a.call), append(called, a)
	}
	if len(calls) == 0 {
		return nil
	}
	effects, err := b.tx.Run(ctx, calls)
	if err != nil {
		return b.blame(ctx, err)
	}
	for i, a := range called {
		if err := a.accept(effects[i]); err != nil {
			return errCareful
		}
		b.settle(a, &effects[i], nil)
	}
	return nil
}

// blame turns an operation's own error into errCareful.
func (b *batch) blame(ctx context.Context, err error) error {
	var ce *store.CallError
	if errors.As(err, &ce) && store.Classify(err) != store.Transient && ctx.Err() == nil {
		return errCareful
	}
	return err
}

func (b *batch) try(ctx context.Context, a *attempt, newest, written map[store.Guard]store.Newest) error {
	if !admit(a, newest) {
		b.settle(a, nil, a.err)
		return nil
	}
	effect, err := tryOne(ctx, b.tx, a)
	if isOwn(err) {
		b.settle(a, nil, err)
		err = nil
	} else if err == nil {
		note(a, newest, written)
		b.settle(a, &effect, nil)
	}
	return err
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
// that is the attempt's error.
func admit(a *attempt, newest map[store.Guard]store.Newest) bool {
	if a.held != "" {
		return false
	}
	if !a.guarded() {
		return a.err == nil
	}
	held := newest[a.target()]
	if len(held.Version) > 0 && !expr.SameShape(a.version.Key, held.Version) {
		a.err = a.op.wrap("version", fmt.Errorf("%s: the version is %s, the stored one is %s",
			a.op.version, expr.Shape(a.version.Key), expr.Shape(held.Version)))
		return false
	}
	return !a.newest().Less(held)
}

func note(a *attempt, newest, written map[store.Guard]store.Newest) {
	if a.guarded() {
		newest[a.target()] = a.newest()
		written[a.target()] = a.newest()
	}
}

// settle records an attempt's outcome: effect and no error: succeeded; neither: superseded.
func (b *batch) settle(a *attempt, effect *store.Effect, err error) {
	s := judge(a, effect, err, b.eng.now())
	s.appendTo(&b.writes)
	b.sum.operations[[2]string{a.op.spec.Name, s.result.Outcome}]++
	k := a.key()
	b.states[k] = worse(b.states[k], s.result.Outcome)
}

// settlement is all that follows from an attempt.
type settlement struct {
	result store.Result
	retry  *store.Retry
	letter *store.DeadLetter
}

func (s *settlement) appendTo(w *store.Writes) {
	w.Results = append(w.Results, s.result)
	if s.retry != nil {
		w.Retries = append(w.Retries, *s.retry)
	}
	if s.letter != nil {
		w.Dead = append(w.Dead, *s.letter)
	}
}

func judge(a *attempt, effect *store.Effect, err error, now time.Time) *settlement {
	s := &settlement{result: store.Result{
		Key: a.key(), DeliveryID: a.ev.DeliveryID, Operation: a.op.spec.Name, Definition: a.op.digest, Attempt: a.number,
		Entity: a.entity, Effect: effect, Outcome: superseded, Started: now,
	}}
	if a.version != nil {
		s.result.Version = &a.version.Text
	}
	switch {
	case a.held != "":
		s.result.Outcome, s.result.Error = deferred, a.held
		s.retry = &store.Retry{Key: a.key(), Operation: a.op.spec.Name, Attempt: 1, FirstFailed: now, Error: a.held}
	case err != nil:
		s.result.Started, s.result.Took = now.Add(-a.took), a.took
		s.fail(a, err, now)
	case effect != nil:
		s.result.Outcome = succeeded
	}
	return s
}

func (s *settlement) fail(a *attempt, err error, now time.Time) {
	msg, reason := store.Message(err), ""
	switch {
	case a.err != nil:
		reason = reasonExpression
	case store.Classify(err) == store.Poison:
		reason = reasonRefused
	case a.number >= a.op.spec.Retry.MaxAttempts:
		reason = reasonExhausted
	}
	s.result.Error = msg
	if reason == "" {
		s.result.Outcome = failed
		s.retry = &store.Retry{
			Key: a.key(), Operation: a.op.spec.Name, Attempt: a.number + 1,
			In: backoff(a.op.spec.Retry, a.number), FirstFailed: now, Error: msg,
		}
		return
	}
	s.result.Outcome = dead
	s.letter = a.letter(reason, msg, now)
}

func (a *attempt) letter(reason, msg string, now time.Time) *store.DeadLetter {
	return &store.DeadLetter{
		Source: a.ev.Source, EventID: a.ev.ID, Operation: a.op.spec.Name, Reason: reason, Error: msg,
		Attempts: a.number, FirstFailed: now, LastFailed: now, Position: a.ev.Position,
	}
}

// worse keeps the outcome that decides an event's state.
func worse(a, b string) string {
	order := []string{"", superseded, succeeded, deferred, failed, dead}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}

// status is an event's state after the worst outcome of its operations.
func status(outcome string) string {
	switch outcome {
	case "":
		return unmatched
	case succeeded, superseded:
		return processed
	}
	return outcome
}

// events lists the new events' rows.
func (b *batch) events(first map[store.Key]int, fresh map[store.Key]bool) {
	for i := range b.items {
		it := &b.items[i]
		if it.ev == nil || !fresh[it.key()] || first[it.key()] != i {
			continue
		}
		state := status(b.states[it.key()])
		b.writes.Events = append(b.writes.Events, store.Event{
			Event: it.ev, Verdict: it.verdict, SHA256: it.digest, Status: state, Note: b.notes[it.key()],
		})
		b.sum.events[[2]string{it.ev.Source, state}]++
	}
}

// undecodable keeps the records that hold no event.
func (b *batch) undecodable() {
	for i := range b.items {
		it := &b.items[i]
		if it.err == nil {
			continue
		}
		r := it.rec
		headers := make([]store.RecordHeader, len(r.Headers))
		for j, h := range r.Headers {
			headers[j] = store.RecordHeader{Name: h.Key, Value: h.Value}
		}
		letter := store.DeadLetter{
			Reason: it.reason, Error: store.Message(it.err), Attempts: 1, FirstFailed: b.eng.now(), LastFailed: b.eng.now(),
			Position:  event.Position{Topic: b.part.Topic, TopicID: b.part.TopicID, Partition: r.Partition, Offset: r.Offset},
			RecordKey: r.Key, Headers: headers, Value: r.Value,
		}
		source := ""
		if d, _, _ := event.Salvage(r); d != nil {
			source, letter.Source, letter.EventID = d.Source, d.Source, d.ID
		}
		b.writes.Dead = append(b.writes.Dead, letter)
		b.sum.events[[2]string{source, "undecodable"}]++
	}
}
