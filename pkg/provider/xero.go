package provider

import (
	"net/http"
	"time"
)

var xero = &Provider{
	Name:            "xero",
	SecurityHeaders: []string{"X-Xero-Signature"},
	credentials:     secretOnly(newXeroKey),
	open:            openXero,
	sign:            xeroRules.sign,
	sample:          sampleXero,
	split:           splitXero,
	Doc: Doc{
		Title:     "Xero",
		URL:       "https://developer.xero.com/documentation/webhooks/configuring-your-server",
		Signature: "`X-Xero-Signature: <base64>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the webhook key",
		ID:        "none: an event is called `{delivery key}/{index}`, where the key is the body's digest",
		Type:      "an event's `eventType` (`CREATE`, `UPDATE`; what it is about stands in `eventCategory`)",
		Time:      "an event's `eventDateUtc`",
		Batch:     "`events` is an array",
		Handshake: "“intent to receive”: signed bodies without events, some of them with a wrong signature; answered 200 with an empty body, and 401",
		Retries:   "ever less often for up to 24 h, then the webhook is disabled; waits 5 s, and wants an empty body and no cookies in the answer",
		Notes:     []string{"No time is signed."},
		Unverified: []string{
			"That the key is the text of the webhook key, and not what its base64 stands for.",
			"What `firstEventSequence` counts, and whether a retry has the same `entropy`: neither is used for names. A retry with other bytes is another delivery.",
		},
		Config: "provider: xero\nsecrets: [\"${XERO_WEBHOOK_KEY}\"]",
	},
}

var xeroRules = &declared{
	HMAC:      HMAC{Header: "X-Xero-Signature", Encoding: "base64"},
	answering: answerXeroIntent,
}

// xeroScheme is what is declared, with the answer that Xero wants.
type xeroScheme struct{ *declaredScheme }

func openXero(o *opening) opened {
	opened := xeroRules.open(o)
	if inner, ok := opened.scheme.(*declaredScheme); ok {
		opened.scheme = xeroScheme{inner}
	}
	return opened
}

// answer has no body: to Xero, one with a body is a failure.
func (xeroScheme) answer(*Request) *Response { return &Response{Status: http.StatusOK} }

var (
	xeroEvents = newFields("events")
	xeroEvent  = newFields("eventType", "eventDateUtc")
)

// answerXeroIntent answers a body without events. Which signature is right has been found out before.
func answerXeroIntent(r *Request) (*Response, error) {
	var v [1]value
	if err := xeroEvents.read(r.Body, v[:]); err != nil {
		return nil, err
	}
	if list := v[0].elements(); list == nil || len(list) > 0 {
		return nil, nil
	}
	return &Response{Status: http.StatusOK}, nil
}

func splitXero(r *Request) ([]Part, error) {
	var v [1]value
	if err := xeroEvents.read(r.Body, v[:]); err != nil {
		return nil, err
	}
	return partsOf(v[0], xeroEvent, func(v []value) Identity {
		return Identity{Type: v[0].str(), Time: utcTime(v[1].str())}
	})
}

// utcTime reads a time without a zone, which is UTC, or one with a zone; zero when it is neither.
func utcTime(text string) time.Time {
	if t, ok := rfc3339(text); ok {
		return t
	}
	t, ok := rfc3339(text + "Z")
	if !ok {
		return time.Time{}
	}
	return t
}
