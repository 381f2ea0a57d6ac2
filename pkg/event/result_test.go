package event_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
)

func headersOf(hs []kgo.RecordHeader) map[string]string {
	m := map[string]string{}
	for _, h := range hs {
		m[h.Key] = string(h.Value)
	}
	return m
}

func TestResultRecord(t *testing.T) {
	rows, entity := int64(2), "o1"
	want := &event.Result{
		Source: "shop", EventID: "e/1", DeliveryID: "0198c0de-0000-7000-8000-000000000000", Operation: "orders", Definition: "ab", Attempt: 3,
		Outcome: "succeeded", Entity: &entity, RowsAffected: &rows, Returned: json.RawMessage(`[{"id":1}]`),
		StartedAt: time.Date(2026, 11, 1, 2, 3, 4, 5000, time.UTC), Duration: 0.25,
	}
	r, err := event.EncodeResult(want)
	require.NoError(t, err)
	require.Equal(t, "e/1", string(r.Key))
	require.Equal(t, map[string]string{
		"ce_specversion": "1.0", "ce_id": "e/1/orders/3", "ce_source": "/webhooks/shop", "ce_type": "catchment.result", "content-type": "application/json",
		"catchment_version": "1", "catchment_event_id": "e/1", "catchment_operation": "orders", "catchment_attempt": "3", "catchment_outcome": "succeeded",
	}, headersOf(r.Headers))
	got, err := event.DecodeResult(r)
	require.NoError(t, err)
	require.Equal(t, want, got)

	outline, err := event.OutlineOf(r)
	require.NoError(t, err)
	require.Equal(t, event.Outline{Source: "shop", EventID: "e/1", Type: "catchment.result", ContentType: "application/json"}, outline)

	r.Key = []byte("other")
	_, err = event.DecodeResult(r)
	require.ErrorIs(t, err, event.ErrNotAResult)
	_, err = event.DecodeResult(&kgo.Record{Value: []byte("{")})
	require.ErrorIs(t, err, event.ErrNotAResult)
}

func TestPublishedHeaders(t *testing.T) {
	p := event.Published{Source: "shop", EventID: "e1", Operation: "tell", Attempt: 1, Index: 4, JSON: true, Time: time.Unix(0, 0)}
	require.Equal(t, map[string]string{
		"ce_specversion": "1.0", "ce_id": "e1/tell/1/4", "ce_source": "/webhooks/shop", "ce_type": "unknown", "ce_time": "1970-01-01T00:00:00Z",
		"content-type": "application/json", "catchment_version": "1", "catchment_event_id": "e1", "catchment_operation": "tell", "catchment_attempt": "1",
	}, headersOf(p.Headers()))
	p.Index, p.JSON, p.Time, p.Type = -1, false, time.Time{}, "order.paid"
	require.Equal(t, map[string]string{
		"ce_specversion": "1.0", "ce_id": "e1/tell/1", "ce_source": "/webhooks/shop", "ce_type": "order.paid",
		"catchment_version": "1", "catchment_event_id": "e1", "catchment_operation": "tell", "catchment_attempt": "1",
	}, headersOf(p.Headers()))
}

func TestOutlineSaysWhatIsWrong(t *testing.T) {
	result := func() *kgo.Record {
		r, err := event.EncodeResult(&event.Result{Source: "shop", EventID: "e1", Operation: "orders", Attempt: 1, Outcome: "dead"})
		require.NoError(t, err)
		return r
	}
	for want, change := range map[string]func(*kgo.Record){
		"ce_specversion is missing":    func(r *kgo.Record) { r.Headers = r.Headers[1:] },
		"ce_id is there twice":         func(r *kgo.Record) { r.Headers = append(r.Headers, r.Headers[1]) },
		`expected "1", found "2"`:      func(r *kgo.Record) { r.Headers[4].Value = []byte("2") },
		"catchment_event_id: is empty": func(r *kgo.Record) { r.Headers[5].Value = nil },
		"expected /webhooks/{source}":  func(r *kgo.Record) { r.Headers[2].Value = []byte("shop") },
		"catchment_outcome is missing": func(r *kgo.Record) { r.Headers = r.Headers[:len(r.Headers)-1] },
		"expected an RFC 3339 time":    func(r *kgo.Record) { r.Headers = append(r.Headers, kgo.RecordHeader{Key: "ce_time"}) },
	} {
		r := result()
		change(r)
		outline, err := event.OutlineOf(r)
		require.ErrorIs(t, err, event.ErrNotAResult, want)
		require.ErrorContains(t, err, want)
		require.Equal(t, "catchment.result", outline.Type, "what is known stays")
	}
}
