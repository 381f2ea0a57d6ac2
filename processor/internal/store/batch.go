package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/catchment-dev/catchment/pkg/mutant"
)

// Errors of a batch. Everything else is an error of the database or the way to it: see Classify.
var (
	ErrFenced  = errors.New("another owner has the partition")
	ErrMoved   = errors.New("the stored position is not the expected one")
	ErrUnknown = errors.New("the outcome of COMMIT is unknown")
)

// OwnError is an error of one of our own statements: no operation is to blame.
type OwnError struct {
	What string
	Err  error
}

func (e *OwnError) Error() string { return e.What + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OwnError) Unwrap() error { return e.Err }

// Partition is one partition of one topic, by the topic's ID: a topic that was made anew is another one.
type Partition struct {
	Topic     string
	TopicID   [16]byte
	Partition int32
}

// Position is where a partition's consumer stands.
type Position struct {
	Next        int64
	LeaderEpoch int32 // of the last record consumed; -1: none
}

// Key names an event.
type Key struct{ Source, ID string }

// Compare orders keys bytewise, as the database does.
func (k Key) Compare(l Key) int {
	switch {
	case k.Source != l.Source:
		return cmpString(k.Source, l.Source)
	default:
		return cmpString(k.ID, l.ID)
	}
}

func cmpString(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Identity is an event's row in the inbox.
type Identity struct {
	Key
	SHA256     []byte
	DeliveryID string
	FirstSeen  time.Time // of a stored one
}

// Tx is one batch's transaction.
type Tx struct {
	tx      pgx.Tx
	timeout time.Duration    // current statement_timeout
	idle    time.Duration    // how long the server waits for a statement of ours
	marked  bool             // the savepoint before the operations is there
	results string           // topic of the results; empty: they are not published
	began   time.Time        // as now() has it
	entered map[Guard]Newest // what the rows of guards hold that are new
	as      *surroundings    // under which all runs; nil: as the session is
}

// Begin starts a transaction. statement bounds each of our own statements, idle the time in which the server hears
// nothing from us: a frozen process loses its locks after that.
func (s *Store) Begin(ctx context.Context, statement, idle time.Duration) (*Tx, error) {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return nil, &OwnError{"begin", err}
	}
	t := &Tx{tx: tx, timeout: statement, idle: idle, results: s.results, as: s.as.Load()}
	names, values := t.as.columns()
	if err := tx.QueryRow(ctx, `SELECT now(), set_config('statement_timeout', $1, true), set_config('idle_in_transaction_session_timeout', $2, true),
		CASE WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', true) END,
		(SELECT count(set_config(n, v, true)) FROM unnest($3::text[], $4::text[]) AS s(n, v) WHERE current_setting(n) IS DISTINCT FROM v)`,
		millis(statement), millis(idle), names, values).Scan(&t.began, nil, nil, nil, nil); err != nil {
		t.Rollback(ctx)
		return nil, &OwnError{"begin", err}
	}
	return t, nil
}

func millis(d time.Duration) string { return strconv.FormatInt(max(d.Milliseconds(), 1), 10) }

// Rollback ends the transaction without effect. It does nothing after Commit.
func (t *Tx) Rollback(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelGrace)
	defer cancel()
	_ = t.tx.Rollback(ctx) // the connection is closed when this fails, and the server rolls back
}

// Commit ends the transaction, under its own deadline. ErrUnknown: nobody answered, ask Progress what happened.
// Any other error means that the transaction was rolled back.
func (t *Tx) Commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	err := t.tx.Commit(ctx)
	var pe *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, pgx.ErrTxCommitRollback), errors.As(err, &pe) && !lostConnection(pe.Code):
		return fmt.Errorf("commit: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// lostConnection: the server ended the session; whether before or after the commit it does not say. A COMMIT that was
// cancelled (57014), as when a deferred trigger takes too long, was rolled back: past that point it can no longer be.
func lostConnection(code string) bool {
	return code != "57014" && (code[:2] == "57" || code[:2] == "08" || code[:2] == "XX")
}

// Claim makes owner the partition's owner and returns where to go on; a partition that was never consumed begins at
// logStart. It waits for the old owner's open transaction. After patience it ends that owner's session, if it may.
func (s *Store) Claim(ctx context.Context, p Partition, logStart int64, owner uuid.UUID, patience time.Duration) (Position, error) {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return Position{}, &OwnError{"claim", err}
	}
	t := &Tx{tx: tx}
	defer t.Rollback(ctx)
	var pid int32
	if err := tx.QueryRow(ctx, `SELECT pg_backend_pid(), set_config('statement_timeout', $1, true), set_config('lock_timeout', '0', true)`,
		millis(ownTimeout)).Scan(&pid, nil, nil); err != nil { // those of the role might be shorter than patience
		return Position{}, &OwnError{"claim", err}
	}
	timer := time.AfterFunc(patience, func() { s.evict(ctx, pid) })
	defer timer.Stop()
	var pos Position
	err = tx.QueryRow(ctx, `INSERT INTO catchment.progress AS p (topic, topic_id, partition, next_offset, owner) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (topic_id, partition) DO UPDATE SET owner = excluded.owner, topic = excluded.topic
		RETURNING p.next_offset, p.leader_epoch`,
		p.Topic, p.TopicID, p.Partition, logStart, owner).Scan(&pos.Next, &pos.LeaderEpoch)
	if err != nil {
		return Position{}, &OwnError{"claim", err}
	}
	if err := t.Commit(ctx); err != nil {
		return Position{}, &OwnError{"claim", err} // claiming once more is harmless
	}
	return pos, nil
}

// evict ends the processors' sessions for which ours waits; a migration that locks the table is left alone. Without the right to do so the old owner's idle timeout must pass.
func (s *Store) evict(ctx context.Context, pid int32) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	_, _ = s.pool.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
		WHERE pid = ANY(pg_blocking_pids($1)) AND application_name = current_setting('application_name')`, pid)
}

// Progress reads a partition's position and owner, after any transaction on it has ended. It takes its lock back by
// ROLLBACK: a COMMIT would wait for a synchronous standby.
func (s *Store) Progress(ctx context.Context, p Partition) (Position, uuid.UUID, error) {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return Position{}, uuid.UUID{}, &OwnError{"read position", err}
	}
	defer (&Tx{tx: tx}).Rollback(ctx)
	var pos Position
	var owner uuid.UUID
	err = tx.QueryRow(ctx, `SELECT next_offset, leader_epoch, owner FROM catchment.progress WHERE topic_id = $1 AND partition = $2 FOR UPDATE`,
		p.TopicID, p.Partition).Scan(&pos.Next, &pos.LeaderEpoch, &owner)
	if err != nil {
		return Position{}, uuid.UUID{}, &OwnError{"read position", err}
	}
	return pos, owner, nil
}

// Held is a stored position and whose it is.
type Held struct {
	Next  int64
	Owner uuid.UUID
}

// Positions reads the positions of a topic's partitions, as they were committed last.
func (s *Store) Positions(ctx context.Context, topicID [16]byte) (map[int32]Held, error) {
	rows, err := s.pool.Query(ctx, `SELECT partition, next_offset, owner FROM catchment.progress WHERE topic_id = $1`, topicID)
	if err != nil {
		return nil, &OwnError{"read positions", err}
	}
	held := map[int32]Held{}
	var p int32
	var h Held
	if _, err := pgx.ForEachRow(rows, []any{&p, &h.Next, &h.Owner}, func() error { held[p] = h; return nil }); err != nil {
		return nil, &OwnError{"read positions", err}
	}
	return held, nil
}

// Enter locks the partition's position, checks owner and position, and stores the identities, which must be sorted
// and distinct. It says of each whether it is new. ErrFenced and ErrMoved say that the batch is not ours to write.
func (t *Tx) Enter(ctx context.Context, p Partition, owner uuid.UUID, expected int64, ids []Identity) ([]bool, error) {
	var next int64
	var has uuid.UUID
	fresh := make([]bool, len(ids))
	b := &pgx.Batch{}
	b.Queue(`SELECT next_offset, owner FROM catchment.progress WHERE topic_id = $1 AND partition = $2 FOR UPDATE`, p.TopicID, p.Partition).
		QueryRow(func(row pgx.Row) error { return row.Scan(&next, &has) })
	queueIdentities(b, ids, fresh)
	err := t.tx.SendBatch(ctx, b).Close()
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, ErrMoved
	case err != nil:
		return nil, &OwnError{"store identities", err}
	case mutant.On(mutant.M5):
	case has != owner:
		return nil, ErrFenced
	case mutant.On(mutant.M4):
	case next != expected:
		return nil, fmt.Errorf("%w: expected %d, found %d", ErrMoved, expected, next)
	}
	if mutant.On(mutant.M6) {
		mutantAllNew(fresh)
	}
	if mutant.On(mutant.M8) {
		return fresh, mutantCommit(ctx, t)
	}
	return fresh, nil
}

// EnterFree stores the identities of events that do not move a position, and says of each whether it is new.
func (t *Tx) EnterFree(ctx context.Context, ids []Identity) ([]bool, error) {
	fresh := make([]bool, len(ids))
	b := &pgx.Batch{}
	queueIdentities(b, ids, fresh)
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return nil, &OwnError{"store identities", err}
	}
	return fresh, nil
}

func queueIdentities(b *pgx.Batch, ids []Identity, fresh []bool) {
	if len(ids) == 0 {
		return
	}
	n := len(ids)
	source, id, sha, delivery := columnOf(pgtype.TextOID, n, 16), columnOf(pgtype.TextOID, n, 40), columnOf(pgtype.ByteaOID, n, 32), columnOf(pgtype.UUIDOID, n, 16)
	for i := range ids {
		source.text(ids[i].Source)
		id.text(ids[i].ID)
		sha.bytes(ids[i].SHA256)
		delivery.uuid(ids[i].DeliveryID)
	}
	sql := `INSERT INTO catchment.identities (source, event_id, body_sha256, first_seen_at, delivery_id)
		SELECT s, e, h, now(), d FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[]) AS t(s, e, h, d)
		ON CONFLICT DO NOTHING RETURNING source, event_id`
	if mutant.On(mutant.M7) || mutant.On(mutant.M17) {
		sql = mutantIdentities(sql)
	}
	b.Queue(sql, source, id, sha, delivery).
		Query(func(rows pgx.Rows) error {
			var k Key
			next := 0
			_, err := pgx.ForEachRow(rows, []any{&k.Source, &k.ID}, func() error {
				if next == n || ids[next].Key != k { // rows come in the order of ids, but for those that were there
					next, _ = slices.BinarySearchFunc(ids, k, func(id Identity, k Key) int { return id.Key.Compare(k) })
				}
				fresh[next] = true
				next++
				return nil
			})
			return err
		})
}

// Known returns the stored identities of keys.
func (t *Tx) Known(ctx context.Context, keys []Key) (map[Key]Identity, error) {
	s, e := make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		s[i], e[i] = k.Source, k.ID
	}
	rows, err := t.tx.Query(ctx, `SELECT i.source, i.event_id, i.body_sha256, i.delivery_id::text, i.first_seen_at FROM catchment.identities i
		JOIN unnest($1::text[], $2::text[]) AS t(s, e) ON i.source = t.s AND i.event_id = t.e`, s, e)
	if err != nil {
		return nil, &OwnError{"read identities", err}
	}
	known := make(map[Key]Identity, len(keys))
	var id Identity
	if _, err = pgx.ForEachRow(rows, []any{&id.Source, &id.ID, &id.SHA256, &id.DeliveryID, &id.FirstSeen}, func() error {
		known[id.Key] = id
		return nil
	}); err != nil {
		return nil, &OwnError{"read identities", err}
	}
	return known, nil
}

// Alike asks for the stored body of an event if it is about as long as another one.
type Alike struct {
	Identity
	Size int // bytes
}

// sizeDiffers is by how many bytes the bodies of one event differ at most that are compared.
const sizeDiffers = 1 << 10

// Bodies returns stored bodies, in the order of the questions; nil: the body is gone, or has another length. So they are not
// much more bytes than those that they are compared with.
func (t *Tx) Bodies(ctx context.Context, asked []Alike) ([][]byte, error) {
	bodies := make([][]byte, len(asked))
	if len(asked) == 0 {
		return bodies, nil
	}
	b := &pgx.Batch{}
	for i, a := range asked {
		b.Queue(`SELECT body FROM catchment.bodies WHERE source = $1 AND event_id = $2 AND stored_at = $3 AND octet_length(body) BETWEEN $4 AND $5`,
			a.Source, a.ID, a.FirstSeen, a.Size-sizeDiffers, a.Size+sizeDiffers).Query(func(rows pgx.Rows) error {
			_, err := pgx.ForEachRow(rows, []any{&bodies[i]}, func() error { return nil })
			return err
		})
	}
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return nil, &OwnError{"read bodies", err}
	}
	return bodies, nil
}

// Guard names an entity within a newest-wins scope.
type Guard struct{ Scope, Entity string }

// Newest is what was written last to an entity. The zero value is older than everything.
type Newest struct {
	Version []byte
	ID      string
	Source  string
}

// Less orders writes: by version, then by event ID, then by source, so that the end state never depends on order.
func (n Newest) Less(m Newest) bool {
	if c := cmpString(string(n.Version), string(m.Version)); c != 0 {
		return c < 0
	}
	if n.ID != m.ID {
		return n.ID < m.ID
	}
	return n.Source < m.Source
}

// Hold stores new events' rows, and then locks the rows of guards and returns what they hold. The events come first, as
// they are most of the work: other partitions wait for the locks.
// want is what each guard would hold if all went well: one that has no row gets one that holds it already, and what is
// written in the end (Writes.Newest) decides whether that stands. All locks are taken in one order, first those on new rows.
func (t *Tx) Hold(ctx context.Context, events []Event, want map[Guard]Newest) (map[Guard]Newest, error) {
	held := make(map[Guard]Newest, len(want))
	guards := SortedGuards(want)
	if len(events) > 0 {
		if err := t.copyEvents(ctx, events); err != nil {
			return nil, err
		}
	}
	for len(guards) > 0 { // more than once only where a row was removed meanwhile
		there, err := t.enter(ctx, guards, want)
		if err != nil {
			return nil, err
		}
		if guards, err = t.lock(ctx, there, held); err != nil {
			return nil, err
		}
	}
	return held, nil
}

// enter inserts the guards' rows that are missing, and returns the guards whose rows are there.
func (t *Tx) enter(ctx context.Context, guards []Guard, want map[Guard]Newest) (there []Guard, err error) {
	rows, err := t.tx.Query(ctx, `INSERT INTO catchment.entities (guard, entity, version, event_id, source)
		SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::text[]) ON CONFLICT DO NOTHING RETURNING guard, entity`,
		guardColumns(guards, want)...)
	if err != nil {
		return nil, &OwnError{"store entities", err}
	}
	next := 0
	var g Guard
	if _, err := pgx.ForEachRow(rows, []any{&g.Scope, &g.Entity}, func() error {
		for ; guards[next] != g; next++ { // rows come in the order of guards
			there = append(there, guards[next])
		}
		next++
		if t.entered == nil {
			t.entered = map[Guard]Newest{}
		}
		t.entered[g] = want[g]
		return nil
	}); err != nil {
		return nil, &OwnError{"store entities", err}
	}
	return append(there, guards[next:]...), nil
}

// lock locks guards' rows and adds what they hold. It returns the guards that have none.
func (t *Tx) lock(ctx context.Context, guards []Guard, held map[Guard]Newest) (missing []Guard, err error) {
	if len(guards) == 0 {
		return nil, nil
	}
	scopes, entities := make([]string, len(guards)), make([]string, len(guards))
	for i, g := range guards {
		scopes[i], entities[i] = g.Scope, g.Entity
	}
	rows, err := t.tx.Query(ctx, `SELECT x.i, n.version, n.event_id, n.source FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS x(g, e, i)
		JOIN catchment.entities n ON n.guard = x.g AND n.entity = x.e ORDER BY x.i FOR UPDATE OF n`, scopes, entities)
	if err != nil {
		return nil, &OwnError{"lock entities", err}
	}
	var at int
	var n Newest
	next := 0
	if _, err := pgx.ForEachRow(rows, []any{&at, &n.Version, &n.ID, &n.Source}, func() error {
		missing = append(missing, guards[next:at-1]...)
		held[guards[at-1]], next = n, at
		return nil
	}); err != nil {
		return nil, &OwnError{"lock entities", err}
	}
	return append(missing, guards[next:]...), nil
}

// guardColumns are the arguments of statements on the guards' rows.
func guardColumns(guards []Guard, of map[Guard]Newest) []any {
	n := len(guards)
	scope, entity, version, id, source := text(n), text(n), make(blobs, n), text(n), text(n)
	for i, g := range guards {
		v := of[g]
		scope[i], entity[i], version[i], id[i], source[i] = g.Scope, g.Entity, notNil(v.Version), v.ID, v.Source
	}
	return []any{scope, entity, version, id, source}
}
