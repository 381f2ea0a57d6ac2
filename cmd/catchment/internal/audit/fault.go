package audit

import (
	"cmp"
	"encoding/hex"
	"maps"
	"slices"

	"github.com/catchment-dev/catchment/archiver/archive"
)

// Kinds of faults.
const (
	MissingIdentity   = "missing identity"    // a delivery that was processed has no identity
	MissingRepeat     = "missing repeat"      // a further delivery is not recorded as one
	MissingConflict   = "missing conflict"    // a further delivery with other bytes is not recorded as one
	MissingLetter     = "missing dead letter" // what is no event, or what an operation gave up, has no dead letter
	AlteredIdentity   = "altered identity"    // the archive and the identity have different digests
	AlteredConflict   = "altered conflict"    // the archive and the row of a delivery with other bytes have different digests
	AlteredBody       = "altered body"        // an archived body is not the one of its digest
	InventedIdentity  = "invented identity"   // no archived or enqueued delivery is the one that the identity names
	InventedTrace     = "invented row"        // a repetition, conflict or dead letter of a record that is not there
	MissingSegment    = "missing segment"     // a checkpoint names a segment that is not there
	DamagedSegment    = "damaged segment"     // a segment or checkpoint is not what it must be
	DoubledSegment    = "doubled segment"     // a segment that no checkpoint names
	ForeignObject     = "foreign object"      // an object among the segments or checkpoints that the archiver does not write
	MissingCheckpoint = "missing checkpoint"  // offsets between two segments that lie in none
	Lost              = "lost"                // offsets that are neither archived nor in Kafka
	Halted            = "halted"              // Kafka has removed what was not processed
	NotProcessed      = "not processed"       // what waits for the processor for too long
	NotArchived       = "not archived"        // what waits for the archiver for too long
	CutLog            = "cut log"             // Kafka's log ends before the archive does
	Position          = "wrong position"      // the processor's position is not where what it stored ends
)

// todo says what to do about a kind of fault.
var todo = map[string]string{
	MissingIdentity:   "the database has lost it: restore it, or move the position back in a copy and let the processor read again; `catchment archive cat ID` shows the delivery",
	MissingRepeat:     "the database has lost it; the event itself is there",
	MissingConflict:   "the database has lost it: the other bytes are in the archive at this place",
	MissingLetter:     "the database has lost it: the record is in the archive at this place",
	AlteredIdentity:   "somebody changed the row or the archive: `catchment archive verify` says whether the archive is whole",
	AlteredConflict:   "somebody changed the row or the archive: `catchment archive verify` says whether the archive is whole",
	AlteredBody:       "somebody changed the archive: `catchment archive verify`",
	InventedIdentity:  "find out who wrote the row: nothing that was received explains it",
	InventedTrace:     "find out who wrote the row: nothing that was received explains it",
	MissingSegment:    "restore the object from a copy of the archive",
	DamagedSegment:    "restore the object from a copy of the archive; `catchment archive verify` says more",
	DoubledSegment:    "readers of the archive see its records twice: keep it elsewhere, then remove it",
	ForeignObject:     "somebody else put it there, and readers of the archive may meet it: keep it elsewhere, then remove it",
	MissingCheckpoint: "restore the object from a copy of the archive; `catchment archive verify` says more",
	Lost:              "it is in neither, and the archiver waits until that is admitted by `catchment archive gap`: see docs/operations.md",
	Halted:            "`catchment backfill`",
	NotProcessed:      "is the processor running? `catchment status`",
	NotArchived:       "is the archiver running? `catchment status`",
	CutLog:            "Kafka has lost acknowledged records: see docs/operations.md",
	Position:          "stop the processor and find out who moved the position: see docs/operations.md",
}

// Fault is one thing that is not accounted for. What is not known is left out.
type Fault struct {
	Kind       string `json:"kind"`
	Topic      string `json:"topic,omitempty"`
	TopicID    string `json:"topic_id,omitempty"`
	Partition  *int32 `json:"partition,omitempty"`
	Offset     *int64 `json:"offset,omitempty"`
	LastOffset *int64 `json:"last_offset,omitempty"` // of several offsets in a row
	Source     string `json:"source,omitempty"`
	EventID    string `json:"event_id,omitempty"`
	Operation  string `json:"operation,omitempty"`
	Object     string `json:"object,omitempty"` // key in the archive
	Found      string `json:"found"`            // against what was expected
	Do         string `json:"do"`
}

// at is a fault of a place.
func at(kind string, p archive.Partition, offset int64, found string) Fault {
	f := of(kind, p, found)
	f.Offset = &offset
	return f
}

// of is a fault of a partition.
func of(kind string, p archive.Partition, found string) Fault {
	number := p.Number
	return Fault{Kind: kind, Topic: p.Topic, TopicID: hex.EncodeToString(p.TopicID[:]), Partition: &number, Found: found}
}

// event names the event.
func (f Fault) event(source, id string) Fault {
	f.Source, f.EventID = source, id
	return f
}

// upto makes it a fault of several offsets, before end.
func (f Fault) upto(end int64) Fault {
	if last := end - 1; f.Offset == nil || last != *f.Offset {
		f.LastOffset = &last
	}
	return f
}

// object names an object of the archive.
func (f Fault) object(key string) Fault {
	f.Object = key
	return f
}

// faults collects faults: all are counted, so many of each kind are kept.
type faults struct {
	limit int
	kinds map[string]int64
	kept  map[string][]Fault
}

func newFaults(limit int) *faults {
	return &faults{limit: limit, kinds: map[string]int64{}, kept: map[string][]Fault{}}
}

func (fs *faults) add(f Fault) {
	f.Do = todo[f.Kind]
	fs.kinds[f.Kind]++
	if len(fs.kept[f.Kind]) < fs.limit {
		fs.kept[f.Kind] = append(fs.kept[f.Kind], f)
	}
}

func (fs *faults) total() (n int64) {
	for _, k := range fs.kinds {
		n += k
	}
	return n
}

// shown are the faults up to the limit: as many of each kind as there is room for, so that a frequent one hides no other.
func (fs *faults) shown() []Fault {
	share := 0
	kinds := slices.Sorted(maps.Keys(fs.kept))
	for {
		n := 0
		for _, k := range kinds {
			n += min(len(fs.kept[k]), share+1)
		}
		if n > fs.limit || share >= fs.limit {
			break
		}
		share++
	}
	var out []Fault
	for _, k := range kinds {
		out = append(out, fs.kept[k][:min(len(fs.kept[k]), share)]...)
	}
	for _, k := range kinds { // what room is left
		for _, f := range fs.kept[k][min(len(fs.kept[k]), share):] {
			if len(out) < fs.limit {
				out = append(out, f)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.TopicID, b.TopicID), cmp.Compare(number(a.Partition), number(b.Partition)), cmp.Compare(number(a.Offset), number(b.Offset)))
	})
	return out
}

func number[T int32 | int64](p *T) int64 {
	if p == nil {
		return -1
	}
	return int64(*p)
}
