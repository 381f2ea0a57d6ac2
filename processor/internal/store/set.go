package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
)

// Set is a statement that does for many events at once what another does for one: an INSERT whose single row of plain
// values has become a SELECT from arrays. It is made only where nobody can tell the two apart:
//
//   - INSERT INTO table (columns) VALUES (one row), with ON CONFLICT or without, and no RETURNING;
//   - the row holds parameters, literals and casts, and ON CONFLICT no parameter; neither holds a query, or a function
//     that is not known to look at nothing but its arguments;
//   - the table is an ordinary one, without triggers and rules of its user, so that it does not matter where one
//     statement ends.
//
// Postgres refuses a set that touches a row twice (21000); and where a set touches fewer rows than it has events, nobody
// can say which of them it did not touch. Then the events are done one by one.
type Set struct {
	st   *Statement
	oids []uint32
	off  atomic.Bool
}

// Set returns the statement's form for many events; nil: it has none, or it does not fit its data.
func (s *Statement) Set() *Set {
	if s.set == nil || s.set.off.Load() {
		return nil
	}
	return s.set
}

// Retire ends the set's use: its events touch rows of each other.
func (s *Set) Retire() { s.off.Store(true) }

// Call makes one call of many calls of the statement.
func (s *Set) Call(calls []Call) Call {
	args := make([]any, len(s.oids))
	for i, oid := range s.oids {
		args[i] = arrayLiteral(calls, i, oid == pgtype.ByteaOID)
	}
	return Call{Statements: []*Statement{s.st}, Args: [][]any{args}, Timeout: calls[0].Timeout}
}

// Overlaps says whether a set touched one row twice.
func Overlaps(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "21000"
}

// arrayLiteral is the text form of an array of the calls' i-th arguments.
func arrayLiteral(calls []Call, i int, binary bool) string {
	var b strings.Builder
	b.WriteByte('{')
	for n := range calls {
		if n > 0 {
			b.WriteByte(',')
		}
		switch v := calls[n].Args[0][i].(type) {
		case nil:
			b.WriteString("NULL")
		case []byte:
			if binary {
				b.WriteString(`"\\x` + hex.EncodeToString(v) + `"`)
			} else {
				quoteElement(&b, string(v))
			}
		case string:
			quoteElement(&b, v)
		default:
			quoteElement(&b, fmt.Sprint(v))
		}
	}
	b.WriteByte('}')
	return b.String()
}

func quoteElement(b *strings.Builder, s string) {
	b.WriteByte('"')
	for {
		i := strings.IndexAny(s, `"\`)
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		b.WriteByte('\\')
		b.WriteByte(s[i])
		s = s[i+1:]
	}
	b.WriteString(s)
	b.WriteByte('"')
}

// arrayTypes are the types of parameters that an array can hold one by one: no arrays, and none whose name alone says
// another type than the parameter's.
var arrayTypes = map[uint32]string{
	pgtype.BoolOID: "boolean", pgtype.ByteaOID: "bytea", pgtype.Int8OID: "bigint", pgtype.Int2OID: "smallint", pgtype.Int4OID: "integer",
	pgtype.TextOID: "text", pgtype.JSONOID: "json", pgtype.Float4OID: "real", pgtype.Float8OID: "double precision", pgtype.VarcharOID: "varchar",
	pgtype.DateOID: "date", pgtype.TimestampOID: "timestamp", pgtype.TimestamptzOID: "timestamptz", pgtype.IntervalOID: "interval",
	pgtype.NumericOID: "numeric", pgtype.UUIDOID: "uuid", pgtype.JSONBOID: "jsonb",
}

// makeSet sets the statement's form for many events where it has one.
func makeSet(ctx context.Context, conn *pgx.Conn, st *Statement) error {
	st.set = nil
	table, sql := setForm(st.SQL, st.oids)
	if sql == "" {
		return nil
	}
	var plain bool
	err := conn.QueryRow(ctx, `SELECT coalesce((SELECT c.relkind = 'r' AND NOT c.relispartition AND NOT c.relhasrules AND NOT c.relhassubclass
		AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal)
		FROM pg_catalog.pg_class c WHERE c.oid = to_regclass($1)), false)`, table).Scan(&plain)
	if err != nil {
		return fmt.Errorf("postgres: look at table %s: %w", table, err)
	}
	if !plain {
		return nil
	}
	sd, err := conn.Prepare(ctx, "", sql)
	if isPg(err) && Classify(err) != Transient {
		return nil // then it has none
	}
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if len(sd.Fields) == 0 {
		form := Parse(sql, func(string) bool { return false })
		form.oids = sd.ParamOIDs
		st.set = &Set{st: form, oids: st.oids}
	}
	return nil
}

// harmless are the functions that look at nothing but their arguments and the transaction's time.
var harmless = map[string]bool{
	"now": true, "coalesce": true, "greatest": true, "least": true, "nullif": true, "lower": true, "upper": true, "trim": true, "btrim": true,
	"abs": true, "round": true, "to_jsonb": true, "to_timestamp": true, "left": true, "right": true, "length": true, "numeric": true, "varchar": true,
}

// forbiddenInSets are words that could begin a query, name a place of their own, or return rows.
var forbiddenInSets = map[string]bool{
	"select": true, "default": true, "returning": true, "values": true, "with": true, "table": true, "array": true, "row": true, "overriding": true,
	"exists": true, "constraint": true, "collate": true,
}

var errNoSet = errors.New("the statement has no form for many events")

// setForm derives the statement's form for many events, and the table; "": it has none.
func setForm(sql string, oids []uint32) (table, form string) {
	f := &setParser{sql: sql}
	if f.tokenize() != nil || len(oids) == 0 {
		return "", ""
	}
	for _, oid := range oids {
		if arrayTypes[oid] == "" {
			return "", ""
		}
	}
	table, values, rest, err := f.parse()
	if err != nil {
		return "", ""
	}
	var b strings.Builder
	b.WriteString(sql[:values.from.at] + "SELECT ")
	at := values.from.end
	for _, t := range f.tokens[values.first:values.last] {
		if t.kind == parameter {
			b.WriteString(sql[at:t.at] + "catchment_set.p" + t.text[1:])
			at = t.end
		}
	}
	b.WriteString(sql[at:values.to.at] + "\nFROM unnest(")
	for i, oid := range oids {
		fmt.Fprintf(&b, "$%d::%s[], ", i+1, arrayTypes[oid])
	}
	text := strings.TrimSuffix(b.String(), ", ") + ") WITH ORDINALITY AS catchment_set("
	for i := range oids {
		text += "p" + strconv.Itoa(i+1) + ", "
	}
	return table, text + "n)\nORDER BY catchment_set.n\n" + rest
}

type kindOfToken int

const (
	word      kindOfToken = iota // lower case, or a quoted identifier as it is
	parameter                    // $1
	literal
	mark // a sign
)

type token struct {
	kind    kindOfToken
	text    string
	at, end int
}

type setParser struct {
	sql    string
	tokens []token
	pos    int
}

func (f *setParser) tokenize() error {
	for i := 0; i < len(f.sql); {
		rest := f.sql[i:]
		c := rest[0]
		n, kind := 1, mark
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case strings.HasPrefix(rest, "--"):
			i += until(rest, "\n", 2)
			continue
		case strings.HasPrefix(rest, "/*"):
			i += comment(rest)
			continue
		case c == '\'':
			n, kind = quoted(rest, '\'', false), literal
			if strings.Contains(rest[:n], `\`) || strings.HasPrefix(rest[n:], "'") { // what a backslash means is a setting
				return errNoSet
			}
		case c == '"':
			n, kind = quoted(rest, '"', false), word
		case c == '$' && len(rest) > 1 && rest[1] >= '0' && rest[1] <= '9':
			for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
				n++
			}
			kind = parameter
		case c == '$':
			return errNoSet
		case c >= '0' && c <= '9':
			for n < len(rest) && (identByte(rest[n]) || rest[n] == '.') {
				n++
			}
			kind = literal
		case identByte(c):
			for n < len(rest) && identByte(rest[n]) {
				n++
			}
			kind = word
		case strings.HasPrefix(rest, "::"):
			n = 2
		}
		text := rest[:n]
		if kind == word && c != '"' {
			text = strings.ToLower(text)
		}
		if kind == word && n < len(rest) && rest[n] == '\'' { // E'…', B'…', date '…'
			return errNoSet
		}
		f.tokens = append(f.tokens, token{kind: kind, text: text, at: i, end: i + n})
		i += n
	}
	return nil
}

func (f *setParser) peek() token {
	if f.pos >= len(f.tokens) {
		return token{kind: mark, at: len(f.sql), end: len(f.sql)}
	}
	return f.tokens[f.pos]
}

// take takes the tokens with these texts, or none.
func (f *setParser) take(texts ...string) bool {
	for i, text := range texts {
		if f.pos+i >= len(f.tokens) || f.tokens[f.pos+i].text != text {
			return false
		}
	}
	f.pos += len(texts)
	return true
}

func (f *setParser) name() bool {
	if t := f.peek(); t.kind != word || forbiddenInSets[t.text] {
		return false
	}
	f.pos++
	return true
}

// values is the row of VALUES: from the word to its closing parenthesis.
type values struct {
	from, to    token // VALUES and (; )
	first, last int   // tokens between
}

func (f *setParser) parse() (table string, v values, rest string, err error) {
	if !f.take("insert", "into") {
		return "", v, "", errNoSet
	}
	begin := f.peek().at
	if !f.name() || f.take(".") && !f.name() {
		return "", v, "", errNoSet
	}
	table = f.sql[begin:f.tokens[f.pos-1].end]
	if f.take("as") && !f.name() {
		return "", v, "", errNoSet
	}
	if !f.columns() {
		return "", v, "", errNoSet
	}
	open := f.peek()
	if !f.take("values", "(") {
		return "", v, "", errNoSet
	}
	v.from = token{at: open.at, end: f.tokens[f.pos-1].end}
	v.first = f.pos
	if !f.expressions(true) {
		return "", v, "", errNoSet
	}
	v.last, v.to = f.pos, f.peek()
	f.pos++ // )
	after := f.pos
	if !f.conflict() {
		return "", v, "", errNoSet
	}
	if after < f.pos {
		rest = f.sql[f.tokens[after].at:f.tokens[f.pos-1].end]
	}
	f.take(";")
	if f.pos != len(f.tokens) {
		return "", v, "", errNoSet
	}
	return table, v, rest, nil
}

// columns takes a list of names in parentheses.
func (f *setParser) columns() bool {
	if !f.take("(") || !f.name() {
		return false
	}
	for f.take(",") {
		if !f.name() {
			return false
		}
	}
	return f.take(")")
}

func (f *setParser) conflict() bool {
	if !f.take("on", "conflict") {
		return true
	}
	target := f.peek().text == "("
	if target && !f.columns() {
		return false
	}
	if f.take("do", "nothing") {
		return true
	}
	return target && f.take("do", "update", "set") && f.expressions(false)
}

// expressions takes plain expressions up to the parenthesis that closes them, or to the statement's end.
func (f *setParser) expressions(parameters bool) bool {
	depth := 0
	for ; f.pos < len(f.tokens); f.pos++ {
		t := f.tokens[f.pos]
		switch {
		case t.text == ")" && t.kind == mark && depth == 0:
			return parameters
		case t.text == ")" && t.kind == mark:
			depth--
		case t.text == "(" && t.kind == mark:
			if before := f.tokens[f.pos-1]; before.kind == word && !harmless[before.text] && !operatorWord[before.text] {
				return false
			}
			depth++
		case t.text == ";" && t.kind == mark:
			return !parameters && depth == 0
		case t.kind == parameter && !parameters, t.kind == word && forbiddenInSets[t.text]:
			return false
		}
	}
	return !parameters && depth == 0
}

// operatorWord are words behind which a parenthesis is no function's.
var operatorWord = map[string]bool{"where": true, "and": true, "or": true, "not": true, "when": true, "then": true, "else": true, "case": true, "set": true, "is": true, "in": true, "between": true}
