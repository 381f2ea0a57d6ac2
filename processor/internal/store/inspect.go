package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Filter selects stored events. What is not set selects all.
type Filter struct {
	Source       string
	ID           string
	Types        []string // a type may end in *
	Status       string
	Entity       string    // of an attempt of some operation
	Since, Until time.Time // of received_at; Until is exclusive
	Before       int64     // cursor of the last event of the page before this one, with the same filter
	After        int64     // of a tail: the cursor to begin behind; 0: the last event that is stored now
	Limit        int       // 0: 100
}

// Stored is an event as it lies in Postgres. Cursor orders events by when they were stored.
type Stored struct {
	Cursor        int64               `json:"cursor"`
	Source        string              `json:"source"`
	ID            string              `json:"event_id"`
	Type          string              `json:"type"`
	Time          *time.Time          `json:"event_time"`
	ReceivedAt    time.Time           `json:"received_at"`
	StoredAt      time.Time           `json:"stored_at"`
	Status        string              `json:"status"`
	Provider      string              `json:"provider"`
	Verdict       string              `json:"verdict"`
	SecretID      string              `json:"secret_id"`
	ContentType   string              `json:"content_type"`
	BodySHA256    []byte              `json:"-"`
	BodySize      int                 `json:"body_size"`
	DeliveryID    string              `json:"delivery_id"`
	DeliveryIndex int                 `json:"delivery_index"`
	Topic         string              `json:"topic"`
	TopicID       [16]byte            `json:"-"`
	Partition     int32               `json:"partition"`
	Offset        int64               `json:"offset"`
	Deliveries    int                 `json:"deliveries"`
	Note          string              `json:"note,omitempty"`
	Headers       map[string][]string `json:"headers,omitempty"` // of Detail only
	Body          []byte              `json:"-"`                 // of Detail only
}

// Attempt is a row of results.
type Attempt struct {
	Operation    string        `json:"operation"`
	Definition   []byte        `json:"-"`
	Number       int           `json:"attempt"`
	Outcome      string        `json:"outcome"`
	Entity       *string       `json:"entity"`
	Version      *string       `json:"version"`
	RowsAffected *int64        `json:"rows_affected"`
	Returned     *string       `json:"returned"` // JSON
	Error        *string       `json:"error"`
	StartedAt    time.Time     `json:"started_at"`
	Duration     time.Duration `json:"duration"`
}

// Delivery is a further delivery of an event.
type Delivery struct {
	DeliveryID string    `json:"delivery_id"`
	ReceivedAt time.Time `json:"received_at"`
	SeenAt     time.Time `json:"seen_at"`
	Topic      string    `json:"topic"`
	TopicID    [16]byte  `json:"-"`
	Partition  int32     `json:"partition"`
	Offset     int64     `json:"offset"`
	BodySHA256 []byte    `json:"-"` // of a conflict
}

// Waiting is a retry that is still to be made.
type Waiting struct {
	Operation string    `json:"operation"`
	Attempt   int       `json:"attempt"`
	DueAt     time.Time `json:"due_at"`
	Error     string    `json:"error"`
}

// Letter is a dead letter. Without an operation it is a whole record.
type Letter struct {
	ID            int64     `json:"id"`
	Source        *string   `json:"source"`
	EventID       *string   `json:"event_id"`
	Operation     *string   `json:"operation"`
	Reason        string    `json:"reason"`
	Error         string    `json:"error"`
	Attempts      int       `json:"attempts"`
	FirstFailedAt time.Time `json:"first_failed_at"`
	LastFailedAt  time.Time `json:"last_failed_at"`
	Topic         string    `json:"topic"`
	Partition     int32     `json:"partition"`
	Offset        int64     `json:"offset"`
}

// Detail is all that is known of one event.
type Detail struct {
	Stored
	Results     []Attempt  `json:"results"`
	Duplicates  []Delivery `json:"duplicates"`
	Conflicts   []Delivery `json:"conflicts"`
	Waiting     []Waiting  `json:"waiting"`
	DeadLetters []Letter   `json:"dead_letters"`
}

// ErrNoEvent says that there is no such event, ErrBodyGone that there was one.
var (
	ErrNoEvent  = errors.New("there is no such event")
	ErrBodyGone = fmt.Errorf("%w any more", ErrNoEvent)
)

const storedColumns = `b.seq, b.source, b.event_id, b.type, b.event_time, b.received_at, b.stored_at, b.status, b.provider, b.verdict, b.secret_id,
	b.content_type, b.body_sha256, octet_length(b.body), b.delivery_id::text, b.delivery_index, b.topic, b.topic_id, b.partition, b."offset",
	(1 + (SELECT count(*) FROM catchment.duplicates d WHERE d.source = b.source AND d.event_id = b.event_id)
	   + (SELECT count(*) FROM catchment.conflicts c WHERE c.source = b.source AND c.event_id = b.event_id))::integer, coalesce(b.note, '')`

const storedFrom = ` FROM catchment.bodies b`

func (s *Stored) targets() []any {
	return []any{
		&s.Cursor, &s.Source, &s.ID, &s.Type, &s.Time, &s.ReceivedAt, &s.StoredAt, &s.Status, &s.Provider, &s.Verdict, &s.SecretID,
		&s.ContentType, &s.BodySHA256, &s.BodySize, &s.DeliveryID, &s.DeliveryIndex, &s.Topic, &s.TopicID, &s.Partition, &s.Offset, &s.Deliveries, &s.Note,
	}
}

// Events lists events, the last stored first, or, with Since or Until, the last received, without headers and bodies.
func Events(ctx context.Context, db *pgxpool.Pool, f Filter) ([]Stored, error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	if f.ID != "" || f.Entity != "" {
		return named(ctx, db, f)
	}
	o := f.order()
	if f.Before > 0 {
		if there, err := o.behind(ctx, db, f.Before); err != nil || !there {
			return nil, err
		}
	}
	newest := time.Now()
	if !f.Until.IsZero() && f.Until.Before(newest) {
		newest = f.Until
	}
	if o.before > 0 && o.newest().Before(newest) {
		newest = o.newest()
	}
	// Days are opened from the newest on, ever more of them, until there are enough events: whole ones, so that no row of a
	// day is passed over in vain.
	l := look{Filter: f, order: o}
	for back := 2 * day; ; back *= 20 {
		l.from = newest.Add(-back).Truncate(day)
		all := back > longAgo
		if all {
			l.from = time.Time{}
		}
		found, err := l.list(ctx, db)
		if err != nil || all || len(found) == f.Limit && !slices.ContainsFunc(found, func(s Stored) bool { return o.at(&s).Before(l.from.Add(unordered)) }) {
			return found, err
		}
	}
}

// order is that of a list: the last stored first, or, where a time of receipt is asked for, the last received, which an
// index then leads to.
type order struct {
	received bool
	before   int64 // the cursor of the page before; 0: this is the first
	behindAt time.Time
	stored   time.Time // the same event's stored_at; zero: it is not known
}

func (f *Filter) order() *order { return &order{received: !f.Since.IsZero() || !f.Until.IsZero()} }

// behind goes on behind the event of a cursor. It is false where that event is gone, and the page with it, or nothing is left.
func (o *order) behind(ctx context.Context, db *pgxpool.Pool, cursor int64) (bool, error) {
	o.before = cursor
	sql := `SELECT received_at, stored_at FROM catchment.bodies WHERE seq = $1`
	if !o.received { // one that is gone is behind the one before it
		sql = `SELECT received_at, stored_at FROM catchment.bodies WHERE seq <= $1 ORDER BY seq DESC LIMIT 1`
	}
	err := db.QueryRow(ctx, sql, cursor).Scan(&o.behindAt, &o.stored)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("find the page: %w", err)
	}
	return true, nil
}

func (o *order) sql(limit int) string {
	if o.received {
		return fmt.Sprintf(" ORDER BY b.received_at DESC, b.seq DESC LIMIT %d", limit)
	}
	return fmt.Sprintf(" ORDER BY b.seq DESC LIMIT %d", limit)
}

// newest is the time, as `at` says it, of which nothing behind the cursor is later.
func (o *order) newest() time.Time {
	if o.received {
		return o.behindAt
	}
	return o.stored.Add(unordered)
}

func (o *order) at(s *Stored) time.Time {
	if o.received {
		return s.ReceivedAt
	}
	return s.StoredAt
}

// compare puts the earlier event first.
func (o *order) compare(a, b *Stored) int {
	if o.received {
		if n := a.ReceivedAt.Compare(b.ReceivedAt); n != 0 {
			return n
		}
	}
	return cmp.Compare(a.Cursor, b.Cursor)
}

func (q *query) page(o *order) {
	switch {
	case o.before == 0:
	case o.received:
		q.args = append(q.args, o.behindAt, o.before)
		q.conditions = append(q.conditions, fmt.Sprintf("(b.received_at, b.seq) < ($%d, $%d)", len(q.args)-1, len(q.args)))
	default:
		q.and("b.seq < %s", o.before)
	}
}

const (
	day     = 24 * time.Hour
	longAgo = 2 * 365 * day
	// unordered is how far stored_at and seq may disagree on which of two events was stored first: a transaction's age, and
	// the clocks of a server and of the one that takes its place.
	unordered = time.Hour
)

// query collects conditions with their parameters.
type query struct {
	conditions []string
	args       []any
}

func (q *query) and(cond string, arg any) {
	q.args = append(q.args, arg)
	q.conditions = append(q.conditions, fmt.Sprintf(cond, fmt.Sprintf("$%d", len(q.args))))
}

func (q *query) where(f Filter) {
	q.time(f)
	q.rest(f)
}

// time has the conditions on the time of receipt.
func (q *query) time(f Filter) {
	if !f.Since.IsZero() {
		q.and("b.received_at >= %s", f.Since)
		q.and("b.stored_at >= %s", f.Since.Add(-day)) // nothing is stored before it is received, but by another clock
	}
	if !f.Until.IsZero() {
		q.and("b.received_at < %s", f.Until)
	}
}

// rest has the other conditions.
func (q *query) rest(f Filter) {
	if f.Source != "" {
		q.and("b.source = %s", f.Source)
	}
	if f.ID != "" {
		q.and("b.event_id = %s", f.ID)
	}
	if f.Status != "" {
		q.and("b.status = %s", f.Status)
	}
	if len(f.Types) > 0 {
		q.conditions = append(q.conditions, q.ofTypes(f.Types))
	}
}

// ofTypes is the condition of an event's type, each by itself: an index is looked into for LIKE, and not for LIKE ANY.
func (q *query) ofTypes(types []string) string {
	var each []string
	for _, p := range patterns(types) {
		q.args = append(q.args, p)
		each = append(each, fmt.Sprintf("b.type LIKE $%d", len(q.args)))
	}
	return "(" + strings.Join(each, " OR ") + ")"
}

// patterns makes patterns of LIKE of types that may end in *.
func patterns(types []string) []string {
	out := make([]string, len(types))
	for i, t := range types {
		out[i] = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.TrimSuffix(t, "*"))
		if strings.HasSuffix(t, "*") {
			out[i] += "%"
		}
	}
	return out
}

func (q *query) stored(ctx context.Context, db *pgxpool.Pool, tail string) ([]Stored, error) {
	sql := `SELECT ` + storedColumns + storedFrom
	if len(q.conditions) > 0 {
		sql += ` WHERE ` + strings.Join(q.conditions, ` AND `)
	}
	rows, err := db.Query(ctx, sql+tail, append([]any{onePlan}, q.args...)...)
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Stored, error) {
		var s Stored
		err := row.Scan(s.targets()...)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	return out, nil
}

// Sources lists the sources that have an event of that ID.
func Sources(ctx context.Context, db *pgxpool.Pool, id string) ([]string, error) {
	// From one source to the next by the index: there are few sources, and very many events.
	rows, err := db.Query(ctx, `WITH RECURSIVE s(source) AS (
			SELECT min(source) FROM catchment.identities
			UNION ALL SELECT (SELECT min(i.source) FROM catchment.identities i WHERE i.source > s.source) FROM s WHERE s.source IS NOT NULL)
		SELECT source FROM s WHERE EXISTS (SELECT FROM catchment.identities i WHERE i.source = s.source AND i.event_id = $1) ORDER BY source`, id)
	if err != nil {
		return nil, fmt.Errorf("find event: %w", err)
	}
	return collect[string](rows, "find event", pgx.RowTo[string])
}

func collect[T any](rows pgx.Rows, what string, f pgx.RowToFunc[T]) ([]T, error) {
	out, err := pgx.CollectRows(rows, f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return out, nil
}

// Show returns all that is known of one event. The error wraps ErrNoEvent when it is not there.
func Show(ctx context.Context, db *pgxpool.Pool, source, id string) (*Detail, error) {
	d := &Detail{}
	targets := append(d.targets(), &d.Headers, &d.Body)
	at, err := storedAt(ctx, db, source, id)
	if err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	err = db.QueryRow(ctx, `SELECT `+storedColumns+`, b.headers, b.body`+storedFrom+` WHERE b.source = $1 AND b.event_id = $2 AND b.stored_at = $3`,
		onePlan, source, id, at).Scan(targets...)
	if errors.Is(err, pgx.ErrNoRows) {
		why, err := removedBy(ctx, db, source, id, at)
		if err != nil {
			return nil, fmt.Errorf("read event: %w", err)
		}
		return nil, fmt.Errorf("%w: source %s, ID %s: it was stored at %s, and %s has removed its body",
			ErrBodyGone, source, id, at.UTC().Format(time.RFC3339), why)
	}
	if err != nil {
		return nil, fmt.Errorf("read event: %w", err)
	}
	for _, read := range []func(context.Context, *pgxpool.Pool) error{d.readResults, d.readRepeats, d.readWaiting, d.readLetters} {
		if err := read(ctx, db); err != nil {
			return nil, fmt.Errorf("read event: %w", err)
		}
	}
	return d, nil
}

func (d *Detail) readResults(ctx context.Context, db *pgxpool.Pool) error {
	rows, err := db.Query(ctx, `SELECT operation, definition_sha256, attempt, outcome, entity, version, rows_affected, returned::text, error, started_at, duration
		FROM catchment.results WHERE source = $1 AND event_id = $2 ORDER BY operation, attempt`, d.Source, d.ID)
	if err != nil {
		return err
	}
	d.Results, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (a Attempt, err error) {
		err = row.Scan(&a.Operation, &a.Definition, &a.Number, &a.Outcome, &a.Entity, &a.Version, &a.RowsAffected, &a.Returned, &a.Error, &a.StartedAt, &a.Duration)
		return a, err
	})
	return err
}

func (d *Detail) readRepeats(ctx context.Context, db *pgxpool.Pool) error {
	for _, r := range []struct {
		into *[]Delivery
		sql  string
	}{
		{&d.Duplicates, `SELECT delivery_id::text, received_at, seen_at, topic, topic_id, partition, "offset", body_sha256
			FROM catchment.duplicates WHERE source = $1 AND event_id = $2 ORDER BY seen_at, "offset"`},
		{&d.Conflicts, `SELECT delivery_id::text, received_at, seen_at, topic, topic_id, partition, "offset", body_sha256
			FROM catchment.conflicts WHERE source = $1 AND event_id = $2 ORDER BY seen_at, "offset"`},
	} {
		rows, err := db.Query(ctx, r.sql, d.Source, d.ID)
		if err != nil {
			return err
		}
		*r.into, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Delivery, err error) {
			err = row.Scan(&l.DeliveryID, &l.ReceivedAt, &l.SeenAt, &l.Topic, &l.TopicID, &l.Partition, &l.Offset, &l.BodySHA256)
			return l, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (d *Detail) readWaiting(ctx context.Context, db *pgxpool.Pool) error {
	rows, err := db.Query(ctx, `SELECT operation, attempt, due_at, error FROM catchment.retries WHERE source = $1 AND event_id = $2 ORDER BY operation`, d.Source, d.ID)
	if err != nil {
		return err
	}
	d.Waiting, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Waiting, err error) {
		err = row.Scan(&r.Operation, &r.Attempt, &r.DueAt, &r.Error)
		return r, err
	})
	return err
}

func (d *Detail) readLetters(ctx context.Context, db *pgxpool.Pool) (err error) {
	d.DeadLetters, err = Letters(ctx, db, Selection{Source: d.Source, EventIDs: []string{d.ID}}, 0, 1000)
	slices.Reverse(d.DeadLetters)
	return err
}

// Place is a row of progress.
type Place struct {
	Topic      string    `json:"topic"`
	TopicID    [16]byte  `json:"-"`
	Partition  int32     `json:"partition"`
	NextOffset int64     `json:"next_offset"`
	UpdatedAt  time.Time `json:"updated_at"`
}

// Places lists the positions of all partitions.
func (s *Store) Places(ctx context.Context) ([]Place, error) { return Places(ctx, s.pool) }

const placesSQL = `SELECT topic, topic_id, partition, next_offset, updated_at FROM catchment.progress ORDER BY topic, topic_id, partition`

func scanPlace(row pgx.CollectableRow) (p Place, err error) {
	err = row.Scan(&p.Topic, &p.TopicID, &p.Partition, &p.NextOffset, &p.UpdatedAt)
	return p, err
}

// Places lists the positions of all partitions.
func Places(ctx context.Context, db *pgxpool.Pool) ([]Place, error) {
	rows, err := db.Query(ctx, placesSQL)
	if err != nil {
		return nil, fmt.Errorf("read progress: %w", err)
	}
	return collect(rows, "read progress", scanPlace)
}

// Count is a number of something of a source.
type Count struct {
	Source string `json:"source"`
	What   string `json:"what"`
	N      int64  `json:"n"`
	More   bool   `json:"more"` // N is not all of them, or an estimate
}

// Summary says how the processing stands.
type Summary struct {
	Events      int64      `json:"events"` // an estimate when Exact is false
	Exact       bool       `json:"exact"`
	LastStored  *time.Time `json:"last_stored"`
	Unfinished  []Count    `json:"unfinished"`   // by status: failed, deferred, dead
	DeadLetters []Count    `json:"dead_letters"` // by reason
	Retries     int64      `json:"retries"`      // an estimate where there are very many
	NextRetry   *time.Time `json:"next_retry"`
	Pending     []Pending  `json:"pending"` // retries by operation
	Paused      []Paused   `json:"paused"`
	Jobs        []Job      `json:"jobs"` // that are not over
	Places      []Place    `json:"progress"`
	DaysAhead   int        `json:"days_ahead"` // from tomorrow on, for which events have a place; -1: not even for today
}

// Pending are the attempts of an operation that are still to be made.
type Pending struct {
	Operation string    `json:"operation"`
	N         int64     `json:"n"`
	Next      time.Time `json:"next"`
}

const (
	countExactly = 200_000 // rows up to which counting them is cheap
	unfinished   = 20_000  // events of each status that are counted
	shownJobs    = 20
)

// Summarize counts what is stored, in a time that hardly depends on how much it is.
func Summarize(ctx context.Context, db *pgxpool.Pool) (*Summary, error) {
	s := &Summary{}
	// Of a partition that was never analyzed, its size says something.
	err := db.QueryRow(ctx, `SELECT coalesce(sum(CASE WHEN c.reltuples < 0 THEN pg_catalog.pg_relation_size(c.oid) / 1024 ELSE c.reltuples END), 0)::bigint,
			(SELECT max(stored_at) FROM (SELECT stored_at FROM catchment.bodies ORDER BY seq DESC LIMIT 100) AS newest), (SELECT min(due_at) FROM catchment.retries)
		FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'catchment.bodies'::regclass`).Scan(&s.Events, &s.LastStored, &s.NextRetry)
	if err != nil {
		return nil, fmt.Errorf("count events: %w", err)
	}
	err = quickly(ctx, db, func(tx pgx.Tx) error {
		if s.Events < countExactly {
			s.Exact = true
			if err := tx.QueryRow(ctx, `SELECT count(*) FROM catchment.bodies`).Scan(&s.Events); err != nil {
				return err
			}
		}
		return s.readCounts(ctx, tx)
	})
	if err != nil {
		return nil, fmt.Errorf("count events: %w", err)
	}
	if s.Paused, err = PausedOperations(ctx, db); err != nil {
		return nil, err
	}
	if s.Jobs, err = Jobs(ctx, db, true, 0, shownJobs); err != nil {
		return nil, err
	}
	if s.DaysAhead, err = partitionsAhead(ctx, db); err != nil {
		return nil, err
	}
	s.Places, err = Places(ctx, db)
	return s, err
}

// readCounts counts what is not done with: each status from its index up to a bound, the rest from samples where there is much.
func (s *Summary) readCounts(ctx context.Context, tx pgx.Tx) error {
	for _, status := range []string{"dead", "deferred", "failed"} {
		found, all, err := counts(ctx, tx, 1, `SELECT source, $1::text, count(*) FROM (SELECT source FROM catchment.bodies WHERE status = $1 LIMIT $2) AS b GROUP BY 1`, onePlan, status, unfinished)
		if err != nil {
			return err
		}
		for i := range found {
			found[i].More = all == unfinished
		}
		s.Unfinished = append(s.Unfinished, found...)
	}
	slices.SortFunc(s.Unfinished, func(a, b Count) int { return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.What, b.What)) })
	clause, factor, err := sample(ctx, tx, "dead_letters")
	if err != nil {
		return err
	}
	if s.DeadLetters, _, err = counts(ctx, tx, factor, `SELECT coalesce(source, ''), reason, count(*) FROM catchment.dead_letters `+clause+` GROUP BY 1, 2 ORDER BY 1, 2`); err != nil {
		return err
	}
	if clause, factor, err = sample(ctx, tx, "retries"); err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `SELECT operation, count(*), min(due_at) FROM catchment.retries `+clause+` GROUP BY 1 ORDER BY 1`)
	if err != nil {
		return err
	}
	if s.Pending, err = pgx.CollectRows(rows, pgx.RowToStructByPos[Pending]); err != nil {
		return err
	}
	for i := range s.Pending {
		s.Pending[i].N = estimate(s.Pending[i].N, factor)
		s.Retries += s.Pending[i].N
	}
	return nil
}

// counts returns counts, multiplied by factor, and their sum.
func counts(ctx context.Context, tx pgx.Tx, factor float64, sql string, args ...any) (out []Count, all int64, err error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, 0, err
	}
	out, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Count, err error) {
		err = row.Scan(&c.Source, &c.What, &c.N)
		all += c.N
		c.N, c.More = estimate(c.N, factor), factor > 1
		return c, err
	})
	return out, all, err
}

const (
	gapPatience = time.Minute // the longest transaction that may still fill a gap
	tailPage    = 1000
)

// Tailer reads events in the order in which they were stored. Transactions commit in another order than they draw
// cursors, so it comes back to cursors that were passed over.
type Tailer struct {
	db   *pgxpool.Pool
	f    Filter
	last int64
	gaps map[int64]time.Time
	from time.Time // no event to come was stored before
}

// NewTailer begins behind the filter's After, but looks back at the last tailPage events at most, or behind the last event that
// is stored now. It does not filter by entity.
func NewTailer(ctx context.Context, db *pgxpool.Pool, f Filter) (*Tailer, error) {
	t := &Tailer{db: db, f: f, gaps: map[int64]time.Time{}, from: time.Now().Add(-day)}
	if err := db.QueryRow(ctx, `SELECT coalesce(max(seq), 0) FROM catchment.bodies`).Scan(&t.last); err != nil {
		return nil, fmt.Errorf("tail events: %w", err)
	}
	if f.After > 0 {
		t.last = min(t.last, max(f.After, t.last-tailPage))
	}
	return t, nil
}

// Next returns what was stored since the last call, at once.
func (t *Tailer) Next(ctx context.Context) ([]Stored, error) {
	now := time.Now()
	var missed []int64
	for seq, since := range t.gaps {
		if now.Sub(since) > gapPatience {
			delete(t.gaps, seq)
			continue
		}
		missed = append(missed, seq)
	}
	q := query{args: []any{t.last, missed, t.from}, conditions: []string{`(b.seq > $1 OR b.seq = ANY($2::bigint[]))`, `b.stored_at >= $3`}}
	found, err := q.stored(ctx, t.db, fmt.Sprintf(" ORDER BY b.seq LIMIT %d", tailPage))
	if err != nil {
		return nil, err
	}
	for _, s := range found {
		delete(t.gaps, s.Cursor)
		for seq := t.last + 1; seq < s.Cursor && len(t.gaps) < 10*tailPage; seq++ {
			t.gaps[seq] = now
		}
		t.last = max(t.last, s.Cursor)
		if from := s.StoredAt.Add(-day); from.After(t.from) {
			t.from = from
		}
	}
	return slices.DeleteFunc(found, func(s Stored) bool { return !t.f.matches(&s) }), nil
}

func (f *Filter) matches(s *Stored) bool {
	return (f.Source == "" || f.Source == s.Source) && (f.ID == "" || f.ID == s.ID) && (f.Status == "" || f.Status == s.Status) &&
		(len(f.Types) == 0 || slices.ContainsFunc(f.Types, func(t string) bool {
			p, ok := strings.CutSuffix(t, "*")
			return t == s.Type || ok && strings.HasPrefix(s.Type, p)
		}))
}
