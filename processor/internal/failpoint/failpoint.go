// Package failpoint ends or stops the process between two steps of a batch, of a job or of the relay, so that a test sees
// what is left then. The name of a step comes in and, in a build with the tag failpoints whose environment chooses that step, a signal goes
// out to this very process. Without the tag it is nothing: it must never change what a shipped program does.
package failpoint

// Point is a boundary between two steps.
type Point string

// The points of a batch, in the order in which it passes them.
const (
	AfterPoll        Point = "after-poll"         // records are with their workers, nothing is written
	InTransaction    Point = "in-transaction"     // identities and effects are written, the position is not
	BeforeCommit     Point = "before-commit"      // all is written, COMMIT is not sent
	CommitSent       Point = "commit-sent"        // COMMIT is sent, its answer is not read: the outcome is unknown
	AfterCommit      Point = "after-commit"       // the answer is read
	AfterMark        Point = "after-mark"         // the offset is marked for Kafka
	AfterKafkaCommit Point = "after-kafka-commit" // Kafka has taken the offset
)

// The points of one transaction of a job.
const (
	JobClaimed      Point = "job-claimed"       // the job's row is locked, nothing is done
	JobBeforeCommit Point = "job-before-commit" // the attempts are made and the row is moved on, COMMIT is not sent
	JobCommitSent   Point = "job-commit-sent"   // COMMIT is sent, its answer is not read
	JobAfterCommit  Point = "job-after-commit"  // the answer is read
)

// The points of one round of the relay, for a topic.
const (
	RelayClaimed      Point = "relay-claimed"       // the outbox rows are read, nothing is published
	RelayPublished    Point = "relay-published"     // Kafka has acknowledged, the rows are still there
	RelayBeforeCommit Point = "relay-before-commit" // the rows are removed, COMMIT is not sent
	RelayCommitSent   Point = "relay-commit-sent"   // COMMIT is sent, its answer is not read
	RelayAfterCommit  Point = "relay-after-commit"  // the answer is read
)

// OfBatch returns the points of a batch, in order.
func OfBatch() []Point {
	return []Point{AfterPoll, InTransaction, BeforeCommit, CommitSent, AfterCommit, AfterMark, AfterKafkaCommit}
}

// OfJob returns the points of a job, in order.
func OfJob() []Point { return []Point{JobClaimed, JobBeforeCommit, JobCommitSent, JobAfterCommit} }

// OfRelay returns the points of the relay, in order.
func OfRelay() []Point {
	return []Point{RelayClaimed, RelayPublished, RelayBeforeCommit, RelayCommitSent, RelayAfterCommit}
}

// Env names the variable that chooses a point, what happens there, and at which pass, from 1: before-commit=kill@3.
// kill is SIGKILL; stop is SIGSTOP, after which whoever passes waits a second, holding what it holds.
const Env = "CATCHMENT_FAILPOINT"
