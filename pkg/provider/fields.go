package provider

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// fields is a set of members of a JSON body, each named by its path. Reading them is strict where readers differ:
// a member on a path that is there twice, or in two spellings that differ in case alone, is refused, because two
// programs could then take two events out of the same bytes. What is no JSON text as a whole has no fields.
// Depth is bounded by jsontext (10,000), size by the body's; the body is neither copied nor changed.
type fields struct {
	root  member
	count int
}

type member struct {
	name  []byte
	slot  int // place in the values; noSlot: on the way to others
	inner []member
}

const noSlot = -1

// newFields takes paths with dots between the names.
func newFields(paths ...string) *fields {
	f := &fields{}
	for _, p := range paths {
		f.add(strings.Split(p, "."))
	}
	return f
}

// add gives the path's place in the values; a path that is there has its own already.
func (f *fields) add(path []string) int {
	m := &f.root
	for _, name := range path {
		m = m.child(name)
	}
	if m.slot == noSlot {
		m.slot = f.count
		f.count++
	}
	return m.slot
}

// within is the part of the set below a member, for a body that is that member; the values keep their places.
func (f *fields) within(name string) *fields {
	for _, m := range f.root.inner {
		if string(m.name) == name {
			return &fields{root: m, count: f.count}
		}
	}
	return &fields{count: f.count}
}

func (m *member) child(name string) *member {
	for i := range m.inner {
		if string(m.inner[i].name) == name {
			return &m.inner[i]
		}
	}
	m.inner = append(m.inner, member{name: []byte(name), slot: noSlot})
	return &m.inner[len(m.inner)-1]
}

// value is a JSON value as it stands in the body; nil: not there.
type value []byte

// text is a string's content or a number's digits as they stand; anything else is no text.
func (v value) text() string {
	switch {
	case len(v) == 0:
		return ""
	case v[0] == '"':
		if bytes.IndexByte(v, '\\') < 0 {
			return string(v[1 : len(v)-1])
		}
		// An unpaired surrogate comes out as an error and U+FFFD: it names nothing that can be told apart.
		s, err := jsontext.AppendUnquote(nil, []byte(v))
		if err != nil {
			return "\x00" // refused by cleanText
		}
		return string(s)
	case v[0] == '-' || '0' <= v[0] && v[0] <= '9':
		return string(v)
	}
	return ""
}

// str is a string's content; "" for anything else.
func (v value) str() string {
	if len(v) == 0 || v[0] != '"' {
		return ""
	}
	return v.text()
}

// reader walks a body. It is pooled: a decoder holds several buffers.
type reader struct {
	dec    jsontext.Decoder
	buf    bytes.Buffer
	body   []byte
	name   []byte
	values []value
}

var readers = sync.Pool{New: func() any { return new(reader) }}

var readOptions = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)}

// read puts the members' values into out, which has f.count places. A body that is no JSON leaves them empty.
func (f *fields) read(body []byte, out []value) error {
	r := readers.Get().(*reader)
	defer r.release()
	clear(out)
	r.body, r.values = body, out
	r.buf = *bytes.NewBuffer(body)
	r.dec.Reset(&r.buf, readOptions...)
	err := r.value(&f.root)
	if err == nil {
		_, err = r.dec.ReadToken()
		if errors.Is(err, io.EOF) {
			return nil
		}
		err = errTrailing
	}
	if errors.Is(err, errDuplicateMember) {
		return err
	}
	clear(out)
	return nil
}

var errTrailing = &Refusal{Reason: "text after the JSON value"}

func (r *reader) release() {
	r.body, r.values = nil, nil
	r.buf = bytes.Buffer{}
	r.dec.Reset(&r.buf) // lets go of the body
	readers.Put(r)
}

// value reads the next value, which is m's.
func (r *reader) value(m *member) error {
	if len(m.inner) == 0 || r.dec.PeekKind() != '{' {
		v, err := r.dec.ReadValue()
		if err == nil && m.slot != noSlot && m.name != nil {
			end := int(r.dec.InputOffset())
			r.values[m.slot] = r.body[end-len(v) : end]
		}
		return err
	}
	return r.object(m)
}

func (r *reader) object(m *member) error {
	if _, err := r.dec.ReadToken(); err != nil {
		return err
	}
	var seen uint64
	for r.dec.PeekKind() != '}' {
		i, exact, err := r.nextName(m)
		if err != nil {
			return err
		}
		if i < 0 {
			if _, err := r.dec.ReadValue(); err != nil { // quicker than SkipValue, which goes token by token
				return err
			}
			continue
		}
		if seen&(1<<i) != 0 {
			return errDuplicateMember
		}
		seen |= 1 << i
		if !exact {
			if _, err := r.dec.ReadValue(); err != nil { // quicker than SkipValue, which goes token by token
				return err
			}
			continue
		}
		if err := r.value(&m.inner[i]); err != nil {
			return err
		}
	}
	_, err := r.dec.ReadToken()
	return err
}

// nextName reads a member's name and says which of m's it is, if any, and whether in the same spelling.
func (r *reader) nextName(m *member) (i int, exact bool, err error) {
	quoted, err := r.dec.ReadValue()
	if err != nil {
		return -1, false, err
	}
	name := []byte(quoted[1 : len(quoted)-1])
	if bytes.IndexByte(name, '\\') >= 0 {
		r.name, _ = jsontext.AppendUnquote(r.name[:0], []byte(quoted))
		name = r.name
	}
	for i := range m.inner {
		if bytes.EqualFold(name, m.inner[i].name) {
			return i, bytes.Equal(name, m.inner[i].name), nil
		}
	}
	return -1, false, nil
}

// unixTime reads a number of whole seconds; zero when it is none.
func (v value) unixTime() time.Time {
	t, ok := unixSeconds(string(v))
	if !ok || t.Unix() == 0 {
		return time.Time{}
	}
	return t
}

// isoTime reads a string in the form of RFC 3339; zero when it is none.
func (v value) isoTime() time.Time {
	t, _ := rfc3339(v.str())
	return t
}

// anyTime reads whole Unix seconds or milliseconds (told apart by size), as a number or its text, and RFC 3339; zero
// when it is none of them.
func (v value) anyTime() time.Time {
	t, ok := anyStamp(v.text())
	if !ok || t.Unix() == 0 {
		return time.Time{}
	}
	return t
}
