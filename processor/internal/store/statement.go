package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/catchment-dev/catchment/pkg/expr"
)

// Statement is a user's SQL with its @name parameters turned into $n.
type Statement struct {
	Source string   // as it was written
	SQL    string   // as Postgres gets it
	Params []string // name of $1, $2, …
	Number string   // the first $1, $2, … that Source has itself; empty: none. Postgres would take it for one of Params
	Kinds  []expr.Kind
	name   string   // under which it is prepared
	set    *Set     // its form for many events; nil: it has none
	oids   []uint32 // types of the parameters, once Describe has asked
	shifts []shift
}

// shift says by how much SQL is ahead of Source from a place in SQL on, in code points.
type shift struct{ at, by int }

// Parse finds the @name parameters outside strings, quoted identifiers and comments. known tells parameters from
// operators that end in @ where both are possible (<@name).
func Parse(source string, known func(name string) bool) *Statement {
	p := &parser{src: source, known: known, st: &Statement{Source: source}, index: map[string]int{}}
	for p.pos < len(p.src) {
		p.step()
	}
	p.st.SQL = p.out.String()
	sum := sha256.Sum256([]byte(p.st.SQL))
	p.st.name = "catchment_" + hex.EncodeToString(sum[:16])
	return p.st
}

type parser struct {
	src   string
	pos   int
	out   strings.Builder
	known func(string) bool
	st    *Statement
	index map[string]int
	moved int // code points of out minus those of src so far
	runes int // code points of out so far
}

func (p *parser) step() {
	rest := p.src[p.pos:]
	switch c := rest[0]; {
	case strings.HasPrefix(rest, "--"):
		p.copy(until(rest, "\n", 2))
	case strings.HasPrefix(rest, "/*"):
		p.copy(comment(rest))
	case c == '\'':
		p.copy(quoted(rest, '\'', p.escapes()))
	case c == '"':
		p.copy(quoted(rest, '"', false))
	case c == '$':
		p.dollar(rest)
	case c == '@':
		p.at(rest)
	default:
		_, n := utf8.DecodeRuneInString(rest)
		p.copy(n)
	}
}

func (p *parser) copy(n int) {
	s := p.src[p.pos : p.pos+n]
	p.out.WriteString(s)
	p.runes += utf8.RuneCountInString(s)
	p.pos += n
}

func (p *parser) before() byte {
	if p.pos == 0 {
		return ' '
	}
	return p.src[p.pos-1]
}

// escapes says whether the string that begins here is an E'…' one.
func (p *parser) escapes() bool {
	if c := p.before(); c != 'e' && c != 'E' {
		return false
	}
	return p.pos < 2 || !identByte(p.src[p.pos-2])
}

// dollar copies a string in dollar quotes, or the sign alone, and remembers a parameter that is written by its number.
func (p *parser) dollar(rest string) {
	digits := 1
	for digits < len(rest) && '0' <= rest[digits] && rest[digits] <= '9' {
		digits++
	}
	if p.st.Number == "" && digits > 1 && !identByte(p.before()) {
		p.st.Number = rest[:digits]
	}
	p.copy(dollar(rest, p.before()))
}

func (p *parser) at(rest string) {
	n := 1
	for n < len(rest) && identByte(rest[n]) {
		n++
	}
	name := rest[1:n]
	prev := p.before()
	if name == "" || name[0] >= '0' && name[0] <= '9' || prev == '@' || identByte(prev) ||
		prev == '<' && !p.known(name) {
		p.copy(1)
		return
	}
	i, ok := p.index[name]
	if !ok {
		p.st.Params = append(p.st.Params, name)
		i = len(p.st.Params)
		p.index[name] = i
	}
	s := fmt.Sprintf("$%d", i)
	p.out.WriteString(s)
	p.runes += len(s)
	p.moved += len(s) - n
	p.st.shifts = append(p.st.shifts, shift{at: p.runes, by: p.moved})
	p.pos += n
}

func identByte(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= utf8.RuneSelf
}

func until(s, end string, from int) int {
	if i := strings.Index(s[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(s)
}

// comment measures a block comment; they nest.
func comment(s string) int {
	depth, i := 0, 0
	for i < len(s) {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
			i += 2
		case strings.HasPrefix(s[i:], "*/"):
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return len(s)
}

func quoted(s string, q byte, escapes bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == q && i+1 < len(s) && s[i+1] == q:
			i++
		case s[i] == q:
			return i + 1
		}
	}
	return len(s)
}

// dollar measures a $tag$ … $tag$ string, or a lone dollar sign.
func dollar(s string, prev byte) int {
	if identByte(prev) {
		return 1
	}
	n := 1
	for n < len(s) && identByte(s[n]) {
		n++
	}
	if n >= len(s) || s[n] != '$' || n > 1 && s[1] >= '0' && s[1] <= '9' {
		return 1
	}
	return until(s, s[:n+1], n+1)
}

// Place turns a position in SQL, in code points from 1 as Postgres counts, into line and column of Source, from 1.
func (s *Statement) Place(position int) (line, col int) {
	at := position - 1
	by := 0
	for _, sh := range s.shifts {
		if at < sh.at {
			break
		}
		by = sh.by
	}
	at -= by
	line, col = 1, 1
	for i, r := range []rune(s.Source) {
		if i >= at {
			break
		}
		if col++; r == '\n' {
			line, col = line+1, 1
		}
	}
	return line, col
}

// forbidden are the first words of statements that would end our transaction or outlive it.
var forbidden = map[string]bool{
	"begin": true, "start": true, "commit": true, "end": true, "rollback": true, "abort": true, "savepoint": true,
	"release": true, "prepare": true, "deallocate": true, "discard": true, "set": true, "reset": true, "listen": true,
	"unlisten": true, "vacuum": true, "copy": true, "declare": true, "fetch": true, "move": true, "close": true,
}

// Forbidden returns what in the statement no operation may do, else "": its first word, a lock or a setting of the session,
// or a change of our own tables. What a function does within is not seen: Begin and Write undo its settings.
func (s *Statement) Forbidden() string {
	word := strings.ToLower(s.FirstWord())
	if forbidden[word] {
		return strings.ToUpper(word)
	}
	words := s.words()
	at := func(i int) string {
		if i < 0 || i >= len(words) {
			return ""
		}
		return words[i]
	}
	for i, w := range words {
		switch {
		case sessionLocks[w] && at(i+1) == "(":
			return w
		case w == "set_config" && strings.HasPrefix(at(i+2), "'") && !strings.Contains(at(i+2), "."):
			return "set_config of " + at(i + 2)[1:]
		case w == "catchment" && ours(word, at(i-2), at(i-1), at(i+1), at(i+2)):
			return "a change of the schema catchment"
		}
	}
	return ""
}

// sessionLocks outlive the transaction, and the connection goes on to another partition's batch.
var sessionLocks = map[string]bool{"pg_advisory_lock": true, "pg_advisory_lock_shared": true, "pg_try_advisory_lock": true, "pg_try_advisory_lock_shared": true}

// changes are first words of statements that change or lock tables as a whole.
var changes = map[string]bool{
	"drop": true, "alter": true, "truncate": true, "create": true, "grant": true, "revoke": true, "comment": true, "lock": true,
	"cluster": true, "reindex": true, "refresh": true, "analyze": true,
}

// ours says whether a statement changes something in the schema catchment, by the words around that name.
func ours(first, before2, before, after, after2 string) bool {
	switch {
	case after != ".":
		return changes[first] && (before == "schema" || before == "exists")
	case changes[first], after2 == "make_partitions", after2 == "drop_partition":
		return true
	}
	return before == "into" || before == "update" || before == "from" && before2 == "delete"
}

// words returns the statement's words but ONLY in lower case, quoted names as they are, literals behind a quote, and signs.
func (s *Statement) words() (words []string) {
	for rest, before := s.Source, byte(' '); rest != ""; {
		n, text := 1, ""
		switch c := rest[0]; {
		case strings.HasPrefix(rest, "--"):
			n = until(rest, "\n", 2)
		case strings.HasPrefix(rest, "/*"):
			n = comment(rest)
		case c == '\'':
			n = quoted(rest, '\'', before == 'e' || before == 'E')
			text = strings.TrimSuffix(rest[:n], "'")
		case c == '"':
			n = quoted(rest, '"', false)
			text = strings.Trim(rest[:n], `"`)
		case c == '$':
			if n = dollar(rest, before); n > 1 {
				text = "'"
			}
		case identByte(c):
			for n < len(rest) && identByte(rest[n]) {
				n++
			}
			text = strings.ToLower(rest[:n])
		case !unicode.IsSpace(rune(c)):
			text = rest[:1]
		}
		if text != "" && text != "only" {
			words = append(words, text)
		}
		before, rest = rest[n-1], rest[n:]
	}
	return words
}

// FirstWord returns the statement's first word, behind comments and parentheses, or "".
func (s *Statement) FirstWord() string {
	rest := s.Source
	for {
		rest = strings.TrimLeftFunc(rest, func(r rune) bool { return unicode.IsSpace(r) || r == '(' || r == ';' })
		switch {
		case strings.HasPrefix(rest, "--"):
			rest = rest[until(rest, "\n", 2):]
		case strings.HasPrefix(rest, "/*"):
			rest = rest[comment(rest):]
		default:
			n := 0
			for n < len(rest) && identByte(rest[n]) {
				n++
			}
			return rest[:n]
		}
	}
}
