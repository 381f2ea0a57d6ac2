package provider

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// template is the text that an HMAC scheme signs: literal text with placeholders {body} {timestamp} {id} {url}
// {method} {path} {query} {header:Name}; {{ and }} stand for braces.
//
// The same bytes must not come out of two different requests, or one signature would fit both. Therefore a header
// that the sender chooses freely ({id}, {header:Name}) needs literal text between itself and the body, and may not
// contain that text's character which touches it. A timestamp may touch the body, as in several real schemes: its
// form and the tolerance leave no room to move its end.
type template []part

type part struct {
	kind  partKind
	text  string // of a literal; of partHeader, the canonical name
	fence byte   // of {id} and {header:Name}: the character that the value may not contain
}

type partKind uint8

const (
	partLiteral partKind = iota
	partBody
	partStamp
	partID
	partURL
	partMethod
	partPath
	partQuery
	partHeader
)

var partNames = map[string]partKind{
	"body": partBody, "timestamp": partStamp, "id": partID, "url": partURL,
	"method": partMethod, "path": partPath, "query": partQuery,
}

const placeholders = "{body} {timestamp} {id} {url} {method} {path} {query} {header:Name}"

// templateInput is what the placeholders stand for.
type templateInput struct {
	stamp, id, url, method, path, query string
	header                              http.Header
	body                                []byte
}

// parseTemplate reads a template; the empty one is {body}.
func parseTemplate(text string) (template, error) {
	if text == "" {
		text = "{body}"
	}
	var t template
	for text != "" {
		var err error
		if text, err = t.next(text); err != nil {
			return nil, err
		}
	}
	return t, t.fences()
}

// next reads one part from the beginning of text and returns what follows it.
func (t *template) next(text string) (string, error) {
	switch {
	case strings.HasPrefix(text, "{{"), strings.HasPrefix(text, "}}"):
		t.literal(text[:1])
		return text[2:], nil
	case text[0] == '}':
		return "", errors.New("} without {: write }} for a brace")
	case text[0] != '{':
		n := strings.IndexAny(text, "{}")
		if n < 0 {
			n = len(text)
		}
		t.literal(text[:n])
		return text[n:], nil
	}
	name, rest, ok := strings.Cut(text[1:], "}")
	if !ok {
		return "", errors.New("{ without }: write {{ for a brace")
	}
	p, err := placeholder(name)
	*t = append(*t, p)
	return rest, err
}

func (t *template) literal(text string) {
	if n := len(*t); n > 0 && (*t)[n-1].kind == partLiteral {
		(*t)[n-1].text += text
		return
	}
	*t = append(*t, part{kind: partLiteral, text: text})
}

func placeholder(name string) (part, error) {
	if kind, ok := partNames[name]; ok {
		return part{kind: kind}, nil
	}
	header, ok := strings.CutPrefix(name, "header:")
	switch {
	case !ok:
		return part{}, fmt.Errorf("unknown placeholder {%s}: expected one of %s", name, placeholders)
	case !isToken(header):
		return part{}, fmt.Errorf("{%s}: %q is no header name", name, header)
	case http.CanonicalHeaderKey(header) == "Host":
		return part{}, errors.New("{header:Host}: use {url} and public_url, for proxies change the host")
	}
	return part{kind: partHeader, text: http.CanonicalHeaderKey(header)}, nil
}

// fences checks that the template can be taken apart in one way only, and notes how.
func (t template) fences() error {
	body := -1
	for i, p := range t {
		if p.kind != partBody {
			continue
		}
		if body >= 0 {
			return errors.New("{body} is there twice")
		}
		body = i
	}
	if body < 0 {
		return errors.New("{body} is missing: whatever the signature does not cover, anybody can change")
	}
	for i := range t {
		if err := t.fence(i, body); err != nil {
			return err
		}
	}
	return nil
}

// fence looks at what stands between part i and the body.
func (t template) fence(i, body int) error {
	p, next := &t[i], part{}
	var touch byte // the character of the neighbour that touches part i
	switch {
	case i < body:
		next = t[i+1]
		if next.kind == partLiteral {
			touch = next.text[0]
		}
	case i > body:
		next = t[i-1]
		if next.kind == partLiteral {
			touch = next.text[len(next.text)-1]
		}
	}
	switch p.kind {
	case partID, partHeader:
		if next.kind != partLiteral {
			return errAmbiguous
		}
		p.fence = touch
	case partStamp:
		digit := '0' <= touch && touch <= '9'
		if digit || next.kind == partID || next.kind == partHeader || next.kind == partQuery {
			return errAmbiguousStamp
		}
	}
	return nil
}

var (
	errAmbiguous      = errors.New("text is missing between {id} or {header:…} and its neighbour: the signed bytes could be split in two ways")
	errAmbiguousStamp = errors.New("a digit, or what may begin with one, touches {timestamp}: the signed bytes could be split in two ways")
)

func (t template) has(kind partKind) bool {
	for _, p := range t {
		if p.kind == kind {
			return true
		}
	}
	return false
}

// precedesBody says whether a part of that kind stands before the body with nothing in between.
func (t template) precedesBody(kind partKind) bool {
	for i := range t {
		if t[i].kind == partBody && i > 0 && t[i-1].kind == kind {
			return true
		}
	}
	return false
}

// headers lists the names in {header:Name}.
func (t template) headers() []string {
	var names []string
	for _, p := range t {
		if p.kind == partHeader {
			names = append(names, p.text)
		}
	}
	return names
}

// check refuses what would make the signed bytes ambiguous.
func (t template) check(in *templateInput) error {
	for _, p := range t {
		if p.kind != partID && p.kind != partHeader {
			continue
		}
		v := p.value(in)
		if v == "" {
			return errSignedHeader
		}
		if strings.IndexByte(v, p.fence) >= 0 {
			return errSignedForm
		}
	}
	return nil
}

// write feeds the signed bytes to m.
func (t template) write(m *mac, in *templateInput) {
	for _, p := range t {
		if p.kind == partBody {
			m.bytes(in.body)
		} else {
			m.string(p.value(in))
		}
	}
}

func (p part) value(in *templateInput) string {
	switch p.kind {
	case partLiteral:
		return p.text
	case partStamp:
		return in.stamp
	case partID:
		return in.id
	case partURL:
		return in.url
	case partMethod:
		return in.method
	case partPath:
		return in.path
	case partQuery:
		return in.query
	case partHeader:
		return get(in.header, p.text)
	}
	return ""
}
