package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// daysAhead is for how many days after today the partitions of bodies are made ahead.
const daysAhead = 7

// NoPartition says whether one of our own rows found no partition: its day was not made ahead. It is nobody's poison:
// MakePartitions, and try again.
func NoPartition(err error) bool {
	var own *OwnError
	var pe *pgconn.PgError
	return errors.As(err, &own) && errors.As(err, &pe) && partitioning(pe) && pe.SchemaName == "catchment"
}

// partitioning says whether Postgres refused a row because no partition takes it. A check constraint, which has the same
// code, always has a name.
func partitioning(pe *pgconn.PgError) bool { return pe.Code == "23514" && pe.ConstraintName == "" }

// MakePartitions makes the partitions of bodies for today and the next days that are not there, and returns how many it
// made. The role needs the right to insert into bodies and none to change the schema.
func (s *Store) MakePartitions(ctx context.Context) (made int, err error) {
	if err := s.pool.QueryRow(ctx, `SELECT catchment.make_partitions($1)`, daysAhead).Scan(&made); err != nil {
		return 0, fmt.Errorf("postgres: make partitions of catchment.bodies: %w", err)
	}
	return made, nil
}

// PartitionsAhead returns how many of the next days, from tomorrow on, have their partition of bodies; -1: today has none.
func (s *Store) PartitionsAhead(ctx context.Context) (days int, err error) {
	return partitionsAhead(ctx, s.pool)
}

func partitionsAhead(ctx context.Context, db querier) (days int, err error) {
	err = db.QueryRow(ctx, `SELECT coalesce(min(n), 366) - 1 FROM generate_series(0, 365) AS n WHERE NOT EXISTS (
			SELECT FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
			WHERE i.inhparent = 'catchment.bodies'::regclass
			AND left(c.relname, 15) = 'bodies_' || to_char((now() AT TIME ZONE 'UTC')::date + n, 'YYYYMMDD'))`).Scan(&days)
	if err != nil {
		return 0, fmt.Errorf("postgres: read partitions of catchment.bodies: %w", err)
	}
	return days, nil
}

// querier is a pool, a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Dropped is a day of bodies that is gone.
type Dropped struct {
	Day  time.Time // its midnight, UTC
	Kept int64     // events that are not done with, and stay
}

// DropPartition drops the oldest day of bodies that ended more than age ago; nil: there is none, or another process is
// at it. Events that are not done with stay until a later call finds them done. The error is of class 55P03 (see IsBusy)
// where a long query would have made writers wait.
func (s *Store) DropPartition(ctx context.Context, age time.Duration) (*Dropped, error) {
	d := &Dropped{}
	err := s.pool.QueryRow(ctx, `SELECT day, kept FROM catchment.drop_partition(now() - make_interval(secs => $1))`, age.Seconds()).Scan(&d.Day, &d.Kept)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("postgres: drop a day of catchment.bodies: %w", err)
	}
	return d, nil
}

// IsBusy says that a lock could not be had in time.
func IsBusy(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "55P03"
}

// Aged is a kind of rows that are deleted by their age, page by page: an index on their age would cost every event more
// than reading them now and then does.
type Aged struct {
	tables []string
	age    string // column
	more   string // condition
}

// stillOpen is a condition on the rows x of an event that is not done with: it stays, with all that belongs to it, when
// its day is dropped. $1 is the oldest time that stays, so that only what remained of dropped days is opened.
const stillOpen = `EXISTS (SELECT FROM catchment.bodies b WHERE b.source = x.source AND b.event_id = x.event_id AND b.stored_at < $1`

// AgedIdentities are the identities of events whose bodies are gone: their duplicates will be new events.
func AgedIdentities() Aged {
	a := Aged{age: "first_seen_at", more: `NOT ` + stillOpen + ` AND b.stored_at = x.first_seen_at)`}
	for i := range 8 {
		a.tables = append(a.tables, fmt.Sprintf("identities_%d", i))
	}
	return a
}

// AgedResults are the results of events whose bodies are gone, AgedRepeats their further deliveries.
func AgedResults() Aged { return Aged{[]string{"results"}, "started_at", `NOT ` + stillOpen + `)`} }

// AgedRepeats are the further deliveries of events whose bodies are gone.
func AgedRepeats() Aged {
	return Aged{[]string{"duplicates", "conflicts"}, "seen_at", `NOT ` + stillOpen + `)`}
}

const sweepPages = 256 // of 8 KiB, read by one step

// Sweep deletes the rows of a kind that are older than age, a stretch of pages after the other, each in a transaction of
// its own, and calls pause after each; an error of pause ends it. It returns how many rows it deleted.
func (s *Store) Sweep(ctx context.Context, kind Aged, age time.Duration, pause func(took time.Duration) error) (deleted int64, err error) {
	for _, table := range kind.tables {
		var pages int64
		if err := s.pool.QueryRow(ctx, `SELECT pg_relation_size('catchment.'||$1::text) / current_setting('block_size')::int`, table).Scan(&pages); err != nil {
			return deleted, fmt.Errorf("postgres: size of catchment.%s: %w", table, err)
		}
		for first := int64(0); first < pages; first += sweepPages {
			began := time.Now()
			n, err := s.sweepPages(ctx, table, kind, age, first)
			if err != nil {
				return deleted, fmt.Errorf("postgres: delete old rows of catchment.%s: %w", table, err)
			}
			deleted += n
			if err := pause(time.Since(began)); err != nil {
				return deleted, err
			}
		}
	}
	return deleted, nil
}

func (s *Store) sweepPages(ctx context.Context, table string, kind Aged, age time.Duration, first int64) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, ownTimeout)
	defer cancel()
	var oldest time.Time
	if err := s.pool.QueryRow(ctx, `SELECT now() - make_interval(secs => $1)`, age.Seconds()).Scan(&oldest); err != nil {
		return 0, err
	}
	tag, err := s.pool.Exec(ctx, `DELETE FROM catchment.`+table+` x WHERE x.ctid >= $2::tid AND x.ctid < $3::tid AND x.`+kind.age+` < $1 AND `+kind.more,
		onePlan, oldest, fmt.Sprintf("(%d,0)", first), fmt.Sprintf("(%d,0)", first+sweepPages))
	return tag.RowsAffected(), err
}

// onePlan has a statement planned for its values each time, so that it opens no other partitions than those that they
// allow. A plan for any values would open all, and lock each of them with its indexes.
const onePlan = pgx.QueryExecModeCacheDescribe

// storedAt returns when an event was stored, which says in what partition its body is. ErrNoEvent: it has no identity.
func storedAt(ctx context.Context, db querier, source, id string) (at time.Time, err error) {
	err = db.QueryRow(ctx, `SELECT first_seen_at FROM catchment.identities WHERE source = $1 AND event_id = $2`, source, id).Scan(&at)
	if errors.Is(err, pgx.ErrNoRows) {
		return at, fmt.Errorf("%w: source %s, ID %s", ErrNoEvent, source, id)
	}
	return at, err
}

// place is where an event's body is: at is when it was stored.
type place struct {
	Key
	at pgtype.Timestamptz
}

// columnsOf makes arrays for a query over places. With a condition on the third one, WHERE stored_at = ANY($3), and
// onePlan, it opens the partitions of these days only.
func columnsOf(places []place) (sources, ids []string, at []pgtype.Timestamptz) {
	for _, p := range places {
		sources, ids, at = append(sources, p.Source), append(ids, p.ID), append(at, p.at)
	}
	return sources, ids, at
}

// places finds the bodies of events; those without an identity are left out.
func (t *Tx) places(ctx context.Context, keys []Key) ([]place, error) {
	s, e := make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		s[i], e[i] = k.Source, k.ID
	}
	rows, err := t.tx.Query(ctx, `SELECT i.source, i.event_id, i.first_seen_at FROM catchment.identities i
		JOIN unnest($1::text[], $2::text[]) AS t(s, e) ON i.source = t.s AND i.event_id = t.e`, s, e)
	if err != nil {
		return nil, &OwnError{"read identities", err}
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p place, err error) {
		err = row.Scan(&p.Source, &p.ID, &p.at)
		return p, err
	})
	if err != nil {
		return nil, &OwnError{"read identities", err}
	}
	return found, nil
}
