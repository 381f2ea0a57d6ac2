package processor

import (
	"slices"
	"time"

	"github.com/catchment-dev/catchment/processor/internal/store"
)

// smallestSet is how many attempts are worth a set.
const smallestSet = 4

// group is one call of a batch: one attempt's, or that of a set of attempts of one operation, each for an entity of its own.
type group struct {
	attempts []*attempt
	set      *store.Set
}

// groupSets makes sets of the attempts that may be made by one statement. Attempts keep their order: those of an operation
// are taken together only where no other operation's stand between them, and an entity's second one comes into a second
// set, behind the first.
func groupSets(attempts []*attempt) []group {
	var out []group
	for from := 0; from < len(attempts); {
		op, to := attempts[from].op, from+1
		for to < len(attempts) && attempts[to].op == op {
			to++
		}
		out = append(out, rounds(attempts[from:to], op.set())...)
		from = to
	}
	return out
}

func rounds(attempts []*attempt, set *store.Set) []group {
	several := func(a *attempt) bool { return len(a.call.Args) != 1 }
	if len(attempts) < smallestSet || slices.ContainsFunc(attempts, several) {
		set = nil
	}
	var out []group
	before := map[string]int{} // attempts for an entity
	for i, a := range attempts {
		round := 0
		switch {
		case set == nil:
			round = i
		case a.entity != nil:
			round = before[*a.entity]
			before[*a.entity]++
		}
		if round == len(out) {
			out = append(out, group{})
		}
		out[round].attempts = append(out[round].attempts, a)
	}
	for i := range out {
		if set != nil && len(out[i].attempts) > 1 {
			out[i].set = set
		}
	}
	return out
}

// set is the statement that makes many attempts of the operation; nil: there is none.
func (op *operation) set() *store.Set {
	if len(op.statements) != 1 || op.spec.ExpectRows != "any" {
		return nil
	}
	return op.statements[0].Set()
}

func (g *group) call() store.Call {
	if g.set == nil {
		return g.attempts[0].call
	}
	calls := make([]store.Call, len(g.attempts))
	for i, a := range g.attempts {
		calls[i] = a.call
	}
	return g.set.Call(calls)
}

// whole says whether each attempt of a set has touched one row, as its result will say.
func (g *group) whole(e store.Effect) bool { return g.set == nil || e.Rows == int64(len(g.attempts)) }

// accept asks the attempt about its effect, and marks it where it does not do what it must.
func (g *group) accept(e store.Effect) bool {
	if g.set == nil && g.attempts[0].accept(e) != nil {
		g.attempts[0].suspect = true
		return false
	}
	return true
}

// share is one attempt's part of the effect.
func (g *group) share(e store.Effect) store.Effect {
	if g.set != nil {
		e.Rows, e.Took = 1, max(e.Took/time.Duration(len(g.attempts)), time.Microsecond)
	}
	return e
}
