package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

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

// BodyGoneError says that retries are due whose events' bodies are not there.
type BodyGoneError struct{ Retries []Due } // of their events, only source and ID are known

func (e *BodyGoneError) Error() string {
	return fmt.Sprintf("%d events that are due have no body", len(e.Retries))
}

// Due locks at most limit retries of one of the given operations that have waited longest, and their events, passing over those
// that others work on. A *BodyGoneError says that events are not there.
func (t *Tx) Due(ctx context.Context, operations []string, limit int) ([]Due, error) {
	var operation string
	err := t.tx.QueryRow(ctx, `SELECT o FROM unnest($1::text[]) AS n(o)
		WHERE EXISTS (SELECT FROM catchment.retries r WHERE r.operation = n.o AND r.due_at <= now()) ORDER BY random() LIMIT 1`, operations).Scan(&operation)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNothingDue
	}
	if err != nil {
		return nil, &OwnError{"find what is due", err}
	}
	rows, err := t.tx.Query(ctx, `SELECT r.attempt, r.first_failed_at, r.operation, r.source, r.event_id, coalesce(i.first_seen_at, '-infinity')
		FROM catchment.retries r LEFT JOIN catchment.identities i ON i.source = r.source AND i.event_id = r.event_id
		WHERE r.operation = $1 AND r.due_at <= now() ORDER BY r.due_at LIMIT $2 FOR UPDATE OF r SKIP LOCKED`, operation, limit)
	if err != nil {
		return nil, &OwnError{"find what is due", err}
	}
	var places []place
	due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d Due, err error) {
		var at pgtype.Timestamptz
		err = row.Scan(&d.Attempt, &d.FirstFailed, &d.Operation, &d.Event.Source, &d.Event.ID, &at)
		places = append(places, place{Key{d.Event.Source, d.Event.ID}, at})
		return d, err
	})
	if err != nil {
		return nil, &OwnError{"find what is due", err}
	}
	if due, err = t.readDue(ctx, due, places); err != nil {
		return nil, err
	}
	if len(due) == 0 {
		return nil, ErrNothingDue
	}
	return due, nil
}

// readDue reads and locks the events of retries. It returns those retries whose events nobody else works on.
func (t *Tx) readDue(ctx context.Context, due []Due, places []place) ([]Due, error) {
	if len(due) == 0 {
		return nil, nil
	}
	s, e, at := columnsOf(places)
	rows, err := t.tx.Query(ctx, `SELECT k.n, `+eventColumns+` FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS k(s, e, at, n)
		JOIN catchment.bodies b ON b.source = k.s AND b.event_id = k.e AND b.stored_at = k.at
		WHERE b.stored_at = ANY($3) ORDER BY k.n FOR UPDATE OF b SKIP LOCKED`, onePlan, s, e, at)
	if err != nil {
		return nil, &OwnError{"read what is due", err}
	}
	free, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Due, error) {
		var n int
		var ev event.Event
		err := scanEvent(row, &ev, &n)
		if err != nil {
			return Due{}, err
		}
		d := due[n-1]
		d.Event = ev
		return d, nil
	})
	if err != nil {
		return nil, &OwnError{"read what is due", err}
	}
	if len(free) == len(due) {
		return free, nil
	}
	return free, t.goneDue(ctx, due, places)
}

// goneDue returns a *BodyGoneError with the retries whose events are not there; nil: they all are, others work on some.
func (t *Tx) goneDue(ctx context.Context, due []Due, places []place) error {
	s, e, at := columnsOf(places)
	rows, err := t.tx.Query(ctx, `SELECT k.n FROM unnest($1::text[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS k(s, e, at, n)
		WHERE NOT EXISTS (SELECT FROM catchment.bodies b WHERE b.source = k.s AND b.event_id = k.e AND b.stored_at = k.at AND b.stored_at = ANY($3))`,
		onePlan, s, e, at)
	if err != nil {
		return &OwnError{"look for events", err}
	}
	missing, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return &OwnError{"look for events", err}
	}
	if len(missing) == 0 {
		return nil
	}
	gone := &BodyGoneError{}
	for _, n := range missing {
		gone.Retries = append(gone.Retries, due[n-1])
	}
	return gone
}

const eventColumns = `b.source, b.provider, b.event_id, b.type, b.event_time, b.received_at, b.delivery_id::text, b.delivery_index, b.secret_id,
	b.content_type, b.headers, b.body, b.topic, b.topic_id, b.partition, b."offset", b.leader_epoch`

// scanEvent reads the values before, and then those of eventColumns.
func scanEvent(row pgx.CollectableRow, e *event.Event, before ...any) error {
	var at *time.Time
	p := &e.Position
	err := row.Scan(append(before, &e.Source, &e.Provider, &e.ID, &e.Type, &at, &e.ReceivedAt, &e.DeliveryID, &e.Index, &e.SecretID,
		&e.ContentType, &e.Headers, &e.Body, &p.Topic, &p.TopicID, &p.Partition, &p.Offset, &p.LeaderEpoch)...)
	if at != nil {
		e.Time = at.UTC()
	}
	e.ReceivedAt = e.ReceivedAt.UTC()
	return err
}

// Made names an attempt that was made outside of a batch. Again: a further retry of it is in the writes.
type Made struct {
	Key
	Operation string
	Again     bool
	Alive     bool // it is no dead letter, or no longer
}

// Settle writes the outcomes of attempts that were made outside of a batch, and the states of the events that follow.
func (t *Tx) Settle(ctx context.Context, w *Writes, made []Made) error {
	b := &pgx.Batch{}
	var all, over, alive [3][]string
	add := func(to *[3][]string, m *Made) {
		to[0], to[1], to[2] = append(to[0], m.Source), append(to[1], m.ID), append(to[2], m.Operation)
	}
	for i := range made {
		m := &made[i]
		add(&all, m)
		if !m.Again {
			add(&over, m)
		}
		if m.Alive {
			add(&alive, m)
		}
	}
	if len(over[0]) > 0 {
		b.Queue(`DELETE FROM catchment.retries r USING unnest($1::text[], $2::text[], $3::text[]) AS x(s, e, o)
			WHERE r.source = x.s AND r.event_id = x.e AND r.operation = x.o`, over[0], over[1], over[2])
	}
	if len(alive[0]) > 0 {
		b.Queue(`DELETE FROM catchment.dead_letters d USING unnest($1::text[], $2::text[], $3::text[]) AS x(s, e, o)
			WHERE d.source = x.s AND d.event_id = x.e AND d.operation = x.o`, alive[0], alive[1], alive[2])
	}
	if err := t.write(ctx, w, b); err != nil {
		return err
	}
	keys := make([]Key, len(made))
	for i := range made {
		keys[i] = made[i].Key
	}
	places, err := t.places(ctx, keys)
	if err != nil {
		return err
	}
	_, _, at := columnsOf(places)
	if _, err := t.tx.Exec(ctx, `UPDATE catchment.bodies b SET status = x.state FROM (
			SELECT s, e, CASE WHEN bool_or(outcome = 'dead') THEN 'dead' WHEN bool_or(outcome = 'failed') THEN 'failed'
				WHEN bool_or(outcome = 'deferred') THEN 'deferred' ELSE 'processed' END AS state
			FROM (SELECT DISTINCT ON (k.s, k.e, r.operation) k.s, k.e, r.outcome FROM unnest($1::text[], $2::text[]) AS k(s, e)
				JOIN catchment.results r ON r.source = k.s AND r.event_id = k.e ORDER BY k.s, k.e, r.operation, r.attempt DESC) AS newest
			GROUP BY s, e) AS x
		WHERE b.source = x.s AND b.event_id = x.e AND b.status <> x.state AND b.stored_at = ANY($3)`, onePlan, all[0], all[1], at); err != nil {
		return &OwnError{"write outcomes", err}
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

// Progressed says how an operation stands for an event: the outcome of its last attempt (empty: none was made), and whether another one
// is still to be made.
type Progressed struct {
	Outcome string
	Waiting bool
}

// Outcomes says how the given operations stand for the given events.
func (t *Tx) Outcomes(ctx context.Context, of []Made) (map[Made]Progressed, error) {
	s, e, o := make([]string, len(of)), make([]string, len(of)), make([]string, len(of))
	for i, m := range of {
		s[i], e[i], o[i] = m.Source, m.ID, m.Operation
	}
	rows, err := t.tx.Query(ctx, `SELECT k.s, k.e, k.o,
			coalesce((SELECT r.outcome FROM catchment.results r WHERE r.source = k.s AND r.event_id = k.e AND r.operation = k.o ORDER BY r.attempt DESC LIMIT 1), ''),
			EXISTS (SELECT FROM catchment.retries w WHERE w.source = k.s AND w.event_id = k.e AND w.operation = k.o)
		FROM unnest($1::text[], $2::text[], $3::text[]) AS k(s, e, o)`, s, e, o)
	if err != nil {
		return nil, &OwnError{"read outcomes", err}
	}
	out := make(map[Made]Progressed, len(of))
	var m Made
	var st Progressed
	if _, err := pgx.ForEachRow(rows, []any{&m.Source, &m.ID, &m.Operation, &st.Outcome, &st.Waiting}, func() error { out[m] = st; return nil }); err != nil {
		return nil, &OwnError{"read outcomes", err}
	}
	return out, nil
}
