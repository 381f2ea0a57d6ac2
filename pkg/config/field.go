package config

import (
	"iter"
	"reflect"
	"slices"
	"strings"
)

// field is one struct field, as its tags describe it.
type field struct {
	key      string
	doc      string
	index    []int
	enum     []string
	required bool
	lenient  bool // scalar:"any"
	defText  string
	hasDef   bool
	least    string // min
}

func (f field) def() (string, bool) { return f.defText, f.hasDef }

// element is the field as seen by one element of its list or map.
func (f field) element() field {
	return field{doc: f.doc, enum: f.enum, lenient: f.lenient}
}

// tooSmall compares a number with the tag min.
func (f field) tooSmall(v reflect.Value) bool {
	if f.least == "" || !v.CanInt() {
		return false
	}
	least := reflect.New(v.Type()).Elem()
	return setScalar(least, f.least) == nil && v.Int() < least.Int()
}

// asDefault reads the tag's text as it is: it is ours, and needs no quotes.
func (f field) asDefault() field {
	f.lenient, f.enum = true, nil
	return f
}

func (f field) allows(text string) bool {
	if len(f.enum) == 0 {
		return true
	}
	return slices.Contains(f.enum, text)
}

// fields yields the fields of a struct type that have a key.
func fields(t reflect.Type) iter.Seq[field] {
	return func(yield func(field) bool) {
		for sf := range fieldsOf(t) {
			key, _, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
			if key == "" || key == "-" {
				continue
			}
			def, hasDef := sf.Tag.Lookup("default")
			f := field{
				key: key, doc: sf.Tag.Get("doc"), index: sf.Index,
				required: sf.Tag.Get("required") == "true",
				lenient:  sf.Tag.Get("scalar") == "any",
				defText:  def, hasDef: hasDef, least: sf.Tag.Get("min"),
			}
			if e := sf.Tag.Get("enum"); e != "" {
				f.enum = strings.Split(e, ",")
			}
			if !yield(f) {
				return
			}
		}
	}
}

func fieldsOf(t reflect.Type) iter.Seq[reflect.StructField] {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// expectation says in words what may stand there.
func expectation(t reflect.Type, f field) string {
	if len(f.enum) > 0 && t.Kind() != reflect.Slice {
		return "one of " + strings.Join(f.enum, ", ")
	}
	switch t {
	case typeSecret:
		return "a secret (a text, ${VARIABLE} or file:PATH)"
	case typeSize:
		return "a size such as 64MiB or 25MB" + f.atLeast()
	case typeDuration:
		return "a duration such as 5s, 10m or 7d" + f.atLeast()
	case typeTime:
		return "a time such as 2026-12-31T00:00:00Z"
	case typeStrings:
		return "a text or a list of texts"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return expectation(t.Elem(), f)
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number" + f.atLeast()
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "a mapping (key: value)"
	}
	return "a text"
}

func (f field) atLeast() string {
	if f.least == "" {
		return ""
	}
	return ", at least " + f.least
}
