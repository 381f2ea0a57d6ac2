package config

import (
	"reflect"
	"strconv"
)

// Schema returns the JSON Schema (draft 2020-12) of a struct type, for editors. Wherever a scalar may stand, a
// text with ${VARIABLE} may stand as well.
func Schema(t reflect.Type, id, title string) map[string]any {
	s := objectSchema(t)
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["$id"], s["title"] = id, title
	return s
}

func objectSchema(t reflect.Type) map[string]any {
	props, required := map[string]any{}, []string{}
	for f := range fields(t) {
		p := typeSchema(t.FieldByIndex(f.index).Type, f)
		if f.doc != "" {
			p["description"] = f.doc
		}
		if f.hasDef {
			p["default"] = defaultValue(t.FieldByIndex(f.index).Type, f.defText)
		}
		props[f.key] = p
		if f.required {
			required = append(required, f.key)
		}
	}
	s := map[string]any{"type": "object", "properties": props, "additionalProperties": false}
	if len(required) > 0 {
		s["required"] = required
	}
	return s
}

const (
	patternVariable = `\$\{[^}]+\}`
	patternDuration = `^((([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+)|[0-9]+d|0)$|` + patternVariable
	patternSize     = `^[0-9]+ *(B|kB|KB|MB|GB|KiB|MiB|GiB)?$|` + patternVariable
)

func typeSchema(t reflect.Type, f field) map[string]any {
	switch t {
	case typeSecret:
		return map[string]any{"type": "string", "minLength": 1}
	case typeSize:
		return map[string]any{"type": []string{"string", "integer"}, "pattern": patternSize, "minimum": 0}
	case typeDuration:
		return map[string]any{"type": "string", "pattern": patternDuration}
	case typeTime:
		return map[string]any{"type": "string", "format": "date-time"}
	case typeStrings:
		item := map[string]any{"type": "string"}
		return map[string]any{"oneOf": []any{item, map[string]any{"type": "array", "items": item}}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeSchema(t.Elem(), f)
	case reflect.Struct:
		s := objectSchema(t)
		if _, ok := reflect.Zero(t).Interface().(ScalarKey); ok {
			return map[string]any{"oneOf": []any{map[string]any{"type": "string", "minLength": 1}, s}}
		}
		return s
	case reflect.Slice:
		return map[string]any{"type": "array", "items": typeSchema(t.Elem(), f.element())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": typeSchema(t.Elem(), f.element())}
	case reflect.Interface:
		return map[string]any{}
	case reflect.Bool:
		return orVariable(map[string]any{"type": "boolean"})
	case reflect.Int, reflect.Int32, reflect.Int64:
		return orVariable(map[string]any{"type": "integer"})
	}
	s := map[string]any{"type": "string"}
	if f.lenient {
		s["type"] = []string{"string", "number", "boolean"}
	}
	if len(f.enum) > 0 {
		return orVariable(map[string]any{"enum": f.enum})
	}
	return s
}

func orVariable(s map[string]any) map[string]any {
	return map[string]any{"anyOf": []any{s, map[string]any{"type": "string", "pattern": patternVariable}}}
}

func defaultValue(t reflect.Type, text string) any {
	switch t.Kind() {
	case reflect.Bool:
		return text == "true"
	case reflect.Int:
		if n, err := strconv.Atoi(text); err == nil {
			return n
		}
	}
	return text
}
