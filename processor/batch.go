package processor

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/expr"
	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/pkg/provider"
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
	reasonErased       = "erased"             // a backfill found that its key was destroyed
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

	plan *intents // what the operations will do for the event; nil: not asked yet
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
	heads  []int    // the first item of each distinct event, sorted by its key
	head   []int    // by item: the place of its event in heads; -1: it holds none
	fresh  []bool   // by place in heads: the event was not known
	news   []int    // the first items of the new events, in the log's order
	states []string // by item: the worst outcome of the event's operations; empty: it has none
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
	b.tx, b.sum, b.writes, b.plans, b.states = tx, newSummary(), store.Writes{}, nil, make([]string, len(b.items))
	if mutant.On(mutant.M4) {
		if err := store.MutantMoveFirst(ctx, tx, b.part, b.owner, b.expected, b.next()); err != nil {
			return err
		}
	}
	if err := b.enter(ctx); err != nil {
		return err
	}
	if err := b.repeats(ctx); err != nil {
		return err
	}
	b.planAll() //nolint:contextcheck // an expression has a deadline of its own
	events := b.events()
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

// enter stores the identities of the batch's distinct events, and finds which of these are new.
func (b *batch) enter(ctx context.Context) (err error) {
	b.sortEvents()
	ids := make([]store.Identity, len(b.heads))
	for n, i := range b.heads {
		it := &b.items[i]
		ids[n] = store.Identity{Key: it.key(), SHA256: it.digest, DeliveryID: it.ev.DeliveryID}
	}
	if b.free {
		b.fresh, err = b.tx.EnterFree(ctx, ids)
	} else {
		b.fresh, err = b.tx.Enter(ctx, b.part, b.owner, b.expected, ids)
	}
	if err != nil {
		return err
	}
	b.news = b.news[:0]
	for i := range b.items {
		if b.isNew(i) {
			b.news = append(b.news, i)
		}
	}
	return nil
}

// sortEvents finds the distinct events and the first item of each.
func (b *batch) sortEvents() {
	b.head, b.heads = make([]int, len(b.items)), make([]int, 0, len(b.items))
	for i := range b.items {
		if b.head[i] = -1; b.items[i].ev != nil {
			b.heads = append(b.heads, i)
		}
	}
	slices.SortFunc(b.heads, func(i, j int) int {
		return cmp.Or(b.items[i].key().Compare(b.items[j].key()), i-j)
	})
	n := 0
	for _, i := range b.heads {
		if n == 0 || b.items[b.heads[n-1]].key() != b.items[i].key() {
			b.heads[n] = i
			n++
		}
		b.head[i] = n - 1
	}
	b.heads = b.heads[:n]
}

// isNew says whether an item is the first of an event that was not known.
func (b *batch) isNew(i int) bool {
	n := b.head[i]
	return n >= 0 && b.fresh[n] && b.heads[n] == i
}

// repeats sorts further deliveries of known events into duplicates and conflicts.
func (b *batch) repeats(ctx context.Context) error {
	known, err := b.known(ctx)
	if err != nil {
		return err
	}
	again := map[int]bool{}
	var asked []store.Alike
	var of []int // places of those in b.writes.Repeats
	for i := range b.items {
		it, n := &b.items[i], b.head[i]
		if n < 0 || b.isNew(i) {
			continue
		}
		head := &b.items[b.heads[n]]
		id, stored := known[it.key()]
		if stored && id.DeliveryID == it.ev.DeliveryID && !again[n] {
			again[n] = true
			continue // the same record, read again; a further event of its ID in it is a repetition
		}
		r := store.Repeat{Event: it.ev, SHA256: it.digest}
		switch {
		case stored && !bytes.Equal(id.SHA256, it.digest):
			r.Conflict = true
			if changes(it.ev) {
				asked, of = append(asked, store.Alike{Identity: id, Size: len(it.ev.Body)}), append(of, len(b.writes.Repeats))
			}
		case !stored && !bytes.Equal(head.digest, it.digest):
			r.Changed = sameEvent(it.ev, head.ev.Body)
			r.Conflict = !r.Changed
		}
		b.writes.Repeats = append(b.writes.Repeats, r)
	}
	bodies, err := b.tx.Bodies(ctx, asked)
	if err != nil {
		return err
	}
	for k, body := range bodies {
		if r := &b.writes.Repeats[of[k]]; body != nil && sameEvent(r.Event, body) {
			r.Changed, r.Conflict = true, false
		}
	}
	for _, r := range b.writes.Repeats {
		b.sum.events[[2]string{r.Source, map[bool]string{false: "duplicate", true: "conflict"}[r.Conflict]}]++
	}
	return nil
}

// known reads the identities of the batch's events that are not new.
func (b *batch) known(ctx context.Context) (map[store.Key]store.Identity, error) {
	var stale []store.Key
	for n, i := range b.heads {
		if !b.fresh[n] {
			stale = append(stale, b.items[i].key())
		}
	}
	if len(stale) == 0 {
		return nil, nil
	}
	return b.tx.Known(ctx, stale)
}

// changes says whether the event's provider changes members of a body between retries.
func changes(ev *event.Event) bool {
	p, ok := provider.ByName(ev.Provider)
	return ok && len(p.Volatile) > 0
}

// sameEvent says whether the event's body differs from its first one in nothing but such members.
func sameEvent(ev *event.Event, first []byte) bool {
	p, ok := provider.ByName(ev.Provider)
	return ok && p.SameEvent(first, ev.Body)
}

// planAll lists the attempts of the operations that the new events match.
func (b *batch) planAll() {
	holds := make([]string, len(b.eng.ops))
	for _, op := range b.eng.ops {
		holds[op.index] = b.eng.holds(op)
	}
	b.plans = make([]*attempt, 0, len(b.news))
	for _, i := range b.news {
		it := &b.items[i]
		if it.plan == nil {
			b.pulse.beat()
			it.plan = b.eng.intend(it.ev)
		}
		for _, op := range it.plan.whenErrors {
			b.sum.whenErrors[op.spec.Name]++
		}
		of := len(b.plans)
		for j := range it.plan.list {
			a := it.plan.attempt(j, it.ev, holds)
			a.place = i
			for _, d := range it.plan.list[j].deps {
				a.deps = append(a.deps, b.plans[of+d])
			}
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

// run makes the attempts. held is what the guards hold.
func (b *batch) run(ctx context.Context, held map[store.Guard]store.Newest) error {
	if len(b.plans) == 0 {
		return nil
	}
	w := &walk{tx: b.tx, now: b.eng.now, plans: b.plans, held: held, deferred: b.deferred}
	if err := w.run(ctx, b.apart); err != nil {
		return err
	}
	b.keep(w)
	return nil
}

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

// openCircuits lets those wait that failed after their operation's circuit had opened, as if they had not been made.
func (b *batch) openCircuits(w *walk) {
	runs := map[*operation]int{}
	for i, s := range w.settled {
		op := s.attempt.op
		run, ok := runs[op]
		if !ok {
			run = op.circuit.refusals()
		}
		switch s.sign {
		case refused:
			if run >= circuitOpens {
				a := op.deferral(s.attempt.ev, heldByCircuit)
				a.place = s.attempt.place
				w.settled[i] = judge(a, nil, nil, b.eng.now())
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
func (b *batch) keep(w *walk) {
	b.writes.Newest = w.written
	b.openCircuits(w)
	b.writes.Results = make([]store.Result, 0, len(w.settled))
	for _, s := range w.settled {
		s.appendTo(&b.writes)
		b.sum.operations[[2]string{s.result.Operation, s.result.Outcome}]++
		if s.sign == refused || s.sign == accepted {
			b.sum.failures++
		}
		b.states[s.attempt.place] = worse(b.states[s.attempt.place], s.result.Outcome)
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
	if badness(b) > badness(a) {
		return b
	}
	return a
}

func badness(outcome string) int {
	switch outcome {
	case superseded:
		return 1
	case succeeded:
		return 2
	case deferred:
		return 3
	case failed:
		return 4
	case dead:
		return 5
	}
	return 0
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
func (b *batch) events() []store.Event {
	expected := make([]string, len(b.items))
	for _, a := range b.plans {
		outcome := succeeded
		switch {
		case a.err != nil:
			outcome = dead
		case a.held != "":
			outcome = deferred
		}
		expected[a.place] = worse(expected[a.place], outcome)
	}
	events := make([]store.Event, len(b.news))
	for n, i := range b.news {
		it := &b.items[i]
		events[n] = store.Event{Event: it.ev, Verdict: it.verdict, SHA256: it.digest, Status: status(expected[i]), Note: it.plan.note}
	}
	return events
}

// restate lists the events with which it went otherwise, and counts all.
func (b *batch) restate(events []store.Event) {
	var source, state string // of the last ones, so many of them
	n := 0
	count := func() {
		if n > 0 {
			b.sum.events[[2]string{source, state}] += n
		}
	}
	for k, i := range b.news {
		e := &events[k]
		now := status(b.states[i])
		if now != e.Status {
			b.writes.States = append(b.writes.States, store.State{Key: store.Key{Source: e.Source, ID: e.ID}, Status: now})
		}
		if e.Source != source || now != state {
			count()
			source, state, n = e.Source, now, 0
		}
		n++
	}
	count()
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
