// Package mutant breaks a promise on purpose, so that the tests which must notice are seen to notice. The number of a
// mutation comes in at the place that it breaks and, in a build with the tag mutant whose environment chooses it, the
// answer is yes. Without the tag the answer is a constant no, which the compiler removes together with what it guards:
// it must never be in a program that is shipped.
package mutant

// Mutant names one mutation.
type Mutant string

// The mutations. docs/decisions/2026-11-27-mutants.md says why these, and where they differ from what they stand for.
const (
	M1  Mutant = "M1"  // 200 before Kafka has answered
	M2  Mutant = "M2"  // 200 whatever Kafka answers, or when it does not
	M3  Mutant = "M3"  // a body's memory is used again while the producer still has it
	M4  Mutant = "M4"  // the position is committed before the batch is
	M5  Mutant = "M5"  // nobody looks whose the partition is, and where it stands
	M6  Mutant = "M6"  // every event is new
	M7  Mutant = "M7"  // an event is known by its ID alone, whatever its source
	M8  Mutant = "M8"  // identities are committed before the batch is
	M9  Mutant = "M9"  // an older version overwrites a newer one
	M10 Mutant = "M10" // objects of the archive are replaced
	M11 Mutant = "M11" // the checkpoint is stored before its segment
	M12 Mutant = "M12" // what is refused as not genuine is enqueued all the same
	M13 Mutant = "M13" // the body is parsed, and stored as it is written again
	M14 Mutant = "M14" // the look-up of duplicates is filled before Kafka has answered
	M15 Mutant = "M15" // a lost position goes on at the log's end
	M16 Mutant = "M16" // what may pass is taken for poison
	M17 Mutant = "M17" // an event is known only within the minute in which it came
	M18 Mutant = "M18" // a segment's day is that of the archiver's clock
)

// All are the mutations, in order.
func All() []Mutant {
	return []Mutant{M1, M2, M3, M4, M5, M6, M7, M8, M9, M10, M11, M12, M13, M14, M15, M16, M17, M18}
}
