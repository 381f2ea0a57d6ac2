package config

import (
	"fmt"
	"reflect"
	"strings"
)

// Reference returns a Markdown table of every key of a struct type, in the order of the fields.
func Reference(t reflect.Type) string {
	var b strings.Builder
	b.WriteString("| key | is | default | what it says |\n| --- | --- | --- | --- |\n")
	reference(&b, t, "")
	return b.String()
}

func reference(b *strings.Builder, t reflect.Type, path string) {
	for f := range fields(t) {
		ft, key := t.FieldByIndex(f.index).Type, join(path, f.key)
		if ft.Kind() == reflect.Pointer {
			ft = ft.Elem()
		}
		def := ""
		switch {
		case f.required:
			def = "required"
		case f.hasDef:
			def = "`" + f.defText + "`"
		}
		what := expectation(ft, f)
		inner, suffix := ft, ""
		switch {
		case ft == typeStrings:
		case ft.Kind() == reflect.Slice:
			inner, suffix = ft.Elem(), "[]"
			what = "list"
			if len(f.enum) > 0 {
				what = "list of " + strings.Join(f.enum, ", ")
			}
		case ft.Kind() == reflect.Map:
			inner, suffix = ft.Elem(), ".{name}"
			what = "mapping"
		}
		nested := inner.Kind() == reflect.Struct && !isLeaf(inner)
		if nested && suffix == "" {
			what = "mapping"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", key, what, def, f.doc)
		if nested {
			reference(b, inner, key+suffix)
		}
	}
}
