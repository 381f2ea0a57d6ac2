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
