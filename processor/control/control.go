// Package control asks the processor to do things. A pool, a selection and who asks come in; pauses and jobs go into
// Postgres, where every processor sees them, and into catchment.actions. It never runs an operation itself.
package control

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/catchment-dev/catchment/processor/internal/store"
)

type (
	// Act is who does something, and why. Both may be empty.
	Act = store.Act
	// Selection says which dead letters or events are meant; what is not set selects all. Since and Until are of the last
	// failure of dead letters, and of the receipt of events.
	Selection = store.Selection
	// Job is a redrive or a replay. Rate is in attempts a second; 0: no limit.
	Job = store.Job
)

// States of a job.
const (
	Waiting   = store.JobWaiting
	Running   = store.JobRunning
	Done      = store.JobDone
	Cancelled = store.JobCancelled
)

// Pause lets an operation's attempts wait, in every processor within a second or two. changed is false when it was paused already.
func Pause(ctx context.Context, db *pgxpool.Pool, operation string, act Act) (changed bool, err error) {
	return store.Pause(ctx, db, operation, act)
}

// Resume ends a pause: what waits is run. changed is false when there was none.
func Resume(ctx context.Context, db *pgxpool.Pool, operation string, act Act) (changed bool, err error) {
	return store.Resume(ctx, db, operation, act)
}

// NewRedrive counts the selected dead letters and makes a job of them that is not stored yet.
func NewRedrive(ctx context.Context, db *pgxpool.Pool, sel Selection, rate float64, act Act) (*Job, error) {
	n, upto, err := store.CountLetters(ctx, db, sel)
	if err != nil {
		return nil, err
	}
	return &Job{
		Kind: store.Redrive, Operation: sel.Operation, Selection: sel, Rate: rate, Expected: n, Upto: &upto, Actor: act.Actor, Reason: act.Reason,
	}, nil
}

// NewReplay counts the selected events of a source and of types for which the operation has had no effect yet, or, with
// force, all of them, and makes a job of them that is not stored yet. No types: all.
func NewReplay(ctx context.Context, db *pgxpool.Pool, operation, source string, types []string, sel Selection, force bool, rate float64, act Act) (*Job, error) {
	n, err := store.CountCandidates(ctx, db, sel, source, types, operation, force)
	if err != nil {
		return nil, err
	}
	return &Job{
		Kind: store.Replay, Operation: operation, Selection: sel, Force: force, Rate: rate, Expected: n, Actor: act.Actor, Reason: act.Reason,
	}, nil
}

// Start stores a job for the processors to run, and sets its ID. With a Key, it is stored once: asked for again, the job is
// the one that is there.
func Start(ctx context.Context, db *pgxpool.Pool, j *Job) error { return store.CreateJob(ctx, db, j) }

// Cancel ends a job; what it has done stays. cancelled is false when it was over.
func Cancel(ctx context.Context, db *pgxpool.Pool, id int64, act Act) (cancelled bool, err error) {
	return store.CancelJob(ctx, db, id, act)
}

// Viewed records that somebody has looked at the record of a dead letter.
func Viewed(ctx context.Context, db *pgxpool.Pool, letter int64, act Act) error {
	return store.Viewed(ctx, db, "dead-letters show", act, map[string]any{"dead_letter": letter})
}

// ViewedEvent records that somebody has looked at body and headers of an event. how is what was done: show, or download.
func ViewedEvent(ctx context.Context, db *pgxpool.Pool, source, id, how string, act Act) error {
	return store.Viewed(ctx, db, "events "+how, act, map[string]any{"source": source, "event_id": id})
}

// Tried records that somebody has run an operation for events and taken it back, and has seen what came of it.
func Tried(ctx context.Context, db *pgxpool.Pool, operation string, sel Selection, force bool, events int, act Act) error {
	return store.Record(ctx, db, "replay dry-run", act, map[string]any{"operation": operation, "selection": sel, "force": force}, int64(events))
}

// CommandAudit is what Audited records.
const CommandAudit = "audit"

// Audited records an audit that somebody has asked for; faults is how many it has found, or -1: it could not be finished.
func Audited(ctx context.Context, db *pgxpool.Pool, since, until *time.Time, faults int64, act Act) error {
	return store.Record(ctx, db, CommandAudit, act, map[string]any{"since": since, "until": until}, faults)
}

type (
	// Erasure says what of a source is erased from Postgres: what was received in a time, or one event.
	Erasure = store.Erasure
	// Erased counts what an erasure removed, or would.
	Erased = store.Erased
)

// CountErasable counts what an erasure would remove.
func CountErasable(ctx context.Context, db *pgxpool.Pool, e Erasure) (Erased, error) {
	return store.CountErasable(ctx, db, e)
}

// BeginErasure records what is about to be erased, and goes on with one that did not end. keys are those of the archive.
func BeginErasure(ctx context.Context, db *pgxpool.Pool, e Erasure, keys []string, act Act) (id int64, err error) {
	return store.BeginErasure(ctx, db, e, keys, act)
}

// Erase removes bodies, headers and what attempts returned. Identities, digests and outcomes stay.
func Erase(ctx context.Context, db *pgxpool.Pool, id int64, e Erasure) (Erased, error) {
	return store.Erase(ctx, db, id, e)
}
