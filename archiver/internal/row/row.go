// Package row is the archive's row: one Kafka record. A record comes in and the values of one Parquet row go out, or
// the other way round. It must never look into a body, and must never make a file unreadable, whatever bytes a
// record holds.
package row

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
)

// SchemaVersion is the version of the columns' names, types and meaning. Within a version nothing of them changes.
const SchemaVersion = 1

// Attributes that the archiver adds to those of the record. All of them begin with attributePrefix.
const (
	attributePrefix = "archive."
	// AttributeUndecodable is "true" where the record is neither a delivery nor a result: its columns hold what is known.
	AttributeUndecodable = attributePrefix + "undecodable"
	// AttributeControl is "true" where the record is a marker that Kafka itself wrote.
	AttributeControl = attributePrefix + "control"
	// AttributeResult is "true" where the record is of the topic of results: all its headers are attributes.
	AttributeResult = attributePrefix + "result"
	// AttributeKey is the record's key, where it is not the event ID.
	AttributeKey = attributePrefix + "key"
	// AttributeBase64 and a place are the exact bytes of a text that is not valid UTF-8, in base64. The place is a
	// column, or headers.{name}.{index from 0}, attributes.{name} or attributes.{name}.name.
	AttributeBase64 = attributePrefix + "base64."
)

// Row is one Kafka record as the archive keeps it. An empty text and a zero time are NULL. All texts are valid UTF-8.
type Row struct {
	Source, Provider      string
	EventID, Type         string
	EventTime, ReceivedAt time.Time // microseconds, UTC
	KafkaTimestamp        time.Time // the broker's, UTC
	DeliveryID            string
	ContentType           string
	Headers               []Header // in the order in which each name first came
	Body                  []byte
	BodySHA256            [sha256.Size]byte
	Method, Path, Query   string
	SignedURL, RemoteAddr string
	SecretID, Verdict     string
	BodyKeyID             string      // empty: the body is plain
	Attributes            []Attribute // sorted by name, names are distinct
	Topic                 string
	TopicID               [16]byte
	Partition             int32
	Offset                int64
	SchemaVersion         int32

	topicText [32]byte // room for topicHex
}

// topicHex is the topic's ID in 32 hex digits. It lies in the row.
func (w *Row) topicHex() []byte {
	hex.Encode(w.topicText[:], w.TopicID[:])
	return w.topicText[:]
}

// Header is a request header and its values in order. Names are distinct within a row.
type Header struct {
	Name   string
	Values []string
}

// Attribute is what has no column of its own.
type Attribute struct{ Name, Value string }

// From returns the row of a record of the topic of deliveries, which has the given ID. It takes every record, also one
// that is no delivery. The row shares the record's memory.
func From(r *kgo.Record, topicID [16]byte) *Row { return new(Maker).From(r, topicID) }

// Maker makes rows one after the other with the same memory: the Headers of a row are valid until the next one is made. It
// is not safe for concurrent use.
type Maker struct {
	decoder    event.Decoder
	headers    []Header
	values     []string // the first of each header
	attributes attributes
}

// From returns what the function of that name returns.
func (m *Maker) From(r *kgo.Record, topicID [16]byte) *Row {
	d, rest, err := m.decoder.Salvage(r)
	w := at(r, topicID)
	w.EventTime, w.ReceivedAt = micros(d.Time), micros(d.ReceivedAt)
	a := m.noAttributes()
	for _, t := range w.texts(d) {
		*t.row = a.text(t.column, *t.from)
	}
	w.Headers = m.groupHeaders(d.Headers, a)
	for _, h := range rest {
		a.add(h.Key, string(h.Value))
	}
	if d.TraceParent != "" {
		a.add("traceparent", d.TraceParent)
	}
	if d.TraceState != "" {
		a.add("tracestate", d.TraceState)
	}
	a.about(r, err == nil, d.ID)
	w.Attributes = a.sorted()
	return w
}

// FromResult is From for a record of the topic of results.
func FromResult(r *kgo.Record, topicID [16]byte) *Row { return new(Maker).FromResult(r, topicID) }

// FromResult returns what the function of that name returns.
func (m *Maker) FromResult(r *kgo.Record, topicID [16]byte) *Row {
	o, err := event.OutlineOf(r)
	w := at(r, topicID)
	w.EventTime = micros(o.Time)
	a := m.noAttributes()
	w.Source, w.EventID = a.text("source", o.Source), a.text("event_id", o.EventID)
	w.Type, w.ContentType = a.text("type", o.Type), a.text("content_type", o.ContentType)
	a.add(AttributeResult, "true")
	for _, h := range r.Headers {
		a.add(h.Key, string(h.Value))
	}
	a.about(r, err == nil, o.EventID)
	w.Attributes = a.sorted()
	return w
}

// at is a row with what every record has.
func at(r *kgo.Record, topicID [16]byte) *Row {
	return &Row{
		KafkaTimestamp: micros(r.Timestamp), Body: r.Value, BodySHA256: sha256.Sum256(r.Value),
		Topic: r.Topic, TopicID: topicID, Partition: r.Partition, Offset: r.Offset, SchemaVersion: SchemaVersion,
	}
}

// RecordSize is about how much memory a record takes, in bytes: its body and headers.
func RecordSize(r *kgo.Record) int64 {
	const fixed = 256
	n := fixed + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}

// Detach gives a record memory of its own, so that it does not keep that of others which were fetched with it.
func Detach(r *kgo.Record) {
	size := len(r.Key) + len(r.Value)
	for i := range r.Headers {
		size += len(r.Headers[i].Value)
	}
	room := make([]byte, 0, size)
	own := func(b []byte) []byte {
		if b == nil {
			return nil
		}
		from := len(room)
		room = append(room, b...)
		return room[from:len(room):len(room)]
	}
	r.Key, r.Value = own(r.Key), own(r.Value)
	for i := range r.Headers {
		r.Headers[i].Value = own(r.Headers[i].Value)
	}
}

// Delivery returns the delivery with its exact bytes, as the record held it: texts that are not UTF-8 come from their
// attributes. Times have lost what is below a microsecond. ok is false for a record that is no delivery.
func (w *Row) Delivery() (d *event.Delivery, ok bool) {
	attribute := w.attributeMap()
	exact := func(place, text string) string {
		if b, err := base64.StdEncoding.DecodeString(attribute[AttributeBase64+place]); err == nil && len(b) > 0 {
			return string(b)
		}
		return text
	}
	d = &event.Delivery{Time: w.EventTime, ReceivedAt: w.ReceivedAt, Body: w.Body}
	for _, t := range w.texts(d) {
		*t.from = exact(t.column, *t.row)
	}
	d.TraceParent, d.TraceState = exact("attributes.traceparent", attribute["traceparent"]), exact("attributes.tracestate", attribute["tracestate"])
	for _, h := range w.Headers {
		for i, v := range h.Values {
			d.Headers = append(d.Headers, event.Header{Name: h.Name, Value: exact(headerPlace(h.Name, i), v)})
		}
	}
	return d, attribute[AttributeUndecodable] == "" && attribute[AttributeResult] == ""
}

// Record returns the Kafka record as far as the row keeps it: of a delivery, the record of the same delivery; of another
// one, a record that is no delivery either. The headers of a result are in order of their names. The record's leader
// epoch is not known.
func (w *Row) Record() *kgo.Record {
	attribute := w.attributeMap()
	exact := func(place, text string) string {
		if b, err := base64.StdEncoding.DecodeString(attribute[AttributeBase64+place]); err == nil && len(b) > 0 {
			return string(b)
		}
		return text
	}
	d, ok := w.Delivery()
	var rest []kgo.RecordHeader
	for _, a := range w.Attributes {
		trace := a.Name == "traceparent" || a.Name == "tracestate"
		if strings.HasPrefix(a.Name, attributePrefix) || trace && !w.IsResult() {
			continue
		}
		place, name := "attributes."+a.Name, a.Name
		if !ok { // a second header of a name that the format knows
			name = unnumbered(name)
		}
		rest = append(rest, kgo.RecordHeader{Key: exact(place+".name", name), Value: []byte(exact(place, a.Value))})
	}
	var r *kgo.Record
	switch {
	case ok:
		r = event.Encode(d)
		r.Headers = append(r.Headers, rest...)
	case w.IsResult():
		r = &kgo.Record{Value: w.Body, Headers: rest}
		if attribute[AttributeUndecodable] == "" {
			r.Key = []byte(d.ID)
		}
	default:
		r = event.Restore(d, rest, nil)
	}
	if k, found := attribute[AttributeKey]; found && !ok {
		r.Key = []byte(exact("attributes."+AttributeKey, k))
	}
	r.Topic, r.Partition, r.Offset, r.LeaderEpoch, r.Timestamp = w.Topic, w.Partition, w.Offset, -1, w.KafkaTimestamp
	return r
}

// IsArchives says whether an attribute's name is one of those that the archiver adds.
func IsArchives(name []byte) bool { return strings.HasPrefix(string(name), attributePrefix) }

// unnumbered takes the number off that add has given to a second attribute of a name.
func unnumbered(name string) string {
	i := strings.LastIndexByte(name, '#')
	if i < 0 {
		return name
	}
	if n, err := strconv.Atoi(name[i+1:]); err != nil || n < 2 {
		return name
	}
	return name[:i]
}

// IsResult says whether the record is of the topic of results.
func (w *Row) IsResult() bool { return w.Attribute(AttributeResult) == "true" }

// IsControl says whether the record is a marker of Kafka's own.
func (w *Row) IsControl() bool { return w.Attribute(AttributeControl) == "true" }

// Attribute returns the value of an attribute, or "".
func (w *Row) Attribute(name string) string { return w.attributeMap()[name] }

// SameRecord says whether two rows can be of the same Kafka record. It looks only at what every release writes alike.
func (w *Row) SameRecord(o *Row) bool {
	return w.Offset == o.Offset && w.Partition == o.Partition && w.TopicID == o.TopicID &&
		w.KafkaTimestamp.Equal(o.KafkaTimestamp) && w.BodySHA256 == o.BodySHA256 &&
		w.Source == o.Source && w.EventID == o.EventID && w.DeliveryID == o.DeliveryID
}

func (w *Row) attributeMap() map[string]string {
	m := make(map[string]string, len(w.Attributes))
	for _, a := range w.Attributes {
		m[a.Name] = a.Value
	}
	return m
}

// text ties a text column to the delivery's field of the same meaning.
type text struct {
	column    string
	row, from *string
}

func (w *Row) texts(d *event.Delivery) [13]text {
	return [...]text{
		{"source", &w.Source, &d.Source},
		{"provider", &w.Provider, &d.Provider},
		{"event_id", &w.EventID, &d.ID},
		{"type", &w.Type, &d.Type},
		{"delivery_id", &w.DeliveryID, &d.DeliveryID},
		{"content_type", &w.ContentType, &d.ContentType},
		{"method", &w.Method, &d.Method},
		{"path", &w.Path, &d.Path},
		{"query", &w.Query, &d.Query},
		{"signed_url", &w.SignedURL, &d.SignedURL},
		{"remote_addr", &w.RemoteAddr, &d.RemoteAddr},
		{"secret_id", &w.SecretID, &d.SecretID},
		{"verdict", &w.Verdict, (*string)(&d.Verdict)},
	}
}

func (m *Maker) noAttributes() attributes {
	if m.attributes == nil {
		m.attributes = attributes{}
	}
	clear(m.attributes)
	return m.attributes
}

func (m *Maker) groupHeaders(hs []event.Header, a attributes) []Header {
	m.headers, m.values = slices.Grow(m.headers[:0], len(hs)), slices.Grow(m.values[:0], len(hs))
	out, first := m.headers, m.values[:len(hs)]
next:
	for _, h := range hs {
		name := strings.ToValidUTF8(h.Name, "\uFFFD")
		for i := range out {
			if out[i].Name == name {
				out[i].Values = append(out[i].Values, a.headerValue(name, len(out[i].Values), h.Value))
				continue next
			}
		}
		values := first[len(out) : len(out)+1 : len(out)+1]
		values[0] = a.headerValue(name, 0, h.Value)
		out = append(out, Header{name, values})
	}
	m.headers = out
	return out
}

// headerValue is text for a value of a header; place is made only for what is not UTF-8.
func (a attributes) headerValue(name string, i int, v string) string {
	if utf8.ValidString(v) {
		return v
	}
	return a.text(headerPlace(name, i), v)
}

func headerPlace(name string, i int) string { return "headers." + name + "." + strconv.Itoa(i) }

// attributes collects what has no column.
type attributes map[string]string

// text returns s, or its readable form when it is not UTF-8; the exact bytes then become an attribute.
func (a attributes) text(place, s string) string {
	if utf8.ValidString(s) {
		return s
	}
	a[AttributeBase64+place] = base64.StdEncoding.EncodeToString([]byte(s))
	return strings.ToValidUTF8(s, "\uFFFD")
}

// add keeps an attribute under its name; the second one of a name is called {name}#2.
func (a attributes) add(name, value string) {
	shown := strings.ToValidUTF8(name, "\uFFFD")
	free := shown
	for i := 2; ; i++ {
		if _, taken := a[free]; !taken {
			break
		}
		free = fmt.Sprintf("%s#%d", shown, i)
	}
	if shown != name {
		a.text("attributes."+free+".name", name)
	}
	a[free] = a.text("attributes."+free, value)
}

// about adds what the archiver knows of a record beside its headers. The key of a whole record is the event ID, which
// has a column.
func (a attributes) about(r *kgo.Record, whole bool, eventID string) {
	if !whole {
		a.add(AttributeUndecodable, "true")
	}
	if r.Key != nil && (!whole || string(r.Key) != eventID) {
		a.add(AttributeKey, string(r.Key))
	}
	if r.Attrs.IsControl() {
		a.add(AttributeControl, "true")
	}
}

func (a attributes) sorted() []Attribute {
	if len(a) == 0 {
		return nil
	}
	out := make([]Attribute, 0, len(a))
	for k, v := range a {
		out = append(out, Attribute{k, v})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

func micros(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// Size is about how much memory the row takes, in bytes.
func (w *Row) Size() int64 {
	const fixed = 512
	n := fixed + len(w.Body)
	for _, h := range w.Headers {
		for _, v := range h.Values {
			n += len(h.Name) + len(v)
		}
	}
	return int64(n)
}
