package row_test

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/pkg/event"
)

// Columns never change within a schema version: when this fails, it is the code that is wrong.
func TestSchemaIsThePublishedOne(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("..", "..", "..", "schemas", "archive.v1.txt"))
	require.NoError(t, err)
	require.Equal(t, string(want), row.Schema().String()+"\n")
}

var topicID = [16]byte{1, 2, 3, 15: 16}

func record(t *testing.T, d *event.Delivery) *kgo.Record {
	t.Helper()
	r := event.Encode(d)
	r.Topic, r.Partition, r.Offset = "catchment.events", 7, 1234
	r.Timestamp = time.UnixMilli(1_793_500_000_123)
	return r
}

func full() *event.Delivery {
	return &event.Delivery{
		Source: "stripe", Provider: "stripe", ID: "evt_1", Type: "charge.refunded",
		Time:       time.Date(2026, 11, 1, 10, 0, 0, 0, time.UTC),
		ReceivedAt: time.Date(2026, 11, 1, 10, 0, 1, 123456000, time.UTC),
		DeliveryID: "0199a0b0-0000-7000-8000-000000000001", SecretID: "k_1", RemoteAddr: "192.0.2.1",
		Method: "POST", Path: "/webhooks/stripe", Query: "x=%2F", SignedURL: "https://example.com/", Verdict: "verified",
		ContentType: "application/json", TraceParent: "00-1-2-01", TraceState: "a=b",
		Headers: []event.Header{{Name: "content-type", Value: "application/json"}, {Name: "x-twice", Value: "1"}, {Name: "x-twice", Value: "2"}, {Name: "x-empty", Value: ""}},
		Body:    []byte{0, 0xff, '{', 0xc3, 0x28},
	}
}

// throughParquet writes the rows and reads them again.
func throughParquet(t *testing.T, rows ...*row.Row) []*row.Row {
	t.Helper()
	var file bytes.Buffer
	w := parquet.NewWriter(&file, row.Schema())
	for _, r := range rows {
		_, err := w.WriteRows([]parquet.Row{r.AppendTo(nil)})
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	reader := parquet.NewReader(bytes.NewReader(file.Bytes()), row.Schema())
	values := make([]parquet.Row, len(rows)+1)
	n, _ := reader.ReadRows(values)
	require.Equal(t, len(rows), n)
	var out []*row.Row
	for _, v := range values[:n] {
		r, err := row.Parse(v)
		require.NoError(t, err)
		out = append(out, r)
	}
	return out
}

func TestDeliveriesComeBackExactly(t *testing.T) {
	unruly := full()
	unruly.ID, unruly.Path, unruly.Query = "id\xff", "/\xc3\x28", "\x80"
	unruly.TraceState = "\xfe"
	unruly.Headers = []event.Header{{Name: "x", Value: "ok"}, {Name: "x", Value: "caf\xe9"}, {Name: "y", Value: "\xff"}, {Name: "x", Value: "\ufffd"}}
	bare := &event.Delivery{Source: "s", ID: "i", DeliveryID: full().DeliveryID, ReceivedAt: full().ReceivedAt, Body: []byte{}, Verdict: "no-type"}
	nul := full()
	nul.Type, nul.Headers = "a\x00b", []event.Header{{Name: "x", Value: "\x00"}}

	var rows []*row.Row
	deliveries := []*event.Delivery{full(), unruly, bare, nul}
	for _, d := range deliveries {
		rows = append(rows, row.From(record(t, d), topicID))
	}
	read := throughParquet(t, rows...)
	for i, d := range deliveries {
		got, ok := read[i].Delivery()
		require.True(t, ok)
		if len(got.Body) == 0 {
			got.Body = []byte{}
		}
		want := *d
		if i == 1 { // the values of a name stand together, in their order
			want.Headers = []event.Header{{Name: "x", Value: "ok"}, {Name: "x", Value: "caf\xe9"}, {Name: "x", Value: "\ufffd"}, {Name: "y", Value: "\xff"}}
		}
		require.Empty(t, cmp.Diff(&want, got))
		require.Equal(t, leaf(rows[i]), leaf(read[i]), "the Merkle leaf of what is read is that of what was written")
		require.True(t, rows[i].SameRecord(read[i]))
	}
	require.Equal(t, "caf\ufffd", read[1].Headers[0].Values[1])
	require.Equal(t, base64.StdEncoding.EncodeToString([]byte("caf\xe9")), read[1].Attribute("archive.base64.headers.x.1"))
}

// Rows that are made with the same memory are those that are made alone, also of records that have moved.
func TestMaker(t *testing.T) {
	second := full()
	second.Headers, second.TraceParent, second.ID = []event.Header{{Name: "a", Value: "caf\xe9"}}, "", "evt_2"
	bare := full()
	bare.Headers, bare.TraceState = nil, ""
	foreign := &kgo.Record{Key: []byte("k"), Headers: []kgo.RecordHeader{{Key: "a"}, {Key: "a", Value: []byte("\xff")}, {Key: "ce_id", Value: []byte("x")}}}
	var m row.Maker
	for _, r := range []*kgo.Record{record(t, full()), record(t, second), foreign, record(t, bare), record(t, full()), {}} {
		for _, of := range []struct {
			alone  func(*kgo.Record, [16]byte) *row.Row
			before func(*kgo.Record, [16]byte) *row.Row
		}{{row.From, m.From}, {row.FromResult, m.FromResult}} {
			want, got := of.alone(r, topicID), of.before(r, topicID)
			require.Equal(t, leaf(want), leaf(got))
			own := *r
			own.Headers = slices.Clone(r.Headers)
			row.Detach(&own)
			require.Equal(t, r, &own)
			require.Equal(t, leaf(want), leaf(of.before(&own, topicID)))
		}
	}
}

func TestWhatIsNoDeliveryIsKept(t *testing.T) {
	missing := record(t, full())
	missing.Headers = missing.Headers[1:] // the first one every delivery has
	for name, c := range map[string]struct {
		record     *kgo.Record
		source     string
		attributes map[string]string
	}{
		"nothing at all": {&kgo.Record{}, "", map[string]string{"archive.undecodable": "true"}},
		"a header is missing": {missing, "stripe", map[string]string{
			"archive.undecodable": "true", "archive.key": "evt_1", "catchment_version": "1", "traceparent": "00-1-2-01", "tracestate": "a=b",
		}},
		"anything": {&kgo.Record{Key: []byte("k\xff"), Value: []byte("v"), Headers: []kgo.RecordHeader{
			{Key: "a", Value: []byte("1")},
			{Key: "a", Value: []byte("2")},
			{Key: "a", Value: []byte("\xff")},
			{Key: "\xff", Value: nil},
			{Key: "archive.key", Value: []byte("not ours")},
		}}, "", map[string]string{
			"archive.undecodable": "true", "a": "1", "a#2": "2", "a#3": "\ufffd", "archive.base64.attributes.a#3": "/w==",
			"\ufffd": "", "archive.base64.attributes.\ufffd.name": "/w==",
			"archive.key": "not ours", "archive.key#2": "k\ufffd", "archive.base64.attributes.archive.key#2": "a/8=",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got := throughParquet(t, row.From(c.record, topicID))[0]
			require.Equal(t, c.source, got.Source)
			require.Equal(t, string(c.record.Value), string(got.Body))
			attributes := map[string]string{}
			for _, a := range got.Attributes {
				attributes[a.Name] = a.Value
			}
			require.Empty(t, cmp.Diff(c.attributes, attributes))
			_, ok := got.Delivery()
			require.False(t, ok)
			_, err := event.Decode(got.Record())
			require.ErrorIs(t, err, event.ErrNotADelivery)
			if name != "anything" { // its header of our own name stands in the key's place
				require.Equal(t, c.record.Key, got.Record().Key)
			}
		})
	}
}

func TestResultsComeBackExactly(t *testing.T) {
	result, err := event.EncodeResult(&event.Result{Source: "shop", EventID: "e\xff", Operation: "orders", Attempt: 2, Outcome: "succeeded"})
	require.NoError(t, err)
	result.Headers = append(result.Headers, kgo.RecordHeader{Key: "traceparent", Value: []byte("00-1")}, kgo.RecordHeader{Key: "x", Value: []byte("\xfe")})
	other := *result
	other.Key, other.Headers = []byte("another"), append(slices.Clone(result.Headers[1:]), result.Headers[1])
	for name, c := range map[string]struct {
		record  *kgo.Record
		decodes bool
		columns []string // source, event_id, type, content_type
	}{
		"a result":       {result, true, []string{"shop", "e\ufffd", "catchment.result", "application/json"}},
		"almost one":     {&other, false, []string{"shop", "e\ufffd", "catchment.result", "application/json"}},
		"nothing at all": {&kgo.Record{}, false, []string{"", "", "", ""}},
		"another's":      {&kgo.Record{Key: []byte{}, Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte("2")}}}, false, []string{"", "", "", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			w := row.FromResult(c.record, topicID)
			got := throughParquet(t, w)[0]
			require.Equal(t, leaf(w), leaf(got))
			require.Equal(t, c.columns, []string{got.Source, got.EventID, got.Type, got.ContentType})
			require.Equal(t, !c.decodes, got.Attribute("archive.undecodable") == "true")
			require.True(t, got.IsResult())
			_, ok := got.Delivery()
			require.False(t, ok, "a result is no delivery")
			again := got.Record()
			require.Equal(t, c.record.Key, again.Key)
			require.Equal(t, string(c.record.Value), string(again.Value))
			require.ElementsMatch(t, c.record.Headers, again.Headers)
			_, err := event.OutlineOf(again)
			require.Equal(t, c.decodes, err == nil)
		})
	}
}

func TestUnknownHeadersOfADeliveryAreKept(t *testing.T) {
	r := record(t, full())
	r.Headers = append(r.Headers, kgo.RecordHeader{Key: "added-by-a-proxy", Value: []byte("x")})
	got := throughParquet(t, row.From(r, topicID))[0]
	require.Equal(t, "x", got.Attribute("added-by-a-proxy"))
	require.Equal(t, topicID, got.TopicID)
	require.EqualValues(t, 7, got.Partition)
	require.EqualValues(t, 1234, got.Offset)
	require.True(t, r.Timestamp.Equal(got.KafkaTimestamp))
	_, ok := got.Delivery()
	require.True(t, ok)
	require.ElementsMatch(t, r.Headers, got.Record().Headers)
	require.Equal(t, []any{r.Key, r.Value, r.Partition, r.Offset}, []any{got.Record().Key, got.Record().Value, got.Record().Partition, got.Record().Offset})
}

// Whatever a record holds, its row can be written, and comes back the same.
func FuzzRow(f *testing.F) {
	f.Add([]byte("k"), []byte("v"), "name", []byte("value"), "http_x", []byte("\xff"))
	f.Fuzz(func(t *testing.T, key, value []byte, name1 string, value1 []byte, name2 string, value2 []byte) {
		r := record(t, full())
		r.Key, r.Value = key, value
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name1, Value: value1}, kgo.RecordHeader{Key: name2, Value: value2})
		w := row.From(r, topicID)
		got := throughParquet(t, w)[0]
		require.Equal(t, leaf(w), leaf(got))
		require.True(t, bytes.Equal(value, got.Body))
		if strings.HasPrefix(name1, "archive.") || strings.HasPrefix(name2, "archive.") {
			return // names of our own
		}
		again := got.Record()
		want, err := event.Decode(r)
		have, errAgain := event.Decode(again)
		if err != nil {
			_, ok := got.Delivery()
			require.False(t, ok)
			return
		}
		require.NoError(t, errAgain)
		require.Equal(t, want.HeaderMap(), have.HeaderMap())
		require.Equal(t, []any{want.ID, want.Source, want.Type, want.DeliveryID, string(want.Body)}, []any{have.ID, have.Source, have.Type, have.DeliveryID, string(have.Body)})
	})
}

func leaf(w *row.Row) string {
	var s strings.Builder
	w.WriteLeaf(&s, nil)
	return s.String()
}
