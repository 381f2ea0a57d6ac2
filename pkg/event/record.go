package event

//go:generate go test . -run TestGolden -update

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Version is the record format that Encode writes. Headers may be added within a version; a change of meaning
// takes a new one.
const Version = "1"

// The record's headers: the CloudEvents 1.0 Kafka binding in binary mode, W3C trace context, and our own.
const (
	headerSpecVersion = "ce_specversion"
	headerID          = "ce_id"
	headerSource      = "ce_source"
	headerType        = "ce_type"
	headerTime        = "ce_time"
	headerContentType = "content-type"
	headerTraceParent = "traceparent"
	headerTraceState  = "tracestate"
	headerVersion     = "catchment_version"
	headerDeliveryID  = "catchment_delivery_id"
	headerProvider    = "catchment_provider"
	headerReceivedAt  = "catchment_received_at"
	headerSecretID    = "catchment_secret_id"
	headerRemoteAddr  = "catchment_remote_addr"
	headerMethod      = "catchment_method"
	headerPath        = "catchment_path"
	headerQuery       = "catchment_query"
	headerSignedURL   = "catchment_signed_url"
	headerVerdict     = "catchment_verdict"

	prefixHTTP   = "http_"
	prefixSource = "/webhooks/"
	specVersion  = "1.0"

	// typeUnknown stands in ce_type for an event without a type, since CloudEvents wants a text there;
	// the flag says that it is not the provider's.
	typeUnknown = "unknown"
)

// ErrNotADelivery is wrapped by every error of Decode.
var ErrNotADelivery = errors.New("record is not a delivery")

// Encode returns the record of d, without a topic. The record's value is d.Body itself, not a copy: it must
// stay untouched until the record's promise has fired.
func Encode(d *Delivery) *kgo.Record { return new(Encoder).Encode(d) }

// Encoder encodes deliveries one after the other into the same memory: each record is valid until the next one is made.
// It is not safe for concurrent use.
type Encoder struct {
	headers headerList
	record  kgo.Record
}

// Encode returns what the function of that name returns. The record that the Encoder made before must be out of use:
// its promise has fired.
func (e *Encoder) Encode(d *Delivery) *kgo.Record {
	hs := &e.headers
	typ, verdict := d.Type, d.Verdict
	if typ == "" {
		typ = typeUnknown
		if !verdict.Has(FlagNoType) {
			verdict = verdict.With(FlagNoType)
		}
	}
	hs.grow(d)
	hs.add(headerSpecVersion, specVersion)
	key := hs.add(headerID, d.ID)
	hs.add(headerSource, prefixSource, d.Source)
	hs.add(headerType, typ)
	if !d.Time.IsZero() {
		hs.addTime(headerTime, d.Time)
	}
	if d.ContentType != "" {
		hs.add(headerContentType, d.ContentType)
	}
	if d.TraceParent != "" {
		hs.add(headerTraceParent, d.TraceParent)
	}
	if d.TraceState != "" {
		hs.add(headerTraceState, d.TraceState)
	}
	hs.add(headerVersion, Version)
	hs.add(headerDeliveryID, d.DeliveryID)
	hs.add(headerProvider, d.Provider)
	hs.addTime(headerReceivedAt, d.ReceivedAt)
	hs.add(headerSecretID, d.SecretID)
	hs.add(headerRemoteAddr, d.RemoteAddr)
	hs.add(headerMethod, d.Method)
	hs.add(headerPath, d.Path)
	hs.add(headerQuery, d.Query)
	hs.add(headerSignedURL, d.SignedURL)
	hs.add(headerVerdict, string(verdict))
	for i := range d.Headers {
		h := &d.Headers[i]
		hs.add(hs.name(i, h.Name), h.Value)
	}
	e.record = kgo.Record{Key: key, Value: d.Body, Headers: hs.list}
	return &e.record
}

// TraceContext is the W3C trace context of a record, whether it is a delivery or not; empty: it has none.
func TraceContext(r *kgo.Record) (parent, state string) {
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Key {
		case headerTraceParent:
			parent = string(h.Value)
		case headerTraceState:
			state = string(h.Value)
		}
	}
	return parent, state
}

// Release lets go of the last record and its delivery, and keeps the memory, unless it is more than usual.
func (e *Encoder) Release() {
	const usual = 4 << 10
	if cap(e.headers.values) > usual || cap(e.headers.list) > usual/32 {
		*e = Encoder{}
		return
	}
	e.record = kgo.Record{}
}

// headerList is a record's headers while they are made. Their values lie in one buffer, because a record has some thirty
// of them. Names of HTTP headers are those of the delivery before, as far as they are the same.
type headerList struct {
	list   []kgo.RecordHeader
	values []byte
	names  []string        // by place
	text   strings.Builder // of those that are new
	room   int             // that it needs for all
}

// grow makes room for the headers of d.
func (hs *headerList) grow(d *Delivery) {
	values := 0
	hs.room = 0
	for i := range d.Headers {
		hs.room += len(prefixHTTP) + len(d.Headers[i].Name)
		values += len(d.Headers[i].Value)
	}
	values += 128 + // versions, times, names of this package
		len(d.ID) + len(d.Source) + len(d.Type) + len(d.ContentType) + len(d.TraceParent) + len(d.TraceState) +
		len(d.DeliveryID) + len(d.Provider) + len(d.SecretID) + len(d.RemoteAddr) + len(d.Method) + len(d.Path) +
		len(d.Query) + len(d.SignedURL) + len(d.Verdict)
	hs.list = slices.Grow(hs.list[:0], len(known)+len(d.Headers))
	hs.values = slices.Grow(hs.values[:0], values)
	if n := len(d.Headers); n > len(hs.names) {
		hs.names = append(make([]string, 0, n), hs.names...)[:n]
	}
	hs.text.Reset()
}

// add appends a header and returns its value.
func (hs *headerList) add(name string, value ...string) []byte {
	from := len(hs.values)
	for _, v := range value {
		hs.values = append(hs.values, v...)
	}
	return hs.close(name, from)
}

func (hs *headerList) addTime(name string, t time.Time) {
	from := len(hs.values)
	hs.values = appendTime(hs.values, t)
	hs.close(name, from)
}

// close makes a header of what was appended to the values from there on.
func (hs *headerList) close(name string, from int) []byte {
	v := hs.values[from:len(hs.values):len(hs.values)]
	hs.list = append(hs.list, kgo.RecordHeader{Key: name, Value: v})
	return v
}

// name is what the i-th header of the request is called in the record.
func (hs *headerList) name(i int, header string) string {
	if n := hs.names[i]; n != "" && n[len(prefixHTTP):] == header {
		return n
	}
	from := hs.text.Len()
	if from == 0 {
		hs.text.Grow(hs.room)
	}
	hs.text.WriteString(prefixHTTP)
	hs.text.WriteString(header)
	hs.names[i] = hs.text.String()[from:]
	return hs.names[i]
}

// Decode reads a record that Encode wrote. The delivery's body is the record's value itself. The error wraps
// ErrNotADelivery and names the header that is missing, doubled or malformed.
func Decode(r *kgo.Record) (*Delivery, error) {
	d, _, err := new(Decoder).decode(r)
	return d, err
}

// Decoder reads records one after the other into the same memory: a delivery is valid until the next record is read, but
// for its texts, which stay. It is not safe for concurrent use.
type Decoder struct {
	delivery Delivery
	headers  []Header
}

// decode also returns the headers that are not part of the format.
func (x *Decoder) decode(r *kgo.Record) (d *Delivery, rest []kgo.RecordHeader, err error) {
	requested := 0
	for i := range r.Headers {
		if strings.HasPrefix(r.Headers[i].Key, prefixHTTP) {
			requested++
		}
	}
	d = &x.delivery
	*d = Delivery{Body: r.Value, Headers: slices.Grow(x.headers[:0], requested)}
	var seen uint32
	values := joinValues(r)
	for i := range r.Headers {
		n := len(r.Headers[i].Value)
		k, v := r.Headers[i].Key, values[:n]
		values = values[n:]
		if name, ok := strings.CutPrefix(k, prefixHTTP); ok {
			d.Headers = append(d.Headers, Header{name, v})
			continue
		}
		bit := bitOf(k)
		if bit == 0 { // may be there any number of times: it is not ours
			rest = append(rest, r.Headers[i])
			continue
		}
		if seen&bit != 0 {
			return nil, nil, fmt.Errorf("%w: header %s is there twice", ErrNotADelivery, k)
		}
		if err := d.set(k, v); err != nil {
			return nil, nil, fmt.Errorf("%w: header %s: %w", ErrNotADelivery, k, err)
		}
		seen |= bit
	}
	for i, k := range known[:required] {
		if seen&(1<<i) == 0 {
			return nil, nil, fmt.Errorf("%w: header %s is missing", ErrNotADelivery, k)
		}
	}
	if x.headers = d.Headers; len(d.Headers) == 0 {
		d.Headers = nil
	}
	if string(r.Key) != d.ID {
		return nil, nil, fmt.Errorf("%w: the key is not the value of header %s", ErrNotADelivery, headerID)
	}
	if d.Verdict.Has(FlagNoType) {
		d.Type = ""
	}
	return d, rest, nil
}

// joinValues is all values of the record's headers in one text, because each for itself would be an allocation.
func joinValues(r *kgo.Record) string {
	n := 0
	for i := range r.Headers {
		n += len(r.Headers[i].Value)
	}
	var b strings.Builder
	b.Grow(n)
	for i := range r.Headers {
		b.Write(r.Headers[i].Value)
	}
	return b.String()
}

// known are the headers of the format, the first of them required.
var known = [...]string{
	headerSpecVersion, headerID, headerSource, headerType, headerVersion, headerDeliveryID, headerReceivedAt,
	headerTime, headerContentType, headerTraceParent, headerTraceState, headerProvider, headerSecretID,
	headerRemoteAddr, headerMethod, headerPath, headerQuery, headerSignedURL, headerVerdict,
}

const required = 7

// bitOf numbers the headers of the format; 0: not one of them.
func bitOf(k string) uint32 {
	for i := range known {
		if len(known[i]) == len(k) && known[i] == k {
			return 1 << i
		}
	}
	return 0
}

// set takes one header of the format.
func (d *Delivery) set(k, v string) (err error) {
	switch k {
	case headerSpecVersion:
		if v != specVersion {
			err = fmt.Errorf("expected %q, found %.20q", specVersion, v)
		}
	case headerVersion:
		if v != Version {
			err = fmt.Errorf("expected %q, found %.20q: written by another release", Version, v)
		}
	case headerID:
		d.ID, err = v, notEmpty(v)
	case headerSource:
		name, ok := strings.CutPrefix(v, prefixSource)
		if !ok || name == "" {
			err = fmt.Errorf("expected %s{source}, found %.80q", prefixSource, v)
		}
		d.Source = name
	case headerType:
		d.Type, err = v, notEmpty(v)
	case headerTime:
		d.Time, err = parseTime(v)
	case headerReceivedAt:
		d.ReceivedAt, err = parseTime(v)
	case headerDeliveryID:
		d.DeliveryID = v
		if e := uuid.Validate(v); e != nil || len(v) != 36 {
			err = fmt.Errorf("expected a UUID, found %.50q", v)
		}
	case headerContentType:
		d.ContentType = v
	case headerTraceParent:
		d.TraceParent = v
	case headerTraceState:
		d.TraceState = v
	case headerProvider:
		d.Provider = v
	case headerSecretID:
		d.SecretID = v
	case headerRemoteAddr:
		d.RemoteAddr = v
	case headerMethod:
		d.Method = v
	case headerPath:
		d.Path = v
	case headerQuery:
		d.Query = v
	case headerSignedURL:
		d.SignedURL = v
	case headerVerdict:
		d.Verdict = Verdict(v)
	}
	return err
}

func notEmpty(v string) error {
	if v == "" {
		return errors.New("is empty")
	}
	return nil
}

// Times keep nanoseconds and end in Z, in years 0 to 9999 as RFC 3339 wants them.
func appendTime(b []byte, t time.Time) []byte { return t.UTC().AppendFormat(b, time.RFC3339Nano) }

func parseTime(v string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, v)
	if t = t.UTC(); err != nil || t.Year() < 0 || t.Year() > 9999 { // a zone can move it out of these years
		return time.Time{}, fmt.Errorf("expected an RFC 3339 time, found %.50q", v)
	}
	return t, nil
}

// Event returns the one event of a delivery that is not split, with its record's place.
func (d *Delivery) Event(p Position) Event {
	return Event{
		Source: d.Source, Provider: d.Provider, ID: d.ID, Type: d.Type,
		Time: d.Time, ReceivedAt: d.ReceivedAt,
		DeliveryID: d.DeliveryID, SecretID: d.SecretID, ContentType: d.ContentType,
		Headers: d.HeaderMap(), Body: d.Body, Position: p,
	}
}
