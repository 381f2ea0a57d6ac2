package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	fewNamed  = 1_000   // deliveries of one entity's events that are looked at first, the last ones
	mostNamed = 10_000  // … and where that was not enough. Who has more results is looked for among all events,
	amongAll  = 20_000  // … of which so many are passed over,
	lastNamed = 100_000 // … and, where that leads to too few, among so many of its own: what lies further back is not found
	atOnce    = 500     // events that are named are read by one statement

	setBack = 5 * time.Minute // the most that an ingress' clock is set back while it reads a request
)

// trace is an event that left a result, and when the first attempt for a delivery of it began: it was stored before.
type trace struct {
	Key
	began time.Time
}

// named lists events that an ID or an entity names. Where their bodies lie is looked up first, so that these alone are read.
func named(ctx context.Context, db *pgxpool.Pool, f Filter) ([]Stored, error) {
	o := f.order()
	if f.Before > 0 {
		if there, err := o.behind(ctx, db, f.Before); err != nil || !there {
			return nil, err
		}
	}
	if f.ID != "" {
		places, err := ofID(ctx, db, f)
		if err != nil {
			return nil, err
		}
		return o.readNamed(ctx, db, f, places)
	}
	return o.ofEntity(ctx, db, f)
}

// ofEntity lists an entity's events, from the last ones on. Where it has many, and few of all events fit the rest of the
// filter, these are looked at instead; and where a great part of all are its events, these are soon met among them. Of very
// many that do not fit, the list may end early: the console says how many were looked at.
func (o *order) ofEntity(ctx context.Context, db *pgxpool.Pool, f Filter) (out []Stored, err error) {
	l := &look{Filter: f, order: o}
	narrow := len(f.Types) > 0 || f.Status != "" && f.Status != "processed" // an index may lead to few
	var results int
	if err := db.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM catchment.results WHERE entity = $1 LIMIT $2) AS r`, onePlan, f.Entity, mostNamed+1).Scan(&results); err != nil {
		return nil, fmt.Errorf("find the entity's events: %w", err)
	}
	if results > mostNamed {
		seqs, all, err := l.inOrder(ctx, db, amongAll)
		if err != nil {
			return nil, err
		}
		if all || len(seqs) == f.Limit {
			return l.of(ctx, db, seqs)
		}
	}
	few := fewNamed
	if f.Before > 0 {
		few *= 2 // some of them are on pages before
	}
	seen := map[Key]bool{}
	for _, most := range []int{few, mostNamed, lastNamed} {
		if narrow && (most > few || results > mostNamed) {
			narrow = false
			seqs, all, err := l.byFilter(ctx, db)
			if err != nil {
				return nil, err
			}
			if all {
				return l.of(ctx, db, seqs)
			}
		}
		traces, n, err := o.traces(ctx, db, f, most)
		if err != nil {
			return nil, err
		}
		traces = slices.DeleteFunc(traces, func(t trace) bool {
			was := seen[t.Key]
			seen[t.Key] = true
			return was
		})
		for part := range slices.Chunk(traces, atOnce) {
			if len(out) >= f.Limit && part[0].began.Before(o.at(&out[f.Limit-1]).Add(-unordered)) {
				return out, nil // what is left was stored before
			}
			found, err := o.readTraces(ctx, db, f, part)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
			slices.SortFunc(out, func(a, b Stored) int { return o.compare(&b, &a) })
			out = out[:min(len(out), f.Limit)]
		}
		if n < most || most >= results {
			break // these were all
		}
	}
	return out, nil
}

// readTraces reads those of the events that fit, in the list's order.
func (o *order) readTraces(ctx context.Context, db *pgxpool.Pool, f Filter, traces []trace) ([]Stored, error) {
	places, err := placesOf(ctx, db, traces)
	if err != nil {
		return nil, err
	}
	return o.readNamed(ctx, db, f, places)
}

// readNamed reads those of the events that fit, in the list's order.
func (o *order) readNamed(ctx context.Context, db *pgxpool.Pool, f Filter, places []place) ([]Stored, error) {
	if !o.stored.IsZero() { // what was stored behind the cursor is on pages before
		places = slices.DeleteFunc(places, func(p place) bool { return !o.received && p.at.Time.After(o.stored.Add(unordered)) })
	}
	if len(places) == 0 {
		return nil, nil
	}
	q := &query{}
	sources, ids, at := columnsOf(places)
	q.args = []any{sources, ids, at}
	q.conditions = []string{`(b.source, b.event_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))`, `b.stored_at = ANY($3)`}
	q.where(f)
	q.page(o)
	return q.stored(ctx, db, o.sql(f.Limit))
}

func ofID(ctx context.Context, db *pgxpool.Pool, f Filter) (places []place, err error) {
	sources := []string{f.Source}
	if f.Source == "" {
		if sources, err = Sources(ctx, db, f.ID); err != nil {
			return nil, err
		}
	}
	for _, source := range sources {
		at, err := storedAt(ctx, db, source, f.ID)
		if errors.Is(err, ErrNoEvent) {
			continue
		}
		fits := err == nil
		if err == nil && f.Entity != "" {
			err = db.QueryRow(ctx, `SELECT EXISTS (SELECT FROM catchment.results WHERE source = $1 AND event_id = $2 AND entity = $3)`, source, f.ID, f.Entity).Scan(&fits)
		}
		if err != nil {
			return nil, fmt.Errorf("find event: %w", err)
		}
		if fits {
			places = append(places, place{Key{source, f.ID}, pgtype.Timestamptz{Time: at, Valid: true}})
		}
	}
	return places, nil
}

// traces finds the events of an entity's last results that may be on the page, and how many these were. An event is not tried
// before it is stored: its first attempt is a bound for when that was, without a look at its identity. Nor is it stored before
// it was received, which its delivery's ID tells.
func (o *order) traces(ctx context.Context, db *pgxpool.Pool, f Filter, most int) (traces []trace, n int, err error) {
	q := &query{}
	q.and("entity = %s", f.Entity)
	if f.Source != "" {
		q.and("source = %s", f.Source)
	}
	from, to := o.receipts(f)
	if !from.IsZero() {
		q.and("(delivery_id >= %s OR "+notOurs+")", deliveryAt(from))
	}
	if !to.IsZero() {
		q.and("(delivery_id < %s OR "+notOurs+")", deliveryAt(to))
	}
	rows, err := db.Query(ctx, `SELECT source, event_id, min(started_at) FROM catchment.results`+q.clause()+
		fmt.Sprintf(` GROUP BY source, event_id, delivery_id ORDER BY 3 DESC LIMIT %d`, most), append([]any{onePlan}, q.args...)...)
	if err != nil {
		return nil, 0, fmt.Errorf("find the entity's events: %w", err)
	}
	traces, err = collect(rows, "find the entity's events", func(row pgx.CollectableRow) (t trace, err error) {
		err = row.Scan(&t.Source, &t.ID, &t.began)
		return t, err
	})
	return traces, len(traces), err
}

// notOurs is true of a delivery whose ID does not begin with its time, as those of our ingress do (UUIDv7).
const notOurs = `get_byte(uuid_send(delivery_id), 6) >> 4 <> 7`

// deliveryAt is the least ID of a delivery received at a time.
func deliveryAt(t time.Time) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:8], uint64(max(t.UnixMilli(), 0))<<16)
	return id
}

// receipts are the bounds of when the page's events were received, by the clock of the ingress; zero: there is none. An event's
// ID of delivery is of the moment when its head was there, its received_at of that when all of it was. Where the page begins behind
// what was stored at a time, Postgres' clock must be held against the ingress': should it be behind by more than `unordered`,
// this shows in that event, unless it lay in Kafka for as long.
func (o *order) receipts(f Filter) (from, to time.Time) {
	if !f.Since.IsZero() {
		from = f.Since.Add(-unordered)
	}
	if !f.Until.IsZero() {
		to = f.Until.Add(setBack)
	}
	if o.behindAt.IsZero() {
		return from, to
	}
	last := o.behindAt.Add(setBack)
	if !o.received {
		last = o.behindAt
		if o.stored.After(last) {
			last = o.stored
		}
		last = last.Add(2 * unordered)
	}
	if to.IsZero() || last.Before(to) {
		to = last
	}
	return from, to
}

// placesOf finds the bodies of events, by one look into an index for each: a join would read all identities.
func placesOf(ctx context.Context, db *pgxpool.Pool, traces []trace) ([]place, error) {
	s, e := make([]string, len(traces)), make([]string, len(traces))
	for i, t := range traces {
		s[i], e[i] = t.Source, t.ID
	}
	rows, err := db.Query(ctx, `SELECT t.s, t.e, i.first_seen_at FROM unnest($1::text[], $2::text[]) AS t(s, e),
		LATERAL (SELECT first_seen_at FROM catchment.identities WHERE source = t.s AND event_id = t.e LIMIT 1) AS i`, s, e)
	if err != nil {
		return nil, fmt.Errorf("find the entity's events: %w", err)
	}
	return collect(rows, "find the entity's events", func(row pgx.CollectableRow) (p place, err error) {
		err = row.Scan(&p.Source, &p.ID, &p.at)
		return p, err
	})
}
