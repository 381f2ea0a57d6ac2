package row

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"github.com/parquet-go/parquet-go"
)

// columns declares the Parquet schema: its order is the columns' order. IDs are texts, not UUIDs, and each slice is a
// proper LIST, because some readers refuse or misread the other forms.
type columns struct {
	Source         string              `parquet:"source,optional,dict"`
	Provider       string              `parquet:"provider,optional,dict"`
	EventID        string              `parquet:"event_id,optional"`
	Type           string              `parquet:"type,optional,dict"`
	EventTime      int64               `parquet:"event_time,optional,delta,timestamp(microsecond)"`
	ReceivedAt     int64               `parquet:"received_at,optional,delta,timestamp(microsecond)"`
	KafkaTimestamp int64               `parquet:"kafka_timestamp,delta,timestamp(microsecond)"`
	DeliveryID     string              `parquet:"delivery_id,optional"`
	ContentType    string              `parquet:"content_type,optional,dict"`
	Headers        map[string][]string `parquet:"headers" parquet-key:",dict" parquet-value:",list"`
	Body           []byte              `parquet:"body"`
	BodySHA256     []byte              `parquet:"body_sha256,uncompressed"`
	Method         string              `parquet:"method,optional,dict"`
	Path           string              `parquet:"path,optional,dict"`
	Query          string              `parquet:"query,optional,dict"`
	SignedURL      string              `parquet:"signed_url,optional,dict"`
	RemoteAddr     string              `parquet:"remote_addr,optional,dict"`
	SecretID       string              `parquet:"secret_id,optional,dict"`
	Verdict        string              `parquet:"verdict,optional,dict"`
	BodyKeyID      string              `parquet:"body_key_id,optional,dict"`
	Attributes     map[string]string   `parquet:"attributes" parquet-key:",dict"`
	Topic          string              `parquet:"topic,dict"`
	TopicID        string              `parquet:"topic_id,dict"`
	Partition      int32               `parquet:"partition,dict"`
	Offset         int64               `parquet:"offset,delta"`
	SchemaVersion  int32               `parquet:"schema_version,dict"`
}

// EventIDColumn is the column that has a bloom filter.
const EventIDColumn = "event_id"

// Schema returns the Parquet schema of the segments.
func Schema() *parquet.Schema { return schema }

var schema = parquet.NewSchema("catchment", parquet.SchemaOf(columns{}))

// Unbounded are the paths of the columns whose smallest and greatest values say nothing.
var Unbounded = [][]string{
	{"body"},
	{"body_sha256"},
	{"headers", "key_value", "key"},
	{"headers", "key_value", "value", "list", "element"},
	{"attributes", "key_value", "key"},
	{"attributes", "key_value", "value"},
}

// The numbers of the leaf columns, in schema order.
const (
	columnSource = iota
	columnProvider
	columnEventID
	columnType
	columnEventTime
	columnReceivedAt
	columnKafkaTimestamp
	columnDeliveryID
	columnContentType
	columnHeaderName
	columnHeaderValue
	columnBody
	columnBodySHA256
	columnMethod
	columnPath
	columnQuery
	columnSignedURL
	columnRemoteAddr
	columnSecretID
	columnVerdict
	columnBodyKeyID
	columnAttributeName
	columnAttributeValue
	columnTopic
	columnTopicID
	columnPartition
	columnOffset
	columnSchemaVersion
)

// AppendTo appends the row's values to dst. They share the row's memory.
func (w *Row) AppendTo(dst parquet.Row) parquet.Row {
	dst = append(dst,
		optionalText(w.Source, columnSource), optionalText(w.Provider, columnProvider),
		optionalText(w.EventID, columnEventID), optionalText(w.Type, columnType),
		optionalTime(w.EventTime, columnEventTime), optionalTime(w.ReceivedAt, columnReceivedAt),
		parquet.Int64Value(w.KafkaTimestamp.UnixMicro()).Level(0, 0, columnKafkaTimestamp),
		optionalText(w.DeliveryID, columnDeliveryID), optionalText(w.ContentType, columnContentType))
	dst = w.appendHeaders(dst)
	dst = append(dst,
		parquet.ByteArrayValue(w.Body).Level(0, 0, columnBody),
		parquet.ByteArrayValue(w.BodySHA256[:]).Level(0, 0, columnBodySHA256),
		optionalText(w.Method, columnMethod), optionalText(w.Path, columnPath), optionalText(w.Query, columnQuery),
		optionalText(w.SignedURL, columnSignedURL), optionalText(w.RemoteAddr, columnRemoteAddr),
		optionalText(w.SecretID, columnSecretID), optionalText(w.Verdict, columnVerdict),
		optionalText(w.BodyKeyID, columnBodyKeyID))
	dst = w.appendAttributes(dst)
	return append(dst,
		value(w.Topic).Level(0, 0, columnTopic),
		parquet.ByteArrayValue(w.topicHex()).Level(0, 0, columnTopicID),
		parquet.Int32Value(w.Partition).Level(0, 0, columnPartition),
		parquet.Int64Value(w.Offset).Level(0, 0, columnOffset),
		parquet.Int32Value(w.SchemaVersion).Level(0, 0, columnSchemaVersion))
}

// appendHeaders writes map<string, list<string>>: a new entry repeats at level 1, a new value at level 2.
func (w *Row) appendHeaders(dst parquet.Row) parquet.Row {
	if len(w.Headers) == 0 {
		return append(dst, null(0, 0, columnHeaderName), null(0, 0, columnHeaderValue))
	}
	for i, h := range w.Headers {
		dst = append(dst, value(h.Name).Level(min(i, 1), 1, columnHeaderName))
	}
	for i, h := range w.Headers {
		if len(h.Values) == 0 {
			dst = append(dst, null(min(i, 1), 1, columnHeaderValue))
		}
		for j, v := range h.Values {
			repeats := 2
			if j == 0 {
				repeats = min(i, 1)
			}
			dst = append(dst, value(v).Level(repeats, 2, columnHeaderValue))
		}
	}
	return dst
}

func (w *Row) appendAttributes(dst parquet.Row) parquet.Row {
	if len(w.Attributes) == 0 {
		return append(dst, null(0, 0, columnAttributeName), null(0, 0, columnAttributeValue))
	}
	for i, a := range w.Attributes {
		dst = append(dst, value(a.Name).Level(min(i, 1), 1, columnAttributeName))
	}
	for i, a := range w.Attributes {
		dst = append(dst, value(a.Value).Level(min(i, 1), 1, columnAttributeValue))
	}
	return dst
}

// value does not copy: Parquet values are only read.
func value(s string) parquet.Value {
	return parquet.ByteArrayValue(unsafe.Slice(unsafe.StringData(s), len(s)))
}

func null(repeats, defined, column int) parquet.Value {
	return parquet.NullValue().Level(repeats, defined, column)
}

func optionalText(s string, column int) parquet.Value {
	if s == "" {
		return null(0, 0, column)
	}
	return value(s).Level(0, 1, column)
}

func optionalTime(t time.Time, column int) parquet.Value {
	if t.IsZero() {
		return null(0, 0, column)
	}
	return parquet.Int64Value(t.UnixMicro()).Level(0, 1, column)
}

// Parse reads the values of one row. The row does not share their memory.
func Parse(values parquet.Row) (*Row, error) {
	w := &Row{}
	var err error
	values.Range(func(column int, v []parquet.Value) bool {
		err = w.setColumn(column, v)
		return err == nil
	})
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Row) setColumn(column int, v []parquet.Value) error {
	if to := w.textAt(column); to != nil {
		*to = string(v[0].ByteArray())
		return nil
	}
	switch column {
	case columnEventTime:
		w.EventTime = timeOf(v[0])
	case columnReceivedAt:
		w.ReceivedAt = timeOf(v[0])
	case columnKafkaTimestamp:
		w.KafkaTimestamp = timeOf(v[0])
	case columnHeaderName:
		w.Headers = slices.Grow(w.Headers, len(v))
		for _, name := range v {
			if !name.IsNull() {
				w.Headers = append(w.Headers, Header{Name: string(name.ByteArray())})
			}
		}
	case columnHeaderValue:
		return w.setHeaderValues(v)
	case columnBody:
		w.Body = slices.Clone(v[0].ByteArray())
	case columnBodySHA256:
		return fixed(w.BodySHA256[:], v[0].ByteArray(), "body_sha256")
	case columnAttributeName:
		for _, name := range v {
			if !name.IsNull() {
				w.Attributes = append(w.Attributes, Attribute{Name: string(name.ByteArray())})
			}
		}
	case columnAttributeValue:
		for i := range w.Attributes {
			w.Attributes[i].Value = string(v[i].ByteArray())
		}
	case columnTopicID:
		id, err := hex.DecodeString(string(v[0].ByteArray()))
		if err != nil {
			return fmt.Errorf("topic_id: %w", err)
		}
		return fixed(w.TopicID[:], id, "topic_id")
	case columnPartition:
		w.Partition = v[0].Int32()
	case columnOffset:
		w.Offset = v[0].Int64()
	case columnSchemaVersion:
		w.SchemaVersion = v[0].Int32()
	}
	return nil
}

func (w *Row) textAt(column int) *string {
	switch column {
	case columnSource:
		return &w.Source
	case columnProvider:
		return &w.Provider
	case columnEventID:
		return &w.EventID
	case columnType:
		return &w.Type
	case columnDeliveryID:
		return &w.DeliveryID
	case columnContentType:
		return &w.ContentType
	case columnMethod:
		return &w.Method
	case columnPath:
		return &w.Path
	case columnQuery:
		return &w.Query
	case columnSignedURL:
		return &w.SignedURL
	case columnRemoteAddr:
		return &w.RemoteAddr
	case columnSecretID:
		return &w.SecretID
	case columnVerdict:
		return &w.Verdict
	case columnBodyKeyID:
		return &w.BodyKeyID
	case columnTopic:
		return &w.Topic
	}
	return nil
}

func (w *Row) setHeaderValues(v []parquet.Value) error {
	at := -1
	for _, value := range v {
		if value.RepetitionLevel() < 2 {
			at++
		}
		if value.IsNull() {
			continue
		}
		if at >= len(w.Headers) {
			return errors.New("headers: more values than names")
		}
		w.Headers[at].Values = append(w.Headers[at].Values, string(value.ByteArray()))
	}
	return nil
}

func timeOf(v parquet.Value) time.Time {
	if v.IsNull() {
		return time.Time{}
	}
	return time.UnixMicro(v.Int64()).UTC()
}

func fixed(to, from []byte, column string) error {
	if len(to) != len(from) {
		return fmt.Errorf("%s: expected %d bytes, found %d", column, len(to), len(from))
	}
	copy(to, from)
	return nil
}
