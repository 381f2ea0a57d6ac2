package processor

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/expr"
)

// intents is what the operations will do for an event if it is new: all that its bytes alone decide.
type intents struct {
	list       []intent
	note       string       // why operations that are for the event do not run; empty: all do
	whenErrors []*operation // whose condition failed
}

// intent is one operation's.
type intent struct {
	op   *operation
	made *attempt // nil: to be made
	deps []int    // places in the list of those before it
}

// intend evaluates the expressions of the operations that an event matches.
func (e *engine) intend(ev *event.Event) *intents {
	p := &intents{}
	in := input(ev)
	for _, op := range e.bySource[ev.Source] {
		if !op.wants(ev.Source, ev.Type) || !p.matches(op, in) {
			continue
		}
		deps, ok := p.before(op)
		if !ok {
			continue
		}
		one := intent{op: op, deps: deps}
		if e.holds(op) == "" {
			one.made = op.plan(ev, in, 1)
		}
		p.list = append(p.list, one)
	}
	return p
}

func (p *intents) matches(op *operation, in *expr.Input) bool {
	if op.when == nil {
		return true
	}
	ok, err := op.when.EvalBool(in)
	if err != nil {
		p.whenErrors = append(p.whenErrors, op)
		p.remark(op.wrap("when", err))
	}
	return ok && err == nil
}

// remark keeps with the event why an operation that is for it does not run.
func (p *intents) remark(why error) {
	if p.note != "" {
		p.note += "\n"
	}
	p.note += why.Error()
}

// before finds the intents on which op depends. Where there is none, the operation is not for this event.
func (p *intents) before(op *operation) (deps []int, ok bool) {
	for _, on := range op.after {
		i := slices.IndexFunc(p.list, func(o intent) bool { return o.op == on })
		if i < 0 {
			p.remark(op.wrap("depends_on", fmt.Errorf("%s does not match this event", on.spec.Name)))
			return nil, false
		}
		deps = append(deps, i)
	}
	return deps, true
}

// attempt gives the attempt of the j-th intent, a new one each time. holds says by operation why its attempts are not made now.
func (p *intents) attempt(j int, ev *event.Event, holds []string) *attempt {
	one := &p.list[j]
	if why := holds[one.op.index]; why != "" {
		return one.op.deferral(ev, why)
	}
	a := one.made
	if one.made = nil; a == nil {
		a = one.op.plan(ev, input(ev), 1)
	}
	return a
}

// ahead is what was prepared of the records behind a batch while that batch was written. Nothing of it has left the
// process: it is decoded and its expressions are evaluated, and what does not come to be written is forgotten.
type ahead struct {
	records []*kgo.Record
	items   [][]item // by record; nil: not prepared
	done    chan struct{}
}

// prepare begins to prepare the records behind last, as many as a batch has.
func (w *worker) prepare(ctx context.Context, last *kgo.Record) {
	w.mu.Lock()
	queue := w.queue
	w.mu.Unlock()
	queue = queue[sort.Search(len(queue), func(i int) bool { return queue[i].Offset > last.Offset }):]
	if len(queue) == 0 {
		return
	}
	next := slices.Clone(leading(queue, w.eng.batch)) // drop clears the queue's own places
	a := &ahead{records: next, items: make([][]item, len(next)), done: make(chan struct{})}
	w.ahead = a
	evaluate := !w.stale
	go func() {
		defer close(a.done)
		defer w.early.idle()
		for i, r := range next {
			if w.stopping() || ctx.Err() != nil {
				return
			}
			w.early.busy("preparing a batch", statementTimeout)
			items := w.read(r)
			for j := range items {
				if it := &items[j]; evaluate && it.ev != nil {
					w.early.busy("preparing a batch", statementTimeout)
					it.plan = w.eng.intend(it.ev) //nolint:contextcheck // an expression has a deadline of its own
				}
			}
			a.items[i] = items
		}
	}()
}

// join waits for what is being prepared.
func (w *worker) join() {
	if w.ahead == nil {
		return
	}
	select {
	case <-w.ahead.done:
	default:
		w.pulse.idle() // the one that prepares has a pulse of its own
		<-w.ahead.done
		w.pulse.busy("reading records", statementTimeout)
	}
}

// itemsOf gives a record's items, prepared or not. Records come in the log's order.
func (w *worker) itemsOf(r *kgo.Record) []item {
	w.join()
	for a := w.ahead; a != nil; a = w.ahead {
		first, items := a.records[0], a.items[0]
		if first.Offset > r.Offset {
			break
		}
		if a.records, a.items = a.records[1:], a.items[1:]; len(a.records) == 0 {
			w.ahead = nil
		}
		if first == r && items != nil {
			return items
		}
	}
	return w.read(r)
}
