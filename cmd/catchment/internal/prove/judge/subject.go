package judge

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
)

// shard judges the events of one shard, each by itself, and adds up what they must have done to their entities.
func (j *judge) shard(n uint64) error {
	ss, err := j.load(n)
	if err != nil {
		return err
	}
	keys := make([]string, 0, len(ss))
	for k := range ss {
		keys = append(keys, k)
	}
	slices.Sort(keys) // the same folder, the same verdict
	for _, k := range keys {
		j.subject(ss[k])
	}
	return nil
}

func (j *judge) subject(s *subject) {
	j.answers(s)
	j.invented(s)
	if !s.known() {
		return
	}
	if s.of == nil {
		j.archived(s)
		j.honest(s)
		if len(s.kafka) > 1 {
			j.v.Counters[folder.DuplicatesInKafka] += int64(len(s.kafka) - 1)
		}
	}
	if s.several {
		return
	}
	j.count(s)
	j.lossDB(s)
	if len(s.stored) == 1 {
		j.conflicts(s)
		j.deliveries(s)
	}
	j.once(s)
	j.letters(s)
}

// count says what the event came to, and adds it to its entity.
func (j *judge) count(s *subject) {
	j.v.Events++
	switch s.outcome() {
	case journal.OK:
		j.v.Acked++
	case journal.Info:
		j.v.Unknown++
	case journal.Fail:
		j.v.Rejected++
	}
	if len(s.stored) == 0 || s.poison != "" {
		return
	}
	e := j.entities[s.entity]
	if e == nil {
		e = &entity{version: -1}
		j.entities[s.entity] = e
	}
	e.executed++
	for _, r := range s.results {
		if r.Operation == s.source+"-state" {
			e.writes += int64(r.Succeeded)
		}
	}
	if c := cmp.Or(cmp.Compare(s.version, e.version), strings.Compare(s.id, e.id)); c > 0 {
		e.version, e.id = s.version, s.id
	}
}

// where says in which of the three an acknowledged event is.
func (s *subject) where() string {
	of := s
	if s.of != nil {
		of = s.of
	}
	if len(of.kafka) == 0 {
		return "it never reached Kafka"
	}
	places := make([]string, len(of.kafka))
	for i, r := range of.kafka {
		places[i] = place(r)
	}
	return "it is in Kafka at " + strings.Join(places, ", ")
}

func place(r *folder.Record) string { return fmt.Sprintf("%d/%d", r.Partition, r.Offset) }

// lossDB wants in Postgres what was acknowledged, and what is in Kafka (check 1).
func (j *judge) lossDB(s *subject) {
	of := s
	if s.of != nil {
		of = s.of
	}
	acked := s.outcome() == journal.OK
	switch {
	case len(s.stored) == 0 && acked:
		j.v.Lost++
		j.found(LossDB, "%s was acknowledged and is not in Postgres: %s", s.name(), s.where())
	case len(s.stored) == 0 && len(of.kafka) > 0:
		j.found(LossDB, "%s is not in Postgres: %s (nobody was told that it is safe)", s.name(), s.where())
	case len(s.stored) > 1 || len(s.stored) == 1 && s.identities != 1:
		j.found(LossDB, "%s is in Postgres %d times, with %d identities", s.name(), len(s.stored), s.identities)
	}
}

// conflicts wants the deliveries with other bytes than the stored ones to be kept as conflicts, or as retries that differ in
// what their provider changes: they were acknowledged too.
func (j *judge) conflicts(s *subject) {
	if s.of != nil {
		return
	}
	kept := map[string]bool{}
	for _, c := range s.conflicts {
		kept[c.Delivery+c.SHA256] = true
	}
	others := map[string]bool{}
	for _, r := range s.kafka {
		if r.SHA256 == s.stored[0].SHA256 || r.Delivery == s.stored[0].Delivery {
			continue
		}
		others[r.Delivery+r.SHA256] = true
		if !kept[r.Delivery+r.SHA256] {
			j.v.Lost++
			j.found(LossDB, "%s: delivery %s, at %s, has other bytes than the stored event, and there is no row that says so", s.name(), r.Delivery, place(r))
		}
	}
	for _, c := range s.conflicts {
		if !others[c.Delivery+c.SHA256] {
			j.v.Invented++
			j.found(NoInvention, "%s: the conflict of delivery %s is none, or of no record in Kafka", s.name(), c.Delivery)
		}
	}
}

// deliveries wants Postgres to have counted as many as there are in Kafka (check 12). A producer that lost its sequence may
// write one twice.
func (j *judge) deliveries(s *subject) {
	of := s
	if s.of != nil {
		of = s.of
	}
	distinct := map[string]bool{}
	for _, r := range of.kafka {
		distinct[r.Delivery] = true
	}
	if n := s.stored[0].Deliveries; n < len(distinct) || n > len(of.kafka) {
		j.found(Accounting, "%s has %d deliveries in Postgres, and %d in Kafka, in %d records", s.name(), n, len(distinct), len(of.kafka))
	}
}

// archived wants every acknowledged delivery in the archive, and every record of Kafka (check 2).
func (j *judge) archived(s *subject) {
	for i := range s.attempts {
		a := &s.attempts[i]
		if !a.genuine() || a.outcome != journal.OK {
			continue
		}
		fits := func(r *folder.Record) bool {
			if a.replied == "duplicate" {
				return r.SHA256 == a.sum
			}
			return r.SHA256 == a.sum && r.Delivery == a.delivery && r.Headers == a.headers
		}
		if !slices.ContainsFunc(s.archive, fits) {
			j.v.Lost++
			j.found(LossArchive, "%s: delivery %s was acknowledged (%s), and no row of the archive has its bytes and headers: %s", s.name(), a.delivery, a.replied, s.where())
		}
	}
	for _, r := range s.kafka {
		same := func(w *folder.Record) bool { return comparePlaces(r, w) == 0 }
		switch i := slices.IndexFunc(s.archive, same); {
		case i < 0:
			j.found(LossArchive, "%s: the record at %s is not in the archive", s.name(), place(r))
		case s.archive[i].SHA256 != r.SHA256 || s.archive[i].Headers != r.Headers || s.archive[i].Delivery != r.Delivery:
			j.found(LossArchive, "%s: the row at %s is another than the record there", s.name(), place(r))
		}
	}
	for i, w := range s.archive {
		if !slices.ContainsFunc(s.kafka, func(r *folder.Record) bool { return comparePlaces(r, w) == 0 }) {
			j.invent("%s: the row at %s is of no record in Kafka", s.name(), place(w))
		}
		if slices.ContainsFunc(s.archive[:i], func(o *folder.Record) bool { return comparePlaces(w, o) == 0 }) {
			j.found(Chain, "%s: the record at %s is archived twice", s.name(), place(w))
		}
	}
}

// honest wants each acknowledgement to be true (check 3).
func (j *judge) honest(s *subject) {
	for i := range s.attempts {
		a := &s.attempts[i]
		if !a.genuine() || a.outcome != journal.OK {
			continue
		}
		fits := func(r *folder.Record) bool {
			return r.SHA256 == a.sum && (a.replied == "duplicate" || r.Delivery == a.delivery)
		}
		if !slices.ContainsFunc(s.kafka, fits) {
			j.v.Lost++
			j.found(AckHonesty, "%s: delivery %s was answered with %d (%s), and no such record is in Kafka", s.name(), a.delivery, a.status, a.replied)
		}
		// An acknowledgement that the ingress remembers is of a request before.
		if w := j.impossible(a.at, a.answered); w != nil && (a.replied != "duplicate" || !s.sentBefore(w.from)) {
			j.found(AckHonesty, "%s: delivery %s was acknowledged during %s (fault %d), when nothing could be", s.name(), a.delivery, w.kind, w.number)
		}
	}
	for _, k := range s.acks {
		if !slices.ContainsFunc(s.kafka, func(r *folder.Record) bool {
			return r.Partition == k.Partition && r.Offset == k.Offset && r.Delivery == k.Delivery && (k.SHA256 == "" || r.SHA256 == k.SHA256)
		}) {
			j.found(AckHonesty, "%s: the ingress logged that delivery %s is at %d/%d, and it is not", s.name(), k.Delivery, k.Partition, k.Offset)
		}
	}
}

// sentBefore says whether a genuine attempt was made before a time.
func (s *subject) sentBefore(at time.Time) bool {
	return slices.ContainsFunc(s.attempts, func(a attempt) bool { return a.genuine() && a.at.Before(at) })
}

// once wants one effect of every event that can have one (check 4).
func (j *judge) once(s *subject) {
	if n := len(s.effects); n > 1 {
		j.v.Doubled += int64(n - 1)
		j.found(Once, "%s took effect %d times", s.name(), n)
	}
	switch {
	case len(s.stored) == 0:
		if len(s.effects) == 1 {
			j.found(Once, "%s took effect, and is not in Postgres", s.name())
		}
		return
	case s.poison != "":
		if len(s.effects) == 1 {
			j.found(Once, "%s is poison (%s) and took effect", s.name(), s.poison)
		}
		return
	case len(s.effects) == 0:
		j.found(Once, "%s is in Postgres (%s) and took no effect", s.name(), s.stored[0].Status)
		return
	case s.stored[0].Status != "processed":
		j.found(Once, "%s is %s, and not processed", s.name(), s.stored[0].Status)
	}
	ledger, state := 0, 0
	for _, r := range s.results {
		switch r.Operation {
		case s.source + "-ledger":
			ledger += r.Succeeded
		case s.source + "-state":
			if r.Outcome == "succeeded" || r.Outcome == "superseded" {
				state++
			}
		}
	}
	if ledger != 1 || state != 1 {
		j.found(Once, "%s: its ledger operation has %d results that succeeded, its state operation %d that are final: one each is due", s.name(), ledger, state)
	}
}

// letters wants a dead letter of each poisonous event, and of nothing else (check 11).
func (j *judge) letters(s *subject) {
	due := 0
	if s.poison != "" && len(s.stored) > 0 {
		due = 1
		if !slices.ContainsFunc(s.results, func(r *folder.Result) bool { return r.Operation == s.source+"-poison" && r.Outcome == "dead" }) {
			j.found(DeadLetters, "%s is poison (%s), and no result says that its operation is dead", s.name(), s.poison)
		}
		if s.stored[0].Status != "dead" {
			j.found(DeadLetters, "%s is poison (%s) and its status is %s", s.name(), s.poison, s.stored[0].Status)
		}
	}
	if n := len(s.letters); n != due {
		reason := ""
		if n > 0 {
			reason = ": " + s.letters[0].Operation + ", " + s.letters[0].Reason
		}
		j.found(DeadLetters, "%s has %d dead letters, and %d are due%s", s.name(), n, due, reason)
	}
}
