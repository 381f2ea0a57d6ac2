// Package folder is the form of a run's folder, from which the judge decides. What ran, what went wrong on purpose, what was
// measured and what was found afterwards come in as values; files of JSON and of JSON lines go out, and the other way round.
// It never holds a whole dump in memory, and never writes a body or a secret into one.
package folder

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"
)

// The files of a run's folder.
const (
	RunFile     = "run.json"
	JournalFile = "journal.jsonl"
	FaultsFile  = "faults.jsonl"
	FactsFile   = "facts.json"
	SecretsFile = "secrets.json" // a list of texts that may stand in no log
	VerdictFile = "verdict.json"
	Logs        = "logs" // of every process; those of an ingress begin with "ingress"
	Dump        = "dump"

	KafkaFile       = "dump/kafka.jsonl"            // Record, of the deliveries' topic
	PartitionsFile  = "dump/kafka-partitions.jsonl" // Partition, of both topics
	ArchiveFile     = "dump/archive.jsonl"          // Record, of the deliveries' topic
	SegmentsFile    = "dump/archive-segments.jsonl"
	CheckpointsFile = "dump/archive-checkpoints.jsonl"
	IdentitiesFile  = "dump/postgres-identities.jsonl"
	EventsFile      = "dump/postgres-events.jsonl"
	ResultsFile     = "dump/postgres-results.jsonl"
	ConflictsFile   = "dump/postgres-conflicts.jsonl"
	LettersFile     = "dump/postgres-dead-letters.jsonl"
	ProgressFile    = "dump/postgres-progress.jsonl"
	LedgerFile      = "dump/postgres-ledger.jsonl"
	CountersFile    = "dump/postgres-counters.jsonl"
	StateFile       = "dump/postgres-state.jsonl"
	HistoryFile     = "dump/postgres-history.jsonl"
)

// Run says what ran.
type Run struct {
	Seed     uint64            `json:"seed"`
	Versions map[string]string `json:"versions,omitempty"` // of Catchment, Go, Kafka, Postgres …
	Options  map[string]string `json:"options,omitempty"`
	Started  time.Time         `json:"started"`
	Stopped  time.Time         `json:"stopped"`
	Phases   []Phase           `json:"phases,omitempty"`

	Topic          string `json:"topic"`
	ResultsTopic   string `json:"results_topic"`             // empty: results are not published
	ProcessorGroup string `json:"processor_group,omitempty"` // empty: its commits are not looked at

	Events int      `json:"events"`           // distinct genuine events that the workload began; 0: as the journal has them
	Split  []string `json:"split,omitempty"`  // sources whose deliveries carry several events
	Canary string   `json:"canary,omitempty"` // text that stands in every body, and may stand in no log

	// Shared says that the system was there before the run, and others have sent to it: what is not of the run's sources is
	// left out of the dumps, Kafka may have deleted what is older, and so may have topics that the archive still has.
	Shared bool `json:"shared,omitempty"`

	// Must are the counters that may not be zero, or the run has not shown what it claims; null: MustHappen.
	Must []string `json:"must_happen"`
}

// Phase is a part of a run.
type Phase struct {
	Name string    `json:"name"` // warm-up, faults, heal, quiesce, read
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// Failed says why the phase did not come to its end, such as a log that was not drained in time.
	Failed string `json:"failed,omitempty"`
}

// The counters that must not be zero. Those of Judged the judge counts itself; the others are in Facts.Counters.
const (
	FenceRejections    = "fence_rejections"
	Rebalances         = "rebalances"
	LeaderChanges      = "leader_changes"
	UnknownCommits     = "unknown_commits"
	Refused412Same     = "create_refused_same_digest"
	Refused412Other    = "create_refused_other_digest"
	NotEnoughReplicas  = "not_enough_replicas"
	DuplicatesInKafka  = "duplicates_in_kafka"
	ForgeriesSent      = "forgeries_sent"
	ConflictsSent      = "conflicts_sent"
	PoisonSent         = "poison_sent"
	RotationsUnderLoad = "rotations"
	Halted             = "halted_partitions" // of processors; no must
)

// MustHappen are the counters of a whole run, by reliability's rule against empty passes.
var MustHappen = []string{
	FenceRejections, Rebalances, LeaderChanges, UnknownCommits, Refused412Same, Refused412Other, NotEnoughReplicas,
	DuplicatesInKafka, ForgeriesSent, ConflictsSent, PoisonSent,
}

// Judged are the counters that the judge counts itself, from journal and dumps.
var Judged = []string{DuplicatesInKafka, ForgeriesSent, ConflictsSent, PoisonSent, RotationsUnderLoad}

// Fault is one line of what was done to the system.
type Fault struct {
	At     time.Time `json:"at"`
	Number int       `json:"number"` // the same at its begin and its end
	Kind   string    `json:"kind"`
	Target string    `json:"target,omitempty"`
	Phase  string    `json:"phase"` // begin or end; a fault of a moment has a begin alone
	Error  string    `json:"error,omitempty"`
	// NoAck says that while the fault lasts (from its begin to its end) nothing can be acknowledged, as with two of three
	// brokers down: a 200 for a request that was both sent and answered in between is a lie.
	NoAck bool `json:"no_ack,omitempty"`
}

// Facts are what was measured while the system ran.
type Facts struct {
	Counters  map[string]int64 `json:"counters,omitempty"`
	Resources []Resource       `json:"resources,omitempty"`
	Timings   []Timing         `json:"timings,omitempty"`
	// Requests are the ingresses' counters, summed over all of their processes: by source and outcome.
	Requests map[string]map[string]int64 `json:"requests,omitempty"`
	// RequestsComplete says that no process was killed before it was asked for them, so that they are exact.
	RequestsComplete bool `json:"requests_complete,omitempty"`
}

// Resource is one figure of one process, at rest before, at its highest, and at rest afterwards.
type Resource struct {
	Process string  `json:"process"`
	Name    string  `json:"name"` // rss_bytes, goroutines, fds
	Base    float64 `json:"base"`
	Max     float64 `json:"max"`
	End     float64 `json:"end"`
	Bound   float64 `json:"bound,omitempty"` // of Max; 0: none
	Slack   float64 `json:"slack,omitempty"` // what End may be above Base
}

// Timing is how long something took that has a limit: a takeover, the first 2xx after a kill, the draining.
type Timing struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	Bound   float64 `json:"bound"` // in seconds
}

// Record is a Kafka record, or a row of the archive.
type Record struct {
	Source    string `json:"source"`
	ID        string `json:"id"`
	TopicID   string `json:"topic_id"` // 32 hex digits
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Delivery  string `json:"delivery"`
	Attempt   uint64 `json:"attempt"`           // what the request said of itself; 0: nothing
	SHA256    string `json:"sha256"`            // of the body's bytes, hex
	Size      int    `json:"size"`              // of the body, in bytes
	Headers   string `json:"headers"`           // HeaderDigest of the request's headers
	Segment   string `json:"segment,omitempty"` // the archive's object
	Odd       string `json:"odd,omitempty"`     // what is wrong with the record or row itself
}

// Partition is how one partition's log stands.
type Partition struct {
	Topic     string `json:"topic"`
	TopicID   string `json:"topic_id"`
	Partition int32  `json:"partition"`
	Start     int64  `json:"start"`
	End       int64  `json:"end"`       // the offset after the last record
	Committed int64  `json:"committed"` // by the processor's group; -1: nothing, or not looked at
}

// Segment is one object of the archive, as its bytes and its footer say.
type Segment struct {
	Key       string `json:"key"`
	Topic     string `json:"topic"`
	TopicID   string `json:"topic_id"`
	Partition int32  `json:"partition"`
	First     int64  `json:"first"`
	Last      int64  `json:"last"`
	Count     int64  `json:"count"`
	SHA256    string `json:"sha256"` // computed
	Size      int64  `json:"size"`
	Previous  string `json:"previous"` // SHA-256 of the segment before, as the footer says
	Root      string `json:"root"`     // as the footer says
	Computed  string `json:"computed"` // Merkle root over the rows
	Rows      int64  `json:"rows"`     // that were read
	Error     string `json:"error,omitempty"`
}

// Checkpoint is one checkpoint, gap or start of a chain.
type Checkpoint struct {
	Key       string `json:"key"`
	Kind      string `json:"kind"` // checkpoint, gap, start
	Topic     string `json:"topic"`
	TopicID   string `json:"topic_id"`
	Partition int32  `json:"partition"`
	Segment   string `json:"segment,omitempty"`
	First     int64  `json:"first"`
	Last      int64  `json:"last"`
	Size      int64  `json:"size,omitempty"`
	SHA256    string `json:"sha256,omitempty"`   // of the segment
	Root      string `json:"root,omitempty"`     // of the segment
	Previous  string `json:"previous,omitempty"` // SHA-256 of the chain's object before, or none
	Own       string `json:"own"`                // SHA-256 of this object, computed
	Signature string `json:"signature,omitempty"`
	Unsigned  string `json:"unsigned,omitempty"` // why it is not signed by the archivers' key, where that is known
	Error     string `json:"error,omitempty"`
}

// Identity is a row of catchment.identities.
type Identity struct {
	Source   string `json:"source"`
	ID       string `json:"id"`
	Delivery string `json:"delivery"`
}

// Event is a row of catchment.events.
type Event struct {
	Source     string `json:"source"`
	ID         string `json:"id"`
	Status     string `json:"status"`
	Delivery   string `json:"delivery"`
	SHA256     string `json:"sha256"` // of a conflict's stored body, computed; of a retry's as stored
	TopicID    string `json:"topic_id" db:"topic_id"`
	Partition  int32  `json:"partition"`
	Offset     int64  `json:"offset"`
	Deliveries int    `json:"deliveries"`
}

// Result is the last attempt of an operation for an event.
type Result struct {
	Source    string `json:"source"`
	ID        string `json:"id"`
	Operation string `json:"operation"`
	Outcome   string `json:"outcome"`
	Succeeded int    `json:"succeeded"` // how many of its attempts succeeded
}

// Conflict is a delivery with other bytes than its event's: a row of catchment.conflicts, or a retry with members that
// its provider changes.
type Conflict struct {
	Source   string `json:"source"`
	ID       string `json:"id"`
	Delivery string `json:"delivery"`
	SHA256   string `json:"sha256"` // of the stored body, computed
}

// Letter is a row of catchment.dead_letters; one without an operation is a whole record.
type Letter struct {
	Source    string `json:"source"`
	ID        string `json:"id"`
	Operation string `json:"operation"`
	Reason    string `json:"reason"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
}

// Progress is a row of catchment.progress.
type Progress struct {
	Topic     string `json:"topic"`
	TopicID   string `json:"topic_id" db:"topic_id"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"`
}

// Effect is a row of the ledger, which has no unique key.
type Effect struct {
	Source   string `json:"source"`
	ID       string `json:"id"`
	Entity   string `json:"entity"`
	Delivery string `json:"delivery"`
}

// Counter is how many events changed an entity, as it was counted one by one.
type Counter struct {
	Entity string `json:"entity"`
	N      int64  `json:"n"`
}

// State is an entity's state, or one change of it in the history.
type State struct {
	Number  int64  `json:"number,omitempty"` // in the history: its place
	Entity  string `json:"entity"`
	Version int64  `json:"version"`
	ID      string `json:"id"` // the event that wrote it
}

// Write writes v as a file of the folder.
func Write(dir, name string, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(filepath.Join(dir, name), append(text, '\n'), 0o644)
}

// Read reads a file that Write wrote.
func Read(dir, name string, v any) error {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// Lines writes JSON lines. It is not safe for concurrent use.
type Lines struct {
	file   *os.File
	buffer *bufio.Writer
	encode *json.Encoder
}

// Create begins a file of JSON lines, and the folder for it.
func Create(dir, name string) (*Lines, error) {
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	l := &Lines{file: f, buffer: bufio.NewWriterSize(f, 1<<20)}
	l.encode = json.NewEncoder(l.buffer)
	l.encode.SetEscapeHTML(false)
	return l, nil
}

// Write appends a line.
func (l *Lines) Write(v any) error { return l.encode.Encode(v) }

// Flush hands what was written to the system.
func (l *Lines) Flush() error { return l.buffer.Flush() }

// Close ends the file.
func (l *Lines) Close() error { return errors.Join(l.buffer.Flush(), l.file.Close()) }

// WriteAll writes a file of JSON lines.
func WriteAll[T any](dir, name string, rows iter.Seq2[T, error]) (err error) {
	l, err := Create(dir, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	for row, err := range rows {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := l.Write(row); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// Each reads the lines of a file. A last line that was not written to its end is left out, for a kill may have cut it;
// any other that is no JSON is an error. keep sees a line's bytes first, and says whether it is wanted; nil: all are.
func Each[T any](dir, name string, keep func(line []byte) bool) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			yield(none, err)
			return
		}
		defer func() { _ = f.Close() }()
		r := bufio.NewReaderSize(f, 1<<20)
		for n := 1; ; n++ {
			line, err := readLine(r)
			if errors.Is(err, io.EOF) { // with or without the beginning of a line
				return
			}
			if err != nil {
				yield(none, fmt.Errorf("%s: %w", name, err))
				return
			}
			if keep != nil && !keep(line) {
				continue
			}
			var row T
			if err := json.Unmarshal(line, &row); err != nil {
				yield(none, fmt.Errorf("%s, line %d: %w", name, n, err))
				return
			}
			if !yield(row, nil) {
				return
			}
		}
	}
}

// readLine returns the next line, which is valid until the next call.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	long := append([]byte(nil), line...)
	rest, err := r.ReadBytes('\n')
	return append(long, rest...), err
}

// Exists says whether the folder has the file.
func Exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return !errors.Is(err, fs.ErrNotExist)
}
