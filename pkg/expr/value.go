package expr

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// Kind is what a parameter's Postgres type asks of its value.
type Kind int

// The kinds of parameters.
const (
	KindScalar Kind = iota // any type that takes its text form
	KindArray              // an array: a list becomes an array literal
	KindJSON               // json and jsonb: lists and maps as JSON, scalars by their text form
	KindBytes              // bytea
)

// Text gives the text form of a scalar; isNull for null and for an empty optional. Lists and maps are JSON.
// Times are RFC 3339 in UTC, durations seconds with the unit s, bytes the text that they encode.
// An error for what has no text form in Postgres: U+0000, bytes that are not UTF-8, infinities, functions, types.
func Text(v ref.Val) (text string, isNull bool, err error) {
	v = unwrap(v)
	switch t := v.(type) {
	case types.Null:
		return "", true, nil
	case types.String:
		text = string(t)
	case types.Bytes:
		text = string(t)
	case types.Int:
		text = strconv.FormatInt(int64(t), 10)
	case types.Uint:
		text = strconv.FormatUint(uint64(t), 10)
	case types.Bool:
		text = strconv.FormatBool(bool(t))
	case types.Double:
		text, err = doubleText(float64(t))
	case types.Timestamp:
		text = timeText(t.Time)
	case types.Duration:
		text = strconv.FormatFloat(t.Seconds(), 'f', -1, 64) + "s"
	case traits.Lister, traits.Mapper:
		text, err = JSON(v)
	default:
		err = fmt.Errorf("a value of type %s has no text form", typeName(v))
	}
	if err != nil {
		return "", false, err
	}
	return text, false, checkText(text)
}

// Param gives the value in the form in which pgx sends it: nil, a text, or bytes for bytea.
func Param(v ref.Val, kind Kind) (any, error) {
	v = unwrap(v)
	if v == nil || v == types.NullValue {
		return nil, nil
	}
	switch kind {
	case KindBytes:
		if b, ok := v.(types.Bytes); ok {
			return nonNil(b), nil
		}
		if s, ok := v.(types.String); ok {
			return []byte(s), nil
		}
	case KindArray:
		list, ok := v.(traits.Lister)
		if !ok {
			return nil, errors.New("expected a list for an array parameter, found " + typeName(v))
		}
		return arrayText(list)
	}
	text, _, err := Text(v)
	if err != nil {
		return nil, err
	}
	return text, nil
}

// JSON gives a value as JSON: bytes in base64, times and durations by their text form, map keys sorted.
func JSON(v ref.Val) (string, error) {
	n, err := native(v)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(n); err != nil {
		return "", fmt.Errorf("as JSON: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

func native(v ref.Val) (any, error) {
	v = unwrap(v)
	switch t := v.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(t), nil
	case types.Int:
		return int64(t), nil
	case types.Uint:
		return uint64(t), nil
	case types.String:
		return string(t), nil
	case types.Bytes:
		return base64.StdEncoding.EncodeToString(t), nil
	case types.Double:
		text, err := doubleText(float64(t))
		return json.Number(text), err
	case types.Timestamp, types.Duration:
		text, _, err := Text(t)
		return text, err
	case traits.Lister:
		return nativeList(t)
	case traits.Mapper:
		return nativeMap(t)
	}
	return nil, fmt.Errorf("a value of type %s has no JSON form", typeName(v))
}

func nativeList(l traits.Lister) (any, error) {
	out := []any{}
	for it := l.Iterator(); it.HasNext() == types.True; {
		n, err := native(it.Next())
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

func nativeMap(m traits.Mapper) (any, error) {
	out := map[string]any{}
	for it := m.Iterator(); it.HasNext() == types.True; {
		k := it.Next()
		name, _, err := Text(k)
		if err != nil {
			return nil, err
		}
		if out[name], err = native(m.Get(k)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// arrayText writes a Postgres array literal; a list in a list is a further dimension.
func arrayText(l traits.Lister) (string, error) {
	var parts []string
	for it := l.Iterator(); it.HasNext() == types.True; {
		v := unwrap(it.Next())
		if inner, ok := v.(traits.Lister); ok {
			s, err := arrayText(inner)
			if err != nil {
				return "", err
			}
			parts = append(parts, s)
			continue
		}
		s, null, err := Text(v)
		if err != nil {
			return "", err
		}
		if null {
			s = "NULL"
		} else {
			s = `"` + arrayEscape.Replace(s) + `"`
		}
		parts = append(parts, s)
	}
	return "{" + strings.Join(parts, ",") + "}", nil
}

var arrayEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// Version is a version value in two forms: Key compares bytewise as the values compare, Text is for people.
type Version struct {
	Key  []byte
	Text string
}

const maxVersion = 1024 // bytes of a version's key

// The tags order values of different types; a list is the sequence of its elements.
const (
	tagInt    = 0x20
	tagTime   = 0x30
	tagString = 0x40
)

// NewVersion takes an int, a string, a timestamp or a list of them. An error for anything else, also for null.
func NewVersion(v ref.Val) (Version, error) {
	v = unwrap(v)
	var key []byte
	var err error
	if list, ok := v.(traits.Lister); ok {
		for it := list.Iterator(); it.HasNext() == types.True; {
			if key, err = appendVersion(key, unwrap(it.Next())); err != nil {
				return Version{}, err
			}
		}
		if len(key) == 0 {
			return Version{}, errors.New("the version is an empty list")
		}
	} else if key, err = appendVersion(nil, v); err != nil {
		return Version{}, err
	}
	if len(key) > maxVersion {
		return Version{}, fmt.Errorf("the version is longer than %d bytes", maxVersion)
	}
	text, _, err := Text(v)
	if err != nil {
		return Version{}, err
	}
	return Version{Key: key, Text: text}, nil
}

func appendVersion(key []byte, v ref.Val) ([]byte, error) {
	switch t := v.(type) {
	case types.Null:
		return nil, errors.New("the version is null")
	case types.Int:
		return appendInt(append(key, tagInt), int64(t)), nil
	case types.Uint:
		if uint64(t) > math.MaxInt64 {
			return nil, errors.New("the version is beyond int64")
		}
		return appendInt(append(key, tagInt), int64(t)), nil
	case types.Timestamp:
		key = appendInt(append(key, tagTime), t.Unix())
		n := uint32(t.Nanosecond())
		return append(key, byte(n>>24), byte(n>>16), byte(n>>8), byte(n)), nil
	case types.String:
		// 00 ends the text, so that a prefix sorts first; a 00 within it becomes 00 FF.
		key = append(key, tagString)
		for _, c := range []byte(t) {
			if key = append(key, c); c == 0 {
				key = append(key, 0xff)
			}
		}
		return append(key, 0, 1), nil
	}
	return nil, fmt.Errorf("expected an int, a string, a timestamp or a list of them as version, found %s", typeName(v))
}

func appendInt(key []byte, i int64) []byte {
	u := uint64(i) ^ 1<<63
	for s := 56; s >= 0; s -= 8 {
		key = append(key, byte(u>>s))
	}
	return key
}

// Compare orders two versions: -1, 0 or 1.
func (v Version) Compare(w Version) int { return slices.Compare(v.Key, w.Key) }

// Shape names what a version's key is made of, such as "an int" or "a list (int, string)". Only versions of one shape say
// which is newer. A list of one element has the shape of the element, as it has its key.
func Shape(key []byte) string {
	var names []string
	for len(key) > 0 {
		name, n := element(key)
		names, key = append(names, name), key[n:]
	}
	switch {
	case len(names) != 1:
		return "a list (" + strings.Join(names, ", ") + ")"
	case names[0] == nameInt:
		return "an " + names[0]
	}
	return "a " + names[0]
}

// SameShape says whether two keys have one shape, without naming it.
func SameShape(a, b []byte) bool {
	for len(a) > 0 && len(b) > 0 {
		s, n := element(a)
		t, m := element(b)
		if s != t {
			return false
		}
		a, b = a[n:], b[m:]
	}
	return len(a) == len(b)
}

const nameInt = "int"

// element gives the type of a key's first element, and the element's length in bytes.
func element(key []byte) (string, int) {
	name, n := "value of an unknown type", len(key)
	switch key[0] {
	case tagInt:
		name, n = nameInt, 1+8
	case tagTime:
		name, n = "timestamp", 1+8+4
	case tagString:
		name = "string"
		if end := bytes.Index(key, []byte{0, 1}); end >= 0 { // a 00 within the text is followed by FF
			n = end + 2
		}
	}
	return name, min(n, len(key))
}

// unwrap takes a value out of an optional; an empty one is null.
func unwrap(v ref.Val) ref.Val {
	for {
		o, ok := v.(*types.Optional)
		if !ok {
			return v
		}
		if !o.HasValue() {
			return types.NullValue
		}
		v = o.GetValue()
	}
}

func typeName(v ref.Val) string { return unwrap(v).Type().TypeName() }

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// doubleText writes integers without exponent as long as a double holds them exactly, so that they fit integer types.
func doubleText(f float64) (string, error) {
	switch {
	case math.IsInf(f, 0) || math.IsNaN(f):
		return "", errors.New("the number is beyond the range of double")
	case math.Abs(f) < 1e21:
		return strconv.FormatFloat(f, 'f', -1, 64), nil
	}
	return strconv.FormatFloat(f, 'g', -1, 64), nil
}

func checkText(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("the text is not UTF-8")
	}
	if strings.IndexByte(s, 0) >= 0 {
		return errors.New("the text holds U+0000, which Postgres cannot store")
	}
	return nil
}

func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Bytes makes a CEL value of bytes.
func Bytes(b []byte) ref.Val { return types.Bytes(b) }

// Number makes a CEL value of an integer.
func Number(n int) ref.Val { return types.Int(n) }

// Encode gives a value as the bytes of a message: text and bytes as they are, all else as JSON; nil for null.
func Encode(v ref.Val) (b []byte, isJSON bool, err error) {
	switch t := unwrap(v).(type) {
	case types.Null:
		return nil, false, nil
	case types.String:
		return []byte(t), false, nil
	case types.Bytes:
		return nonNil(t), false, nil
	default:
		text, err := JSON(t)
		return []byte(text), true, err
	}
}
