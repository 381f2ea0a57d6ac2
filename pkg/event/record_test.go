package event

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

func sample() *Delivery {
	return &Delivery{
		Source: "stripe", Provider: "stripe", ID: "evt_1", Type: "payment_intent.succeeded",
		Time: time.Unix(1_790_000_000, 0).UTC(), ReceivedAt: time.Unix(1_790_000_001, 5).UTC(),
		DeliveryID: "0199d5a0-0000-7000-8000-000000000001", SecretID: "k_0123456789ab",
		RemoteAddr: "192.0.2.1", Method: "POST", Path: "/webhooks/stripe", Query: "a=1&a=2",
		Verdict: NewVerdict(FlagVerified), ContentType: "application/json; charset=utf-8",
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		Headers: []Header{
			{"content-type", "application/json; charset=utf-8"},
			{"x-twice", "one"},
			{"x-twice", "two"},
			{"x-latin1", "caf\xe9"},
		},
		Body: []byte("{\"id\":\"evt_1\",\r\n \"raw\":\"\xff\x00\"}"),
	}
}

func TestEncodeDecodeRoundTrip(t *testing.T) {
	for name, change := range map[string]func(*Delivery){
		"full":      func(*Delivery) {},
		"no time":   func(d *Delivery) { d.Time = time.Time{} },
		"no type":   func(d *Delivery) { d.Type = ""; d.Verdict = d.Verdict.With(FlagNoType) },
		"unknown":   func(d *Delivery) { d.Type = "unknown" },
		"no body":   func(d *Delivery) { d.Body = nil },
		"bare":      func(d *Delivery) { d.Headers, d.ContentType, d.TraceParent, d.SecretID = nil, "", "", "" },
		"signedurl": func(d *Delivery) { d.SignedURL = "https://example.com/webhooks/square?x=%2F" },
	} {
		t.Run(name, func(t *testing.T) {
			want := sample()
			change(want)
			r := Encode(want)
			require.Equal(t, want.ID, string(r.Key))
			got, err := Decode(r)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(want, got))
		})
	}
}

func TestEncodeDoesNotCopyTheBody(t *testing.T) {
	d := sample()
	require.Same(t, &d.Body[0], &Encode(d).Value[0])
}

// TestEncoder encodes deliveries of all sizes into the same memory: each record is what Encode makes.
func TestEncoder(t *testing.T) {
	var e Encoder
	ds := []*Delivery{sample(), sample(), {ID: "a", Source: "s", DeliveryID: sample().DeliveryID}, sample(), sample(), sample()}
	ds[1].Headers = ds[1].Headers[1:]
	ds[3].Headers = append([]Header{{Name: "a-first", Value: "1"}}, ds[3].Headers...)
	for i := range 300 {
		ds[4].Headers = append(ds[4].Headers, Header{Name: "z-" + strings.Repeat("z", i), Value: strings.Repeat("v", i)})
	}
	for range 3 {
		for _, d := range ds {
			require.Equal(t, Encode(d), e.Encode(d))
			e.Release()
			require.Less(t, cap(e.headers.values), 5<<10, "what is kept is bounded")
			require.Nil(t, e.record.Value, "the body is let go")
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	edit := func(key string, f func(hs []kgo.RecordHeader, i int) []kgo.RecordHeader) *kgo.Record {
		r := Encode(sample())
		for i := range r.Headers {
			if r.Headers[i].Key == key {
				r.Headers = f(r.Headers, i)
				return r
			}
		}
		t.Fatalf("no header %s", key)
		return nil
	}
	drop := func(hs []kgo.RecordHeader, i int) []kgo.RecordHeader { return append(hs[:i:i], hs[i+1:]...) }
	twice := func(hs []kgo.RecordHeader, i int) []kgo.RecordHeader { return append(hs, hs[i]) }
	set := func(v string) func(hs []kgo.RecordHeader, i int) []kgo.RecordHeader {
		return func(hs []kgo.RecordHeader, i int) []kgo.RecordHeader { hs[i].Value = []byte(v); return hs }
	}
	otherKey := Encode(sample())
	otherKey.Key = []byte("evt_2")
	for name, c := range map[string]struct {
		r    *kgo.Record
		want string
	}{
		"foreign record":   {&kgo.Record{Key: []byte("k"), Value: []byte("v")}, "ce_specversion is missing"},
		"no id":            {edit(headerID, drop), "ce_id is missing"},
		"id twice":         {edit(headerID, twice), "ce_id is there twice"},
		"empty id":         {edit(headerID, set("")), "ce_id: is empty"},
		"key is not id":    {otherKey, "the key is not the value of header ce_id"},
		"other version":    {edit(headerVersion, set("2")), "another release"},
		"other source":     {edit(headerSource, set("https://example.com")), "expected /webhooks/{source}"},
		"bad time":         {edit(headerTime, set("yesterday")), "expected an RFC 3339 time"},
		"bad delivery":     {edit(headerDeliveryID, set("7")), "expected a UUID"},
		"no received time": {edit(headerReceivedAt, drop), "catchment_received_at is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode(c.r)
			require.ErrorIs(t, err, ErrNotADelivery)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func FuzzDecode(f *testing.F) {
	r := Encode(sample())
	for i := range r.Headers {
		f.Add(r.Key, r.Headers[i].Key, r.Headers[i].Value, r.Value, uint8(i))
	}
	for _, at := range []string{"9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00+00:01", "2026-11-01T1:00:00,5+01:00"} {
		f.Add(r.Key, headerTime, []byte(at), r.Value, uint8(len(r.Headers)))
		f.Add(r.Key, headerReceivedAt, []byte(at), r.Value, uint8(len(r.Headers)))
	}
	f.Fuzz(func(t *testing.T, key []byte, name string, value, body []byte, at uint8) {
		r := Encode(sample())
		h := kgo.RecordHeader{Key: name, Value: value}
		if int(at) < len(r.Headers) {
			r.Headers[at] = h
		} else {
			r.Headers = append(r.Headers, h)
		}
		r.Key, r.Value = key, body
		d, err := Decode(r)
		if err != nil {
			require.ErrorIs(t, err, ErrNotADelivery)
			return
		}
		again, err := Decode(Encode(d))
		require.NoError(t, err, "what was read must be writable")
		require.Empty(t, cmp.Diff(d, again))
		require.True(t, bytes.Equal(body, again.Body))
	})
}

func FuzzEncode(f *testing.F) {
	d := sample()
	f.Add(d.Source, d.ID, d.Type, int64(0), int64(1), d.Path, d.Query, "x-a", "b", d.Body)
	f.Fuzz(func(t *testing.T, source, id, typ string, at, received int64, path, query, name, value string, body []byte) {
		if source == "" || id == "" {
			return // no delivery
		}
		d := sample()
		d.Source, d.ID, d.Type, d.Path, d.Query, d.Body = source, id, typ, path, query, body
		d.Time, d.ReceivedAt = time.Unix(0, at).UTC(), time.Unix(0, received).UTC()
		d.Headers = []Header{{name, value}}
		if typ == "" {
			d.Verdict = d.Verdict.With(FlagNoType)
		}
		got, err := Decode(Encode(d))
		require.NoError(t, err)
		require.Empty(t, cmp.Diff(d, got))
	})
}

func BenchmarkEncode(b *testing.B) {
	d := sample()
	b.ReportAllocs()
	for b.Loop() {
		Encode(d)
	}
}

func BenchmarkEncoder(b *testing.B) {
	d := sample()
	b.ReportAllocs()
	var e Encoder
	for b.Loop() {
		e.Encode(d)
	}
}

func BenchmarkDecode(b *testing.B) {
	r := Encode(sample())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(r); err != nil {
			b.Fatal(err)
		}
	}
}
