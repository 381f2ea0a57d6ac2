//go:build mutant

package prove

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/judge"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/nemesis"
	"github.com/catchment-dev/catchment/pkg/mutant"
)

// Case is how one broken build is shown: the faults that it cannot bear, and who must notice.
type Case struct {
	Mutant mutant.Mutant
	Plan   []nemesis.Slot
	Checks []int    // the judge's, any of which catches it
	Env    []string // of the services, beside the mutation itself

	again   time.Duration // as in Options
	limit   int
	rate    float64
	halting bool // a sound build halts: see Mutants
}

const (
	shown    = 1000 // events a second
	tries    = 4    // with other seeds, where a fault has to meet a moment
	patience = 40 * time.Second
)

func at(after, length float64, kind, target string) nemesis.Fault {
	s := float64(time.Second)
	return nemesis.Fault{Kind: kind, Target: target, After: time.Duration(after * s), Length: time.Duration(length * s)}
}

// caseKinds are the faults that a case may have.
func caseKinds() []nemesis.Kind {
	return append(nemesis.Kinds(), nemesis.Retention(), nemesis.KilledInUpload())
}

// Cases are those of all mutations, in order.
func Cases() []Case {
	cutIngress := nemesis.Slot{
		at(0, 9, "ingress-loses-kafka", "ingress-1"), at(5, 1, "ingress-kill", "ingress-1"),
		at(0, 9, "ingress-loses-kafka", "ingress-2"), at(6, 1, "ingress-kill", "ingress-2"),
	}
	cutCommits := []nemesis.Slot{
		{at(0, 4, "commit-lost", "processor-1→postgres"), at(0, 4, "commit-lost", "processor-2→postgres")},
		{at(0, 4, "postgres-sessions-cut", "")},
	}
	killed := nemesis.KilledInUpload().Name
	// A processor that has records to try again, and stands still until another one has done them, goes on, and Kafka does not tell it.
	undead := nemesis.Slot{
		at(0, 12, "postgres-refuses", "processor-1→postgres"), at(1.5, 13, "processor-pause", "processor-1"), at(2, 19, "processor-loses-kafka", "processor-1"),
	}
	lost := []int{judge.LossDB, judge.LossArchive, judge.AckHonesty}
	// The results' primary key keeps a second effect out on its own: it becomes a dead letter that nobody sent.
	twice := []int{judge.Once, judge.Sums, judge.DeadLetters}
	return []Case{
		{Mutant: mutant.M1, Plan: []nemesis.Slot{cutIngress}, Checks: lost},
		{Mutant: mutant.M2, Plan: []nemesis.Slot{{at(0, 9, "two-brokers-down", "all-but-1")}}, Checks: lost},
		{Mutant: mutant.M3, Plan: []nemesis.Slot{{at(0, 8, "ingress-loses-kafka", "ingress-1"), at(0, 8, "ingress-loses-kafka", "ingress-2")}}, Checks: []int{judge.NoInvention}},
		{Mutant: mutant.M4, Plan: cutCommits, Checks: []int{judge.LossDB}},
		{
			Mutant: mutant.M5, Plan: []nemesis.Slot{undead}, Checks: []int{judge.Position, judge.Once, judge.Sums},
			limit: 4000, rate: shown / 2,
		},
		{Mutant: mutant.M6, Plan: []nemesis.Slot{}, Checks: twice},
		{Mutant: mutant.M7, Plan: []nemesis.Slot{}, Checks: []int{judge.LossDB}},
		{Mutant: mutant.M8, Plan: cutCommits, Checks: []int{judge.LossDB, judge.Once, judge.Sums}},
		{Mutant: mutant.M9, Plan: []nemesis.Slot{}, Checks: []int{judge.Newest, judge.Monotone}},
		{Mutant: mutant.M10, Plan: []nemesis.Slot{{at(0, 1, "archiver-hung-upload", "archiver-1")}}, Checks: []int{judge.Chain, judge.LossArchive}},
		{Mutant: mutant.M11, Plan: []nemesis.Slot{{at(0, 1, killed, "archiver-1")}, {at(0, 1, killed, "archiver-2")}}, Checks: []int{judge.Chain, judge.LossArchive}},
		{Mutant: mutant.M12, Plan: []nemesis.Slot{}, Checks: []int{judge.NoInvention, judge.Accounting}},
		{Mutant: mutant.M13, Plan: []nemesis.Slot{}, Checks: []int{judge.NoInvention}},
		{Mutant: mutant.M14, Plan: []nemesis.Slot{{at(0, 14, "two-brokers-down", "all-but-1")}}, Checks: lost},
		{Mutant: mutant.M15, Plan: []nemesis.Slot{{at(0, 8, nemesis.Retention().Name, "")}}, Checks: []int{judge.LossDB}, limit: 4000, halting: true},
		{Mutant: mutant.M16, Plan: []nemesis.Slot{{at(0, 1, "postgres-restart-immediate", "")}, {at(0, 5, "postgres-sessions-cut", "")}}, Checks: []int{judge.DeadLetters}},
		{Mutant: mutant.M17, Plan: []nemesis.Slot{}, Checks: twice, again: 25 * time.Second, rate: 100},
		{Mutant: mutant.M18, Plan: []nemesis.Slot{}, Checks: []int{judge.Chain}, Env: []string{mutant.EnvClock + "=-24h"}},
	}
}

// Catch is what became of one build.
type Catch struct {
	Mutant mutant.Mutant `json:"mutant"` // empty: the sound build
	Caught bool          `json:"caught"` // of the sound build: it was found to be sound
	Check  string        `json:"check"`  // which check has noticed
	Found  string        `json:"found"`  // the first thing that it has found
	Tries  int           `json:"tries"`
	Took   time.Duration `json:"took_ns"`
}

// Mutants runs the build without a mutation under all these faults, which the judge must pass, and then with each mutation
// under its own, until the judge has caught it. o.Dir holds the runs' folders; o.Programs are built with the tag mutant.
// Said is called after each build.
func Mutants(ctx context.Context, o Options, cases []Case, said func(Catch)) error {
	for _, program := range []string{o.Programs.Ingress, o.Programs.Processor, o.Programs.Archiver} {
		if err := mutable(program); err != nil {
			return err
		}
	}
	o.Kinds = caseKinds()
	o.Together, o.Drain, o.Heal = nemesis.Triples, patience, patience
	if err := sound(ctx, o, cases, said); err != nil {
		return err
	}
	for _, c := range cases {
		began := time.Now()
		caught := Catch{Mutant: c.Mutant}
		for caught.Tries < tries && !caught.Caught {
			caught.Tries++
			v, err := o.mutated(ctx, c, caught.Tries)
			if err != nil {
				return fmt.Errorf("%s: %w", c.Mutant, err)
			}
			if check := c.caught(v); check != nil {
				caught.Caught, caught.Check, caught.Found = true, check.Name, check.Found[0]
			}
		}
		caught.Took = time.Since(began)
		said(caught)
	}
	return nil
}

// mutable says whether a program was built with the tag.
func mutable(program string) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	for _, s := range info.Settings {
		if s.Key == "-tags" && slices.Contains(strings.Split(s.Value, ","), "mutant") {
			return nil
		}
	}
	return fmt.Errorf("%s cannot be mutated: expected a build with -tags mutant, as make prove-mutants makes it", program)
}

// sound runs the build without a mutation. It must be clean, and where Kafka has deleted what was not processed it must halt.
func sound(ctx context.Context, o Options, cases []Case, said func(Catch)) error {
	all := Case{rate: shown}
	for _, c := range cases {
		if c.halting {
			began := time.Now()
			v, err := o.mutated(ctx, Case{Plan: c.Plan, limit: c.limit}, 0)
			if err != nil {
				return err
			}
			said(Catch{Caught: v.Counters[folder.Halted] > 0, Check: "halted", Found: fmt.Sprintf("%d partitions", v.Counters[folder.Halted]), Tries: 1, Took: time.Since(began)})
			continue
		}
		all.Plan = append(all.Plan, c.Plan...)
		all.Env = append(all.Env, c.Env...)
		all.again = max(all.again, c.again/10)
	}
	began := time.Now()
	v, err := o.mutated(ctx, all, 1)
	if err != nil {
		return err
	}
	c := Catch{Caught: v.Passed(), Check: "all", Tries: 1, Took: time.Since(began)}
	for _, check := range v.Checks {
		if !check.OK {
			c.Check, c.Found = check.Name, check.Found[0]
		}
	}
	said(c)
	return nil
}

// mutated is one run. Its folder is kept where nothing was caught.
func (o Options) mutated(ctx context.Context, c Case, try int) (*judge.Verdict, error) {
	name := string(c.Mutant)
	if name == "" {
		name = "sound"
	}
	o.Dir = filepath.Join(o.Dir, fmt.Sprintf("%s-%d", name, try))
	o.Seed += uint64(try)
	o.Plan, o.Limit, o.Again, o.Rate = c.Plan, c.limit, c.again, c.rate
	if o.Rate == 0 {
		o.Rate = shown / 2
	}
	if c.limit == 0 {
		o.Events = int64(8 * o.Rate) // and for as long as the faults go on
		if c.again > 0 {
			o.Events = int64(1.5 * c.again.Seconds() * o.Rate)
		}
	} else {
		o.Events = 0
	}
	o.Env = append(slices.Clone(c.Env), mutant.Env+"="+string(c.Mutant))
	o.Say("%s, try %d: %v", name, try, c.Plan)
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	v, err := Run(ctx, o)
	if err != nil {
		return nil, err
	}
	if c.caught(v) != nil || c.Mutant == "" && v.Passed() {
		err = os.RemoveAll(o.Dir)
	}
	return v, errors.Join(err, ctx.Err())
}

// caught is the check that has noticed, of those that are to.
func (c *Case) caught(v *judge.Verdict) *judge.Check {
	if c.halting && v.Counters[folder.Halted] > 0 {
		return nil // it has said so: nothing was lost in silence
	}
	for i, check := range v.Checks {
		if !check.OK && slices.Contains(c.Checks, check.Number) && len(check.Found) > 0 {
			return &v.Checks[i]
		}
	}
	return nil
}
