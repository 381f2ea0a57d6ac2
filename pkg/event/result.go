package event

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The further headers of what the processor publishes. With headerSource and headerID a consumer tells a repetition.
const (
	headerEventID   = "catchment_event_id"
	headerOperation = "catchment_operation"
	headerAttempt   = "catchment_attempt"
	headerOutcome   = "catchment_outcome"

	typeResult  = "catchment.result"
	contentJSON = "application/json"
)

// ErrNotAResult is wrapped by every error of DecodeResult.
var ErrNotAResult = errors.New("record is not a result")

// Result is the outcome of one attempt of one operation for one event, as topic catchment.results has it. It is what
// the relation catchment.results holds, under the same names.
type Result struct {
	Source       string          `json:"source"`
	EventID      string          `json:"event_id"`
	DeliveryID   string          `json:"delivery_id"`
	Operation    string          `json:"operation"`
	Definition   string          `json:"definition_sha256"` // hex
	Attempt      int             `json:"attempt"`
	Outcome      string          `json:"outcome"` // succeeded, superseded, failed, dead, deferred
	Entity       *string         `json:"entity"`
	Version      *string         `json:"version"`
	RowsAffected *int64          `json:"rows_affected"`
	Returned     json.RawMessage `json:"returned"` // JSON, or null
	Error        *string         `json:"error"`
	StartedAt    time.Time       `json:"started_at"`       // UTC
	Duration     float64         `json:"duration_seconds"` // seconds
}

// EncodeResult returns the record of r, without a topic: the key is the event ID, the value is JSON.
func EncodeResult(r *Result) (*kgo.Record, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("result of %s for %s: %w", r.Operation, r.EventID, err)
	}
	p := Published{Source: r.Source, EventID: r.EventID, Operation: r.Operation, Attempt: r.Attempt}
	hs := p.headers(typeResult, contentJSON)
	hs = append(hs, kgo.RecordHeader{Key: headerOutcome, Value: []byte(r.Outcome)})
	return &kgo.Record{Key: []byte(r.EventID), Value: value, Headers: hs}, nil
}

// DecodeResult reads a record that EncodeResult wrote. The error wraps ErrNotAResult.
func DecodeResult(r *kgo.Record) (*Result, error) {
	out := &Result{}
	if err := json.Unmarshal(r.Value, out); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotAResult, err)
	}
	if string(r.Key) != out.EventID || out.Operation == "" || out.Source == "" {
		return nil, fmt.Errorf("%w: expected the event ID as key, and source and operation in the value", ErrNotAResult)
	}
	return out, nil
}

// Published says of what an operation published where it comes from. It is the same for every repetition.
type Published struct {
	Source, EventID, Type string
	Time                  time.Time // zero: not known
	Operation             string
	Attempt               int
	Index                 int // of the element, from 0; -1: the operation has no elements
	JSON                  bool
}

// Headers returns the record's headers: the CloudEvents binding in binary mode, and our own.
func (p *Published) Headers() []kgo.RecordHeader {
	content := ""
	if p.JSON {
		content = contentJSON
	}
	typ := p.Type
	if typ == "" {
		typ = typeUnknown
	}
	hs := p.headers(typ, content)
	if p.Index >= 0 {
		hs[1].Value = append(hs[1].Value, "/"+strconv.Itoa(p.Index)...)
	}
	if !p.Time.IsZero() {
		hs = append(hs, kgo.RecordHeader{Key: headerTime, Value: appendTime(nil, p.Time)})
	}
	return hs
}

// headers begins with the specification's version and the ID.
func (p *Published) headers(typ, content string) []kgo.RecordHeader {
	attempt := strconv.Itoa(p.Attempt)
	hs := []kgo.RecordHeader{
		{Key: headerSpecVersion, Value: []byte(specVersion)},
		{Key: headerID, Value: []byte(p.EventID + "/" + p.Operation + "/" + attempt)},
		{Key: headerSource, Value: []byte(prefixSource + p.Source)},
		{Key: headerType, Value: []byte(typ)},
		{Key: headerVersion, Value: []byte(Version)},
		{Key: headerEventID, Value: []byte(p.EventID)},
		{Key: headerOperation, Value: []byte(p.Operation)},
		{Key: headerAttempt, Value: []byte(attempt)},
	}
	if content != "" {
		hs = append(hs, kgo.RecordHeader{Key: headerContentType, Value: []byte(content)})
	}
	return hs
}

// Outline is what the headers of a result's record say, for the archive, which does not look into values.
type Outline struct {
	Source, EventID, Type string
	ContentType           string
	Time                  time.Time // zero: not told
}

// OutlineOf reads the headers that EncodeResult writes. The error wraps ErrNotAResult and names the header that is
// missing, doubled or malformed; the outline then holds what is known.
func OutlineOf(r *kgo.Record) (o Outline, err error) {
	var seen uint
	for i := range r.Headers {
		k := r.Headers[i].Key
		bit := slices.Index(resultHeaders[:], k)
		switch {
		case bit < 0:
			continue
		case seen&(1<<bit) != 0:
			err = errors.Join(err, fmt.Errorf("%w: header %s is there twice", ErrNotAResult, k))
			continue
		}
		seen |= 1 << bit
		if e := o.set(k, string(r.Headers[i].Value)); e != nil {
			err = errors.Join(err, fmt.Errorf("%w: header %s: %w", ErrNotAResult, k, e))
		}
	}
	for i, k := range resultHeaders[:resultRequired] {
		if seen&(1<<i) == 0 {
			err = errors.Join(err, fmt.Errorf("%w: header %s is missing", ErrNotAResult, k))
		}
	}
	return o, err
}

// resultHeaders are those that an Outline rests on, the first of them required.
var resultHeaders = [...]string{
	headerSpecVersion, headerID, headerSource, headerType, headerVersion, headerEventID, headerOperation, headerOutcome,
	headerContentType, headerTime,
}

const resultRequired = 8

// set takes one of resultHeaders.
func (o *Outline) set(k, v string) error {
	var d Delivery
	switch k {
	case headerEventID:
		o.EventID = v
	case headerOperation, headerOutcome:
	default:
		err := d.set(k, v)
		switch k {
		case headerSource:
			o.Source = d.Source
		case headerType:
			o.Type = d.Type
		case headerContentType:
			o.ContentType = d.ContentType
		case headerTime:
			o.Time = d.Time
		}
		return err
	}
	return notEmpty(v)
}
