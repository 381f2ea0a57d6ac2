// Package nemesis makes the faults of a trial. A seed and a running estate come in; faults go out, alone, in pairs and in
// triples, each with a begin, an end, a target and a bounded length, and each written down. It must never choose anything by
// what it sees: the schedule is a function of the seed alone, so that it can be repeated.
package nemesis

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/estate"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
)

// Kind is a way in which something breaks.
type Kind struct {
	Name    string
	What    string   // one line for people
	Needs   []string // what it breaks: two faults that break the same never overlap
	Targets []string // one of them is chosen; none: the kind says it all
	Min     time.Duration
	Max     time.Duration
	Once    bool // at most once in a run
	NoAck   bool // while it lasts, nothing can be acknowledged
	Vital   bool // has a limit in time, or a trace that must be seen: comes early, and alone, the first time

	begin func(ctx context.Context, w *work) (end func(context.Context) error, err error)
}

// Fault is one planned fault.
type Fault struct {
	Number int
	Kind   string
	Target string
	Length time.Duration
	After  time.Duration // how long after its slot's begin it begins
}

// String is the fault as the schedule prints it.
func (f Fault) String() string {
	name := f.Kind
	if f.Target != "" {
		name += " " + f.Target
	}
	return fmt.Sprintf("%s %.1fs", name, f.Length.Seconds())
}

// Slot is what happens at the same time.
type Slot []Fault

// String is the slot as the schedule prints it.
func (s Slot) String() string {
	var parts []string
	for _, f := range s {
		parts = append(parts, f.String())
	}
	return strings.Join(parts, " + ")
}

// whole is how many kinds a run has at least in which the vital ones come early and alone. One of few kinds pairs all.
const whole = 30

// Triples is how many faults come at the same time at most, where nothing else is said.
const Triples = 3

// size is how many faults come at the same time: one, two or three, and more where most is more.
func size(r *rand.Rand, most int) int {
	if most > Triples {
		return 1 + r.IntN(most)
	}
	switch n := r.IntN(100); {
	case n < 20:
		return min(3, most)
	case n < 60:
		return min(2, most)
	}
	return 1
}

// Schedule is the endless plan of a seed, with at most so many faults at the same time, 1 or more. Every kind comes once
// before one comes again.
func Schedule(seed uint64, kinds []Kind, most int) iter.Seq[Slot] {
	return func(yield func(Slot) bool) {
		r := rand.New(rand.NewPCG(seed, 0x6e656d65736973))
		deck, alone := slices.Clone(kinds), len(kinds) >= whole
		shuffle(r, deck)
		if alone {
			deck = vitalEarly(deck)
		}
		number := 0
		for {
			if len(deck) == 0 {
				alone = false
				deck = slices.DeleteFunc(slices.Clone(kinds), func(k Kind) bool { return k.Once })
				if len(deck) == 0 {
					return
				}
				shuffle(r, deck)
			}
			want := size(r, most)
			if alone && deck[0].Vital {
				want = 1
			}
			var slot Slot
			var taken []string
			for i := 0; i < len(deck) && len(slot) < want; {
				k := deck[i]
				if clash(taken, k.Needs) || alone && k.Vital && len(slot) > 0 {
					i++
					continue
				}
				number++
				slot = append(slot, plan(r, number, k))
				taken = append(taken, k.Needs...)
				deck = slices.Delete(deck, i, i+1)
			}
			if !yield(slot) {
				return
			}
		}
	}
}

func shuffle(r *rand.Rand, deck []Kind) {
	r.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
}

// vitalEarly puts a vital kind after each three others, as long as there are any.
func vitalEarly(deck []Kind) []Kind {
	var vital, others, sorted []Kind
	for _, k := range deck {
		if k.Vital {
			vital = append(vital, k)
		} else {
			others = append(others, k)
		}
	}
	for i, k := range others {
		sorted = append(sorted, k)
		if i%3 == 2 && len(vital) > 0 {
			sorted, vital = append(sorted, vital[0]), vital[1:]
		}
	}
	return append(sorted, vital...)
}

func plan(r *rand.Rand, number int, k Kind) Fault {
	f := Fault{Number: number, Kind: k.Name, Length: k.Min}
	if spread := int64((k.Max - k.Min) / (100 * time.Millisecond)); spread > 0 {
		f.Length += time.Duration(r.Int64N(spread+1)) * 100 * time.Millisecond
	}
	if len(k.Targets) > 0 {
		f.Target = k.Targets[r.IntN(len(k.Targets))]
	}
	return f
}

func clash(taken, needs []string) bool {
	return slices.ContainsFunc(needs, func(n string) bool { return slices.Contains(taken, n) })
}

// Choose returns the kinds of these names, or all where there are none; "-name" leaves one out.
func Choose(names []string) ([]Kind, error) {
	all := Kinds()
	if len(names) == 0 {
		return all, nil
	}
	var out, in []string
	for _, n := range names {
		bare, not := strings.CutPrefix(n, "-")
		if !slices.ContainsFunc(all, func(k Kind) bool { return k.Name == bare }) {
			return nil, fmt.Errorf("there is no fault %q: catchment prove --list names them", bare)
		}
		if not {
			out = append(out, bare)
		} else {
			in = append(in, bare)
		}
	}
	return slices.DeleteFunc(all, func(k Kind) bool {
		return slices.Contains(out, k.Name) || len(in) > 0 && !slices.Contains(in, k.Name)
	}), nil
}

// Options are what a run of faults works on.
type Options struct {
	Estate   *estate.Estate
	Seed     uint64
	Kinds    []Kind
	Together int                 // how many faults come at the same time at most
	Plan     []Slot              // these and no others, in place of the seed's schedule
	Sessions time.Duration       // session timeout of the consumers
	Journal  func(folder.Fault)  // is called for each begin and end, never at the same time
	Timing   func(folder.Timing) // 〃 for what has a limit
	Say      func(format string, args ...any)
	// Enough is asked after each slot with how many faults there were; true ends the run.
	Enough func(faults int) bool
	// Settled waits after a slot until the system answers again; an error ends the run.
	Settled func(context.Context) error
}

// Report says what was done.
type Report struct {
	Faults int
	Kinds  map[string]int
	Failed map[string]string // kinds of which one could not be made, and why
}

// Run makes the faults of the schedule until there are enough of them or ctx ends.
func Run(ctx context.Context, o Options) (*Report, error) {
	n := &run{Options: o, report: &Report{Kinds: map[string]int{}, Failed: map[string]string{}}}
	plan := Schedule(o.Seed, o.Kinds, o.Together)
	if o.Plan != nil {
		if err := Check(o.Plan, o.Kinds); err != nil {
			return nil, err
		}
		plan = numbered(o.Plan)
	}
	for slot := range plan {
		if ctx.Err() != nil || o.Enough(n.report.Faults) {
			break
		}
		n.Say("%s", slot)
		var all sync.WaitGroup
		for _, f := range slot {
			all.Go(func() { n.one(ctx, f, len(slot) == 1) })
		}
		all.Wait()
		if err := ctx.Err(); err != nil {
			return n.report, err
		}
		if err := o.Settled(ctx); err != nil {
			return n.report, fmt.Errorf("after %s: %w", slot, err)
		}
	}
	return n.report, nil
}

// Check says what in a plan is of no kind, or has a target that its kind does not know.
func Check(plan []Slot, kinds []Kind) error {
	for _, f := range slices.Concat(plan...) {
		i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == f.Kind })
		if i < 0 {
			return fmt.Errorf("there is no fault %q", f.Kind)
		}
		if targets := kinds[i].Targets; len(targets) > 0 && !slices.Contains(targets, f.Target) {
			return fmt.Errorf("%s has no target %q: expected one of %v", f.Kind, f.Target, targets)
		}
	}
	return nil
}

// numbered are the slots with numbers for their faults, which pair a begin with its end.
func numbered(plan []Slot) iter.Seq[Slot] {
	return func(yield func(Slot) bool) {
		number := 0
		for _, slot := range plan {
			slot = slices.Clone(slot)
			for i := range slot {
				number++
				slot[i].Number = number
			}
			if !yield(slot) {
				return
			}
		}
	}
}

type run struct {
	Options

	mu     sync.Mutex
	report *Report
}

// one makes one fault, from its begin to its end.
func (n *run) one(ctx context.Context, f Fault, alone bool) {
	kinds := n.Kinds
	k := kinds[slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == f.Kind })]
	w := &work{Estate: n.Estate, Fault: f, alone: alone, sessions: n.Sessions, run: n}
	if f.After > 0 && estate.Pause(ctx, f.After) != nil {
		return
	}
	end, err := k.begin(ctx, w)
	n.note(f, k, "begin", err)
	if err == nil {
		if w.hold == nil {
			w.hold = func(ctx context.Context) error { return estate.Pause(ctx, f.Length) }
		}
		err = w.hold(ctx)
	}
	n.note(f, k, "end", err)
	if end != nil {
		// Also when ctx has ended: what is broken is to be whole again.
		err = errors.Join(err, end(context.WithoutCancel(ctx)))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		n.report.Failed[f.Kind] = err.Error()
		n.Say("%s: %v", f, err)
		return
	}
	n.report.Faults++
	n.report.Kinds[f.Kind]++
}

func (n *run) note(f Fault, k Kind, phase string, err error) {
	line := folder.Fault{At: time.Now(), Number: f.Number, Kind: f.Kind, Target: f.Target, Phase: phase, NoAck: k.NoAck && err == nil}
	if err != nil {
		line.Error = err.Error()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Journal(line)
}

// work is one fault in the making.
type work struct {
	*estate.Estate
	Fault

	alone    bool // nothing else is broken
	sessions time.Duration
	run      *run
	hold     func(context.Context) error // how long it lasts; nil: as long as it was planned
}

// timing notes how long something took that has a limit. It counts only where nothing else was broken.
func (w *work) timing(name string, since time.Time, bound time.Duration) {
	if !w.alone {
		return
	}
	w.run.mu.Lock()
	defer w.run.mu.Unlock()
	w.run.Timing(folder.Timing{Name: name, Seconds: time.Since(since).Seconds(), Bound: bound.Seconds()})
}

// number is the number at the target's end, from 0.
func (w *work) number() int { return int(w.Target[len(w.Target)-1] - '1') }

// service is the instance that the target names, "processor-2".
func (w *work) service() *estate.Service {
	for _, s := range w.Services() {
		if s.Name == w.Target {
			return s
		}
	}
	return nil
}

// targets are name-1 to name-n.
func targets(name string, n int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%s-%d", name, i+1))
	}
	return all
}
