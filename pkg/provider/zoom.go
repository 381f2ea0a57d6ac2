package provider

import (
	"bytes"
	"context"
	"encoding/hex"
	"time"
)

var zoom = &Provider{
	Name:            "zoom",
	AckTimeout:      2500 * time.Millisecond,
	SecurityHeaders: []string{"X-Zm-Signature", "X-Zm-Request-Timestamp"},
	credentials:     secretOnly(newHexSecret),
	open:            openZoom,
	sign:            zoomRules.sign,
	sample:          sampleZoom,
	Doc: Doc{
		Title:     "Zoom",
		URL:       "https://developers.zoom.us/docs/api/webhooks/#verify-webhook-events",
		Signature: "`X-Zm-Signature: v0=<hex>`, `X-Zm-Request-Timestamp` (Unix seconds)",
		Signed:    "`v0:`timestamp`:`body, HMAC-SHA256; the key is the text of the app's secret token",
		Tolerance: "5 min both ways: Zoom's library looks at none",
		ID:        "none: the body's digest",
		Type:      "body `event`",
		Time:      "body `event_ts`, Unix milliseconds",
		Handshake: "the signed event `endpoint.url_validation` (repeated every 72 h) is answered within 3 s with `plainToken` and its HMAC-SHA256, in hex, as `encryptedToken`",
		Retries:   "waits 3 s, so the ingress waits up to 2.5 s for Kafka",
		Notes: []string{
			"A `plainToken` of more than 256 characters, or of others than letters, digits and `+/=_-.~`, is refused: whatever we sign here, anybody could use who is able to send it.",
			"Zoom's own sample serialises the JSON again before it verifies; the bytes as sent are what counts here.",
		},
		Unverified: []string{"when Zoom sends again, and that it signs anew then"},
		Config:     "provider: zoom\nsecrets: [\"${ZOOM_SECRET_TOKEN}\"]",
	},
}

var zoomRules = &declared{
	HMAC: HMAC{Header: "X-Zm-Signature", Prefix: "v0=", Signed: "v0:{timestamp}:{body}", TimestampHeader: "X-Zm-Request-Timestamp"},
	typ:  "event", at: "event_ts",
}

type zoomScheme struct{ *declaredScheme }

func openZoom(o *opening) opened {
	opened := zoomRules.open(o)
	if inner, ok := opened.scheme.(*declaredScheme); ok {
		opened.scheme = &zoomScheme{inner}
	}
	return opened
}

var zoomHandshake = newFields("event", "payload.plainToken")

func (s *zoomScheme) handshake(r *Request) (*Response, error) {
	if !bytes.Contains(r.Body, []byte("url_validation")) {
		return nil, nil // spares the events a second reading
	}
	var v [2]value
	if err := zoomHandshake.read(r.Body, v[:]); err != nil {
		return nil, err
	}
	if v[0].str() != "endpoint.url_validation" {
		return nil, nil
	}
	plain := v[1].str()
	if !isNonce(plain) {
		return nil, errHandshake
	}
	p, err := s.verify(context.Background(), r) // again, which tells the key: the answer is signed with the same
	if err != nil {
		return nil, err
	}
	sum := s.macs.sum(p.key, func(m *mac) { m.string(plain) })
	return jsonResponse(`{"plainToken":"` + plain + `","encryptedToken":"` + hex.EncodeToString(sum) + `"}`), nil
}
