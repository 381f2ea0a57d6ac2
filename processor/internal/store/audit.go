package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Snapshot is one moment of the database: all that is read through it was true at that moment. It needs the right to read
// and nothing more, and one connection. It is not safe for concurrent use.
type Snapshot struct {
	tx      pgx.Tx
	cursors int

	At     time.Time // by the server's clock
	Places []Place   // the positions of all partitions
}

// OpenSnapshot begins a transaction that only reads. Close it: until then no dead row can be removed.
func OpenSnapshot(ctx context.Context, db *pgxpool.Pool) (*Snapshot, error) {
	tx, err := db.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	s := &Snapshot{tx: tx}
	if _, err := tx.Exec(ctx, `SELECT set_config('statement_timeout', '0', true), set_config('idle_in_transaction_session_timeout', '0', true),
		CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL THEN set_config('transaction_timeout', '0', true) END`); err != nil {
		s.Close(ctx)
		return nil, fmt.Errorf("begin a snapshot: %w", err)
	}
	rows, err := tx.Query(ctx, placesSQL)
	if err == nil {
		s.Places, err = pgx.CollectRows(rows, scanPlace)
	}
	if err == nil {
		err = tx.QueryRow(ctx, `SELECT now()`).Scan(&s.At)
	}
	if err != nil {
		s.Close(ctx)
		return nil, fmt.Errorf("read progress: %w", err)
	}
	return s, nil
}

// Close ends the transaction.
func (s *Snapshot) Close(ctx context.Context) { (&Tx{tx: s.tx}).Rollback(ctx) }

// Recorded is an event's identity; the zero value: there is none.
type Recorded struct {
	Found      bool
	SHA256     []byte
	DeliveryID [16]byte
}

// Identities looks up identities, in the order of the keys.
func (s *Snapshot) Identities(ctx context.Context, keys []Key) ([]Recorded, error) {
	out := make([]Recorded, len(keys))
	if len(keys) == 0 {
		return out, nil
	}
	sources, ids := make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		sources[i], ids[i] = k.Source, k.ID
	}
	rows, err := s.tx.Query(ctx, `SELECT t.n, i.body_sha256, i.delivery_id
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS t(s, e, n)
		JOIN catchment.identities i ON i.source = t.s AND i.event_id = t.e`, sources, ids)
	if err != nil {
		return nil, fmt.Errorf("read identities: %w", err)
	}
	var n int64
	var r Recorded
	if _, err := pgx.ForEachRow(rows, []any{&n, &r.SHA256, &r.DeliveryID}, func() error {
		r.Found = true
		out[n-1] = r
		r = Recorded{}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read identities: %w", err)
	}
	return out, nil
}

// Kinds of traces.
const (
	TraceRepeat   = 1
	TraceConflict = 2
	TraceLetter   = 3
)

// Trace is a row that names the place of a record: a repetition, a conflict, or a dead letter that is a whole record.
type Trace struct {
	TopicID    [16]byte
	Partition  int32
	Offset     int64
	Kind       int
	Index      int // of the event in its delivery
	Source, ID string
	SHA256     []byte // of a body with other bytes than the event's
}

// Rows reads the rows of one query, page by page.
type Rows[T any] struct {
	snap *Snapshot
	name string
	scan pgx.RowToFunc[T]
	page []T
	over bool
}

const snapshotPage = 5000 // rows

func openRows[T any](ctx context.Context, s *Snapshot, scan pgx.RowToFunc[T], sql string, args ...any) (*Rows[T], error) {
	s.cursors++
	r := &Rows[T]{snap: s, name: fmt.Sprintf("audit_%d", s.cursors), scan: scan}
	if _, err := s.tx.Exec(ctx, `DECLARE `+r.name+` NO SCROLL CURSOR FOR `+sql, args...); err != nil {
		return nil, fmt.Errorf("read what was stored: %w", err)
	}
	return r, nil
}

// Next returns the next row; false: there is none.
func (r *Rows[T]) Next(ctx context.Context) (row T, ok bool, err error) {
	if len(r.page) == 0 && !r.over {
		rows, err := r.snap.tx.Query(ctx, fmt.Sprintf(`FETCH %d FROM %s`, snapshotPage, r.name), pgx.QueryExecModeExec)
		if err == nil {
			r.page, err = pgx.CollectRows(rows, r.scan)
		}
		if err != nil {
			return row, false, fmt.Errorf("read what was stored: %w", err)
		}
		r.over = len(r.page) < snapshotPage
	}
	if len(r.page) == 0 {
		return row, false, nil
	}
	row, r.page = r.page[0], r.page[1:]
	return row, true, nil
}

// Each calls f with all rows that are left.
func (r *Rows[T]) Each(ctx context.Context, f func(row T)) error {
	for {
		row, ok, err := r.Next(ctx)
		if err != nil || !ok {
			return err
		}
		f(row)
	}
}

// Traces reads the traces that were left at since or later, by topic ID, partition and offset.
func (s *Snapshot) Traces(ctx context.Context, since time.Time) (*Rows[Trace], error) {
	return openRows(ctx, s, func(row pgx.CollectableRow) (t Trace, err error) {
		err = row.Scan(&t.TopicID, &t.Partition, &t.Offset, &t.Kind, &t.Index, &t.Source, &t.ID, &t.SHA256)
		return t, err
	}, `SELECT topic_id, partition, "offset", 1 AS kind, delivery_index, source, event_id, body_sha256 FROM catchment.duplicates WHERE seen_at >= $1
		UNION ALL SELECT topic_id, partition, "offset", 2, delivery_index, source, event_id, body_sha256 FROM catchment.conflicts WHERE seen_at >= $1
		UNION ALL SELECT topic_id, partition, "offset", 3, 0, coalesce(source, ''), coalesce(event_id, ''), NULL FROM catchment.dead_letters
			WHERE operation IS NULL AND last_failed_at >= $1
		ORDER BY 1, 2, 3, 4, 5`, since)
}

// StoredIdentity is an identity with its event's key.
type StoredIdentity struct {
	Key
	DeliveryID  [16]byte
	FirstSeenAt time.Time
}

// AllIdentities reads the identities of the deliveries whose ID is in [from, to], in no order.
func (s *Snapshot) AllIdentities(ctx context.Context, from, to [16]byte) (*Rows[StoredIdentity], error) {
	return openRows(ctx, s, func(row pgx.CollectableRow) (i StoredIdentity, err error) {
		err = row.Scan(&i.Source, &i.ID, &i.DeliveryID, &i.FirstSeenAt)
		return i, err
	}, `SELECT source, event_id, delivery_id, first_seen_at FROM catchment.identities WHERE delivery_id BETWEEN $1 AND $2`, from, to)
}

// At is where an event's body says that its record lies.
type At struct {
	TopicID   [16]byte
	Partition int32
	Offset    int64
}

// PlaceOf returns where the record of an event lies, as its body says; nil: the body is gone.
func (s *Snapshot) PlaceOf(ctx context.Context, i StoredIdentity) (*At, error) {
	rows, err := s.tx.Query(ctx, `SELECT topic_id, partition, "offset" FROM catchment.bodies WHERE source = $1 AND event_id = $2 AND stored_at = $3`,
		onePlan, i.Source, i.ID, i.FirstSeenAt)
	if err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[At])
	if err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	return &found[0], nil
}

// LostLetter is an attempt whose dead letter is not there, or a dead letter of an event that is not there.
type LostLetter struct {
	Source, ID, Operation string
	DeliveryID            [16]byte
}

// WithoutLetter reads the operations whose last attempt for an event of the deliveries in [from, to] ended as a dead letter
// that is not there any more, although nothing has been done about it since. What was erased has none.
func (s *Snapshot) WithoutLetter(ctx context.Context, from, to [16]byte) (*Rows[LostLetter], error) {
	return openRows(ctx, s, scanLost, `SELECT r.source, r.event_id, r.operation, r.delivery_id FROM catchment.results r
		WHERE r.outcome = 'dead' AND r.error IS DISTINCT FROM 'erased' AND r.delivery_id BETWEEN $1 AND $2
		AND NOT EXISTS (SELECT FROM catchment.results n WHERE n.source = r.source AND n.event_id = r.event_id AND n.operation = r.operation AND n.attempt > r.attempt)
		AND NOT EXISTS (SELECT FROM catchment.dead_letters d WHERE d.source = r.source AND d.event_id = r.event_id AND d.operation = r.operation)
		AND NOT EXISTS (SELECT FROM catchment.retries w WHERE w.source = r.source AND w.event_id = r.event_id AND w.operation = r.operation)`, from, to)
}

// WithoutIdentity reads the dead letters of operations for events that have no identity.
func (s *Snapshot) WithoutIdentity(ctx context.Context) (*Rows[LostLetter], error) {
	return openRows(ctx, s, scanLost, `SELECT d.source, d.event_id, d.operation, '00000000-0000-0000-0000-000000000000'::uuid FROM catchment.dead_letters d
		WHERE d.operation IS NOT NULL AND NOT EXISTS (SELECT FROM catchment.identities i WHERE i.source = d.source AND i.event_id = d.event_id)`)
}

func scanLost(row pgx.CollectableRow) (l LostLetter, err error) {
	err = row.Scan(&l.Source, &l.ID, &l.Operation, &l.DeliveryID)
	return l, err
}
