package expr

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"github.com/go-json-experiment/json/jsontext"
)

// Input is one event as expressions see it. What is not set is "", null or empty. The body is decoded when an
// expression first asks for it, once for all programs; therefore an Input belongs to one goroutine at a time, and
// its fields stay as they are after the first evaluation.
type Input struct {
	Source, Type, ID string
	Time             time.Time // zero: null
	ReceivedAt       time.Time
	Headers          map[string][]string // lower-case name to values
	ContentType      string              // empty: the content-type of Headers
	Raw              []byte
	Item             ref.Val // of an environment made by Each; may change between two evaluations
	Index            int     // likewise

	want    *wants // what the expression at hand may look at in the body
	had     *wants // what has been decoded
	decoded bool
	body    ref.Val
	bodyErr error
	headers ref.Val
}

// ResolveName serves CEL's look-up of a variable.
func (in *Input) ResolveName(name string) (any, bool) {
	switch name {
	case "source":
		return types.String(in.Source), true
	case "type":
		return types.String(in.Type), true
	case "id":
		return types.String(in.ID), true
	case "time":
		if in.Time.IsZero() {
			return types.NullValue, true
		}
		return types.Timestamp{Time: in.Time}, true
	case "received_at":
		return types.Timestamp{Time: in.ReceivedAt}, true
	case "headers":
		if in.headers == nil {
			in.headers = types.DefaultTypeAdapter.NativeToValue(in.headerMap())
		}
		return in.headers, true
	case "body":
		return in.decodedBody(), true
	case "raw":
		return types.Bytes(in.Raw), true
	case "item":
		if in.Item == nil {
			return types.NullValue, true
		}
		return in.Item, true
	case "index":
		return types.Int(in.Index), true
	}
	return nil, false
}

// Parent says that there is no outer scope.
func (in *Input) Parent() cel.Activation { return nil }

func (in *Input) headerMap() map[string][]string {
	if in.Headers == nil {
		return map[string][]string{}
	}
	return in.Headers
}

func (in *Input) decodedBody() ref.Val {
	if !in.decoded || !in.had.covers(in.want) {
		in.decoded, in.had = true, in.want
		v, err := decodeBody(in.Raw, in.contentType(), in.want)
		in.bodyErr = err
		in.body = types.DefaultTypeAdapter.NativeToValue(v)
	}
	return in.body
}

func (in *Input) contentType() string {
	if in.ContentType != "" {
		return in.ContentType
	}
	if v := in.Headers["content-type"]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// decodeBody gives the Go form of a body: a form as a map of lists, else JSON whatever the content type says
// (SNS and others send JSON as text/plain), else nil and the reason.
func decodeBody(raw []byte, contentType string, want *wants) (any, error) {
	media, params, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil: // no or a broken content type
	case media == "application/x-www-form-urlencoded":
		return decodeForm(raw)
	case media == "multipart/form-data":
		return decodeMultipart(raw, params["boundary"])
	}
	v, err := decodeJSON(raw, want)
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	return v, nil
}

func decodeForm(raw []byte) (any, error) {
	values, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, fmt.Errorf("not a form: %w", err)
	}
	return formMap(values), nil
}

func decodeMultipart(raw []byte, boundary string) (any, error) {
	r := multipart.NewReader(bytes.NewReader(raw), boundary)
	values := url.Values{}
	for {
		part, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return formMap(values), nil
		}
		if err != nil {
			return nil, fmt.Errorf("not a multipart form: %w", err)
		}
		if part.FormName() == "" || part.FileName() != "" {
			continue
		}
		text, err := io.ReadAll(part)
		if err != nil {
			return nil, fmt.Errorf("not a multipart form: %w", err)
		}
		values.Add(part.FormName(), string(text))
	}
}

// formMap keeps every field as a list, but for a payload field that is JSON: several providers put the event there.
func formMap(values url.Values) map[string]any {
	m := make(map[string]any, len(values))
	for name, list := range values {
		m[name] = list
	}
	if p := values["payload"]; len(p) == 1 {
		if v, err := decodeJSON([]byte(p[0]), nil); err == nil {
			m["payload"] = v
		}
	}
	return m
}

// decodeJSON reads one JSON value. Integers within int64 become int64, other numbers float64; of a repeated name
// the last value counts, as for most readers.
func decodeJSON(raw []byte, want *wants) (any, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(raw), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	v, err := readWanted(dec, want)
	if err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); !errors.Is(err, io.EOF) {
		return nil, errors.New("data after the value")
	}
	return v, nil
}

func readValue(dec *jsontext.Decoder) (any, error) {
	tok, err := dec.ReadToken()
	if err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, err
	}
	switch tok.Kind() {
	case 'n':
		return nil, nil
	case 't', 'f':
		return tok.Bool(), nil
	case '"':
		return tok.String(), nil
	case '0':
		return number(tok.String()), nil
	case '[':
		return readArray(dec)
	default:
		return readObject(dec)
	}
}

func readArray(dec *jsontext.Decoder) (any, error) {
	list := []any{}
	for dec.PeekKind() != ']' {
		v, err := readValue(dec)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	_, err := dec.ReadToken()
	return list, err
}

func readObject(dec *jsontext.Decoder) (any, error) {
	m := map[string]any{}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String() // the token is valid only until the next read
		if m[key], err = readValue(dec); err != nil {
			return nil, err
		}
	}
	_, err := dec.ReadToken()
	return m, err
}

// number keeps what is written as an integer exact; 1.0 and 1e3 are no integers.
func number(text string) any {
	if !strings.ContainsAny(text, ".eE") {
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return i
		}
	}
	f, _ := strconv.ParseFloat(text, 64) // out of range: an infinity, which Param refuses
	return f
}
