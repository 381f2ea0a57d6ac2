// Package failpoint ends or stops the process between two steps of a batch, so that a test sees what is left then. The
// name of a step comes in and, in a build with the tag failpoints whose environment chooses that step, a signal goes
// out to this very process. Without the tag it is nothing: it must never change what a shipped program does.
package failpoint

// Point is a boundary between two steps of a batch.
type Point string

// The points, in the order in which a batch passes them.
const (
	AfterPoll        Point = "after-poll"         // records are with their workers, nothing is written
	InTransaction    Point = "in-transaction"     // identities and effects are written, the position is not
	BeforeCommit     Point = "before-commit"      // all is written, COMMIT is not sent
	CommitSent       Point = "commit-sent"        // COMMIT is sent, its answer is not read: the outcome is unknown
	AfterCommit      Point = "after-commit"       // the answer is read
	AfterMark        Point = "after-mark"         // the offset is marked for Kafka
	AfterKafkaCommit Point = "after-kafka-commit" // Kafka has taken the offset
)

// Points returns all of them, in order.
func Points() []Point {
	return []Point{AfterPoll, InTransaction, BeforeCommit, CommitSent, AfterCommit, AfterMark, AfterKafkaCommit}
}

// Env names the variable that chooses a point, what happens there, and at which pass, from 1: before-commit=kill@3.
// kill is SIGKILL; stop is SIGSTOP, after which whoever passes waits a second, holding what it holds.
const Env = "CATCHMENT_FAILPOINT"
