package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
)

// Selection says which dead letters or events are meant. What is not set selects all.
type Selection struct {
	Source    string     `json:"source,omitempty"`
	EventIDs  []string   `json:"event_ids,omitempty"`
	Letters   []int64    `json:"dead_letters,omitempty"` // the letters' own IDs
	Types     []string   `json:"types,omitempty"`        // a type may end in *
	Operation string     `json:"operation,omitempty"`
	Reason    string     `json:"dead_letter_reason,omitempty"`
	Since     *time.Time `json:"since,omitempty"` // of the last failure, or of the event's receipt
	Until     *time.Time `json:"until,omitempty"` // exclusive
}

// Kinds and states of jobs.
const (
	Redrive = "redrive"
	Replay  = "replay"

	JobWaiting   = "waiting"
	JobRunning   = "running"
	JobDone      = "done"
	JobCancelled = "cancelled"
)

// Tally is what a job has done so far.
type Tally struct {
	Succeeded  int64 `json:"succeeded"`
	Superseded int64 `json:"superseded"`
	Failed     int64 `json:"failed"`
	Dead       int64 `json:"dead"`
	Skipped    int64 `json:"skipped"`
}

// Made counts the attempts.
func (t *Tally) Made() int64 { return t.Succeeded + t.Superseded + t.Failed + t.Dead }

// Job is a redrive or a replay. Expected is how many items were counted when it was asked for.
type Job struct {
	ID        int64     `json:"id"`
	Kind      string    `json:"kind"`
	Operation string    `json:"operation,omitempty"`
	Selection Selection `json:"selection"`
	Force     bool      `json:"force"`
	Rate      float64   `json:"rate"` // attempts a second; 0: no limit
	State     string    `json:"state"`
	Expected  int64     `json:"expected"`
	Last      int64     `json:"-"`
	Upto      *int64    `json:"-"`
	Tally
	Note       string     `json:"note,omitempty"`
	Actor      string     `json:"actor"`
	Reason     string     `json:"reason"`
	CreatedAt  time.Time  `json:"created_at"`
	StartedAt  *time.Time `json:"started_at"`
	FinishedAt *time.Time `json:"finished_at"`

	// Key names what was confirmed, so that it is asked for once: a job of the same key is not made again. Empty: none.
	Key string `json:"-"`

	action int64
}

// ErrNoJob says that there is no such job.
var ErrNoJob = errors.New("there is no such job")

const jobColumns = `id, kind, coalesce(operation, ''), selection, force, coalesce(rate, 0), state, expected, last, upto,
	succeeded, superseded, failed, dead, skipped, coalesce(note, ''), actor, reason, created_at, started_at, finished_at, action_id`

func scanJob(row pgx.CollectableRow) (j Job, err error) {
	err = row.Scan(&j.ID, &j.Kind, &j.Operation, &j.Selection, &j.Force, &j.Rate, &j.State, &j.Expected, &j.Last, &j.Upto,
		&j.Succeeded, &j.Superseded, &j.Failed, &j.Dead, &j.Skipped, &j.Note, &j.Actor, &j.Reason, &j.CreatedAt, &j.StartedAt, &j.FinishedAt, &j.action)
	return j, err
}

// CreateJob stores a job for the processors to run, and the action. Where a job of its key is there already, j becomes that one.
func CreateJob(ctx context.Context, db *pgxpool.Pool, j *Job) error {
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if there, err := confirmed(ctx, tx, j); err != nil || there {
			return err
		}
		command := map[string]string{Redrive: "dead-letters redrive", Replay: "replay"}[j.Kind]
		selection := map[string]any{"selection": j.Selection, "operation": j.Operation, "force": j.Force, "expected": j.Expected}
		if j.Key != "" {
			selection["confirmation"] = j.Key
		}
		action, err := record(ctx, tx, command, Act{j.Actor, j.Reason}, selection, 0)
		if err != nil {
			return err
		}
		var rate *float64
		if j.Rate > 0 {
			rate = &j.Rate
		}
		return tx.QueryRow(ctx, `INSERT INTO catchment.jobs (kind, operation, selection, force, rate, expected, upto, action_id, actor, reason)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) RETURNING id, state, created_at`,
			j.Kind, null(j.Operation), j.Selection, j.Force, rate, j.Expected, j.Upto, action, clean(j.Actor), clean(j.Reason)).
			Scan(&j.ID, &j.State, &j.CreatedAt)
	})
	if err != nil {
		return fmt.Errorf("ask for the %s: %w", j.Kind, err)
	}
	return nil
}

// confirmed says whether the job of j's key is there, and makes j that one. The next to ask for this key waits for tx.
func confirmed(ctx context.Context, tx pgx.Tx, j *Job) (bool, error) {
	if j.Key == "" {
		return false, nil
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('catchment.jobs'), hashtext($1))`, j.Key); err != nil {
		return false, err
	}
	rows, err := tx.Query(ctx, `SELECT `+jobColumns+` FROM catchment.jobs
		WHERE action_id = (SELECT max(id) FROM catchment.actions WHERE at > now() - interval '1 day' AND selection->>'confirmation' = $1)`, j.Key)
	if err != nil {
		return false, err
	}
	there, err := pgx.CollectExactlyOneRow(rows, scanJob)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err == nil {
		*j = there
	}
	return err == nil, err
}

// Jobs lists jobs, the newest first; open: only those that are not over. before is the ID of the last one of the page before,
// or 0.
func Jobs(ctx context.Context, db *pgxpool.Pool, open bool, before int64, limit int) ([]Job, error) {
	rows, err := db.Query(ctx, `SELECT `+jobColumns+` FROM catchment.jobs
		WHERE (NOT $1 OR state IN ('waiting', 'running')) AND ($2 = 0 OR id < $2) ORDER BY id DESC LIMIT $3`, open, before, limit)
	if err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	return collect(rows, "list jobs", scanJob)
}

// OneJob returns a job. The error wraps ErrNoJob when it is not there.
func OneJob(ctx context.Context, db *pgxpool.Pool, id int64) (*Job, error) {
	rows, err := db.Query(ctx, `SELECT `+jobColumns+` FROM catchment.jobs WHERE id = $1`, id)
	if err != nil {
		return nil, fmt.Errorf("read job: %w", err)
	}
	j, err := pgx.CollectExactlyOneRow(rows, scanJob)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w: %d", ErrNoJob, id)
	}
	if err != nil {
		return nil, fmt.Errorf("read job: %w", err)
	}
	return &j, nil
}

// CancelJob ends a job; what it has done stays. It waits for the transaction in which the job moves. cancelled is false
// when the job was over.
func CancelJob(ctx context.Context, db *pgxpool.Pool, id int64, act Act) (cancelled bool, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE catchment.jobs SET state = 'cancelled', finished_at = now() WHERE id = $1 AND state IN ('waiting', 'running')`, id)
		if err != nil {
			return err
		}
		if cancelled = tag.RowsAffected() == 1; !cancelled {
			return nil
		}
		_, err = record(ctx, tx, "jobs cancel", act, map[string]any{"job": id}, 1)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("cancel job: %w", err)
	}
	return cancelled, nil
}

// Job locks the job that is to go on, among those of the given operations and those of no single one, passing over those
// that another processor runs. The error is ErrNothingDue when there is none.
func (t *Tx) Job(ctx context.Context, operations []string) (*Job, error) {
	rows, err := t.tx.Query(ctx, `SELECT `+jobColumns+` FROM catchment.jobs
		WHERE state IN ('waiting', 'running') AND next_at <= now() AND (operation IS NULL OR operation = ANY($1))
		ORDER BY next_at, id LIMIT 1 FOR UPDATE SKIP LOCKED`, operations)
	if err != nil {
		return nil, &OwnError{"find a job", err}
	}
	j, err := pgx.CollectExactlyOneRow(rows, scanJob)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrNothingDue
	}
	if err != nil {
		return nil, &OwnError{"find a job", err}
	}
	return &j, nil
}

// Ceiling waits for the batches that are in flight and returns the greatest cursor of a stored event.
func (t *Tx) Ceiling(ctx context.Context) (upto int64, err error) {
	b := &pgx.Batch{}
	b.Queue(`SELECT count(*) FROM (SELECT FROM catchment.progress FOR SHARE) AS held`)
	b.Queue(`SELECT coalesce(max(seq), 0) FROM catchment.bodies`).QueryRow(func(row pgx.Row) error { return row.Scan(&upto) })
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return 0, &OwnError{"find the last event", err}
	}
	return upto, nil
}

// Advance moves a job on: to last, with more done, to be continued after pause; done: there is nothing left.
func (t *Tx) Advance(ctx context.Context, j *Job, last int64, more Tally, pause time.Duration, done bool) error {
	state := JobRunning
	if done {
		state = JobDone
	}
	b := &pgx.Batch{}
	t.setTimeout(b, ownTimeout)
	b.Queue(`UPDATE catchment.jobs SET state = $2, last = $3, upto = $4, succeeded = succeeded + $5, superseded = superseded + $6,
			failed = failed + $7, dead = dead + $8, skipped = skipped + $9, next_at = now() + make_interval(secs => $10), note = NULL,
			started_at = coalesce(started_at, now()), finished_at = CASE WHEN $2 = 'done' THEN now() END
		WHERE id = $1`,
		j.ID, state, last, j.Upto, more.Succeeded, more.Superseded, more.Failed, more.Dead, more.Skipped, pause.Seconds())
	if n := more.Made(); n > 0 {
		b.Queue(`UPDATE catchment.actions SET affected = affected + $2 WHERE id = $1`, j.action, n)
	}
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return &OwnError{"move the job on", err}
	}
	t.arm(failpoint.JobCommitSent)
	return nil
}

// Hinder notes why a job does not move, and when it is tried again.
func (s *Store) Hinder(ctx context.Context, id int64, why string, pause time.Duration) error {
	_, err := s.pool.Exec(ctx, `UPDATE catchment.jobs SET note = $2, next_at = now() + make_interval(secs => $3) WHERE id = $1 AND state IN ('waiting', 'running')`,
		id, clean(why), pause.Seconds())
	if err != nil {
		return &OwnError{"note why the job stands", err}
	}
	return nil
}

// Candidate is a stored event that a replay looks at.
type Candidate struct {
	Cursor int64
	Event  event.Event
}

func (q *query) events(sel Selection) {
	q.where(Filter{Source: sel.Source, Types: sel.Types, Since: at(sel.Since), Until: at(sel.Until)})
	if len(sel.EventIDs) > 0 {
		q.and("b.event_id = ANY(%s)", sel.EventIDs)
	}
}

func at(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

func (q *query) clause() string {
	if len(q.conditions) == 0 {
		return ""
	}
	return ` WHERE ` + strings.Join(q.conditions, ` AND `)
}

// Candidates locks the selected events of a source and of types behind a cursor, in order. No types: all.
func (t *Tx) Candidates(ctx context.Context, sel Selection, source string, types []string, after, upto int64, limit int) ([]Candidate, error) {
	q := candidates(sel, source, types)
	q.and("b.seq > %s", after)
	q.and("b.seq <= %s", upto)
	rows, err := t.tx.Query(ctx, `SELECT b.seq, `+eventColumns+` FROM catchment.bodies b`+q.clause()+fmt.Sprintf(` ORDER BY b.seq LIMIT %d FOR UPDATE`, limit), q.args...)
	if err != nil {
		return nil, &OwnError{"read events", err}
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c Candidate, err error) {
		err = scanEvent(row, &c.Event, &c.Cursor)
		return c, err
	})
	if err != nil {
		return nil, &OwnError{"read events", err}
	}
	return out, nil
}

func candidates(sel Selection, source string, types []string) *query {
	q := &query{}
	q.events(sel)
	q.where(Filter{Source: source, Types: types})
	return q
}

// openCandidates is candidates; without force only those of which the operation has not had its effect.
func openCandidates(sel Selection, source string, types []string, operation string, force bool) *query {
	q := candidates(sel, source, types)
	if !force {
		q.and(`NOT EXISTS (SELECT FROM catchment.results r WHERE r.source = b.source AND r.event_id = b.event_id AND r.operation = %s
			AND r.outcome IN ('succeeded', 'superseded'))`, operation)
	}
	return q
}

// CountCandidates counts the selected events; without force only those of which the operation has not had its effect.
func CountCandidates(ctx context.Context, db *pgxpool.Pool, sel Selection, source string, types []string, operation string, force bool) (n int64, err error) {
	q := openCandidates(sel, source, types, operation, force)
	if err := db.QueryRow(ctx, `SELECT count(*) FROM catchment.bodies b`+q.clause(), q.args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("count events: %w", err)
	}
	return n, nil
}

// CandidateKeys names the first ones of what CountCandidates counts, in the order in which they were stored.
func (s *Store) CandidateKeys(ctx context.Context, sel Selection, source string, types []string, operation string, force bool, limit int) ([]Key, error) {
	q := openCandidates(sel, source, types, operation, force)
	rows, err := s.pool.Query(ctx, `SELECT b.source, b.event_id FROM catchment.bodies b`+q.clause()+fmt.Sprintf(` ORDER BY b.seq LIMIT %d`, limit), q.args...)
	if err != nil {
		return nil, fmt.Errorf("find events: %w", err)
	}
	return collect(rows, "find events", pgx.RowToStructByPos[Key])
}

// Work names an operation for an event.
type Work struct {
	Key
	Operation string
}

// Before is what became of an operation for an event so far.
type Before struct {
	Attempts int  // number of the last one
	Effect   bool // it has succeeded or was superseded
	Pending  bool // a retry is scheduled
}

// Before reads what became of the works so far.
func (t *Tx) Before(ctx context.Context, works []Work) (map[Work]Before, error) {
	var s, e, o []string
	for _, w := range works {
		s, e, o = append(s, w.Source), append(e, w.ID), append(o, w.Operation)
	}
	rows, err := t.tx.Query(ctx, `SELECT k.s, k.e, k.o, coalesce(max(r.attempt), 0), coalesce(bool_or(r.outcome IN ('succeeded', 'superseded')), false),
			EXISTS (SELECT FROM catchment.retries w WHERE w.source = k.s AND w.event_id = k.e AND w.operation = k.o)
		FROM unnest($1::text[], $2::text[], $3::text[]) AS k(s, e, o)
		LEFT JOIN catchment.results r ON r.source = k.s AND r.event_id = k.e AND r.operation = k.o GROUP BY k.s, k.e, k.o`, s, e, o)
	if err != nil {
		return nil, &OwnError{"read results", err}
	}
	out := make(map[Work]Before, len(works))
	var w Work
	var b Before
	if _, err := pgx.ForEachRow(rows, []any{&w.Source, &w.ID, &w.Operation, &b.Attempts, &b.Effect, &b.Pending}, func() error {
		out[w] = b
		return nil
	}); err != nil {
		return nil, &OwnError{"read results", err}
	}
	return out, nil
}

// LockEvents locks the events that are stored, and returns them.
func (t *Tx) LockEvents(ctx context.Context, keys []Key) (map[Key]*event.Event, error) {
	places, err := t.places(ctx, keys)
	if err != nil {
		return nil, err
	}
	s, e, at := columnsOf(places)
	rows, err := t.tx.Query(ctx, `SELECT `+eventColumns+` FROM catchment.bodies b
		WHERE (b.source, b.event_id) IN (SELECT * FROM unnest($1::text[], $2::text[])) AND b.stored_at = ANY($3) ORDER BY b.seq FOR UPDATE`, onePlan, s, e, at)
	if err != nil {
		return nil, &OwnError{"read events", err}
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*event.Event, error) {
		ev := &event.Event{}
		return ev, scanEvent(row, ev)
	})
	if err != nil {
		return nil, &OwnError{"read events", err}
	}
	out := make(map[Key]*event.Event, len(list))
	for _, ev := range list {
		out[Key{ev.Source, ev.ID}] = ev
	}
	return out, nil
}

// Whole is a dead letter with the record that it keeps. Without an operation it is the record itself.
type Whole struct {
	Letter
	TopicID [16]byte
	Key     []byte
	Headers []RecordHeader
	Value   []byte
}

const letterColumns = `d.id, d.source, d.event_id, d.operation, d.reason, d.error, d.attempts, d.first_failed_at, d.last_failed_at,
	d.topic, d.partition, d."offset"`

func (l *Letter) targets() []any {
	return []any{
		&l.ID, &l.Source, &l.EventID, &l.Operation, &l.Reason, &l.Error, &l.Attempts, &l.FirstFailedAt, &l.LastFailedAt,
		&l.Topic, &l.Partition, &l.Offset,
	}
}

func scanWhole(row pgx.CollectableRow) (w Whole, err error) {
	var headers []byte
	if err := row.Scan(append(w.targets(), &w.TopicID, &w.Key, &headers, &w.Value)...); err != nil {
		return w, err
	}
	w.Headers, err = parseRecordHeaders(headers)
	return w, err
}

const wholeColumns = letterColumns + `, d.topic_id, d.key, d.headers, d.value`

func (q *query) letters(sel Selection) {
	for _, c := range []struct{ cond, value string }{
		{"d.source = %s", sel.Source},
		{"d.operation = %s", sel.Operation},
		{"d.reason = %s", sel.Reason},
	} {
		if c.value != "" {
			q.and(c.cond, c.value)
		}
	}
	if len(sel.EventIDs) > 0 {
		q.and("d.event_id = ANY(%s)", sel.EventIDs)
	}
	if len(sel.Letters) > 0 {
		q.and("d.id = ANY(%s)", sel.Letters)
	}
	if sel.Since != nil {
		q.and("d.last_failed_at >= %s", *sel.Since)
	}
	if sel.Until != nil {
		q.and("d.last_failed_at < %s", *sel.Until)
	}
	if len(sel.Types) > 0 {
		q.conditions = append(q.conditions, `EXISTS (SELECT FROM catchment.bodies b WHERE b.source = d.source AND b.event_id = d.event_id AND `+q.ofTypes(sel.Types)+`)`)
	}
}

// Letters lists dead letters, the newest first. before is the ID of the last one of the page before; 0: the first page.
func Letters(ctx context.Context, db *pgxpool.Pool, sel Selection, before int64, limit int) ([]Letter, error) {
	q := &query{}
	q.letters(sel)
	if before > 0 {
		q.and("d.id < %s", before)
	}
	rows, err := db.Query(ctx, `SELECT `+letterColumns+` FROM catchment.dead_letters d`+q.clause()+fmt.Sprintf(` ORDER BY d.id DESC LIMIT %d`, limit), append([]any{onePlan}, q.args...)...)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return collect(rows, "list dead letters", func(row pgx.CollectableRow) (l Letter, err error) {
		err = row.Scan(l.targets()...)
		return l, err
	})
}

// CountLetters counts the selected dead letters, and returns the greatest ID of them.
func CountLetters(ctx context.Context, db *pgxpool.Pool, sel Selection) (n, upto int64, err error) {
	q := &query{}
	q.letters(sel)
	if err := db.QueryRow(ctx, `SELECT count(*), coalesce(max(d.id), 0) FROM catchment.dead_letters d`+q.clause(), append([]any{onePlan}, q.args...)...).Scan(&n, &upto); err != nil {
		return 0, 0, fmt.Errorf("count dead letters: %w", err)
	}
	return n, upto, nil
}

// ErrNoLetter says that there is no such dead letter.
var ErrNoLetter = errors.New("there is no such dead letter")

// OneLetter returns a dead letter. The error wraps ErrNoLetter when it is not there.
func OneLetter(ctx context.Context, db *pgxpool.Pool, id int64) (*Whole, error) {
	rows, err := db.Query(ctx, `SELECT `+wholeColumns+` FROM catchment.dead_letters d WHERE d.id = $1`, id)
	if err != nil {
		return nil, fmt.Errorf("read dead letter: %w", err)
	}
	w, err := pgx.CollectExactlyOneRow(rows, scanWhole)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w: %d", ErrNoLetter, id)
	}
	if err != nil {
		return nil, fmt.Errorf("read dead letter: %w", err)
	}
	return &w, nil
}

// Viewed records that somebody has looked at a payload.
func Viewed(ctx context.Context, db *pgxpool.Pool, command string, act Act, selection map[string]any) error {
	return Record(ctx, db, command, act, selection, 1)
}

// Record records what somebody did.
func Record(ctx context.Context, db *pgxpool.Pool, command string, act Act, selection map[string]any, affected int64) error {
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		_, err := record(ctx, tx, command, act, selection, affected)
		return err
	})
	if err != nil {
		return fmt.Errorf("record the action: %w", err)
	}
	return nil
}

// DeadLetters locks the selected dead letters behind an ID, in order.
func (t *Tx) DeadLetters(ctx context.Context, sel Selection, after, upto int64, limit int) ([]Whole, error) {
	q := &query{}
	q.letters(sel)
	q.and("d.id > %s", after)
	q.and("d.id <= %s", upto)
	rows, err := t.tx.Query(ctx, `SELECT `+wholeColumns+` FROM catchment.dead_letters d`+q.clause()+fmt.Sprintf(` ORDER BY d.id LIMIT %d FOR UPDATE`, limit), q.args...)
	if err != nil {
		return nil, &OwnError{"read dead letters", err}
	}
	out, err := pgx.CollectRows(rows, scanWhole)
	if err != nil {
		return nil, &OwnError{"read dead letters", err}
	}
	return out, nil
}

// Bury removes a dead letter that holds a record, since its events are stored.
func (t *Tx) Bury(ctx context.Context, id int64) error {
	if _, err := t.tx.Exec(ctx, `DELETE FROM catchment.dead_letters WHERE id = $1`, id); err != nil {
		return &OwnError{"remove dead letter", err}
	}
	return nil
}

// FailedAgain counts one more attempt with a dead letter that holds a record.
func (t *Tx) FailedAgain(ctx context.Context, id int64, reason, message string) error {
	_, err := t.tx.Exec(ctx, `UPDATE catchment.dead_letters SET attempts = attempts + 1, last_failed_at = now(), reason = $2, error = $3 WHERE id = $1`,
		id, reason, clean(message))
	if err != nil {
		return &OwnError{"count the attempt", err}
	}
	return nil
}

// parseRecordHeaders is the inverse of recordHeaders.
func parseRecordHeaders(text []byte) ([]RecordHeader, error) {
	if len(text) == 0 {
		return nil, nil
	}
	var list []struct {
		Name   string  `json:"name"`
		Value  *string `json:"value"`
		Base64 *string `json:"base64"`
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("headers of a dead letter: %w", err)
	}
	out := make([]RecordHeader, len(list))
	for i, h := range list {
		out[i].Name = h.Name
		switch {
		case h.Value != nil:
			out[i].Value = []byte(*h.Value)
		case h.Base64 != nil:
			v, err := base64.StdEncoding.DecodeString(*h.Base64)
			if err != nil {
				return nil, fmt.Errorf("header %q of a dead letter: %w", h.Name, err)
			}
			out[i].Value = v
		}
	}
	return out, nil
}
