package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// look is one look for events since a time. Which way leads to them soonest depends on how many fit a filter, and where they
// lie. Postgres guesses that, and is wrong where two conditions exclude each other: it then reads everything. So each way is
// taken for a bounded number of rows, and the next one only where that was not enough.
type look struct {
	Filter
	*order
	from time.Time // of stored_at; zero: of all time
	long bool      // fewRows have been passed over, since a later time, and too little was found
}

const (
	fewRows = 2_000 // that are passed over in the list's order
	fitting = 5_000 // that are found by the filter, whatever their order
)

func (l *look) list(ctx context.Context, db *pgxpool.Pool) ([]Stored, error) {
	q := &query{}
	q.time(l.Filter)
	q.rest(l.Filter)
	l.page(q)
	if l.Source == "" && len(l.Types) == 0 && l.Status != "processed" { // bodies_seq, bodies_received or bodies_unfinished has them in order
		return q.stored(ctx, db, l.sql(l.Limit))
	}
	var seqs []int64
	var all bool
	var err error
	if !l.long {
		seqs, all, err = l.inOrder(ctx, db, fewRows)
		l.long = !all && len(seqs) < l.Limit
	}
	if err == nil && !all && len(seqs) < l.Limit {
		seqs, all, err = l.byFilter(ctx, db)
	} else {
		all = true
	}
	if err != nil {
		return nil, err
	}
	if all {
		return l.of(ctx, db, seqs)
	}
	return q.stored(ctx, db, l.sql(l.Limit)) // many fit, further back: in the list's order they are found
}

func (l *look) page(q *query) {
	q.page(l.order)
	if !l.from.IsZero() {
		q.and("b.stored_at >= %s", l.from)
	}
}

// inOrder looks at so many rows in the list's order, and returns the cursors of those that fit. all: there are no more rows.
func (l *look) inOrder(ctx context.Context, db *pgxpool.Pool, rows int) (seqs []int64, all bool, err error) {
	q := &query{}
	q.time(l.Filter)
	l.page(q)
	inner := `SELECT b.seq, b.source, b.event_id, b.type, b.status FROM catchment.bodies b` + q.clause() + l.sql(rows)
	q.conditions = nil
	q.rest(l.Filter)
	q.entity(l.Filter)
	var n int
	err = db.QueryRow(ctx, `WITH b AS MATERIALIZED (`+inner+`), fit AS (SELECT b.seq FROM b`+q.clause()+fmt.Sprintf(` LIMIT %d)`, l.Limit)+`
		SELECT (SELECT count(*) FROM b), ARRAY(SELECT seq FROM fit)`, append([]any{onePlan}, q.args...)...).Scan(&n, &seqs)
	if err != nil {
		return nil, false, fmt.Errorf("list events: %w", err)
	}
	return seqs, n < rows, nil
}

// byFilter finds what fits by the indexes of the filter, and returns the cursors of the first ones of the list. all is false
// where there are too many to be looked at. Those that an entity names are searched for it.
func (l *look) byFilter(ctx context.Context, db *pgxpool.Pool) (seqs []int64, all bool, err error) {
	q := &query{}
	q.time(l.Filter)
	l.page(q)
	for i, c := range q.conditions { // no index is to lead to these: it would be that of the list's order
		q.conditions[i] = strings.NewReplacer("b.received_at ", "(b.received_at + interval '0') ", "(b.received_at, b.seq)", "(b.received_at + interval '0', b.seq)", "b.seq ", "b.seq + 0 ").Replace(c)
	}
	if !l.received && !l.stored.IsZero() { // newer days are not opened; and the key, which a source leads to, has it
		q.and("b.stored_at <= %s", l.stored.Add(unordered))
	}
	q.rest(l.Filter)
	inner := q.clause()
	q.conditions = nil
	q.entity(l.Filter)
	var n int
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL enable_seqscan = off`); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `WITH b AS MATERIALIZED (SELECT b.seq, b.received_at, b.source, b.event_id FROM catchment.bodies b`+inner+fmt.Sprintf(` LIMIT %d)`, fitting)+`
			SELECT (SELECT count(*) FROM b), ARRAY(SELECT b.seq FROM b`+q.clause()+l.sql(l.Limit)+`)`, append([]any{onePlan}, q.args...)...).Scan(&n, &seqs)
	})
	if err != nil {
		return nil, false, fmt.Errorf("list events: %w", err)
	}
	return seqs, n < fitting, nil
}

// entity is the condition that an event has a result of the entity, which is looked up for each event: a join may read all
// results of the entity, which can be a great part of all.
func (q *query) entity(f Filter) {
	if f.Entity != "" {
		q.and("(SELECT true FROM catchment.results r WHERE r.source = b.source AND r.event_id = b.event_id AND r.entity = %s LIMIT 1)", f.Entity)
	}
}

// of returns the events of cursors.
func (l *look) of(ctx context.Context, db *pgxpool.Pool, seqs []int64) ([]Stored, error) {
	if len(seqs) == 0 {
		return nil, nil
	}
	q := &query{}
	q.and("b.seq = ANY(%s)", seqs)
	if !l.from.IsZero() {
		q.and("b.stored_at >= %s", l.from)
	}
	return q.stored(ctx, db, l.sql(l.Limit))
}
