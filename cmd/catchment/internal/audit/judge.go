package audit

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// Counts says what of a partition was accounted for, and how.
type Counts struct {
	Archived    int64 `json:"archived"`      // records in segments
	InKafka     int64 `json:"only_in_kafka"` // records that were read from Kafka, and are not archived yet
	Identities  int64 `json:"identities"`    // events by their first delivery
	Repeats     int64 `json:"repeats"`       // events by a further delivery with the same bytes
	Conflicts   int64 `json:"conflicts"`     // … with other bytes
	DeadLetters int64 `json:"dead_letters"`  // records that are no events
	Markers     int64 `json:"markers"`       // Kafka's own, which leave nothing
	Forgotten   int64 `json:"forgotten"`     // events whose rows a retention may have removed
	Sealed      int64 `json:"sealed"`        // records that cannot be taken apart: erased, or sealed and no keys are configured
	Admitted    int64 `json:"admitted"`      // offsets of which somebody has said that they are lost: `catchment archive gap`
	Pending     int64 `json:"pending"`       // offsets that are still to be processed or archived
	Faults      int64 `json:"faults"`
}

// Record is what one record must have left behind.
type Record struct {
	Offset     int64
	At         time.Time // by the broker
	Source, ID string    // as far as they are known
	DeliveryID [16]byte
	Parts      []processor.Part // its events; none: see Why and Control
	Why        error            // why it is no event: then it is a dead letter
	Control    bool             // a marker of Kafka's own
	Sealed     error            // why it is not known what its events are: it was erased, or the keys are not configured
}

// rules say what is judged.
type rules struct {
	since, until time.Time // by the broker; zero: no bound
	from, to     [16]byte  // delivery IDs of which the identities are held against the records
	// Rows that belong to records before these times may have been removed after their retention; zero: none.
	identitiesFrom, repeatsFrom time.Time
}

// judged says whether a record is to be accounted for.
func (r *rules) judged(at time.Time) bool {
	return !at.Before(r.since) && (r.until.IsZero() || at.Before(r.until))
}

func (r *rules) covers(delivery [16]byte) bool {
	return bytes.Compare(delivery[:], r.from[:]) >= 0 && bytes.Compare(delivery[:], r.to[:]) <= 0
}

// forgotten says whether what a record left may have been removed: its identity, or its row as a repetition.
func (r *rules) forgotten(at time.Time) (identity, repeat bool) {
	old := func(from time.Time) bool { return at.Before(from) }
	identity = !r.identitiesFrom.IsZero() && (old(r.identitiesFrom) || old(r.repeatsFrom))
	return identity, old(r.repeatsFrom) || old(r.identitiesFrom)
}

// desk judges the records of one partition.
type desk struct {
	*rules
	part   archive.Partition
	next   int64 // the processor's position
	counts Counts
	tally  *tally
	report func(Fault)
	behind bool // the position was found to be behind what is stored
}

func (d *desk) fault(f Fault) {
	d.counts.Faults++
	d.report(f)
}

// record judges one record, by the identities of its parts and the traces of its place.
func (d *desk) record(rec *Record, ids []inspect.Recorded, traces []inspect.Trace) {
	first := firsts(rec.Parts)
	for i, p := range rec.Parts { // whoever is confirmed is not invented, whatever else is wrong
		first[i] = first[i] && ids[i].Found && ids[i].DeliveryID == rec.DeliveryID
		if first[i] && d.covers(rec.DeliveryID) {
			d.tally.remove(d.tally.mark(p.Source, p.ID, rec.DeliveryID))
		}
	}
	switch {
	case rec.Offset >= d.next:
		d.ahead(rec, ids, traces)
	case !d.judged(rec.At):
	case rec.Control:
		d.counts.Markers++
		d.invented(traces, "the record is a marker of Kafka's own, which leaves nothing")
	case has(traces, inspect.TraceLetter):
		d.counts.DeadLetters++
	case rec.Sealed != nil:
		d.counts.Sealed++
	case rec.Why != nil:
		d.fault(at(MissingLetter, d.part, rec.Offset, fmt.Sprintf("no dead letter for a record that is no event: %v", rec.Why)).event(rec.Source, rec.ID))
	default:
		own := make(map[int]*inspect.Trace, len(traces))
		for i := range traces {
			own[traces[i].Index] = &traces[i]
		}
		for i := range rec.Parts {
			p := &rec.Parts[i]
			t := own[p.Index]
			if t != nil && t.Source == p.Source && t.ID == p.ID {
				delete(own, p.Index)
			} else {
				t = nil
			}
			d.event(rec, p, ids[i], first[i], t)
		}
		for _, i := range slices.Sorted(maps.Keys(own)) {
			d.invented([]inspect.Trace{*own[i]}, "the record there carries no such event")
		}
	}
}

// ahead looks at a record behind the position: nothing of it can have been stored.
func (d *desk) ahead(rec *Record, ids []inspect.Recorded, traces []inspect.Trace) {
	stored := len(traces) > 0
	for i := range rec.Parts {
		stored = stored || ids[i].Found && ids[i].DeliveryID == rec.DeliveryID
	}
	if stored && !d.behind {
		d.behind = true
		d.fault(at(Position, d.part, rec.Offset, fmt.Sprintf("the position is %d, and this delivery behind it is stored", d.next)).event(rec.Source, rec.ID))
	}
}

// event judges one event of a record. first: its identity is of this delivery; own: its row as a repetition or a conflict.
func (d *desk) event(rec *Record, p *processor.Part, id inspect.Recorded, first bool, own *inspect.Trace) {
	fault := func(kind, format string, args ...any) {
		d.fault(at(kind, d.part, rec.Offset, fmt.Sprintf(format, args...)).event(p.Source, p.ID))
	}
	oldIdentity, oldRepeat := d.forgotten(rec.At)
	same := bytes.Equal(id.SHA256, p.SHA256[:])
	switch {
	case !id.Found && oldIdentity, !id.Found && own != nil && !d.identitiesFrom.IsZero():
		d.counts.Forgotten++
	case !id.Found:
		fault(MissingIdentity, "no identity for delivery %s", uuidText(rec.DeliveryID))
	case first && !same:
		fault(AlteredIdentity, "the identity has digest %x, the delivery %x", id.SHA256, p.SHA256)
	case first:
		d.counts.Identities++ // a trace beside it is of the same delivery, enqueued twice
	case own == nil && oldRepeat:
		d.counts.Forgotten++
	case own == nil && same:
		fault(MissingRepeat, "delivery %s is not recorded as a repetition; the identity names delivery %s", uuidText(rec.DeliveryID), uuidText(id.DeliveryID))
	case own == nil:
		fault(MissingConflict, "delivery %s has other bytes than the identity (digest %x against %x) and is not recorded", uuidText(rec.DeliveryID), p.SHA256, id.SHA256)
	case own.SHA256 != nil && !bytes.Equal(own.SHA256, p.SHA256[:]):
		fault(AlteredConflict, "the %s has digest %x, the delivery %x", kindOf(*own), own.SHA256, p.SHA256)
	case own.Kind == inspect.TraceRepeat && own.SHA256 != nil && !p.Changes:
		fault(AlteredConflict, "delivery %s has other bytes than the identity and is recorded as a repetition", uuidText(rec.DeliveryID))
	case (own.SHA256 != nil) == same && !oldIdentity:
		fault(AlteredIdentity, "the identity has digest %x, the delivery %x, and it is recorded as a %s", id.SHA256, p.SHA256, kindOf(*own))
	case own.Kind == inspect.TraceConflict:
		d.counts.Conflicts++
	default:
		d.counts.Repeats++
	}
}

// invented reports traces that no record explains.
func (d *desk) invented(traces []inspect.Trace, why string) {
	for _, t := range traces {
		d.fault(at(InventedTrace, d.part, t.Offset, fmt.Sprintf("a %s: %s", kindOf(t), why)).event(t.Source, t.ID))
	}
}

func has(traces []inspect.Trace, kind int) bool {
	for _, t := range traces {
		if t.Kind == kind {
			return true
		}
	}
	return false
}

func kindOf(t inspect.Trace) string {
	switch t.Kind {
	case inspect.TraceRepeat:
		return "repetition"
	case inspect.TraceConflict:
		return "conflict"
	}
	return "dead letter"
}

// firsts says of each part whether no part before it is of the same event.
func firsts(parts []processor.Part) []bool {
	first := make([]bool, len(parts))
	if len(parts) == 1 {
		first[0] = true
		return first
	}
	seen := make(map[inspect.Key]bool, len(parts))
	for i, p := range parts {
		k := inspect.Key{Source: p.Source, ID: p.ID}
		first[i], seen[k] = !seen[k], true
	}
	return first
}

func uuidText(id [16]byte) string { return uuid.UUID(id).String() }
