package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// savedRequest is a request that was written down, and the source that it was sent to.
type savedRequest struct {
	Source  string
	request provider.Request // a zero Now: the time of judging
}

// savedLine is how it is written down.
type savedLine struct {
	Source  string                 `json:"source"`
	Method  string                 `json:"method"`
	Path    string                 `json:"path"`
	Query   string                 `json:"query"`
	Headers map[string]savedValues `json:"headers"`
	Body    string                 `json:"body_base64"`
	At      *float64               `json:"at"`
}

// savedValues are a header's values: a text, or a list of texts.
type savedValues []string

// UnmarshalJSON takes either form.
func (v *savedValues) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*v = make(savedValues, 1)
		return json.Unmarshal(b, &(*v)[0])
	}
	if len(b) == 0 || b[0] != '[' {
		return errors.New("expected a text or a list of texts")
	}
	return json.Unmarshal(b, (*[]string)(v))
}

// errLine is wrapped by every error about one line that leaves the next one to be read.
var errLine = errors.New("not a request")

// maxLine is the longest line: the largest body in base64, and room for everything else.
const maxLine = 64 << 20

// readLine returns the next line without white space around it, and io.EOF behind the last one.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	size := 0
	for {
		part, err := r.ReadSlice('\n')
		if size += len(part); size <= maxLine {
			line = append(line, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && size == 0:
			return nil, io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("read requests: %w", err)
		case size > maxLine:
			return nil, fmt.Errorf("%w: the line is longer than %d MiB", errLine, maxLine>>20)
		}
		return bytes.TrimSpace(line), nil
	}
}

// latest is the end of the year 9999, behind which no time can be written down.
const latest = 253402300799

// parseSaved reads one line. A member that is there twice is an error: two programs could read two requests.
func parseSaved(text []byte) (savedRequest, error) {
	var l savedLine
	if err := json.Unmarshal(text, &l); err != nil {
		return savedRequest{}, fmt.Errorf("%w: %w", errLine, explain(err))
	}
	if l.Source == "" {
		return savedRequest{}, fmt.Errorf("%w: expected the name of a source in \"source\"", errLine)
	}
	s := savedRequest{Source: l.Source, request: provider.Request{Method: l.Method, RawQuery: l.Query, Header: http.Header{}}}
	if l.Method == "" {
		s.request.Method = http.MethodPost
	}
	if l.Path == "" {
		l.Path = "/webhooks/" + l.Source
	}
	u, err := url.ParseRequestURI(l.Path) // as Go's server does
	if err != nil || !strings.HasPrefix(l.Path, "/") {
		return savedRequest{}, fmt.Errorf("%w: path: expected one that begins with /, as it was sent, found %q", errLine, l.Path)
	}
	if s.request.Path = u.EscapedPath(); l.Query == "" {
		s.request.RawQuery = u.RawQuery
	}
	for name, values := range l.Headers {
		for _, v := range values {
			s.request.Header.Add(name, strings.Trim(v, " \t"))
		}
	}
	s.request.Host = s.request.Header.Get("Host")
	s.request.Header.Del("Host") // as Go's server does
	if s.request.Body, err = base64.StdEncoding.Strict().DecodeString(l.Body); err != nil || strings.ContainsAny(l.Body, "\r\n") {
		return savedRequest{}, fmt.Errorf("%w: body_base64: expected base64 (RFC 4648, section 4) with its padding", errLine)
	}
	if l.At != nil {
		if math.Abs(*l.At) > latest {
			return savedRequest{}, fmt.Errorf("%w: at: expected Unix seconds, found %g", errLine, *l.At)
		}
		whole, part := math.Modf(*l.At)
		s.request.Now = time.Unix(int64(whole), int64(part*1e9)).UTC()
	}
	return s, nil
}

// explain says what is wrong with a line in words that do not speak of Go.
func explain(err error) error {
	var wrong *json.SemanticError
	if errors.As(err, &wrong) {
		at := strings.ReplaceAll(strings.TrimPrefix(string(wrong.JSONPointer), "/"), "/", ".")
		if at == "" {
			return errors.New("expected a JSON object")
		}
		return fmt.Errorf("%s: found a %s: see `catchment verify --help`", at, wrong.JSONKind)
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return fmt.Errorf("a member is there twice: %w", err)
	}
	return fmt.Errorf("expected one JSON object: %w", err)
}
