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

	"github.com/catchment-dev/catchment/pkg/event"
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

// Repeat is a further delivery of an event; with Conflict its body differs from the first.
type Repeat struct {
	*event.Event
	SHA256   []byte
	Conflict bool
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
	Events  []Event
	Repeats []Repeat
	Results []Result
	Retries []Retry
	Dead    []DeadLetter
	Newest  map[Guard]Newest

	Published []Publication
}

// Write stores the batch's rows, one statement a table, and moves the position, all in one round trip.
func (t *Tx) Write(ctx context.Context, w *Writes, p Partition, owner uuid.UUID, next Position) error {
	b := &pgx.Batch{}
	w.queue(t, b)
	moved := int64(0)
	b.Queue(`UPDATE catchment.progress SET next_offset = $3, leader_epoch = $4, updated_at = now()
		WHERE topic_id = $1 AND partition = $2 AND owner = $5`, p.TopicID, p.Partition, next.Next, next.LeaderEpoch, owner).
		Exec(func(tag pgconn.CommandTag) error { moved = tag.RowsAffected(); return nil })
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return &OwnError{"write batch", err}
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
	b := &pgx.Batch{}
	w.queue(t, b)
	if err := t.tx.SendBatch(ctx, b).Close(); err != nil {
		return &OwnError{"write batch", err}
	}
	return nil
}

func (w *Writes) queue(t *Tx, b *pgx.Batch) {
	if t.marked { // our own writes belong to the transaction that locked their rows, not to the savepoint's
		b.Queue(releaseOperations)
		t.marked = false
	}
	t.setTimeout(b, ownTimeout)
	if len(w.Events) > 0 {
		queueEvents(b, w.Events)
	}
	if len(w.Repeats) > 0 {
		queueRepeats(b, w.Repeats)
	}
	if len(w.Results) > 0 {
		queueResults(b, w.Results)
	}
	w.queueOutbox(t, b)
	for _, r := range w.Retries {
		b.Queue(`INSERT INTO catchment.retries (source, event_id, operation, attempt, due_at, first_failed_at, error)
			VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5), $6, $7)
			ON CONFLICT (source, event_id, operation) DO UPDATE SET attempt = excluded.attempt, due_at = excluded.due_at, error = excluded.error`,
			r.Source, r.ID, r.Operation, r.Attempt, r.In.Seconds(), r.FirstFailed, clean(r.Error))
	}
	for i := range w.Dead {
		queueDead(b, &w.Dead[i])
	}
	if len(w.Newest) > 0 {
		queueNewest(b, w.Newest)
	}
}

func queueEvents(b *pgx.Batch, events []Event) {
	n := len(events)
	var (
		source, id, typ, status, prov, verdict = text(n), text(n), text(n), text(n), text(n), text(n)
		secret, ctype, headers, delivery       = text(n), text(n), text(n), text(n)
		topic, note                            = text(n), make([]*string, n)
		topicID                                = make([]uuid.UUID, n)
		at                                     = make([]*time.Time, n)
		received                               = make([]time.Time, n)
		body, sha                              = make(blobs, n), make(blobs, n)
		index, partition, epoch                = make([]int32, n), make([]int32, n), make([]int32, n)
		offset                                 = make([]int64, n)
	)
	for i := range events {
		e := &events[i]
		source[i], id[i], typ[i], status[i] = e.Source, e.ID, clean(e.Type), e.Status
		prov[i], verdict[i], secret[i], ctype[i] = clean(e.Provider), clean(e.Verdict), clean(e.SecretID), clean(e.ContentType)
		headers[i], delivery[i], topic[i], topicID[i] = headerJSON(e.Headers), e.DeliveryID, e.Position.Topic, e.Position.TopicID
		note[i], at[i], received[i] = null(clean(e.Note)), instant(e.Time), e.ReceivedAt
		body[i], sha[i] = notNil(e.Body), e.SHA256
		index[i], partition[i], epoch[i], offset[i] = int32(e.Index), e.Position.Partition, e.Position.LeaderEpoch, e.Position.Offset
	}
	b.Queue(`INSERT INTO catchment.bodies (source, event_id, type, event_time, received_at, status, provider, verdict, secret_id,
			content_type, headers, body_sha256, delivery_id, delivery_index, topic, topic_id, partition, "offset", leader_epoch, note, body)
		SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[], $6::text[], $7::text[], $8::text[],
			$9::text[], $10::text[], $11::jsonb[], $12::bytea[], $13::uuid[], $14::int[], $15::text[], $16::uuid[],
			$17::int[], $18::bigint[], $19::int[], $20::text[], $21::bytea[])`,
		source, id, typ, at, received, status, prov, verdict, secret, ctype, headers, sha, delivery, index, topic, topicID,
		partition, offset, epoch, note, body) // the longest last: behind it the buffer does not grow again
}

func queueRepeats(b *pgx.Batch, repeats []Repeat) {
	for _, r := range repeats {
		if r.Conflict {
			b.Queue(`INSERT INTO catchment.conflicts (source, event_id, delivery_id, received_at, body, body_sha256, headers, topic, topic_id, partition, "offset", delivery_index)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT DO NOTHING`,
				r.Source, r.ID, r.DeliveryID, r.ReceivedAt, notNil(r.Body), r.SHA256, headerJSON(r.Headers),
				r.Position.Topic, uuid.UUID(r.Position.TopicID), r.Position.Partition, r.Position.Offset, r.Index)
			continue
		}
		b.Queue(`INSERT INTO catchment.duplicates (source, event_id, delivery_id, received_at, topic, topic_id, partition, "offset", delivery_index)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
			r.Source, r.ID, r.DeliveryID, r.ReceivedAt, r.Position.Topic, uuid.UUID(r.Position.TopicID), r.Position.Partition, r.Position.Offset, r.Index)
	}
}

func queueResults(b *pgx.Batch, results []Result) {
	n := len(results)
	var (
		source, id, delivery, operation, outcome = text(n), text(n), text(n), text(n), text(n)
		definition                               = make(blobs, n)
		attempt                                  = make([]int32, n)
		entity, version, message, returned       = make([]*string, n), make([]*string, n), make([]*string, n), make([]*string, n)
		rows                                     = make([]*int64, n)
		started                                  = make([]time.Time, n)
		took                                     = make([]float64, n)
	)
	for i := range results {
		r := &results[i]
		source[i], id[i], delivery[i], operation[i], outcome[i] = r.Source, r.ID, r.DeliveryID, r.Operation, r.Outcome
		definition[i], attempt[i] = r.Definition, int32(r.Attempt)
		entity[i], version[i], message[i] = r.Entity, r.Version, null(clean(r.Error))
		started[i], took[i] = r.Started, r.Took.Seconds()
		if r.Effect != nil {
			rows[i], started[i], took[i] = &r.Effect.Rows, r.Effect.Started, r.Effect.Took.Seconds()
			returned[i] = null(string(r.Effect.Returned))
		}
	}
	b.Queue(`INSERT INTO catchment.results (source, event_id, delivery_id, operation, definition_sha256, attempt, outcome, entity, version,
			rows_affected, returned, error, started_at, duration)
		SELECT s, e, d, o, h, a, c, n, v, r, j, m, t, make_interval(secs => k)
		FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::bytea[], $6::int[], $7::text[], $8::text[], $9::text[],
			$10::bigint[], $11::jsonb[], $12::text[], $13::timestamptz[], $14::float8[]) AS x(s, e, d, o, h, a, c, n, v, r, j, m, t, k)`,
		source, id, delivery, operation, definition, attempt, outcome, entity, version, rows, returned, message, started, took)
}

func queueDead(b *pgx.Batch, d *DeadLetter) {
	var headers *string
	if d.Headers != nil {
		headers = null(recordHeaders(d.Headers))
	}
	b.Queue(`INSERT INTO catchment.dead_letters (source, event_id, operation, reason, error, attempts, first_failed_at, last_failed_at,
			topic, topic_id, partition, "offset", key, headers, value)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
		ON CONFLICT (source, event_id, operation) WHERE operation IS NOT NULL
		DO UPDATE SET reason = excluded.reason, error = excluded.error, attempts = excluded.attempts, last_failed_at = excluded.last_failed_at`,
		null(clean(d.Source)), null(clean(d.EventID)), null(d.Operation), d.Reason, clean(d.Error), d.Attempts, d.FirstFailed, d.LastFailed,
		d.Position.Topic, uuid.UUID(d.Position.TopicID), d.Position.Partition, d.Position.Offset, d.RecordKey, headers, d.Value)
}

func queueNewest(b *pgx.Batch, newest map[Guard]Newest) {
	n := len(newest)
	scope, entity, version, id, source := text(n), text(n), make([][]byte, n), text(n), text(n)
	i := 0
	for g, v := range newest {
		scope[i], entity[i], version[i], id[i], source[i] = g.Scope, g.Entity, v.Version, v.ID, v.Source
		i++
	}
	b.Queue(`UPDATE catchment.entities n SET version = x.v, event_id = x.i, source = x.s, updated_at = now()
		FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::text[]) AS x(g, e, v, i, s)
		WHERE n.guard = x.g AND n.entity = x.e`, scope, entity, version, id, source)
}

func text(n int) []string { return make([]string, n) }

func null(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
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

// headerJSON writes the headers for people and queries; the exact bytes are in Kafka and in the archive.
func headerJSON(h map[string][]string) string {
	out := make(map[string][]string, len(h))
	for name, values := range h {
		list := make([]string, len(values))
		for i, v := range values {
			list[i] = strings.ReplaceAll(strings.ToValidUTF8(v, "\uFFFD"), "\x00", "\uFFFD")
		}
		out[clean(name)] = list
	}
	b, _ := json.Marshal(out) // texts always have a JSON form
	return string(b)
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
