package judge

import (
	"maps"
	"slices"
	"strings"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
)

// sums wants each counter to be the number of events that changed its entity (check 5).
func (j *judge) sums() error {
	seen := map[string]bool{}
	for c, err := range folder.Each[folder.Counter](j.dir, folder.CountersFile, nil) {
		if err != nil {
			return err
		}
		due := int64(0)
		if e := j.entities[c.Entity]; e != nil {
			due = e.executed
		}
		if seen[c.Entity] {
			j.found(Sums, "entity %s has two counters", c.Entity)
		}
		seen[c.Entity] = true
		if c.N != due {
			j.v.Doubled += max(0, c.N-due)
			j.found(Sums, "entity %s was counted up %d times, and %d events changed it", c.Entity, c.N, due)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(j.entities)) {
		if !seen[name] {
			j.found(Sums, "entity %s has no counter, and %d events changed it", name, j.entities[name].executed)
		}
	}
	return nil
}

// newest wants each state to be that of the newest event (check 6).
func (j *judge) newest() error {
	seen := map[string]bool{}
	for s, err := range folder.Each[folder.State](j.dir, folder.StateFile, nil) {
		if err != nil {
			return err
		}
		seen[s.Entity] = true
		e := j.entities[s.Entity]
		if e == nil {
			j.found(Newest, "entity %s has a state, and no event changed it", s.Entity)
			continue
		}
		if s.Version != e.version || s.ID != e.id {
			j.v.Regressed++
			j.found(Newest, "entity %s is at version %d by %s, and its newest event is version %d, %s", s.Entity, s.Version, s.ID, e.version, e.id)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(j.entities)) {
		if !seen[name] {
			j.v.Regressed++
			j.found(Newest, "entity %s has no state, and its newest event is version %d, %s", name, j.entities[name].version, j.entities[name].id)
		}
	}
	return nil
}

// monotone wants no entity ever to have gone back (check 7). An entity's history must be there from its first write to its
// state, with as many writes as results say, or what happened in between could be hidden.
func (j *judge) monotone() error {
	type at struct {
		version int64
		id      string
	}
	last, writes := map[string]at{}, map[string]int64{}
	for s, err := range folder.Each[folder.State](j.dir, folder.HistoryFile, nil) {
		if err != nil {
			return err
		}
		before, ok := last[s.Entity]
		if ok && (s.Version < before.version || s.Version == before.version && strings.Compare(s.ID, before.id) <= 0) {
			j.v.Regressed++
			j.found(Monotone, "entity %s went from version %d, %s, back to %d, %s (write %d)", s.Entity, before.version, before.id, s.Version, s.ID, s.Number)
		}
		last[s.Entity] = at{s.Version, s.ID}
		writes[s.Entity]++
	}
	for _, name := range slices.Sorted(maps.Keys(j.entities)) {
		if due := j.entities[name].writes; writes[name] != due {
			j.found(Monotone, "entity %s was written %d times, and %d results say that they wrote it", name, writes[name], due)
		}
	}
	for s, err := range folder.Each[folder.State](j.dir, folder.StateFile, nil) {
		if err != nil {
			return err
		}
		if h, ok := last[s.Entity]; !ok || h.version != s.Version || h.id != s.ID {
			j.found(Monotone, "entity %s: its last write in the history is version %d, %s, and its state %d, %s", s.Entity, h.version, h.id, s.Version, s.ID)
		}
	}
	return nil
}

// position wants everything in Kafka to be processed, and no commit to run ahead of Postgres (check 10).
func (j *judge) position() error {
	next := map[chainKey]int64{}
	for p, err := range folder.Each[folder.Progress](j.dir, folder.ProgressFile, nil) {
		if err != nil {
			return err
		}
		next[chainKey{p.Topic, p.TopicID, p.Partition}] = p.Next
	}
	for p, err := range folder.Each[folder.Partition](j.dir, folder.PartitionsFile, nil) {
		if err != nil {
			return err
		}
		if p.Start > 0 && !j.run.Shared {
			j.invalid("Kafka has deleted records of %s, partition %d, below offset %d: what they were can no longer be shown", p.Topic, p.Partition, p.Start)
		}
		if p.Topic == j.run.Topic {
			k := chainKey{p.Topic, p.TopicID, p.Partition}
			at, ok := next[k]
			delete(next, k)
			j.partition(&p, at, ok)
		}
	}
	if j.run.Shared {
		clear(next)
	}
	for _, k := range slices.SortedFunc(maps.Keys(next), compareChains) {
		j.found(Position, "partition %d of topic %s (%s) has a position in Postgres, and is not in Kafka", k.partition, k.topic, k.id)
	}
	for _, p := range j.run.Phases {
		if p.Failed != "" {
			j.found(Position, "phase %s: %s", p.Name, p.Failed)
		}
	}
	return nil
}

func (j *judge) partition(p *folder.Partition, at int64, known bool) {
	switch {
	case !known && p.End > p.Start:
		j.found(Position, "partition %d has %d records, and no position in Postgres", p.Partition, p.End-p.Start)
	case known && at != p.End:
		j.found(Position, "partition %d ends at offset %d, and the position in Postgres is %d", p.Partition, p.End, at)
	}
	if p.Committed > at {
		j.found(Position, "partition %d: the commit in Kafka is %d, ahead of Postgres's %d", p.Partition, p.Committed, at)
	}
}

// accounts wants the ingresses to have counted what the providers were told (check 12).
func (j *judge) accounts() error {
	if len(j.facts.Requests) == 0 {
		j.v.Checks[Accounting-1].Note = "no counters of an ingress are among the facts"
		return nil
	}
	for _, source := range slices.Sorted(maps.Keys(j.said)) {
		t, counted := j.said[source], j.facts.Requests[source]
		for _, c := range []struct {
			outcome string
			told    int64
		}{{"accepted", t.accepted}, {"duplicate", t.duplicate}} {
			n := counted[c.outcome]
			if n > c.told+t.unsure || j.facts.RequestsComplete && n < c.told {
				j.found(Accounting, "source %s: the ingresses counted %d requests as %s, the providers were told so %d times and do not know of %d", source, n, c.outcome, c.told, t.unsure)
			}
		}
	}
	return nil
}
