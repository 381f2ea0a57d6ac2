package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/catchment-dev/catchment/pkg/event"
)

// Due is a retry whose time has come, with its event.
type Due struct {
	Event       event.Event
	Operation   string
	Attempt     int
	FirstFailed time.Time
}

// ErrNothingDue says that no retry is due.
var ErrNothingDue = errors.New("nothing is due")

// Due locks the retry that has waited longest, of the given operations, passing over those that others work on.
func (t *Tx) Due(ctx context.Context, operations []string) (*Due, error) {
	d := &Due{}
	e, p := &d.Event, &d.Event.Position
	var at *time.Time
	err := t.tx.QueryRow(ctx, `SELECT r.operation, r.attempt, r.first_failed_at, b.source, b.provider, b.event_id, b.type, b.event_time, b.received_at,
			b.delivery_id::text, b.delivery_index, b.secret_id, b.content_type, b.headers, b.body, b.topic, b.topic_id, b.partition, b."offset", b.leader_epoch
		FROM catchment.retries r JOIN catchment.bodies b ON b.source = r.source AND b.event_id = r.event_id
		WHERE r.due_at <= now() AND r.operation = ANY($1)
		ORDER BY r.due_at LIMIT 1 FOR UPDATE OF r, b SKIP LOCKED`, operations).
		Scan(&d.Operation, &d.Attempt, &d.FirstFailed, &e.Source, &e.Provider, &e.ID, &e.Type, &at, &e.ReceivedAt,
			&e.DeliveryID, &e.Index, &e.SecretID, &e.ContentType, &e.Headers, &e.Body, &p.Topic, &p.TopicID, &p.Partition, &p.Offset, &p.LeaderEpoch)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNothingDue
	}
	if err != nil {
		return nil, &OwnError{"find what is due", err}
	}
	if at != nil {
		e.Time = at.UTC()
	}
	e.ReceivedAt = e.ReceivedAt.UTC()
	return d, nil
}

// Settle writes the outcome of a retry and the event's state that follows. again: a further retry is in w.
func (t *Tx) Settle(ctx context.Context, w *Writes, k Key, operation string, again bool) error {
	b := &pgx.Batch{}
	w.queue(t, b)
	if !again {
		b.Queue(`DELETE FROM catchment.retries WHERE source = $1 AND event_id = $2 AND operation = $3`, k.Source, k.ID, operation)
	}
	b.Queue(`WITH last AS (
			SELECT DISTINCT ON (operation) outcome FROM catchment.results WHERE source = $1 AND event_id = $2 ORDER BY operation, attempt DESC)
		UPDATE catchment.bodies SET status = CASE
			WHEN EXISTS (SELECT FROM last WHERE outcome = 'dead') THEN 'dead'
			WHEN EXISTS (SELECT FROM last WHERE outcome = 'failed') THEN 'failed'
			WHEN EXISTS (SELECT FROM last WHERE outcome = 'deferred') THEN 'deferred'
			ELSE 'processed' END
		WHERE source = $1 AND event_id = $2`, k.Source, k.ID)
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return &OwnError{"write outcome", err}
	}
	return nil
}

// Standing is what is stored now and needs attention.
type Standing struct {
	DeadLetters map[string]int // by source
	Retries     int
}

// Standing counts dead letters and retries.
func (s *Store) Standing(ctx context.Context) (Standing, error) {
	st := Standing{DeadLetters: map[string]int{}}
	rows, err := s.pool.Query(ctx, `SELECT coalesce(source, ''), count(*) FROM catchment.dead_letters GROUP BY 1`)
	if err != nil {
		return st, fmt.Errorf("count dead letters: %w", err)
	}
	var source string
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&source, &n}, func() error { st.DeadLetters[source] = n; return nil }); err != nil {
		return st, fmt.Errorf("count dead letters: %w", err)
	}
	if err := s.pool.QueryRow(ctx, `SELECT count(*) FROM catchment.retries`).Scan(&st.Retries); err != nil {
		return st, fmt.Errorf("count retries: %w", err)
	}
	return st, nil
}
