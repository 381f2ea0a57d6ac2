package simtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/run"
)

// Fault is something that fails, from when and for how long.
type Fault struct {
	Kind   string
	Target string // a service, where the kind has one
	At     time.Duration
	For    time.Duration
	N      int // how often, how far: what the kind says
}

func (f Fault) String() string {
	return fmt.Sprintf("%7s %-22s %-11s for %s (%d)", f.At, f.Kind, f.Target, f.For, f.N)
}

// kind is a kind of faults.
type kind struct {
	name string
	on   []string // services that it befalls
	do   func(*world, Fault) (undo func())
}

// trim is what retention does that overtakes the processor: what is archived and not processed is gone. It is in no
// seed's schedule, since no promise holds then but that of telling.
var trim = kind{"retention overtakes", nil, func(w *world, _ Fault) func() {
	db := w.db.snapshot()
	for p := range int32(partitions) {
		next := int64(0)
		for at, pr := range db.progress {
			if at.partition == p {
				next = pr.next
			}
		}
		if end := w.archivedTo(p); end > next {
			w.deleteRecords(p, end)
		}
	}
	return func() {}
}}

// kinds are the faults of the seeds.
var kinds = []kind{
	{"killed", roles, func(w *world, f Fault) func() {
		w.kill(f.Target)
		return func() { w.launch(f.Target) }
	}},
	{"cut from Kafka", roles, func(w *world, f Fault) func() {
		return w.link(f.Target, "kafka", Link{HoldUp: true, HoldDown: true, Refuse: true})
	}},
	{"requests held", roles, func(w *world, f Fault) func() { return w.link(f.Target, "kafka", Link{HoldUp: true}) }},
	{"answers held", roles, func(w *world, f Fault) func() { return w.link(f.Target, "kafka", Link{HoldDown: true}) }},
	{"Kafka resets", roles, func(w *world, f Fault) func() { return w.cuts(f, w.life(f.Target), "kafka") }},
	{"providers reset", roles[:2], func(w *world, f Fault) func() { return w.cuts(f, "providers", w.life(f.Target)) }},
	{"providers unheard", roles[:2], func(w *world, f Fault) func() {
		life := w.life(f.Target)
		w.net.Set("providers", life, Link{HoldDown: true})
		return func() { w.net.Set("providers", life, Link{}) }
	}},
	{"cut from Postgres", roles[2:4], func(w *world, f Fault) func() { return w.link(f.Target, pgName, Link{HoldUp: true, HoldDown: true}) }},
	{"statements held", roles[2:4], func(w *world, f Fault) func() { return w.link(f.Target, pgName, Link{HoldUp: true}) }},
	{"results held", roles[2:4], func(w *world, f Fault) func() { return w.link(f.Target, pgName, Link{HoldDown: true}) }},
	{"frozen", roles[2:4], func(w *world, f Fault) func() {
		a := w.link(f.Target, "kafka", Link{HoldUp: true, HoldDown: true})
		b := w.link(f.Target, pgName, Link{HoldUp: true, HoldDown: true})
		return func() { a(); b() }
	}},
	{"Postgres resets", roles[2:4], func(w *world, f Fault) func() { return w.cuts(f, w.life(f.Target), pgName) }},
	{"COMMIT lost", nil, func(w *world, f Fault) func() { return w.commits(f, CommitLost) }},
	{"COMMIT unanswered", nil, func(w *world, f Fault) func() { return w.commits(f, AnswerLost) }},
	{"Postgres restarted", nil, func(w *world, _ Fault) func() {
		w.db.Down(true)
		return func() { w.db.Down(false) }
	}},
	{"failover", nil, func(w *world, f Fault) func() {
		w.db.Failover(time.Duration(f.N) * time.Second)
		return func() {}
	}},
	{"two brokers down", nil, func(w *world, f Fault) func() {
		h := w.kafka.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
		return h.Remove
	}},
	{"appended, timed out", nil, func(w *world, f Fault) func() {
		h := w.kafka.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.RequestTimedOut, Count: f.N})
		return h.Remove
	}},
	{"appended, too few", nil, func(w *world, f Fault) func() {
		h := w.kafka.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicasAfterAppend, Count: f.N})
		return h.Remove
	}},
	{"leaders move", nil, func(w *world, _ Fault) func() {
		w.kafka.ShufflePartitionLeaders()
		return w.kafka.RehashCoordinators
	}},
	{"store refuses tomorrow", nil, func(w *world, _ Fault) func() {
		// A file lies where the folder of the next day's segments must be.
		path := filepath.Join(w.dir, "archive", "events", "date="+w.start.UTC().AddDate(0, 0, 1).Format(time.DateOnly))
		if os.MkdirAll(filepath.Dir(path), 0o755) != nil {
			return func() {}
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return func() {}
		}
		_ = f.Close()
		return func() { _ = os.Remove(path) }
	}},
}

// link breaks the link of a service, as it lives now.
func (w *world) link(role, to string, l Link) func() {
	life := w.life(role)
	w.net.Set(life, to, l)
	return func() {
		if w.life(role) == life {
			w.net.Set(life, to, Link{})
		}
	}
}

// cuts ends a link's connections, N times in the fault's time.
func (w *world) cuts(f Fault, from, to string) func() {
	for i := range f.N {
		if i > 0 {
			run.Pause(context.Background(), f.For/time.Duration(f.N))
		}
		w.net.Cut(from, to)
	}
	return func() {}
}

// commits lets N COMMITs fail in the fault's time.
func (w *world) commits(f Fault, how CommitFault) func() {
	for range f.N {
		w.db.Arm(how)
		run.Pause(context.Background(), f.For/time.Duration(f.N))
	}
	return func() { w.db.Arm(NoFault) }
}

func (w *world) deleteRecords(p int32, before int64) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.ListenAddrs()...), kgo.Dialer(w.net.Dialer("judge")))
	if err != nil {
		w.blame("delete records: %v", err)
		return
	}
	defer cl.Close()
	var offsets kadm.Offsets
	offsets.AddOffset(topic, p, before, -1)
	if _, err := kadm.NewClient(cl).DeleteRecords(context.Background(), offsets); err != nil {
		w.blame("delete records: %v", err)
	}
	w.trimmed = true
}

// inflict lets a fault begin and end.
func (w *world) inflict(ctx context.Context, f Fault) {
	if !run.Pause(ctx, f.At) {
		return
	}
	for _, k := range append(kinds[:len(kinds):len(kinds)], trim) {
		if k.name != f.Kind {
			continue
		}
		w.mu.Lock()
		w.faults[f.Kind]++
		w.story = append(w.story, f.String())
		w.mu.Unlock()
		began := time.Now()
		undo := k.do(w, f)
		run.Pause(ctx, f.For-time.Since(began))
		undo()
		return
	}
	w.blame("there is no fault %q", f.Kind)
}

// schedule draws the faults of a seed: alone, in pairs, and in threes.
func schedule(rng *rand.Rand) []Fault {
	var list []Fault
	for range 3 + rng.IntN(4) {
		at := time.Duration(rng.IntN(40_000)) * time.Millisecond
		for range 1 + rng.IntN(3) {
			k := kinds[rng.IntN(len(kinds))]
			f := Fault{Kind: k.name, At: at + time.Duration(rng.IntN(2_000))*time.Millisecond, N: 1 + rng.IntN(5)}
			f.For = time.Duration(200+rng.IntN(18_000)) * time.Millisecond
			if rng.IntN(3) == 0 {
				f.For = time.Duration(100+rng.IntN(2_000)) * time.Millisecond
			}
			if len(k.on) > 0 {
				f.Target = k.on[rng.IntN(len(k.on))]
			}
			list = append(list, f)
		}
	}
	return list
}
