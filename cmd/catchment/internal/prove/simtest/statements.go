package simtest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// state is what a database holds. Its values are never changed, only replaced.
type state struct {
	moved      int // positions that were moved, ever
	progress   map[place]progress
	identities map[key]identity
	bodies     map[key]body
	entities   map[[2]string]newest
	repeats    map[key]int
	conflicts  map[key]int
	results    map[key]int
	letters    []string
	retries    int

	ledger   map[key]int // the users' tables: effects, without a unique key
	counters map[string]int
	orders   map[string]order
	history  []change
}

type place struct {
	topic     [16]byte
	partition int32
}

type progress struct {
	next  int64
	epoch int32
	owner [16]byte
}

type key struct{ source, id string }

type identity struct {
	sha      string
	delivery string
	at       time.Time
}

type body struct {
	sha       string
	partition int32
	offset    int64
}

type newest struct {
	version    string
	id, source string
}

type order struct {
	version int64
	id      string
}

type change struct {
	entity  string
	version int64
	id      string
}

func newState() *state {
	return &state{
		progress: map[place]progress{}, identities: map[key]identity{}, bodies: map[key]body{}, entities: map[[2]string]newest{},
		repeats: map[key]int{}, conflicts: map[key]int{}, results: map[key]int{}, ledger: map[key]int{}, counters: map[string]int{}, orders: map[string]order{},
	}
}

func (s *state) clone() *state {
	return &state{
		moved: s.moved, progress: maps.Clone(s.progress), identities: maps.Clone(s.identities), bodies: maps.Clone(s.bodies), entities: maps.Clone(s.entities),
		repeats: maps.Clone(s.repeats), conflicts: maps.Clone(s.conflicts), results: maps.Clone(s.results), letters: slices.Clip(s.letters), retries: s.retries,
		ledger: maps.Clone(s.ledger), counters: maps.Clone(s.counters), orders: maps.Clone(s.orders), history: slices.Clip(s.history),
	}
}

// statement is one that the database knows.
type statement struct {
	begins  string
	sql     string
	control string // it begins or ends a transaction
	params  []uint32
	columns []uint32
	locks   bool
	run     func(*call) error // nil: it finds nothing
	copied  func(c *call, row [][]byte)
}

type param struct {
	bytes  []byte
	format int16
}

// call is one execution of a statement.
type call struct {
	*statement
	session *session
	db      *DB
	state   *state
	now     time.Time
	params  []param
	formats []int16
	rows    [][]any
	tag     string
}

// arg decodes a parameter.
func arg[T any](c *call, i int) (v T) {
	p := c.params[i-1]
	if err := pgtype.NewMap().Scan(c.statement.params[i-1], p.format, p.bytes, &v); err != nil {
		c.db.blame("parameter %d of %q: %v", i, c.begins, err)
	}
	return v
}

func (c *call) emit(values ...any) { c.rows = append(c.rows, values) }

// find looks a statement up by how it begins.
func (db *DB) find(sql string) (*statement, error) {
	text := strings.Join(strings.Fields(sql), " ")
	upper := strings.ToUpper(strings.TrimSuffix(text, ";"))
	for _, word := range []string{"BEGIN", "COMMIT", "ROLLBACK TO", "ROLLBACK", "SAVEPOINT", "RELEASE"} {
		if strings.HasPrefix(upper, word) {
			return &statement{control: word, sql: text}, nil
		}
	}
	if upper == "" || strings.HasPrefix(text, "--") {
		return &statement{}, nil
	}
	for i := range statements {
		if strings.HasPrefix(text, statements[i].begins) {
			st := statements[i]
			st.sql = text
			n := 0 // parameters that this form of it has
			for n < len(st.params) && strings.Contains(text, fmt.Sprintf("$%d", n+1)) {
				n++
			}
			st.params = st.params[:n]
			return &st, nil
		}
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	db.blame("the database does not know: %s", text)
	return nil, &pgError{"42601", "not known here: " + text}
}

const (
	boolean, i2, i4, i8          = pgtype.BoolOID, pgtype.Int2OID, pgtype.Int4OID, pgtype.Int8OID
	text, bytea, id, stamp       = pgtype.TextOID, pgtype.ByteaOID, pgtype.UUIDOID, pgtype.TimestamptzOID
	texts, byteas, ids, stamps   = pgtype.TextArrayOID, pgtype.ByteaArrayOID, pgtype.UUIDArrayOID, pgtype.TimestamptzArrayOID
	i4s, i8s, jsons, spans, oids = pgtype.Int4ArrayOID, pgtype.Int8ArrayOID, pgtype.JSONBArrayOID, pgtype.IntervalArrayOID, 1028
)

func oid(list ...uint32) []uint32 { return list }

// statements are those of processor/internal/store that a processor runs, and those of the simulation's operations.
var statements = []statement{
	{begins: "SELECT now(), set_config('statement_timeout'", params: oid(text, text, texts, texts), columns: oid(stamp, text, text, text, i8), run: func(c *call) error {
		var ms int
		_, _ = fmt.Sscan(arg[string](c, 2), &ms)
		c.session.tx.idle = time.Duration(ms) * time.Millisecond
		c.emit(c.now, "", "", nil, int64(0))
		return nil
	}},
	{begins: "SELECT set_config('statement_timeout'", params: oid(text), columns: oid(text), run: func(c *call) error { c.emit(""); return nil }},
	{begins: "SELECT pg_backend_pid()", params: oid(text), columns: oid(i4, text, text), run: func(c *call) error { c.emit(int32(c.session.pid), "", ""); return nil }},
	{begins: "SELECT pg_terminate_backend", params: oid(i4), columns: oid(boolean), run: func(c *call) error {
		if c.db.terminate(uint32(arg[int32](c, 1))) {
			c.emit(true)
		}
		return nil
	}},
	{begins: "INSERT INTO catchment.progress", params: oid(text, id, i4, i8, id), columns: oid(i8, i4), locks: true, run: claim},
	{begins: "SELECT next_offset, leader_epoch, owner FROM catchment.progress", params: oid(id, i4), columns: oid(i8, i4, id), locks: true, run: func(c *call) error {
		if p, ok := c.state.progress[c.place(1, 2)]; ok {
			c.emit(p.next, p.epoch, p.owner)
		}
		return nil
	}},
	{begins: "SELECT next_offset, owner FROM catchment.progress", params: oid(id, i4), columns: oid(i8, id), locks: true, run: func(c *call) error {
		if p, ok := c.state.progress[c.place(1, 2)]; ok {
			c.emit(p.next, p.owner)
		}
		return nil
	}},
	{begins: "SELECT partition, next_offset, owner FROM catchment.progress", params: oid(id), columns: oid(i4, i8, id), run: func(c *call) error {
		for at, p := range c.state.progress {
			if at.topic == arg[uuid.UUID](c, 1) {
				c.emit(at.partition, p.next, p.owner)
			}
		}
		return nil
	}},
	{begins: "UPDATE catchment.progress SET next_offset", params: oid(id, i4, i8, i4, id, i8), locks: true, run: move},
	{begins: "INSERT INTO catchment.identities", params: oid(texts, texts, byteas, ids), columns: oid(text, text), locks: true, run: identify},
	{begins: "SELECT i.source, i.event_id, i.body_sha256, i.delivery_id::text, i.first_seen_at FROM catchment.identities", params: oid(texts, texts), columns: oid(text, text, bytea, text, stamp), run: known},
	{begins: "INSERT INTO catchment.entities", params: oid(texts, texts, byteas, texts, texts), columns: oid(text, text), locks: true, run: func(c *call) error {
		guards, entities, versions, events, sources := arg[[]string](c, 1), arg[[]string](c, 2), arg[[][]byte](c, 3), arg[[]string](c, 4), arg[[]string](c, 5)
		for i := range guards {
			if at := [2]string{guards[i], entities[i]}; !has(c.state.entities, at) {
				c.state.entities[at] = newest{string(versions[i]), events[i], sources[i]}
				c.emit(guards[i], entities[i])
			}
		}
		return nil
	}},
	{begins: "SELECT x.i, n.version, n.event_id, n.source FROM unnest", params: oid(texts, texts), columns: oid(i8, bytea, text, text), locks: true, run: func(c *call) error {
		guards, entities := arg[[]string](c, 1), arg[[]string](c, 2)
		for i := range guards {
			if n, ok := c.state.entities[[2]string{guards[i], entities[i]}]; ok {
				c.emit(int64(i+1), []byte(n.version), n.id, n.source)
			}
		}
		return nil
	}},
	{begins: "UPDATE catchment.entities", params: oid(texts, texts, byteas, texts, texts), locks: true, run: func(c *call) error {
		guards, entities, versions, events, sources := arg[[]string](c, 1), arg[[]string](c, 2), arg[[][]byte](c, 3), arg[[]string](c, 4), arg[[]string](c, 5)
		for i := range guards {
			c.state.entities[[2]string{guards[i], entities[i]}] = newest{string(versions[i]), events[i], sources[i]}
		}
		return nil
	}},
	{begins: "COPY catchment.bodies", locks: true, copied: func(c *call, row [][]byte) {
		at := c.columnsOf("source", "event_id", "body", "partition", `"offset"`)
		c.state.bodies[key{string(row[at[0]]), string(row[at[1]])}] = body{digest(row[at[2]]), int32(binary.BigEndian.Uint32(row[at[3]])), int64(binary.BigEndian.Uint64(row[at[4]]))}
	}},
	{begins: "COPY catchment.results", locks: true, copied: func(c *call, row [][]byte) {
		at := c.columnsOf("source", "event_id")
		c.state.results[key{string(row[at[0]]), string(row[at[1]])}]++
	}},
	{begins: "UPDATE catchment.bodies b SET status", params: oid(texts, texts, texts, stamp), locks: true},
	{begins: "INSERT INTO catchment.duplicates", params: oid(texts, texts, ids, stamps, texts, ids, i4s, i8s, i4s, byteas), locks: true, run: func(c *call) error {
		for _, k := range c.keys() {
			c.state.repeats[k]++
		}
		return nil
	}},
	{begins: "INSERT INTO catchment.conflicts", params: oid(texts, texts, ids, stamps, texts, ids, i4s, i8s, i4s, jsons, byteas, byteas), locks: true, run: func(c *call) error {
		for _, k := range c.keys() {
			c.state.conflicts[k]++
		}
		return nil
	}},
	{begins: "INSERT INTO catchment.retries", params: oid(texts, texts, texts, i4s, spans, stamps, texts), locks: true, run: func(c *call) error {
		c.state.retries += len(c.keys())
		return nil
	}},
	{
		begins: "INSERT INTO catchment.dead_letters",
		params: oid(texts, texts, texts, texts, texts, i4s, stamps, stamps, texts, ids, i4s, i8s, byteas, jsons, byteas), locks: true, run: func(c *call) error {
			reasons, errors := arg[[]string](c, 4), arg[[]string](c, 5)
			for i := range reasons {
				c.state.letters = append(c.state.letters, reasons[i]+": "+errors[i])
			}
			return nil
		},
	},
	{begins: "INSERT INTO ledger", params: oid(text, text), locks: true, run: func(c *call) error {
		c.state.ledger[key{arg[string](c, 1), arg[string](c, 2)}]++
		c.session.tx.batch = true
		c.tag = "INSERT 0 1"
		return nil
	}},
	{begins: "INSERT INTO counters", params: oid(text), locks: true, run: func(c *call) error {
		c.state.counters[arg[string](c, 1)]++
		c.tag = "INSERT 0 1"
		return nil
	}},
	{begins: "INSERT INTO orders", params: oid(text, i8, text), locks: true, run: func(c *call) error {
		entity, o := arg[string](c, 1), order{arg[int64](c, 2), arg[string](c, 3)}
		c.state.orders[entity] = o
		c.state.history = append(c.state.history, change{entity, o.version, o.id})
		c.tag = "INSERT 0 1"
		return nil
	}},
	{begins: "SET CONSTRAINTS ALL IMMEDIATE", locks: true},
	{begins: "INSERT INTO catchment.definitions", params: oid(bytea, text, text)},
	{begins: "SELECT catchment.make_partitions", params: oid(i4), columns: oid(i4), run: func(c *call) error { c.emit(int32(0)); return nil }},
	{begins: "SELECT coalesce(min(n), 366) - 1", columns: oid(i4), run: func(c *call) error { c.emit(int32(7)); return nil }},
	{begins: "SELECT quote_ident(current_user)", columns: oid(text, boolean), run: func(c *call) error { c.emit("catchment", true); return nil }},
	{begins: "SELECT 'catchment.' || t", params: oid(texts, text), columns: oid(text)},
	{begins: "SELECT 'catchment.' || f", params: oid(texts), columns: oid(text)},
	{begins: "SELECT current_setting(n) FROM unnest", params: oid(texts), columns: oid(text), run: func(c *call) error {
		for range arg[[]string](c, 1) {
			c.emit("")
		}
		return nil
	}},
	{begins: "SELECT count(set_config(n, v, true))", params: oid(texts, texts), columns: oid(i8), run: func(c *call) error { c.emit(int64(0)); return nil }},
	{begins: "SET LOCAL plan_cache_mode"},
	{begins: "PREPARE catchment_access"},
	{begins: "EXPLAIN (VERBOSE, COSTS off, FORMAT JSON) EXECUTE catchment_access", columns: oid(text), run: func(c *call) error { c.emit("[]"); return nil }},
	{begins: "DEALLOCATE catchment_access"},
	{begins: "SELECT to_regclass($1) IS NOT NULL", params: oid(text), columns: oid(boolean), run: func(c *call) error { c.emit(true); return nil }},
	{begins: "SELECT coalesce(max(version_id)", columns: oid(i8), run: func(c *call) error { c.emit(int64(1 << 20)); return nil }},
	{begins: "SELECT oid, typcategory = 'A'", params: oid(oids), columns: oid(pgtype.OIDOID, boolean), run: func(c *call) error {
		for _, o := range arg[[]uint32](c, 1) {
			c.emit(o, false)
		}
		return nil
	}},
	{begins: "SELECT coalesce((SELECT c.relkind", params: oid(text), columns: oid(boolean), run: func(c *call) error { c.emit(false); return nil }},
	{begins: "SELECT o FROM unnest", params: oid(texts), columns: oid(text)},
	{begins: "SELECT id, kind, coalesce(operation", params: oid(texts), columns: oid(i8)},
	{begins: "SELECT operation, paused_at", columns: oid(text, stamp, text, text)},
	{begins: "WITH RECURSIVE t AS", columns: oid(text)},
	{begins: "SELECT coalesce(sum(records), 0)", columns: oid(i8, pgtype.Float8OID), run: func(c *call) error { c.emit(int64(0), 0.0); return nil }},
	{begins: "SELECT coalesce(source, ''), count(*) FROM catchment.dead_letters", columns: oid(text, i8)},
	{begins: "SELECT count(*) FROM catchment.retries", columns: oid(i8), run: func(c *call) error { c.emit(int64(c.state.retries)); return nil }},
}

func has[K comparable, V any](m map[K]V, k K) bool { _, ok := m[k]; return ok }

func (c *call) place(topic, partition int) place {
	return place{arg[uuid.UUID](c, topic), arg[int32](c, partition)}
}

// columnsOf says where a COPY has its columns.
func (c *call) columnsOf(names ...string) (at []int) {
	list, _, _ := strings.Cut(c.sql[strings.Index(c.sql, "(")+1:], ")")
	columns := strings.Split(strings.ReplaceAll(list, " ", ""), ",")
	for _, name := range names {
		at = append(at, slices.Index(columns, name))
	}
	return at
}

// keys are the first two columns, of texts.
func (c *call) keys() []key {
	sources, events := arg[[]string](c, 1), arg[[]string](c, 2)
	list := make([]key, len(sources))
	for i := range sources {
		list[i] = key{sources[i], events[i]}
	}
	c.tag = fmt.Sprintf("INSERT 0 %d", len(list))
	return list
}

func claim(c *call) error {
	at, owner := c.place(2, 3), arg[uuid.UUID](c, 5)
	p, ok := c.state.progress[at]
	if !ok {
		p = progress{next: arg[int64](c, 4), epoch: -1}
	}
	p.owner = owner
	c.state.progress[at] = p
	c.emit(p.next, p.epoch)
	return nil
}

// move is where it shows when somebody writes to whom the partition does not belong, or where the position already was.
func move(c *call) error {
	fenced, expects := strings.Contains(c.sql, "owner = $5"), strings.Contains(c.sql, "next_offset = $6")
	at, owner := c.place(1, 2), arg[uuid.UUID](c, 5)
	p, ok := c.state.progress[at]
	next := arg[int64](c, 3)
	if !ok || fenced && p.owner != owner || expects && p.next != arg[int64](c, 6) {
		c.tag = "UPDATE 0"
		return nil
	}
	if p.owner != owner {
		c.db.blame("7 monotone: partition %d is written by a processor that lost it", at.partition)
	}
	if next < p.next {
		c.db.blame("7 monotone: the position of partition %d goes back from %d to %d", at.partition, p.next, next)
	}
	p.next, p.epoch = next, arg[int32](c, 4)
	c.state.progress[at] = p
	c.state.moved++
	c.tag = "UPDATE 1"
	return nil
}

func identify(c *call) error {
	shas, deliveries := arg[[][]byte](c, 3), arg[[]uuid.UUID](c, 4)
	byID, byMinute := strings.Contains(c.sql, "WHERE NOT EXISTS"), strings.Contains(c.sql, "date_trunc('minute'")
	held := map[string]bool{}
	for k := range c.state.identities {
		held[k.id] = byID
	}
	for i, k := range c.keys() {
		old, ok := c.state.identities[k]
		if held[k.id] || ok && !(byMinute && !old.at.Truncate(time.Minute).Equal(c.now.Truncate(time.Minute))) {
			continue
		}
		if ok {
			old.at = c.now
			c.state.identities[k] = old
		} else {
			c.state.identities[k] = identity{string(shas[i]), deliveries[i].String(), c.now}
		}
		c.emit(k.source, k.id)
	}
	return nil
}

func known(c *call) error {
	for _, k := range c.keys() {
		if i, ok := c.state.identities[k]; ok {
			c.emit(k.source, k.id, []byte(i.sha), i.delivery, c.now)
		}
	}
	c.tag = ""
	return nil
}
