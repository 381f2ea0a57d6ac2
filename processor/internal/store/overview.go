package store

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Action is something that somebody did or looked at.
type Action struct {
	ID        int64     `json:"id"`
	At        time.Time `json:"at"`
	Actor     string    `json:"actor"`
	Command   string    `json:"command"`
	Reason    string    `json:"reason"`
	Selection string    `json:"selection"` // JSON
	Affected  int64     `json:"affected"`
}

// Actions lists actions, the newest first, with a command those of it. before is the ID of the last one of the page before;
// 0: the first page.
func Actions(ctx context.Context, db *pgxpool.Pool, command string, before int64, limit int) ([]Action, error) {
	rows, err := db.Query(ctx, `SELECT id, at, actor, command, reason, selection::text, affected FROM catchment.actions
		WHERE ($1 = 0 OR id < $1) AND ($2 = '' OR command = $2) ORDER BY id DESC LIMIT $3`, before, command, limit)
	if err != nil {
		return nil, fmt.Errorf("list actions: %w", err)
	}
	return collect(rows, "list actions", pgx.RowToStructByPos[Action])
}

// Span is what was received in one part of a time: how many events, and how long its first ones (spanSample at most) took
// from receipt until they were stored.
type Span struct {
	From   time.Time
	Events int64         // an estimate from a sample, where there are very many
	Median time.Duration // 0 when there is none
	P99    time.Duration
	Most   time.Duration
}

const spanSample = 200

// Volume divides the time from since to until into equal parts, and says what was received in each.
func Volume(ctx context.Context, db *pgxpool.Pool, since, until time.Time, parts int) ([]Span, error) {
	step := until.Sub(since) / time.Duration(parts)
	var out []Span
	err := quickly(ctx, db, func(tx pgx.Tx) (err error) {
		count, factor, err := volumeCount(ctx, tx, since, until)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `WITH c AS MATERIALIZED (`+count+`)
			SELECT g.at, coalesce((SELECT c.events FROM c WHERE c.part = g.part), 0), coalesce(s.median, 0), coalesce(s.p99, 0), coalesce(s.most, 0)
			FROM (SELECT n - 1 AS part, $1::timestamptz + (n - 1) * $3::interval AS at FROM generate_series(1, $7::bigint) AS n) AS g,
			LATERAL (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY t.took) AS median, percentile_cont(0.99) WITHIN GROUP (ORDER BY t.took) AS p99, max(t.took) AS most
				FROM (SELECT greatest(extract(epoch FROM b.stored_at - b.received_at), 0)::float8 AS took FROM catchment.bodies b
					WHERE b.received_at >= g.at AND b.received_at < g.at + $3::interval AND b.stored_at >= $4 AND b.stored_at < $6 ORDER BY b.received_at LIMIT $5) AS t) AS s
			ORDER BY g.at`, onePlan, since, until, step, since.Add(-day), spanSample, time.Now().Add(day), parts)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (s Span, err error) {
			var median, p99, most float64
			err = row.Scan(&s.From, &s.Events, &median, &p99, &most)
			s.Events = estimate(s.Events, factor)
			s.Median, s.P99, s.Most = seconds(median), seconds(p99), seconds(most)
			return s, err
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("count what was received: %w", err)
	}
	return out, nil
}

const (
	volumePages  = 40_000 // of the days of a volume, up to which all events are counted
	volumeSample = 8_000  // pages that are read of more
	volumeAlways = 2 * time.Hour
)

// volumeCount is a statement that counts the events of each part, and by what its counts are to be multiplied. A short time is
// counted by the index, and so is a longer one of few events; of many, a sample of the pages is read.
func volumeCount(ctx context.Context, tx pgx.Tx, since, until time.Time) (sql string, factor float64, err error) {
	var pages int64
	if err := tx.QueryRow(ctx, `SELECT coalesce(sum(pg_catalog.pg_relation_size(c.oid)), 0)::bigint / 8192
		FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = 'catchment.bodies'::regclass AND c.relname >= 'bodies_' || to_char($1::timestamptz AT TIME ZONE 'UTC', 'YYYYMMDD')`, since.Add(-day)).Scan(&pages); err != nil {
		return "", 0, err
	}
	if pages <= volumePages || until.Sub(since) <= volumeAlways {
		return `SELECT n - 1 AS part, (SELECT count(*) FROM catchment.bodies b WHERE b.received_at >= $1::timestamptz + (n - 1) * $3::interval
				AND b.received_at < least($1::timestamptz + n * $3::interval, $2) AND b.stored_at >= $4 AND b.stored_at < $6) AS events
			FROM generate_series(1, $7::bigint) AS n`, 1, nil
	}
	factor = float64(pages) / volumeSample
	return `SELECT floor(extract(epoch FROM b.received_at - $1) / extract(epoch FROM $3::interval))::bigint AS part, count(*) AS events
		FROM catchment.bodies b` + fmt.Sprintf(" TABLESAMPLE SYSTEM (%g) REPEATABLE (1)", 100/factor) + `
		WHERE b.received_at >= $1 AND b.received_at < $2 AND b.stored_at >= $4 AND b.stored_at < $6 GROUP BY 1`, factor, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// SecretUse says how much one secret has verified of a source's last events.
type SecretUse struct {
	ID     string
	Events int64
	Last   time.Time
}

// SourceState is what the last events of a source say, stateSample of the last hour at most.
type SourceState struct {
	Events  int64     // of the last hour
	More    bool      // there were more than that: Since is not an hour ago
	Since   time.Time // they were received since then
	Secrets []SecretUse
}

const (
	stateSample = 1000
	stateTime   = time.Hour
)

// StateOf says what the last events of a source say.
func StateOf(ctx context.Context, db *pgxpool.Pool, source string) (*SourceState, error) {
	since := time.Now().Add(-stateTime)
	rows, err := db.Query(ctx, `SELECT secret_id, count(*), max(received_at), min(received_at) FROM (
			SELECT secret_id, received_at FROM catchment.bodies WHERE source = $1 AND received_at >= $2 AND stored_at >= $3 ORDER BY received_at DESC LIMIT $4) AS last
		GROUP BY 1 ORDER BY 3 DESC`, onePlan, source, since, since.Add(-day), stateSample)
	if err != nil {
		return nil, fmt.Errorf("look at source %s: %w", source, err)
	}
	s := &SourceState{Since: since}
	var u SecretUse
	var first, earliest time.Time
	_, err = pgx.ForEachRow(rows, []any{&u.ID, &u.Events, &u.Last, &first}, func() error {
		if earliest.IsZero() || first.Before(earliest) {
			earliest = first
		}
		s.Events += u.Events
		s.Secrets = append(s.Secrets, u)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at source %s: %w", source, err)
	}
	if s.More = s.Events >= stateSample; s.More {
		s.Since = earliest
	}
	return s, nil
}

// ConflictBodies returns the bodies that came under an event's ID and were not the first, in the order of Detail.Conflicts.
func ConflictBodies(ctx context.Context, db *pgxpool.Pool, source, id string) ([][]byte, error) {
	rows, err := db.Query(ctx, `SELECT body FROM catchment.conflicts WHERE source = $1 AND event_id = $2 ORDER BY seen_at, "offset"`, source, id)
	if err != nil {
		return nil, fmt.Errorf("read conflicts: %w", err)
	}
	return collect(rows, "read conflicts", pgx.RowTo[[]byte])
}
