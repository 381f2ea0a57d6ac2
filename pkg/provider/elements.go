package provider

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// elements takes an array apart: each element's exact bytes, inside of v. Of what is no array, nil.
func (v value) elements() []value {
	if text := bytes.TrimLeft(v, " \t\r\n"); len(text) == 0 || text[0] != '[' || !jsontext.Value(v).IsValid(readOptions...) {
		return nil
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(v), readOptions...)
	if _, err := dec.ReadToken(); err != nil {
		return nil
	}
	list := []value{}
	for dec.PeekKind() != ']' {
		one, err := dec.ReadValue()
		if err != nil {
			return nil
		}
		end := int(dec.InputOffset())
		list = append(list, v[end-len(one):end:end])
	}
	return list
}

// partsOf names the elements of an array, each by the same fields; nil: it is no array.
func partsOf(array value, f *fields, name func(v []value) Identity) ([]Part, error) {
	list := array.elements()
	if list == nil {
		return nil, nil
	}
	parts := make([]Part, len(list))
	v := make([]value, f.count)
	for i, one := range list {
		if err := f.read(one, v); err != nil {
			return nil, err
		}
		parts[i] = Part{Identity: name(v), Body: one}
	}
	return parts, nil
}
