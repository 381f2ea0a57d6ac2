package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Erasure says what of a source is erased: what was received from Since to before Until, or one event. NoSource selects
// records that name none.
type Erasure struct {
	Source  string    `json:"source"`
	EventID string    `json:"event_id,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Until   time.Time `json:"until,omitzero"`
}

// NoSource stands for the records that name no source.
const NoSource = "_"

// erased stands where an error's text was.
const erased = "erased"

// Erased is what an erasure removed, or would.
type Erased struct {
	Events      int64 `json:"events"`       // bodies, with their headers, retries and dead letters
	Unfinished  int64 `json:"unfinished"`   // of these, events that were not done with
	Conflicts   int64 `json:"conflicts"`    // bodies and headers of further deliveries with other bytes
	DeadLetters int64 `json:"dead_letters"` // records that could not be decoded: key, headers, value
	Results     int64 `json:"results"`      // attempts: what they returned, and their errors
}

func (e Erased) total() int64 { return e.Events + e.Conflicts + e.DeadLetters + e.Results }

// erasePage is how many rows one transaction erases.
const erasePage = 500

// The rows of an erasure. $1: source, $2: event ID or empty, $3 and $4: since and until, or the infinities.
const (
	eraseBodies = ` FROM catchment.bodies b WHERE b.source = $1 AND ($2 = '' OR b.event_id = $2)
		AND b.received_at >= $3 AND b.received_at < $4 AND b.stored_at >= $3 - interval '1 day'`
	eraseConflicts = ` FROM catchment.conflicts c WHERE c.source = $1 AND ($2 = '' OR c.event_id = $2)
		AND c.received_at >= $3 AND c.received_at < $4 AND (c.body <> '' OR c.headers <> '{}')`
	eraseLetters = ` FROM catchment.dead_letters d WHERE d.operation IS NULL AND coalesce(d.source, '` + NoSource + `') = $1 AND ($2 = '' OR d.event_id = $2)
		AND d.first_failed_at >= $3 AND d.first_failed_at < $4 AND (d.value IS NOT NULL OR d.headers IS NOT NULL OR d.key IS NOT NULL)`
	eraseResults = ` FROM catchment.results r WHERE r.source = $1 AND ($2 = '' OR r.event_id = $2)
		AND r.started_at >= $3 AND r.started_at < $4 AND ` + tellingResult
	tellingResult = `(r.returned IS NOT NULL OR r.error IS NOT NULL AND r.error <> '` + erased + `')`
)

// args are those of the conditions, behind the mode in which they are sent.
func (e Erasure) args() []any {
	since, until := pgtype.Timestamptz{Time: e.Since, Valid: true}, pgtype.Timestamptz{Time: e.Until, Valid: true}
	if e.EventID != "" {
		since = pgtype.Timestamptz{InfinityModifier: pgtype.NegativeInfinity, Valid: true}
		until = pgtype.Timestamptz{InfinityModifier: pgtype.Infinity, Valid: true}
	}
	return []any{onePlan, e.Source, e.EventID, since, until}
}

// CountErasable counts what an erasure would remove. Results that only the events' days select are not among them.
func CountErasable(ctx context.Context, db *pgxpool.Pool, e Erasure) (n Erased, err error) {
	for _, q := range []struct {
		sql  string
		into []any
	}{
		{`SELECT count(*), count(*) FILTER (WHERE b.status IN ('failed', 'deferred'))` + eraseBodies, []any{&n.Events, &n.Unfinished}},
		{`SELECT count(*)` + eraseConflicts, []any{&n.Conflicts}},
		{`SELECT count(*)` + eraseLetters, []any{&n.DeadLetters}},
		{`SELECT count(*)` + eraseResults, []any{&n.Results}},
	} {
		if err := db.QueryRow(ctx, q.sql, e.args()...).Scan(q.into...); err != nil {
			return n, fmt.Errorf("count what is to be erased: %w", err)
		}
	}
	return n, nil
}

// eraseAction is the selection of an erasure's action.
type eraseAction struct {
	Erasure
	Keys   []string `json:"keys,omitempty"` // of the archive, that are destroyed
	State  string   `json:"state"`          // begun, done
	Erased Erased   `json:"erased"`
}

// BeginErasure records in actions what is about to be erased. One that was begun and did not end is gone on with.
func BeginErasure(ctx context.Context, db *pgxpool.Pool, e Erasure, keys []string, act Act) (id int64, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		err := tx.QueryRow(ctx, `SELECT id FROM catchment.actions WHERE command = 'erase' AND selection->>'state' = 'begun'
			AND selection @> $1 ORDER BY id DESC LIMIT 1`, e).Scan(&id)
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		id, err = record(ctx, tx, "erase", act, eraseAction{Erasure: e, Keys: keys, State: "begun"}, 0)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("record the erasure: %w", err)
	}
	return id, nil
}

// Erase removes bodies, headers, and what attempts returned, page by page, each page with its count in the action. What
// says that an event was there stays: identities, digests, outcomes. It can be called again, however far it came.
func Erase(ctx context.Context, db *pgxpool.Pool, id int64, e Erasure) (all Erased, err error) {
	for _, step := range []string{
		`WITH page AS MATERIALIZED (SELECT b.source, b.event_id, b.stored_at, b.status` + eraseBodies + ` ORDER BY b.event_id LIMIT $5 FOR UPDATE),
		 retries AS (DELETE FROM catchment.retries x USING page p WHERE x.source = p.source AND x.event_id = p.event_id),
		 letters AS (DELETE FROM catchment.dead_letters x USING page p WHERE x.operation IS NOT NULL AND x.source = p.source AND x.event_id = p.event_id),
		 results AS (UPDATE catchment.results r SET returned = NULL, error = CASE WHEN r.error IS NOT NULL THEN '` + erased + `' END FROM page p
			WHERE r.source = p.source AND r.event_id = p.event_id AND ` + tellingResult + ` RETURNING 1),
		 bodies AS (DELETE FROM catchment.bodies x USING page p WHERE x.source = p.source AND x.event_id = p.event_id AND x.stored_at = p.stored_at RETURNING p.status)
		 SELECT (SELECT count(*) FROM bodies), (SELECT count(*) FROM bodies WHERE status IN ('failed', 'deferred')), 0, 0, (SELECT count(*) FROM results)`,
		`WITH done AS (UPDATE catchment.conflicts SET body = '', headers = '{}' WHERE ctid = ANY(ARRAY(SELECT c.ctid` + eraseConflicts + ` LIMIT $5 FOR UPDATE)) RETURNING 1)
		 SELECT 0, 0, count(*), 0, 0 FROM done`,
		`WITH done AS (UPDATE catchment.dead_letters SET key = NULL, headers = NULL, value = NULL, error = '` + erased + `'
			WHERE id = ANY(ARRAY(SELECT d.id` + eraseLetters + ` LIMIT $5 FOR UPDATE)) RETURNING 1)
		 SELECT 0, 0, 0, count(*), 0 FROM done`,
		`WITH done AS (UPDATE catchment.results SET returned = NULL, error = CASE WHEN error IS NOT NULL THEN '` + erased + `' END
			WHERE ctid = ANY(ARRAY(SELECT r.ctid` + eraseResults + ` LIMIT $5 FOR UPDATE)) RETURNING 1)
		 SELECT 0, 0, 0, 0, count(*) FROM done`,
	} {
		for more := true; more; {
			n, err := erasePageOf(ctx, db, id, step, e)
			if err != nil {
				return all, err
			}
			all.Events, all.Unfinished, all.Conflicts = all.Events+n.Events, all.Unfinished+n.Unfinished, all.Conflicts+n.Conflicts
			all.DeadLetters, all.Results = all.DeadLetters+n.DeadLetters, all.Results+n.Results
			more = n.total() > 0
		}
	}
	_, err = db.Exec(ctx, `UPDATE catchment.actions SET selection = jsonb_set(selection, '{state}', '"done"') WHERE id = $1`, id)
	if err != nil {
		return all, fmt.Errorf("record the erasure: %w", err)
	}
	return all, nil
}

// erasePageOf erases one page. A deadlock with a batch, or another conflict that passes, is tried again.
func erasePageOf(ctx context.Context, db *pgxpool.Pool, id int64, sql string, e Erasure) (n Erased, err error) {
	const attempts = 10
	for range attempts {
		n = Erased{}
		err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
			err := tx.QueryRow(ctx, sql, append(e.args(), erasePage)...).Scan(&n.Events, &n.Unfinished, &n.Conflicts, &n.DeadLetters, &n.Results)
			if err != nil || n.total() == 0 {
				return err
			}
			_, err = tx.Exec(ctx, `UPDATE catchment.actions SET affected = affected + $2, selection = jsonb_set(selection, '{erased}',
				(SELECT jsonb_object_agg(k, coalesce((selection->'erased'->>k)::bigint, 0) + v::bigint) FROM jsonb_each_text($3) AS x(k, v))) WHERE id = $1`,
				id, n.total(), n)
			return err
		})
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "40P01" && pe.Code != "40001" {
			break
		}
	}
	if err != nil {
		return n, fmt.Errorf("erase: %w", err)
	}
	return n, nil
}

// removedBy says what has removed an event's body: the erasure that names it, or else what may have.
func removedBy(ctx context.Context, db *pgxpool.Pool, source, id string, storedAt time.Time) (string, error) {
	var at time.Time
	var actor, reason string
	var exact bool
	err := db.QueryRow(ctx, `SELECT at, actor, reason, selection ? 'event_id' FROM catchment.actions
		WHERE command = 'erase' AND selection->>'source' = $1 AND (selection->>'event_id' = $2
			OR NOT selection ? 'event_id' AND (selection->>'since')::timestamptz <= $3 AND at >= $3)
		ORDER BY selection ? 'event_id' DESC, id LIMIT 1`, source, id, storedAt).Scan(&at, &actor, &reason, &exact)
	switch said := fmt.Sprintf("catchment erase, on %s by %s (%s),", at.UTC().Format(time.RFC3339), actor, reason); {
	case errors.Is(err, pgx.ErrNoRows):
		return "processor.retention", nil
	case err != nil || exact:
		return said, err
	default:
		return said + " or processor.retention", nil
	}
}
