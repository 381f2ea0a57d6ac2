package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
	"github.com/catchment-dev/catchment/processor/internal/packed"
)

// Publication is a record to be published after COMMIT.
type Publication struct {
	Topic  string
	Record *kgo.Record // without a topic
}

// PublishResults makes every result that is written from now on a publication to topic too; empty: none.
func (s *Store) PublishResults(topic string) { s.results = topic }

// queueOutbox queues what the transaction publishes: one row a topic, several where there is much of it.
func (w *Writes) queueOutbox(t *Tx, b *pgx.Batch) {
	byTopic := map[string][]*kgo.Record{}
	for _, p := range w.Published {
		byTopic[p.Topic] = append(byTopic[p.Topic], p.Record)
	}
	if t.results != "" {
		for i := range w.Results {
			if r := w.Results[i].record(); r != nil {
				byTopic[t.results] = append(byTopic[t.results], r)
			}
		}
	}
	for topic, records := range byTopic {
		for len(records) > 0 {
			n, size := 0, 0
			for n < len(records) && size < packed.MaxBytes {
				size += packed.Size(records[n])
				n++
			}
			b.Queue(`INSERT INTO catchment.outbox (topic, records, packed) VALUES ($1, $2, $3)`, topic, n, packed.Pack(records[:n]))
			records = records[n:]
		}
	}
}

// record is the result as consumers of its topic get it.
func (r *Result) record() *kgo.Record {
	out := event.Result{
		Source: r.Source, EventID: r.ID, DeliveryID: r.DeliveryID, Operation: r.Operation, Definition: hex.EncodeToString(r.Definition),
		Attempt: r.Attempt, Outcome: r.Outcome, Entity: r.Entity, Version: r.Version, Error: null(clean(r.Error)),
		StartedAt: r.Started.UTC(), Duration: r.Took.Seconds(),
	}
	if r.Effect != nil {
		out.RowsAffected, out.Returned = &r.Effect.Rows, r.Effect.Returned
		out.StartedAt, out.Duration = r.Effect.Started.UTC(), r.Effect.Took.Seconds()
	}
	out.StartedAt = out.StartedAt.Truncate(time.Microsecond) // as the column has it
	rec, err := event.EncodeResult(&out)
	if err != nil { // what the statement returned has no JSON form; its row in Postgres says more
		out.Returned = nil
		rec, _ = event.EncodeResult(&out)
	}
	return rec
}

// OutboxRow is what one transaction publishes to a topic, or a part of it.
type OutboxRow struct {
	ID      int64
	Records []*kgo.Record
}

// Lane is one topic's part of the outbox, locked: nobody else publishes it meanwhile. It lasts for a transaction, which
// the server ends when it hears nothing for too long.
type Lane struct {
	Rows  []OutboxRow // the oldest ones, in the order in which they were written
	topic string
	tx    *Tx
}

// ErrBusy says that another processor publishes that topic's records.
var ErrBusy = errors.New("another processor publishes them")

const laneRows = 8 // of at most packed.MaxBytes each

// Lane takes a topic's oldest rows. The error is ErrBusy, or one of the database.
func (s *Store) Lane(ctx context.Context, topic string, idle time.Duration) (*Lane, error) {
	tx, err := s.Begin(ctx, ownTimeout, idle)
	if err != nil {
		return nil, err
	}
	l := &Lane{topic: topic, tx: tx}
	var mine bool
	err = tx.tx.QueryRow(ctx, `SELECT pg_try_advisory_xact_lock(hashtextextended('catchment.outbox ' || $1, 0))`, topic).Scan(&mine)
	if err == nil && !mine {
		err = ErrBusy
	}
	if err == nil {
		err = l.read(ctx)
	}
	if err != nil {
		tx.Rollback(ctx)
		return nil, fmt.Errorf("outbox of topic %s: %w", topic, err)
	}
	if len(l.Rows) > 0 {
		failpoint.Hit(failpoint.RelayClaimed)
	}
	return l, nil
}

func (l *Lane) read(ctx context.Context) error {
	rows, err := l.tx.tx.Query(ctx, `SELECT id, packed FROM catchment.outbox WHERE topic = $1 ORDER BY id LIMIT $2`, l.topic, laneRows)
	if err != nil {
		return err
	}
	var id int64
	var bytes []byte
	_, err = pgx.ForEachRow(rows, []any{&id, &bytes}, func() error {
		records, err := packed.Unpack(bytes)
		if err != nil {
			return fmt.Errorf("row %d: %w", id, err)
		}
		for _, r := range records {
			r.Topic = l.topic
		}
		l.Rows = append(l.Rows, OutboxRow{ID: id, Records: records})
		return nil
	})
	return err
}

// Done removes the rows of which all records were acknowledged, and ends the lane.
func (l *Lane) Done(ctx context.Context, ids []int64) error {
	defer l.tx.Rollback(ctx)
	if len(ids) == 0 {
		return nil
	}
	if _, err := l.tx.tx.Exec(ctx, `DELETE FROM catchment.outbox WHERE topic = $1 AND id = ANY($2)`, l.topic, ids); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	failpoint.Hit(failpoint.RelayBeforeCommit)
	l.tx.arm(failpoint.RelayCommitSent)
	if err := l.tx.Commit(ctx); err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	failpoint.Hit(failpoint.RelayAfterCommit)
	return nil
}

// OutboxTopics names the topics for which something waits.
func (s *Store) OutboxTopics(ctx context.Context) ([]string, error) {
	rows, err := s.pool.Query(ctx, `WITH RECURSIVE t AS (
			(SELECT topic FROM catchment.outbox ORDER BY topic LIMIT 1)
			UNION ALL
			SELECT (SELECT o.topic FROM catchment.outbox o WHERE o.topic > t.topic ORDER BY o.topic LIMIT 1) FROM t WHERE t.topic IS NOT NULL)
		SELECT topic FROM t WHERE topic IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	topics, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("outbox: %w", err)
	}
	return topics, nil
}

// OutboxStanding counts the records that wait to be published, and says how long the oldest has waited.
func (s *Store) OutboxStanding(ctx context.Context) (records int64, oldest time.Duration, err error) {
	var seconds float64
	err = s.pool.QueryRow(ctx, `SELECT coalesce(sum(records), 0), coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 FROM catchment.outbox`).Scan(&records, &seconds)
	if err != nil {
		return 0, 0, fmt.Errorf("outbox: %w", err)
	}
	return records, time.Duration(seconds * float64(time.Second)), nil
}
