package judge

import (
	"slices"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
)

func (j *judge) invent(format string, args ...any) {
	j.v.Invented++
	j.found(NoInvention, format, args...)
}

// answers counts what the providers were told, and wants forgeries to be refused and genuine requests not to be.
func (j *judge) answers(s *subject) {
	t := j.said[s.source]
	if t == nil {
		t = &tally{}
		j.said[s.source] = t
	}
	for i := range s.attempts {
		a := &s.attempts[i]
		if !a.genuine() && a.outcome == journal.OK {
			j.invent("%s: a forgery (%s), attempt %d, was answered with %d", s.name(), a.forgery, a.number, a.status)
		}
		switch {
		case a.outcome == journal.OK && a.replied == "duplicate":
			t.duplicate++
		case a.outcome == journal.OK:
			t.accepted++
		case a.outcome != journal.Fail:
			t.unsure++
		case a.genuine() && a.status >= 400 && a.status != 429:
			j.found(Accounting, "%s: a genuine request, attempt %d, was refused with %d", s.name(), a.number, a.status)
		}
	}
}

// invented wants nothing anywhere that was not sent by who it says, byte for byte (check 8).
func (j *judge) invented(s *subject) {
	if !s.known() {
		j.strange(s)
		return
	}
	for _, in := range []struct {
		where   string
		records []*folder.Record
	}{{"Kafka", s.kafka}, {"the archive", s.archive}} {
		for _, r := range in.records {
			j.record(s, in.where, r)
		}
	}
	for _, e := range s.stored {
		if s.of != nil && e.SHA256 != s.body || s.of == nil && !s.brought(e.SHA256) {
			j.invent("%s: the bytes in Postgres were never sent", s.name())
		}
	}
	for _, c := range s.conflicts {
		if !s.brought(c.SHA256) {
			j.invent("%s: the bytes of a conflict were never sent", s.name())
		}
	}
}

// record judges a record of Kafka, or a row of the archive, against the attempt that it names.
func (j *judge) record(s *subject, where string, r *folder.Record) {
	if r.Odd != "" {
		j.invent("%s: at %s in %s: %s", s.name(), place(r), where, r.Odd)
		return
	}
	a := s.attempt(r.Attempt)
	switch {
	case a == nil || s.of != nil:
		j.invent("%s: at %s in %s: attempt %d was never made", s.name(), place(r), where, r.Attempt)
	case !a.genuine():
		j.invent("%s: at %s in %s: it is a forgery (%s), attempt %d", s.name(), place(r), where, a.forgery, a.number)
	case a.sum != r.SHA256:
		j.invent("%s: at %s in %s: not the bytes that attempt %d sent", s.name(), place(r), where, a.number)
	case a.headers != r.Headers:
		j.invent("%s: at %s in %s: not the headers that attempt %d sent", s.name(), place(r), where, a.number)
	case a.outcome == journal.Fail && where == "Kafka":
		j.found(Accounting, "%s: attempt %d was refused (%d) and is in Kafka at %s", s.name(), a.number, a.status, place(r))
	}
}

// strange is for what no genuine request has brought.
func (j *judge) strange(s *subject) {
	what := "was never sent"
	if slices.ContainsFunc(s.attempts, func(a attempt) bool { return !a.genuine() }) {
		what = "is forged"
	}
	for _, in := range []struct {
		where string
		n     int
	}{
		{"Kafka", len(s.kafka)},
		{"the archive", len(s.archive)},
		{"Postgres", len(s.stored)},
		{"the identities", s.identities},
		{"the ledger", len(s.effects)},
		{"the conflicts", len(s.conflicts)},
		{"the results", len(s.results)},
		{"the dead letters", len(s.letters)},
	} {
		if in.n > 0 {
			j.invent("%s is in %s and %s", s.name(), in.where, what)
		}
	}
}
