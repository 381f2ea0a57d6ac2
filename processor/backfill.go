package processor

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// Archived is a record that Kafka no longer has.
type Archived struct {
	Record      *kgo.Record
	Control     bool // a marker of Kafka's own
	Undecodable bool // it was no delivery when it was archived
	Erased      bool // nobody can read it any more: it becomes a dead letter without headers and body
}

// ErrOvertaken is wrapped by the error of a backfill when a processor has taken the partition over meanwhile. What was
// written stays; it may be begun again.
var ErrOvertaken = errors.New("a processor has taken the partition over")

// Backfill writes archived records through the same transactions as the processor's own, where Kafka's retention has
// overtaken the stored position.
type Backfill struct {
	svc *Service
	db  *store.Store
}

// OpenBackfill compiles the configuration's operations and prepares them on its database. Close it after use. The error is
// config.Errors when an operation is wrong.
func OpenBackfill(ctx context.Context, cfg *settings.File, log *slog.Logger) (*Backfill, error) {
	s, db, err := unattended(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	return &Backfill{svc: s, db: db}, nil
}

// Close gives the connections back.
func (b *Backfill) Close() { b.db.Close() }

// Range is what a backfill has written.
type Range struct {
	From int64 `json:"from"` // offset of the first record
	Next int64 `json:"next"` // the position after the last one
}

// Run takes a partition over and writes records, which must begin at its stored position and have no gap. It stops
// before the first record at offset until or behind it; the position is then where the consumer goes on. What was written
// when an error comes stays written.
func (b *Backfill) Run(ctx context.Context, topic string, topicID [16]byte, partition int32, until int64,
	records iter.Seq2[Archived, error], act store.Act,
) (done Range, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go b.svc.engine.watchPaused(ctx)
	part := store.Partition{Topic: topic, TopicID: topicID, Partition: partition}
	owner := uuid.New()
	pos, err := b.db.Claim(ctx, part, until, owner, takeover)
	if err != nil {
		return done, err
	}
	w := newWorker(b.svc.engine, part, owner, pos) //nolint:contextcheck // an expression has a deadline of its own
	done = Range{From: pos.Next, Next: pos.Next}
	w.moved = func(pos store.Position) { done.Next = pos.Next }
	err = w.backfill(ctx, until, records)
	if errors.Is(err, store.ErrFenced) || errors.Is(err, store.ErrMoved) {
		err = fmt.Errorf("%w: %w", ErrOvertaken, err)
	}
	if done.Next > done.From {
		err = errors.Join(err, b.record(ctx, part, done, act))
	}
	return done, err
}

func (b *Backfill) record(ctx context.Context, p store.Partition, done Range, act store.Act) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statementTimeout)
	defer cancel()
	return b.db.Backfilled(ctx, p, done.From, done.Next, act)
}

// backfill writes records in batches.
func (w *worker) backfill(ctx context.Context, until int64, records iter.Seq2[Archived, error]) error {
	odd := map[int64]item{}
	decode := w.read
	w.read = func(r *kgo.Record) []item {
		if it, ok := odd[r.Offset]; ok {
			return []item{it}
		}
		return decode(r)
	}
	var queue []*kgo.Record
	size := 0
	flush := func() error {
		if len(queue) == 0 {
			return nil
		}
		stale, err := w.check(queue)
		if err == nil {
			err = w.write(ctx, queue[stale:])
		}
		queue, size = nil, 0
		clear(odd)
		return errors.Join(err, ctx.Err())
	}
	for a, err := range records {
		if err != nil {
			return errors.Join(flush(), err)
		}
		r := a.Record
		if r.Offset >= until {
			break
		}
		if r.Offset < w.next {
			continue
		}
		if size > 0 && (len(queue) >= w.eng.batch || size+recordBytes(r) > maxBatchBytes) {
			if err := flush(); err != nil {
				return err
			}
		}
		switch {
		case a.Control:
			odd[r.Offset] = item{rec: r, skip: true}
		case a.Erased:
			odd[r.Offset] = item{rec: r, err: errArchivedErased, reason: reasonErased}
		case a.Undecodable:
			odd[r.Offset] = item{rec: r, err: errArchivedUndecodable, reason: reasonUndecodable}
		}
		queue, size = append(queue, r), size+recordBytes(r)
	}
	return flush()
}

var (
	errArchivedUndecodable = errors.New("the record is no delivery: the archive keeps it as it was")
	errArchivedErased      = errors.New("the record was erased before it was processed")
)

const haltedCheck = 2 * time.Second

// errFilled ends a session: the records that were missing have been taken from the archive.
var errFilled = errors.New("a halted partition can go on: its position has been moved into the log")

// checkHalted says when a halted partition's position has been moved to where the log is.
func (ses *session) checkHalted(ctx context.Context) error {
	p, err := ses.filled(ctx)
	switch {
	case err != nil && ctx.Err() == nil:
		ses.log.Debug("halted partitions could not be looked at", slog.Any("error", err))
	case err == nil && p >= 0:
		ses.log.Info("a halted partition can go on: joining the group again", slog.Int("partition", int(p)))
		return errFilled
	}
	return nil
}

// filled returns a halted partition whose position has moved to the log's start or behind it; -1: none.
func (ses *session) filled(ctx context.Context) (int32, error) {
	ses.mu.Lock()
	stood := make(map[int32]int64, len(ses.stood))
	for p, at := range ses.stood {
		stood[p] = at
	}
	ses.mu.Unlock()
	if len(stood) == 0 {
		return -1, nil
	}
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	places, err := ses.eng.store.Places(ctx)
	if err != nil {
		return -1, err
	}
	starts, err := ses.admin.ListStartOffsets(ctx, ses.topic)
	if err != nil {
		return -1, fmt.Errorf("ask for the log's start: %w", err)
	}
	for _, place := range places {
		at, halted := stood[place.Partition]
		if !halted || place.TopicID != ses.topicID || place.NextOffset <= at {
			continue
		}
		if start, ok := starts.Lookup(ses.topic, place.Partition); ok && start.Err == nil && place.NextOffset >= start.Offset {
			return place.Partition, nil
		}
	}
	return -1, nil
}
