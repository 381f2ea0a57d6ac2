package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
)

// Event is a new event's row.
type Event struct {
	*event.Event
	Verdict string
	SHA256  []byte
	Status  string
	Note    string // empty: none
}

// Repeat is a further delivery of an event. With Conflict its body differs from the first; with Changed only in what its
// provider changes between retries.
type Repeat struct {
	*event.Event
	SHA256   []byte
	Conflict bool
	Changed  bool
}

// Result is the outcome of one attempt.
type Result struct {
	Key
	DeliveryID string
	Operation  string
	Definition []byte // SHA-256
	Attempt    int
	Outcome    string
	Entity     *string
	Version    *string
	Effect     *Effect // nil: the SQL was not run
	Error      string  // empty: none
	Started    time.Time
	Took       time.Duration
}

// Retry is an attempt still to be made.
type Retry struct {
	Key
	Operation   string
	Attempt     int
	In          time.Duration // from now
	FirstFailed time.Time
	Error       string
}

// DeadLetter is what will not be tried again. Without an operation it is a whole record, with Key, Headers and Value.
type DeadLetter struct {
	Source, EventID, Operation string // empty: null
	Reason, Error              string
	Attempts                   int
	FirstFailed, LastFailed    time.Time
	Position                   event.Position
	RecordKey, Value           []byte
	Headers                    []RecordHeader
}

// RecordHeader is a header of a Kafka record.
type RecordHeader struct {
	Name  string
	Value []byte
}

// Writes is all that a batch writes besides its identities and its operations' own effects.
type Writes struct {
	Repeats []Repeat
	States  []State // where they are not what Hold has stored
	Results []Result
	Retries []Retry
	Dead    []DeadLetter
	Newest  map[Guard]Newest

	Published []Publication
}

// Write stores the batch's rows, one statement a table, and moves the position.
func (t *Tx) Write(ctx context.Context, w *Writes, p Partition, owner uuid.UUID, next Position) error {
	b := &pgx.Batch{}
	moved := int64(0)
	sql := `UPDATE catchment.progress SET next_offset = $3, leader_epoch = $4, updated_at = now()
		WHERE topic_id = $1 AND partition = $2 AND owner = $5`
	if mutant.On(mutant.M5) {
		sql = mutantUnfenced(sql)
	}
	b.Queue(sql, p.TopicID, p.Partition, next.Next, next.LeaderEpoch, owner).
		Exec(func(tag pgconn.CommandTag) error { moved = tag.RowsAffected(); return nil })
	if err := t.write(ctx, w, b); err != nil {
		return err
	}
	if moved != 1 {
		return ErrFenced
	}
	t.arm(failpoint.CommitSent)
	return nil
}

// arm says which point the transaction's COMMIT passes.
func (t *Tx) arm(p failpoint.Point) { failpoint.Arm(t.tx.Conn().PgConn().Conn(), p) }

// WriteFree is Write for a batch that moves no position.
func (t *Tx) WriteFree(ctx context.Context, w *Writes) error {
	return t.write(ctx, w, &pgx.Batch{})
}

// write stores w, in one round trip with what last holds, and the results in one of their own.
func (t *Tx) write(ctx context.Context, w *Writes, last *pgx.Batch) error {
	if err := t.restate(ctx, w.States); err != nil {
		return err
	}
	b := &pgx.Batch{}
	w.queue(t, b)
	b.QueuedQueries = append(b.QueuedQueries, last.QueuedQueries...)
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return &OwnError{"write batch", err}
	}
	if len(w.Results) == 0 {
		return nil
	}
	return t.copyResults(ctx, w.Results)
}

func (w *Writes) queue(t *Tx, b *pgx.Batch) {
	if t.marked { // our own writes belong to the transaction that locked their rows, not to the savepoint's
		b.Queue(releaseOperations)
		t.marked = false
	}
	t.setTimeout(b, ownTimeout)
	if len(w.Repeats) > 0 {
		queueRepeats(b, w.Repeats)
	}
	w.queueOutbox(t, b)
	if len(w.Retries) > 0 {
		queueRetries(b, w.Retries)
	}
	if len(w.Dead) > 0 {
		queueDead(b, w.Dead)
	}
	queueNewest(b, w.Newest, t.entered)
	t.entered = nil
}

// copyEvents stores new events' rows.
func (t *Tx) copyEvents(ctx context.Context, events []Event) error {
	r := rowsOf(len(events), 21, 1<<10, len(events))
	var scratch []byte // the headers of one event
	for i := range events {
		e := &events[i]
		r.row()
		r.text(e.Source)
		r.text(e.ID)
		r.text(clean(e.Type))
		r.time(e.Time)
		r.instant(e.ReceivedAt)
		r.text(clean(e.Provider))
		r.text(clean(e.Verdict))
		r.text(clean(e.SecretID))
		r.text(clean(e.ContentType))
		scratch = appendHeaders(scratch[:0], e.Headers)
		r.json(scratch)
		r.blob(notNil(e.Body))
		r.bytes(e.SHA256)
		r.uuid(e.DeliveryID)
		r.int4(e.Index)
		r.text(e.Position.Topic)
		r.bytes(e.Position.TopicID[:])
		r.int4(int(e.Position.Partition))
		r.int8(e.Position.Offset)
		r.int4(int(e.Position.LeaderEpoch))
		r.text(e.Status)
		r.some(clean(e.Note))
	}
	return t.copyIn(ctx, "store events", `COPY catchment.bodies (source, event_id, type, event_time, received_at, provider, verdict, secret_id,
		content_type, headers, body, body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch, status, note)
		FROM STDIN (FORMAT binary)`, r)
}

// State is what became of an event whose row was stored before.
type State struct {
	Key
	Status string
}

// restate changes the states of events that this transaction has stored.
func (t *Tx) restate(ctx context.Context, states []State) error {
	if len(states) == 0 {
		return nil
	}
	n := len(states)
	source, id, status := text(n), text(n), text(n)
	for i, s := range states {
		source[i], id[i], status[i] = s.Source, s.ID, s.Status
	}
	if _, err := t.tx.Exec(ctx, `UPDATE catchment.bodies b SET status = x.status FROM unnest($1::text[], $2::text[], $3::text[]) AS x(source, event_id, status)
		WHERE b.source = x.source AND b.event_id = x.event_id AND b.stored_at = $4`, onePlan, source, id, status, t.began); err != nil {
		return &OwnError{"write states", err}
	}
	return nil
}

func queueRepeats(b *pgx.Batch, repeats []Repeat) {
	for _, conflict := range []bool{false, true} {
		n := 0
		for i := range repeats {
			if repeats[i].Conflict == conflict {
				n++
			}
		}
		if n > 0 {
			queueRepeated(b, repeats, conflict, n)
		}
	}
}

// queueRepeated queues those that are conflicts, or those that are none.
func queueRepeated(b *pgx.Batch, repeats []Repeat, conflict bool, n int) {
	var (
		source, id, topic = columnOf(pgtype.TextOID, n, 16), columnOf(pgtype.TextOID, n, 40), columnOf(pgtype.TextOID, n, 24)
		delivery, topicID = columnOf(pgtype.UUIDOID, n, 16), columnOf(pgtype.UUIDOID, n, 16)
		received, offset  = columnOf(pgtype.TimestamptzOID, n, 8), columnOf(pgtype.Int8OID, n, 8)
		partition, index  = columnOf(pgtype.Int4OID, n, 4), columnOf(pgtype.Int4OID, n, 4)
		headers, sha      = columnOf(pgtype.JSONBOID, n, 512), columnOf(pgtype.ByteaOID, n, 32)
		body              = make(blobs, 0, n)
	)
	for i := range repeats {
		r := &repeats[i]
		if r.Conflict != conflict {
			continue
		}
		source.text(r.Source)
		id.text(r.ID)
		delivery.uuid(r.DeliveryID)
		received.instant(r.ReceivedAt)
		topic.text(r.Position.Topic)
		topicID.bytes(r.Position.TopicID[:])
		partition.int4(int(r.Position.Partition))
		offset.int8(r.Position.Offset)
		index.int4(r.Index)
		if conflict || r.Changed {
			sha.bytes(r.SHA256)
		} else {
			sha.null()
		}
		if conflict {
			headers.json(appendHeaders(nil, r.Headers))
			body = append(body, notNil(r.Body))
		}
	}
	if !conflict {
		b.Queue(`INSERT INTO catchment.duplicates (source, event_id, delivery_id, received_at, topic, topic_id, partition, "offset", delivery_index, body_sha256)
			SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::timestamptz[], $5::text[], $6::uuid[], $7::int[], $8::bigint[], $9::int[], $10::bytea[])
			ON CONFLICT DO NOTHING`, source, id, delivery, received, topic, topicID, partition, offset, index, sha)
		return
	}
	b.Queue(`INSERT INTO catchment.conflicts (source, event_id, delivery_id, received_at, topic, topic_id, partition, "offset", delivery_index, headers, body_sha256, body)
		SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::timestamptz[], $5::text[], $6::uuid[], $7::int[], $8::bigint[], $9::int[],
			$10::jsonb[], $11::bytea[], $12::bytea[]) ON CONFLICT DO NOTHING`,
		source, id, delivery, received, topic, topicID, partition, offset, index, headers, sha, body)
}

func (t *Tx) copyResults(ctx context.Context, results []Result) error {
	rs := rowsOf(len(results), 14, 256, 0)
	for i := range results {
		r := &results[i]
		rs.row()
		rs.text(r.Source)
		rs.text(r.ID)
		rs.uuid(r.DeliveryID)
		rs.text(r.Operation)
		rs.bytes(r.Definition)
		rs.int4(r.Attempt)
		rs.text(r.Outcome)
		rs.maybe(r.Entity)
		rs.maybe(r.Version)
		rs.some(clean(r.Error))
		if e := r.Effect; e != nil {
			rs.int8(e.Rows)
			rs.json(e.Returned)
			rs.instant(e.Started)
			rs.interval(e.Took)
			continue
		}
		rs.null()
		rs.null()
		rs.instant(r.Started)
		rs.interval(r.Took)
	}
	return t.copyIn(ctx, "store results", `COPY catchment.results (source, event_id, delivery_id, operation, definition_sha256, attempt, outcome, entity, version,
		error, rows_affected, returned, started_at, duration) FROM STDIN (FORMAT binary)`, rs)
}

// queueRetries queues attempts of distinct operations or events.
func queueRetries(b *pgx.Batch, retries []Retry) {
	n := len(retries)
	source, id, operation, message := text(n), text(n), text(n), text(n)
	attempt, in, first := columnOf(pgtype.Int4OID, n, 4), columnOf(pgtype.IntervalOID, n, 16), columnOf(pgtype.TimestamptzOID, n, 8)
	for i := range retries {
		r := &retries[i]
		source[i], id[i], operation[i], message[i] = r.Source, r.ID, r.Operation, clean(r.Error)
		attempt.int4(r.Attempt)
		in.interval(r.In)
		first.instant(r.FirstFailed)
	}
	b.Queue(`INSERT INTO catchment.retries (source, event_id, operation, attempt, due_at, first_failed_at, error)
		SELECT s, e, o, a, now() + i, f, m
		FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::interval[], $6::timestamptz[], $7::text[]) AS x(s, e, o, a, i, f, m)
		ON CONFLICT (source, event_id, operation) DO UPDATE SET attempt = excluded.attempt, due_at = excluded.due_at, error = excluded.error`,
		source, id, operation, attempt, in, first, message)
}

// queueDead queues dead letters of distinct operations, events or records.
func queueDead(b *pgx.Batch, letters []DeadLetter) {
	n := len(letters)
	var (
		source, id, operation  = columnOf(pgtype.TextOID, n, 16), columnOf(pgtype.TextOID, n, 40), columnOf(pgtype.TextOID, n, 24)
		reason, message, topic = columnOf(pgtype.TextOID, n, 16), columnOf(pgtype.TextOID, n, 64), columnOf(pgtype.TextOID, n, 24)
		attempts, partition    = columnOf(pgtype.Int4OID, n, 4), columnOf(pgtype.Int4OID, n, 4)
		first, last            = columnOf(pgtype.TimestamptzOID, n, 8), columnOf(pgtype.TimestamptzOID, n, 8)
		topicID, offset        = columnOf(pgtype.UUIDOID, n, 16), columnOf(pgtype.Int8OID, n, 8)
		headers                = columnOf(pgtype.JSONBOID, n, 0)
		key, value             = make(blobs, n), make(blobs, n)
	)
	for i := range letters {
		d := &letters[i]
		source.some(clean(d.Source))
		id.some(clean(d.EventID))
		operation.some(d.Operation)
		reason.text(d.Reason)
		message.text(clean(d.Error))
		attempts.int4(d.Attempts)
		first.instant(d.FirstFailed)
		last.instant(d.LastFailed)
		topic.text(d.Position.Topic)
		topicID.bytes(d.Position.TopicID[:])
		partition.int4(int(d.Position.Partition))
		offset.int8(d.Position.Offset)
		key[i], value[i] = d.RecordKey, d.Value
		if d.Headers == nil {
			headers.null()
			continue
		}
		headers.json([]byte(recordHeaders(d.Headers)))
	}
	b.Queue(`INSERT INTO catchment.dead_letters (source, event_id, operation, reason, error, attempts, first_failed_at, last_failed_at,
			topic, topic_id, partition, "offset", key, headers, value)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::timestamptz[], $8::timestamptz[],
			$9::text[], $10::uuid[], $11::int[], $12::bigint[], $13::bytea[], $14::jsonb[], $15::bytea[])
		ON CONFLICT (source, event_id, operation) WHERE operation IS NOT NULL
		DO UPDATE SET reason = excluded.reason, error = excluded.error, attempts = excluded.attempts, last_failed_at = excluded.last_failed_at`,
		source, id, operation, reason, message, attempts, first, last, topic, topicID, partition, offset, key, headers, value)
}

// queueNewest writes what the guards hold from now on, where their rows do not hold it yet.
func queueNewest(b *pgx.Batch, newest, entered map[Guard]Newest) {
	write := make(map[Guard]Newest, len(newest))
	for g, n := range newest {
		if e, ok := entered[g]; !ok || e.Less(n) || n.Less(e) {
			write[g] = n
		}
	}
	for g := range entered {
		if _, ok := newest[g]; !ok {
			write[g] = Newest{} // nothing went well
		}
	}
	if len(write) == 0 {
		return
	}
	b.Queue(`UPDATE catchment.entities n SET version = x.v, event_id = x.i, source = x.s, updated_at = now()
		FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::text[]) AS x(g, e, v, i, s)
		WHERE n.guard = x.g AND n.entity = x.e`, guardColumns(SortedGuards(write), write)...)
}

func text(n int) []string { return make([]string, n) }

func null(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

const maxText = 4 << 10 // bytes of a message that is stored

// clean makes a text that Postgres can store: UTF-8 without U+0000, not longer than maxText.
func clean(s string) string {
	if len(s) > maxText {
		s = s[:maxText] + "…"
	}
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// Storable says why a key cannot be a row's key; nil: it can.
func (k Key) Storable() error {
	for _, s := range []string{k.Source, k.ID} {
		switch {
		case len(s) > maxKey:
			return fmt.Errorf("the event ID is longer than %d bytes", maxKey)
		case !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0:
			return errors.New("the event ID is not UTF-8 without U+0000")
		}
	}
	return nil
}

const maxKey = 1024 // bytes; a row of an index holds 2,704 at most

// appendHeaders writes the headers as JSON, for people and queries; the exact bytes are in Kafka and in the archive.
func appendHeaders(b []byte, h map[string][]string) []byte {
	b = append(b, '{')
	for name, values := range h {
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(appendQuoted(b, clean(name)), ':', '[')
		for i, v := range values {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendQuoted(b, v)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// appendQuoted writes a text as JSON that Postgres can store.
func appendQuoted(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return append(b, quote(strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD"))...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// recordHeaders keeps every header of a record: as text where it is one, else in base64.
func recordHeaders(hs []RecordHeader) string {
	type header struct {
		Name   string  `json:"name"`
		Value  *string `json:"value,omitempty"`
		Base64 *string `json:"base64,omitempty"`
	}
	out := make([]header, len(hs))
	for i, h := range hs {
		out[i].Name = clean(h.Name)
		s := string(h.Value)
		if utf8.ValidString(s) && !strings.Contains(s, "\x00") {
			out[i].Value = &s
			continue
		}
		s = base64.StdEncoding.EncodeToString(h.Value)
		out[i].Base64 = &s
	}
	b, _ := json.Marshal(out) // texts always have a JSON form
	return string(b)
}

// SortedGuards returns the keys in the order in which they are locked.
func SortedGuards[V any](m map[Guard]V) []Guard {
	return slices.SortedFunc(maps.Keys(m), func(a, b Guard) int {
		if a.Scope != b.Scope {
			return cmpString(a.Scope, b.Scope)
		}
		return cmpString(a.Entity, b.Entity)
	})
}
