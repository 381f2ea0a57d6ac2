package processor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/catchment-dev/catchment/processor/internal/store"
)

// reasonDependency is the dead letters' whose operation depends on one that did not succeed.
const reasonDependency = "dependency"

// A waiting attempt is looked at again after a quarter of the time that it has waited, within these bounds.
const (
	dependencyPoll    = time.Second
	dependencyMaxPoll = time.Minute
)

// dependencyError says that an operation on which the attempt depends will not succeed by itself.
type dependencyError struct{ error }

// link finds the operations that each depends on, and the order in which they run: an operation's level is above those
// that it depends on.
func (c *compiler) link(ops []*operation) {
	byName := map[string]*operation{}
	for _, op := range ops {
		byName[op.spec.Name] = op
	}
	for _, op := range ops {
		for j, name := range op.spec.DependsOn {
			path := op.path + ".depends_on"
			if len(op.spec.DependsOn) > 1 {
				path = fmt.Sprintf("%s[%d]", path, j)
			}
			on := byName[name]
			switch {
			case on == nil:
				c.fail(path, "there is no operation named %q", name)
			case on == op:
				c.fail(path, "an operation cannot depend on itself")
			case on.spec.On.Source != op.spec.On.Source:
				c.fail(path, "%s is for source %s: expected an operation for the same events", name, on.spec.On.Source)
			case !overlap(on.spec.On.Types, op.spec.On.Types):
				c.fail(path, "%s is for none of these event types: expected an operation for the same events", name)
			default:
				op.after = append(op.after, on)
			}
		}
	}
	for _, op := range ops {
		if _, round := level(op, nil); round {
			c.fail(op.path+".depends_on", "the operation depends on itself, by way of others: expected no circle")
			op.after = nil // the others of the circle are right without it
		}
	}
	for _, op := range ops {
		op.level, _ = level(op, nil)
	}
}

// level counts the operations below op; round: it is below itself.
func level(op *operation, above []*operation) (n int, round bool) {
	if slices.Contains(above, op) {
		return 0, op == above[0]
	}
	for _, on := range op.after {
		below, circle := level(on, append(above, op))
		n, round = max(n, below+1), round || circle
	}
	return n, round
}

// overlap says whether there may be an event type that both lists match.
func overlap(a, b []string) bool {
	if len(a) == 0 || len(b) == 0 {
		return true
	}
	for _, s := range a {
		for _, t := range b {
			if matchesType(s, t) || matchesType(t, s) {
				return true
			}
		}
	}
	return false
}

// wait says why an attempt is not made now, or why it will never be: what became of the attempts before it for the same
// event. One that was not made yet counts as if it succeeds.
func (a *attempt) wait() (held string, err error) {
	for _, on := range a.deps {
		switch on.outcome {
		case dead:
			return "", a.blocked(on.op.spec.Name, "is a dead letter")
		case failed, deferred:
			held = "waits for " + on.op.spec.Name
		}
	}
	return held, nil
}

func (a *attempt) blocked(name, why string) error {
	return &dependencyError{fmt.Errorf("%s.depends_on: %s %s for this event: redrive it first", a.op.path, name, why)}
}

// neverRan names, for those of the events, an operation that op depends on and that has never been run for them: it is not
// for them, or is newer. A replay passes them over, for it is not op's failure that the other was not replayed before.
func neverRan(ctx context.Context, tx *store.Tx, op *operation, keys []store.Key) (map[store.Key]string, error) {
	if len(op.after) == 0 {
		return nil, nil
	}
	var asked []store.Made
	for _, k := range keys {
		for _, on := range op.after {
			asked = append(asked, store.Made{Key: k, Operation: on.spec.Name})
		}
	}
	states, err := tx.Outcomes(ctx, asked)
	if err != nil {
		return nil, err
	}
	out := map[store.Key]string{}
	for _, m := range asked {
		if st := states[m]; st.Outcome == "" && !st.Waiting {
			out[m.Key] = m.Operation
		}
	}
	return out, nil
}

// inquire finds out, for attempts outside of a batch, what became of those that they depend on.
func inquire(ctx context.Context, tx *store.Tx, plans []*attempt) error {
	var asked []store.Made
	for _, a := range plans {
		for _, on := range a.op.after {
			asked = append(asked, store.Made{Key: a.key(), Operation: on.spec.Name})
		}
	}
	if len(asked) == 0 {
		return nil
	}
	states, err := tx.Outcomes(ctx, asked)
	if err != nil {
		return err
	}
	for _, a := range plans {
		for _, on := range a.op.after {
			st := states[store.Made{Key: a.key(), Operation: on.spec.Name}]
			before := &attempt{op: on, outcome: st.Outcome}
			switch {
			case st.Waiting:
				before.outcome = failed
			case st.Outcome == "":
				a.err = a.blocked(on.spec.Name, "has not run")
			}
			a.deps = append(a.deps, before)
		}
	}
	return nil
}

// again is how long an attempt that waits since then is left alone.
func again(waited time.Duration) time.Duration {
	return min(max(waited/4, dependencyPoll), dependencyMaxPoll)
}
