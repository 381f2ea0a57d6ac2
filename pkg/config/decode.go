package config

import (
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

// ScalarKey is implemented by structs that may be written as a bare text, which then fills the key it names.
type ScalarKey interface{ ScalarKey() string }

type decoder struct {
	Options
	file, dir string
	index     *Index
	errs      Errors
	resolve   bool // in a section that is needed
	depth     int  // of the value that is being read
	visited   int  // values read so far, each time that an alias repeats them
}

// No real configuration comes near these; a document whose aliases contain themselves would go on for ever.
const (
	maxDepth   = 64
	maxVisited = 200_000
)

// enter counts one more level; it refuses what is too deep or too much.
func (d *decoder) enter(n *yaml.Node, path string) bool {
	d.depth++
	d.visited++
	if d.depth <= maxDepth && d.visited <= maxVisited {
		return true
	}
	if d.visited <= maxVisited {
		d.visited = maxVisited // say it once
		d.errorf(n, path, "expected at most %d levels and %d values: does an alias contain itself?", maxDepth, maxVisited)
	}
	return false
}

func (d *decoder) leave() { d.depth-- }

var (
	typeSecret   = reflect.TypeFor[Secret]()
	typeSize     = reflect.TypeFor[Size]()
	typeStrings  = reflect.TypeFor[Strings]()
	typeDuration = reflect.TypeFor[time.Duration]()
	typeTime     = reflect.TypeFor[time.Time]()
)

func (d *decoder) errorf(n *yaml.Node, path, format string, args ...any) {
	d.errs = append(d.errs, Error{d.pos(n), path, fmt.Sprintf(format, args...)})
}

func (d *decoder) pos(n *yaml.Node) Pos {
	if n == nil {
		return Pos{File: d.file}
	}
	if n.Line == 0 && n.HeadComment != "" { // made from an environment variable
		return Pos{File: n.HeadComment}
	}
	return Pos{d.file, n.Line, n.Column}
}

func (d *decoder) document(root *yaml.Node, dst any) {
	v := reflect.ValueOf(dst).Elem()
	var n *yaml.Node
	if root.Kind == yaml.DocumentNode && len(root.Content) > 0 {
		n = root.Content[0]
	}
	if n == nil || isNull(n) {
		n = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: 1, Column: 1}
	}
	d.overrides(n, v.Type())
	d.section(n, v)
	d.errs.Sort()
}

// section reads the top level, where each key is a section of its own.
func (d *decoder) section(n *yaml.Node, v reflect.Value) {
	entries, ok := d.entries(n, "")
	if !ok {
		return
	}
	d.unknownKeys(entries, v.Type(), "")
	for f := range fields(v.Type()) {
		d.resolve = d.Resolve(f.key)
		e, ok := entries[f.key]
		if !ok || isNull(e.value) {
			e.value = &yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column}
			if k := v.FieldByIndex(f.index).Kind(); k != reflect.Struct {
				continue
			}
		}
		d.value(e.value, v.FieldByIndex(f.index), f.key, f)
	}
}

type entry struct{ key, value *yaml.Node }

// entries returns a mapping's pairs by key, aliases and merges resolved.
func (d *decoder) entries(n *yaml.Node, path string) (map[string]entry, bool) {
	n = deref(n)
	defer d.leave()
	if !d.enter(n, path) {
		return nil, false
	}
	if n.Kind != yaml.MappingNode {
		d.errorf(n, path, "expected a mapping (key: value), found %s", describe(n))
		return nil, false
	}
	m := make(map[string]entry, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, val := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.ScalarNode && k.Value == "<<" && k.Style == 0 {
			merged, ok := d.entries(val, path)
			for key, e := range merged {
				if _, there := m[key]; ok && !there {
					m[key] = e
				}
			}
			continue
		}
		if k.Kind != yaml.ScalarNode {
			d.errorf(k, path, "expected a text as key, found %s", describe(k))
			continue
		}
		if old, there := m[k.Value]; there && old.key.Line != 0 && isDirect(n, old.key) {
			d.errorf(k, join(path, k.Value), "this key is there twice, first in line %d", old.key.Line)
			continue
		}
		m[k.Value] = entry{k, val}
	}
	return m, true
}

func isDirect(n, key *yaml.Node) bool { return slices.Contains(n.Content, key) }

func (d *decoder) unknownKeys(entries map[string]entry, t reflect.Type, path string) {
	var known []string
	for f := range fields(t) {
		known = append(known, f.key)
	}
	for k, e := range entries {
		if slices.Contains(known, k) {
			continue
		}
		hint := "expected one of " + strings.Join(known, ", ")
		if near := nearest(k, known); near != "" {
			hint = fmt.Sprintf("did you mean %q? (%s)", near, hint)
		}
		d.errorf(e.key, join(path, k), "unknown key: %s", hint)
	}
}

func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, f field) {
	n = deref(n)
	defer d.leave()
	if !d.enter(n, path) {
		return
	}
	d.index.at[path] = d.pos(n)
	if isNull(n) {
		if f.required && d.resolve {
			d.errorf(n, path, "expected %s, found nothing", expectation(v.Type(), f))
		}
		return
	}
	switch v.Type() {
	case typeSecret, typeSize, typeDuration, typeTime:
		d.scalar(n, v, path, f)
		return
	case typeStrings:
		if n.Kind == yaml.ScalarNode {
			n = &yaml.Node{Kind: yaml.SequenceNode, Line: n.Line, Column: n.Column, Content: []*yaml.Node{n}}
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(n, v.Elem(), path, f)
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Slice:
		d.slice(n, v, path, f)
	case reflect.Map:
		d.mapping(n, v, path, f)
	case reflect.Interface:
		d.anything(n, v, path)
	default:
		d.scalar(n, v, path, f)
	}
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string) {
	if sk, ok := v.Interface().(ScalarKey); ok && n.Kind == yaml.ScalarNode {
		key := sk.ScalarKey()
		n = &yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column, Content: []*yaml.Node{{Kind: yaml.ScalarNode, Value: key, Tag: "!!str"}, n}}
	}
	entries, ok := d.entries(n, path)
	if !ok {
		return
	}
	d.unknownKeys(entries, v.Type(), path)
	for f := range fields(v.Type()) {
		fv, p := v.FieldByIndex(f.index), join(path, f.key)
		e, there := entries[f.key]
		switch {
		case there:
			d.value(e.value, fv, p, f)
		case f.required && d.resolve:
			d.errorf(n, p, "this key is missing: expected %s", expectation(fv.Type(), f))
		}
		if (!there || isNull(deref(e.value))) && fv.Kind() == reflect.Struct && !isLeaf(fv.Type()) {
			if f.required {
				continue // said already
			}
			d.structure(&yaml.Node{Kind: yaml.MappingNode, Line: n.Line, Column: n.Column}, fv, p)
			continue
		}
		if def, ok := f.def(); ok && (!there || isNull(deref(e.value))) {
			d.scalar(&yaml.Node{Kind: yaml.ScalarNode, Value: def, Line: n.Line, Column: n.Column}, fv, p, f.asDefault())
		}
	}
}

func (d *decoder) slice(n *yaml.Node, v reflect.Value, path string, f field) {
	if n.Kind != yaml.SequenceNode {
		d.errorf(n, path, "expected a list, found %s", describe(n))
		return
	}
	if len(n.Content) == 0 && f.required && d.resolve {
		d.errorf(n, path, "expected %s with at least one entry, found an empty list", expectation(v.Type(), f))
	}
	out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		d.value(c, out.Index(i), fmt.Sprintf("%s[%d]", path, i), f.element())
	}
	v.Set(out)
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string, f field) {
	entries, ok := d.entries(n, path)
	if !ok {
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(entries)))
	for k, e := range entries {
		el := reflect.New(v.Type().Elem()).Elem()
		if deref(e.value).Kind == yaml.ScalarNode && isNull(deref(e.value)) && el.Kind() == reflect.Struct {
			e.value = &yaml.Node{Kind: yaml.MappingNode, Line: e.key.Line, Column: e.key.Column}
		}
		d.value(e.value, el, join(path, k), f.element())
		if deref(e.value).Kind == yaml.MappingNode {
			d.index.at[join(path, k)] = d.pos(e.key) // its name is what stands there
		}
		v.SetMapIndex(reflect.ValueOf(k), el)
	}
}

// anything reads a value whose shape is checked later, by whoever uses it.
func (d *decoder) anything(n *yaml.Node, v reflect.Value, path string) {
	switch n.Kind {
	case yaml.SequenceNode:
		var list []any
		d.slice(n, reflect.ValueOf(&list).Elem(), path, field{})
		v.Set(reflect.ValueOf(list))
	case yaml.MappingNode:
		var m map[string]any
		d.mapping(n, reflect.ValueOf(&m).Elem(), path, field{})
		v.Set(reflect.ValueOf(m))
	default:
		if n.ShortTag() == "!!str" {
			if text, ok := d.expand(n, path); ok {
				v.Set(reflect.ValueOf(text))
			}
			return
		}
		var x any
		if err := n.Decode(&x); err != nil {
			d.errorf(n, path, "expected a scalar: %v", err)
			return
		}
		v.Set(reflect.ValueOf(x))
	}
}

// scalar reads one text into v.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, path string, f field) {
	want := expectation(v.Type(), f)
	if n.Kind != yaml.ScalarNode {
		d.errorf(n, path, "expected %s, found %s", want, describe(n))
		return
	}
	isText := n.ShortTag() == "!!str"
	if !isText && !f.lenient && (v.Kind() == reflect.String && v.Type() != typeTime || v.Type() == typeSecret) {
		d.errorf(n, path, "expected %s, found %s: put it in quotes", want, describe(n))
		return
	}
	text, ok := d.expand(n, path)
	if !ok {
		return
	}
	if v.Type() == typeSecret {
		file := ""
		if text, file, ok = d.secretFile(n, text, path); !ok {
			return
		}
		if text == "" && d.resolve {
			d.errorf(n, path, "expected a secret, found an empty text")
			return
		}
		v.Set(reflect.ValueOf(Secret{text, file}))
		return
	}
	if f.required && text == "" && d.resolve {
		d.errorf(n, path, "expected %s, found an empty text", want)
		return
	}
	if !d.resolve && strings.Contains(n.Value, "${") && v.Kind() != reflect.String {
		return // its variable is not ours to know
	}
	if err := setScalar(v, text); err != nil || !f.allows(text) || f.tooSmall(v) {
		found := fmt.Sprintf("%q", text)
		if isText && n.Value != text {
			found = "the value of " + n.Value // never show what a variable holds: it may be a secret
		}
		d.errorf(n, path, "expected %s, found %s", want, found)
	}
}

func setScalar(v reflect.Value, text string) error {
	switch {
	case v.Type() == typeSize:
		s, err := ParseSize(text)
		v.SetInt(int64(s))
		return err
	case v.Type() == typeDuration:
		dur, err := ParseDuration(text)
		v.SetInt(int64(dur))
		return err
	case v.Type() == typeTime:
		t, err := time.Parse(time.RFC3339, text)
		v.Set(reflect.ValueOf(t))
		return err
	}
	switch v.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return strconv.ErrSyntax
		}
		v.SetBool(text == "true")
	case reflect.Int, reflect.Int64, reflect.Int32:
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		v.SetInt(i)
		return err
	case reflect.Slice: // a default, or an environment variable: comma-separated
		for s := range strings.SplitSeq(text, ",") {
			el := reflect.New(v.Type().Elem()).Elem()
			if err := setScalar(el, strings.TrimSpace(s)); err != nil {
				return err
			}
			v.Set(reflect.Append(v, el))
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return setScalar(v.Elem(), text)
	default:
		v.SetString(text)
	}
	return nil
}

// expand replaces ${VAR} by the environment's value and $$ by $.
func (d *decoder) expand(n *yaml.Node, path string) (string, bool) {
	s := n.Value
	if !d.resolve || !strings.Contains(s, "$") {
		return s, true
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 {
			b.WriteString(s)
			return b.String(), true
		}
		b.WriteString(s[:i])
		s = s[i:]
		switch {
		case strings.HasPrefix(s, "$$"):
			b.WriteByte('$')
			s = s[2:]
		case strings.HasPrefix(s, "${"):
			end := strings.IndexByte(s, '}')
			if end < 0 {
				d.errorf(n, path, "expected ${NAME}, found a ${ without its }; write $$ for a dollar sign")
				return "", false
			}
			val, ok := d.Lookup(s[2:end])
			if !ok {
				d.errorf(n, path, "expected the environment variable %s to be set; it is not", s[2:end])
				return "", false
			}
			b.WriteString(val)
			s = s[end+1:]
		default:
			b.WriteByte('$')
			s = s[1:]
		}
	}
}

// secretFile reads what a text names that begins with file:.
func (d *decoder) secretFile(n *yaml.Node, text, path string) (secret, file string, ok bool) {
	name, ok := strings.CutPrefix(text, "file:")
	if !ok || !d.resolve {
		return text, "", true
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(d.dir, name)
	}
	secret, err := readSecretFile(name)
	if err != nil {
		d.errorf(n, path, "expected a readable file with the secret: %v", err)
		return "", "", false
	}
	return secret, name, true
}

func deref(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func isLeaf(t reflect.Type) bool { return t == typeSecret || t == typeTime }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!null":
			return "nothing"
		case "!!int", "!!float":
			return "the number " + n.Value
		case "!!bool":
			return "the boolean " + n.Value
		case "!!timestamp":
			return "the time " + n.Value
		}
		return "a text"
	}
	return "something else"
}

// nearest returns the known key that is at most two edits away.
func nearest(k string, known []string) string {
	best, at := 3, ""
	for _, s := range known {
		if e := edits(k, s); e < best {
			best, at = e, s
		}
	}
	return at
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost = 1 + min(diag, row[j], row[j+1])
			}
			diag, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// Size is a number of bytes, written as 1048576, 64MiB or 25MB.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}

// ParseSize reads a number of bytes, with an optional unit (B, kB, MB, GB, KiB, MiB, GiB).
func ParseSize(text string) (Size, error) {
	for _, u := range sizeUnits {
		num, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(num), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		return Size(n * u.bytes), nil
	}
	return 0, fmt.Errorf("expected a size such as 64MiB, found %q", text)
}

// ParseDuration is time.ParseDuration with days (7d) besides. Negative durations are refused.
func ParseDuration(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 32)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("expected a number of days, found %q", text)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	dur, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("expected a duration such as 5s, found %q", text)
	}
	if dur < 0 {
		return 0, fmt.Errorf("expected a duration of at least 0s, found %q", text)
	}
	return dur, nil
}
