// Package inspect reads what the processor stored. A pool and a selection come in, and events, their results and the
// state of processing go out, for the tool and the console. It never writes.
package inspect

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// What there is to see.
type (
	// Filter selects events; what is not set selects all.
	Filter = store.Filter
	// Event is a stored event, without headers and body.
	Event = store.Stored
	// Detail is all that is known of one event, with headers and body.
	Detail = store.Detail
	// Result is the outcome of one attempt of one operation.
	Result = store.Attempt
	// Delivery is a further delivery of an event.
	Delivery = store.Delivery
	// Retry is an attempt that is still to be made.
	Retry = store.Waiting
	// DeadLetter is what will not be tried again.
	DeadLetter = store.Letter
	// WholeDeadLetter is a dead letter with its record.
	WholeDeadLetter = store.Whole
	// Selection selects dead letters or events; what is not set selects all.
	Selection = store.Selection
	// Job is a redrive or a replay.
	Job = store.Job
	// PausedOperation is an operation that somebody has paused.
	PausedOperation = store.Paused
	// OperationState is how an operation stands.
	OperationState = store.OperationState
	// Position is where the processor stands in one partition.
	Position = store.Place
	// Count is a number of something of a source.
	Count = store.Count
	// Pending are the attempts of an operation that are still to be made.
	Pending = store.Pending
	// Summary says how the processing stands.
	Summary = store.Summary
	// Snapshot is one moment of the database, for an audit.
	Snapshot = store.Snapshot
	// Key names an event.
	Key = store.Key
	// Recorded is an event's identity.
	Recorded = store.Recorded
	// Trace is a row that names the place of a record.
	Trace = store.Trace
	// StoredIdentity is an identity with its event's key.
	StoredIdentity = store.StoredIdentity
	// LostLetter is an attempt without its dead letter, or a dead letter without its event.
	LostLetter = store.LostLetter
	// Tailer reads events as they are stored.
	Tailer = store.Tailer
	// Action is something that somebody did or looked at.
	Action = store.Action
	// Span is what was received in a part of a time, and how fast it was stored.
	Span = store.Span
	// SourceState is what the last events of a source say.
	SourceState = store.SourceState
	// SecretUse says how much one secret has verified of a source's last events.
	SecretUse = store.SecretUse
)

// What is asked for and not there. ErrNoSchema is that the database has no tables of Catchment yet.
var (
	ErrNoEvent      = store.ErrNoEvent
	ErrBodyGone     = store.ErrBodyGone // wraps ErrNoEvent
	ErrNoSchema     = store.ErrNoSchema
	ErrNoJob        = store.ErrNoJob
	ErrNoDeadLetter = store.ErrNoLetter
)

// Statuses are those of an event.
var Statuses = []string{"processed", "unmatched", "failed", "deferred", "dead"}

// Rows are read page by page.
type Rows[T any] = store.Rows[T]

// Kinds of traces.
const (
	TraceRepeat   = store.TraceRepeat
	TraceConflict = store.TraceConflict
	TraceLetter   = store.TraceLetter
)

// Pool makes a small pool on the database of the settings, which connects when it is first used. Close it after use.
func Pool(ctx context.Context, p settings.Postgres, name string) (*pgxpool.Pool, error) {
	p.MaxConns = 4
	cfg, err := store.Config(p, name)
	if err != nil {
		return nil, err
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// Open is Pool for the tool, and looks for the schema.
func Open(ctx context.Context, p settings.Postgres) (*pgxpool.Pool, error) {
	pool, err := Pool(ctx, p, "catchment-tool")
	if err != nil {
		return nil, err
	}
	if err := store.CheckPool(ctx, pool); err != nil {
		pool.Close()
		return nil, err
	}
	return pool, nil
}

// Events lists events, the last stored first. For the next page, set Filter.Before to the last one's Cursor.
func Events(ctx context.Context, db *pgxpool.Pool, f Filter) ([]Event, error) {
	return store.Events(ctx, db, f)
}

// Sources lists the sources that have an event of that ID: an ID alone names no event.
func Sources(ctx context.Context, db *pgxpool.Pool, id string) ([]string, error) {
	return store.Sources(ctx, db, id)
}

// Show returns all that is known of one event. The error wraps ErrNoEvent when it is not there.
func Show(ctx context.Context, db *pgxpool.Pool, source, id string) (*Detail, error) {
	return store.Show(ctx, db, source, id)
}

// Tail begins behind the last event that is stored now. Call Next again and again.
func Tail(ctx context.Context, db *pgxpool.Pool, f Filter) (*Tailer, error) {
	return store.NewTailer(ctx, db, f)
}

// Progress lists the positions of all partitions.
func Progress(ctx context.Context, db *pgxpool.Pool) ([]Position, error) {
	return store.Places(ctx, db)
}

// Status counts what is stored and what needs attention.
func Status(ctx context.Context, db *pgxpool.Pool) (*Summary, error) {
	return store.Summarize(ctx, db)
}

// DeadLetters lists the selected dead letters, the newest first. before is the ID of the last one of the page before, or 0.
func DeadLetters(ctx context.Context, db *pgxpool.Pool, sel Selection, before int64, limit int) ([]DeadLetter, error) {
	return store.Letters(ctx, db, sel, before, limit)
}

// DeadLetterRecord returns a dead letter with the record that it keeps, if it is one of a whole record. The error wraps
// ErrNoDeadLetter when it is not there.
func DeadLetterRecord(ctx context.Context, db *pgxpool.Pool, id int64) (*WholeDeadLetter, error) {
	return store.OneLetter(ctx, db, id)
}

// Jobs lists redrives and replays, the newest first; open: only those that are not over. before is the ID of the last one of
// the page before, or 0.
func Jobs(ctx context.Context, db *pgxpool.Pool, open bool, before int64, limit int) ([]Job, error) {
	return store.Jobs(ctx, db, open, before, limit)
}

// OneJob returns a job. The error wraps ErrNoJob when it is not there.
func OneJob(ctx context.Context, db *pgxpool.Pool, id int64) (*Job, error) {
	return store.OneJob(ctx, db, id)
}

// PausedOperations lists the operations that are paused.
func PausedOperations(ctx context.Context, db *pgxpool.Pool) ([]PausedOperation, error) {
	return store.PausedOperations(ctx, db)
}

// Operations says of each operation that has left a trace how it stands.
func Operations(ctx context.Context, db *pgxpool.Pool) ([]OperationState, error) {
	return store.OperationStates(ctx, db)
}

// OpenSnapshot begins to read one moment of the database. Close it after use.
func OpenSnapshot(ctx context.Context, db *pgxpool.Pool) (*Snapshot, error) {
	return store.OpenSnapshot(ctx, db)
}

// Actions lists what people did and looked at, the newest first, with a command all of that command. before is the ID of the
// last one of the page before, or 0.
func Actions(ctx context.Context, db *pgxpool.Pool, command string, before int64, limit int) ([]Action, error) {
	return store.Actions(ctx, db, command, before, limit)
}

// Volume divides the time from since to until into equal parts, and says what was received in each.
func Volume(ctx context.Context, db *pgxpool.Pool, since, until time.Time, parts int) ([]Span, error) {
	return store.Volume(ctx, db, since, until, parts)
}

// StateOf says what the last events of a source say. The state is of the database's now.
func StateOf(ctx context.Context, db *pgxpool.Pool, source string) (*SourceState, error) {
	return store.StateOf(ctx, db, source)
}

// ConflictBodies returns the bodies that came under an event's ID and were not the first, in the order of Detail.Conflicts.
func ConflictBodies(ctx context.Context, db *pgxpool.Pool, source, id string) ([][]byte, error) {
	return store.ConflictBodies(ctx, db, source, id)
}

// Unreachable says whether an error means that the database cannot be asked now.
func Unreachable(err error) bool { return store.Unreachable(err) }
