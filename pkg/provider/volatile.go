package provider

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// SameEvent says whether a body is another one, that came under the same event ID, sent again: byte for byte the same but
// for the values of the JSON members that the provider changes between retries. Bodies that are no JSON, or name a member
// twice, are the same where all their bytes are.
func (p *Provider) SameEvent(first, again []byte) bool {
	if bytes.Equal(first, again) || len(p.Volatile) == 0 {
		return bytes.Equal(first, again)
	}
	skip := make([]jsontext.Pointer, len(p.Volatile))
	for i, path := range p.Volatile {
		skip[i] = jsontext.Pointer("/" + strings.ReplaceAll(path, ".", "/"))
	}
	a, okA := steady(first, skip)
	b, okB := steady(again, skip)
	return okA && okB && bytes.Equal(a, b)
}

// steady is a body without the values of some members; false where it is no JSON.
func steady(body []byte, skip []jsontext.Pointer) ([]byte, bool) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(body))
	rest, from := make([]byte, 0, len(body)), 0
	for {
		in, n := dec.StackIndex(dec.StackDepth())
		t, err := dec.ReadToken()
		if errors.Is(err, io.EOF) {
			return append(rest, body[from:]...), true
		}
		if err != nil {
			return nil, false
		}
		if in != '{' || n%2 != 0 || t.Kind() != '"' || !slices.Contains(skip, dec.StackPointer()) {
			continue
		}
		rest = append(rest, body[from:dec.InputOffset()]...)
		if err := dec.SkipValue(); err != nil {
			return nil, false
		}
		from = int(dec.InputOffset())
	}
}
