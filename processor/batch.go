package processor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
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
	reasonUnstorable   = "unstorable"         // Postgres refused the event's own row
	reasonExpression   = "expression"         // an expression of the operation failed
	reasonRefused      = "refused"            // Postgres refused the operation's data for good
	reasonExhausted    = "attempts exhausted" // the last of max_attempts failed
	reasonBodyGone     = "body gone"          // processor.retention removed the event before its retry was due
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

// errDeferred asks for the batch to be run again, with the deferred constraints checked after each operation.
var errDeferred = errors.New("a deferred constraint failed")

// errSuspect asks for the operations to be run again, with one that did not touch the rows it must on its own.
var errSuspect = errors.New("an operation does not do what it must")

// summary is what a committed batch did, for the metrics.
type summary struct {
	events     map[[2]string]int // source, outcome
	operations map[[2]string]int // operation, outcome
	whenErrors map[string]int    // operation
	failures   int               // attempts whose SQL failed
	signs      map[*operation][]sign
	messages   map[*operation]string // of the last refusal
}

func newSummary() *summary {
	return &summary{
		events: map[[2]string]int{}, operations: map[[2]string]int{}, whenErrors: map[string]int{},
		signs: map[*operation][]sign{}, messages: map[*operation]string{},
	}
}

// batch is one transaction's work.
type batch struct {
	eng      *engine
	part     store.Partition
	owner    uuid.UUID
	expected int64
	items    []item
	apart    bool // each operation in a savepoint, from the start
	deferred bool // … and with the deferred constraints checked after each
	free     bool // its records do not come from the partition: the position is left alone
	pulse    *pulse

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
	tx, err := b.eng.store.Begin(ctx, statementTimeout, b.eng.txTimeout)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if err := b.within(ctx, tx); err != nil {
		return err
	}
	failpoint.Hit(failpoint.BeforeCommit)
	if err := tx.Commit(ctx); err != nil {
		if !errors.Is(err, store.ErrUnknown) && store.Classify(err) != store.Transient {
			return fmt.Errorf("%w: %w", errDeferred, err)
		}
		return err
	}
	failpoint.Hit(failpoint.AfterCommit)
	return nil
}

// within does the batch's work in a transaction.
func (b *batch) within(ctx context.Context, tx *store.Tx) error {
	b.tx, b.sum, b.writes, b.plans = tx, newSummary(), store.Writes{}, nil
	b.states, b.notes = map[store.Key]string{}, map[store.Key]string{}
	first, ids := b.identities()
	fresh, err := b.enter(ctx, ids)
	if err != nil {
		return err
	}
	if err := b.repeats(ctx, first, fresh); err != nil {
		return err
	}
	b.planAll(first, fresh) //nolint:contextcheck // an expression has a deadline of its own
	events := b.events(first, fresh)
	held, err := tx.Hold(ctx, events, wanted(b.plans))
	if err != nil {
		return err
	}
	if err := b.run(ctx, held); err != nil {
		return err
	}
	failpoint.Hit(failpoint.InTransaction)
	b.restate(events)
	b.undecodable()
	if b.free {
		return tx.WriteFree(ctx, &b.writes)
	}
	return tx.Write(ctx, &b.writes, b.part, b.owner, b.next())
}

func (b *batch) enter(ctx context.Context, ids []store.Identity) (map[store.Key]bool, error) {
	if b.free {
		return b.tx.EnterFree(ctx, ids)
	}
	return b.tx.Enter(ctx, b.part, b.owner, b.expected, ids)
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
		b.pulse.beat()
		in := input(it.ev)
		made := map[*operation]*attempt{}
		for _, op := range b.eng.bySource[it.ev.Source] {
			if !op.wants(it.ev.Source, it.ev.Type) || !b.matches(op, it, in) {
				continue
			}
			deps, ok := b.before(op, it, made)
			if !ok {
				continue
			}
			var a *attempt
			if why := b.eng.holds(op); why != "" {
				a = op.deferral(it.ev, why)
			} else {
				a = op.plan(it.ev, in, 1)
			}
			a.place, a.deps = i, deps
			made[op] = a
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
		b.note(it, op.wrap("when", err))
	}
	return ok && err == nil
}

// note keeps with the event why an operation that is for it does not run.
func (b *batch) note(it *item, why error) {
	note := why.Error()
	if old := b.notes[it.key()]; old != "" {
		note = old + "\n" + note
	}
	b.notes[it.key()] = note
}

// before finds the event's attempts on which one of op depends. Where there is none, the operation is not for this event.
func (b *batch) before(op *operation, it *item, made map[*operation]*attempt) (deps []*attempt, ok bool) {
	for _, on := range op.after {
		a := made[on]
		if a == nil {
			b.note(it, op.wrap("depends_on", fmt.Errorf("%s does not match this event", on.spec.Name)))
			return nil, false
		}
		deps = append(deps, a)
	}
	return deps, true
}

// run makes the attempts: all together, and after a failure each in a savepoint. held is what the guards hold.
func (b *batch) run(ctx context.Context, held map[store.Guard]store.Newest) error {
	if len(b.plans) == 0 {
		return nil
	}
	if err := b.tx.Mark(ctx); err != nil {
		return err
	}
	r := &walk{held: held}
	for again := !b.apart && !slices.ContainsFunc(b.plans, (*attempt).alone); again; {
		ok, overlap, err := b.together(ctx, r)
		if ok || err != nil {
			return err
		}
		if err := b.tx.Back(ctx); err != nil {
			return err
		}
		again = overlap
	}
	for try := 1; ; try++ {
		err := b.oneByOne(ctx, r, try > maxSuspects)
		if !errors.Is(err, errSuspect) {
			return err
		}
		if err := b.tx.Back(ctx); err != nil {
			return err
		}
	}
}

// maxSuspects is how often the operations run again because of one that is to be run on its own, before all that might
// be are.
const maxSuspects = 3

// wanted is what the guards hold in the end if all attempts go well.
func wanted(plans []*attempt) map[store.Guard]store.Newest {
	want := map[store.Guard]store.Newest{}
	for _, a := range plans {
		if !a.guarded() || a.held != "" {
			continue
		}
		g := a.target()
		if held, ok := want[g]; !ok || !a.odd && held.Less(a.newest()) {
			want[g] = a.newest()
		}
	}
	return want
}

// walk is one way through a batch's attempts: what it would write to the guards, and what became of the attempts. It is
// kept when none of it has to be taken back.
type walk struct {
	held    map[store.Guard]store.Newest // as locked
	newest  map[store.Guard]store.Newest // with what the walk has written
	written map[store.Guard]store.Newest
	settled []*settlement
}

func (r *walk) begin() {
	r.newest, r.written, r.settled = maps.Clone(r.held), map[store.Guard]store.Newest{}, nil
}

// settle notes an attempt's outcome: effect and no error: succeeded; neither: superseded.
func (b *batch) settle(r *walk, a *attempt, effect *store.Effect, err error) {
	if err == nil && effect != nil {
		note(a, r.newest, r.written)
	}
	r.settled = append(r.settled, judge(a, effect, err, b.eng.now()))
}

// openCircuits lets those wait that failed after their operation's circuit had opened, as if they had not been made.
func (b *batch) openCircuits(r *walk) {
	runs := map[*operation]int{}
	for i, s := range r.settled {
		op := s.attempt.op
		run, ok := runs[op]
		if !ok {
			run = op.circuit.refusals()
		}
		switch s.sign {
		case refused:
			if run >= circuitOpens {
				r.settled[i] = judge(op.deferral(s.attempt.ev, heldByCircuit), nil, nil, b.eng.now())
			} else {
				b.sum.messages[op] = s.result.Error
			}
			run++
		case worked, accepted:
			run = 0
		case noSign:
		}
		runs[op] = run
		b.sum.signs[op] = append(b.sum.signs[op], s.sign)
	}
}

// keep makes the walk the batch's.
func (b *batch) keep(r *walk) {
	b.writes.Newest = r.written
	b.openCircuits(r)
	for _, s := range r.settled {
		s.appendTo(&b.writes)
		b.sum.operations[[2]string{s.result.Operation, s.result.Outcome}]++
		if s.sign == refused || s.sign == accepted {
			b.sum.failures++
		}
		b.states[s.result.Key] = worse(b.states[s.result.Key], s.result.Outcome)
	}
}

// together makes all attempts in one round trip. ok is false where one of them failed; with overlap the failure is only
// that of a set, which is not used again.
func (b *batch) together(ctx context.Context, r *walk) (ok, overlap bool, err error) {
	r.begin()
	var called []*attempt
	written := maps.Clone(r.held) // as if all succeed
	for _, a := range b.plans {
		if ok, err := admit(a, written); !ok {
			b.settle(r, a, nil, err)
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
		b.keep(r)
		return true, false, nil
	}
	effects, err := b.tx.Run(ctx, calls)
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
				b.settle(r, a, &effect, nil)
			}
		}
	}
	if err != nil && (!isOwn(err) || ctx.Err() != nil) {
		return false, false, err
	}
	if err != nil {
		return false, overlap || blame(groups, err, ok), nil
	}
	if ok {
		b.keep(r)
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
// are expected are made on their own.
func (b *batch) oneByOne(ctx context.Context, r *walk, alone bool) error {
	r.begin()
	var next []*attempt
	flush := func() error {
		err := b.several(ctx, r, next)
		next = next[:0]
		return err
	}
	for _, a := range b.plans {
		single := a.suspect || a.alone() || alone && a.op.spec.ExpectRows != "any"
		if single || dependsOn(a, next) {
			if err := flush(); err != nil {
				return err
			}
		}
		ok, err := admit(a, r.newest)
		switch {
		case !ok:
			b.settle(r, a, nil, err)
		case a.failure != nil:
			b.settle(r, a, nil, a.failure)
		case single:
			err = b.single(ctx, r, a)
			if err != nil {
				return err
			}
		default:
			next = append(next, a)
		}
	}
	if err := flush(); err != nil {
		return err
	}
	b.keep(r)
	return nil
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
func (b *batch) several(ctx context.Context, r *walk, attempts []*attempt) error {
	if len(attempts) == 0 {
		return nil
	}
	calls := make([]store.Call, len(attempts))
	for i, a := range attempts {
		calls[i] = a.call
	}
	outcomes, err := b.tx.RunApart(ctx, calls, b.deferred)
	if err != nil {
		return err
	}
	var again error
	for i, a := range attempts {
		o := &outcomes[i]
		switch {
		case o.Err != nil:
			a.took = o.Effect.Took
			b.settle(r, a, nil, o.Err)
		case a.accept(o.Effect) != nil:
			a.suspect, again = true, errSuspect
		default:
			b.settle(r, a, &o.Effect, nil)
		}
	}
	return again
}

// single makes one attempt on its own.
func (b *batch) single(ctx context.Context, r *walk, a *attempt) error {
	effect, err := tryOne(ctx, b.tx, a)
	switch {
	case err == nil:
		b.settle(r, a, &effect, nil)
	case isOwn(err) && ctx.Err() == nil:
		b.settle(r, a, nil, err)
	default:
		return err
	}
	return nil
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
	return !a.newest().Less(held), nil
}

func note(a *attempt, newest, written map[store.Guard]store.Newest) {
	if a.guarded() {
		newest[a.target()], written[a.target()] = a.newest(), a.newest()
	}
}

// shapeError says that a version cannot be compared with the stored one.
type shapeError struct{ error }

// settlement is all that follows from an attempt.
type settlement struct {
	result store.Result
	retry  *store.Retry
	letter *store.DeadLetter

	attempt *attempt
	sign    sign

	published []store.Publication
	postponed bool // nothing was tried: there is no result
}

func (s *settlement) appendTo(w *store.Writes) {
	w.Published = append(w.Published, s.published...)
	if !s.postponed {
		w.Results = append(w.Results, s.result)
	}
	if s.retry != nil {
		w.Retries = append(w.Retries, *s.retry)
	}
	if s.letter != nil {
		w.Dead = append(w.Dead, *s.letter)
	}
}

func judge(a *attempt, effect *store.Effect, err error, now time.Time) *settlement {
	s := &settlement{attempt: a, sign: signOf(effect, err), result: store.Result{
		Key: a.key(), DeliveryID: a.ev.DeliveryID, Operation: a.op.spec.Name, Definition: a.op.digest, Attempt: a.number,
		Entity: a.entity, Effect: effect, Outcome: superseded, Started: now,
	}}
	if a.version != nil {
		s.result.Version = &a.version.Text
	}
	switch {
	case a.held != "":
		s.result.Outcome, s.result.Error = deferred, a.held
		s.result.Attempt = 0
		s.retry = &store.Retry{Key: a.key(), Operation: a.op.spec.Name, Attempt: 1, FirstFailed: now, Error: a.held}
		if a.number > 0 { // it waits for others of its event
			s.retry.In = dependencyPoll
		}
	case err != nil:
		s.result.Started, s.result.Took = now.Add(-a.took), a.took
		s.fail(a, err, now)
	case effect != nil:
		s.result.Outcome, s.published = succeeded, a.publish
	}
	a.outcome = s.result.Outcome
	return s
}

func (s *settlement) fail(a *attempt, err error, now time.Time) {
	msg, reason := store.Message(err), ""
	var shape *shapeError
	var dependency *dependencyError
	switch {
	case errors.As(err, &dependency):
		reason = reasonDependency
	case a.err != nil, errors.As(err, &shape):
		reason = reasonExpression
	case store.Classify(err) == store.Poison:
		reason = reasonRefused
	case a.number >= a.op.spec.Retry.MaxAttempts && !a.spared(s.sign):
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

// spared says whether a failed attempt is none of its event's: its SQL was refused, and has not worked for others since
// the event failed first. A deployment that is broken makes no dead letters.
func (a *attempt) spared(s sign) bool {
	return s == refused && (a.first.IsZero() || !a.op.circuit.workedSince(a.first))
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

// events lists the new events' rows as they are if all attempts go well.
func (b *batch) events(first map[store.Key]int, fresh map[store.Key]bool) []store.Event {
	expected := map[store.Key]string{}
	for _, a := range b.plans {
		outcome := succeeded
		switch {
		case a.err != nil:
			outcome = dead
		case a.held != "":
			outcome = deferred
		}
		expected[a.key()] = worse(expected[a.key()], outcome)
	}
	events := make([]store.Event, 0, len(fresh))
	for i := range b.items {
		it := &b.items[i]
		if it.ev == nil || !fresh[it.key()] || first[it.key()] != i {
			continue
		}
		events = append(events, store.Event{
			Event: it.ev, Verdict: it.verdict, SHA256: it.digest, Status: status(expected[it.key()]), Note: b.notes[it.key()],
		})
	}
	return events
}

// restate lists the events with which it went otherwise, and counts all.
func (b *batch) restate(events []store.Event) {
	for i := range events {
		e := &events[i]
		key := store.Key{Source: e.Source, ID: e.ID}
		state := status(b.states[key])
		if state != e.Status {
			b.writes.States = append(b.writes.States, store.State{Key: key, Status: state})
		}
		b.sum.events[[2]string{e.Source, state}]++
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
