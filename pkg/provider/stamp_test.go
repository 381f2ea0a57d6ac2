package provider

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/event"
)

// TestTimesThatLeaveTheirYears: a zone moves the ends of the years 1 and 9999 into years that no record's header has.
// Such a time is none, and the delivery's record is read as it was written.
func TestTimesThatLeaveTheirYears(t *testing.T) {
	twilio := func(text string) time.Time {
		id, err := (&twilioScheme{}).identify(&Request{
			Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, Body: []byte("CallSid=CA1&Timestamp=" + text),
		})
		require.NoError(t, err)
		return id.Time
	}
	stamp := func(text string) time.Time {
		at, ok := rfc3339(text)
		require.Equal(t, ok, !at.IsZero(), text)
		return at
	}
	for text, at := range map[string]time.Time{
		"9999-12-31T23:59:59-00:01":       stamp("9999-12-31T23:59:59-00:01"),
		"0001-01-01T00:00:00+00:01":       stamp("0001-01-01T00:00:00+00:01"),
		"Fri, 31 Dec 9999 23:59:59 -0100": twilio("Fri,+31+Dec+9999+23:59:59+-0100"),
	} {
		require.True(t, at.IsZero(), text)
	}
	for text, at := range map[string]time.Time{
		"9999-12-31T23:59:59Z":            stamp("9999-12-31T23:59:59Z"),
		"9999-12-31T23:59:59+23:59":       stamp("9999-12-31T23:59:59+23:59"),
		"0001-01-01T00:00:00-00:01":       stamp("0001-01-01T00:00:00-00:01"),
		"Fri, 31 Dec 9999 23:59:59 +0100": twilio("Fri,+31+Dec+9999+23:59:59+%2B0100"),
	} {
		require.False(t, at.IsZero(), text)
		d := &event.Delivery{
			Source: "s", Provider: "stripe", ID: "a", Type: "t", Time: at, ReceivedAt: at,
			DeliveryID: "01a21f19-7836-7327-ab8b-d400abdfda47", Method: "POST", Path: "/webhooks/s", RemoteAddr: "192.0.2.1:1",
		}
		got, err := event.Decode(event.Encode(d))
		require.NoError(t, err, text)
		require.True(t, got.Time.Equal(at), text)
	}
}
