package provider

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// names gives the names of an object's members, in order. What is no object, as a whole, has none.
func (v value) names() []string {
	if text := bytes.TrimLeft(v, " \t\r\n"); len(text) == 0 || text[0] != '{' || !jsontext.Value(v).IsValid(readOptions...) {
		return nil
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(v), readOptions...)
	if _, err := dec.ReadToken(); err != nil {
		return nil
	}
	var names []string
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil
		}
		names = append(names, name.String())
		if err := dec.SkipValue(); err != nil {
			return nil
		}
	}
	return names
}

// orWhole takes a delivery without an element for one event: nothing that was verified goes by unseen.
func orWhole(parts []Part, err error) ([]Part, error) {
	if err != nil || len(parts) == 0 {
		return nil, err
	}
	return parts, nil
}
