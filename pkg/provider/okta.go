package provider

import (
	"encoding/json"
	"net/http"
	"time"
)

// okta posts event hooks with a value in a header of the user's choice.
var okta = &Provider{
	Name:             "okta",
	AckTimeout:       2500 * time.Millisecond,
	HandshakeMethods: []string{http.MethodGet},
	SecurityHeaders:  []string{"X-Okta-Verification-Challenge"},
	Authenticity:     AuthToken,
	options:          []string{"header"},
	credentials:      secretOnly(newToken),
	open: func(o *opening) opened {
		header := o.headerOption("Authorization")
		return opened{
			scheme:   &oktaScheme{tokenScheme{header: header, tokens: o.tokens()}},
			security: []string{header}, secret: []string{header},
		}
	},
	sign: func(in *SignInput) (Signed, error) {
		h := signedHeaders(in)
		h.Set(signHeader(in, "Authorization"), in.Secret)
		return Signed{Header: h}, nil
	},
	sample: sampleOkta,
	split:  splitOkta,
	Doc: Doc{
		Title:     "Okta event hooks",
		URL:       "https://developer.okta.com/docs/concepts/event-hooks/",
		Signature: "`Authorization: <secret>`, the whole value; another header: option `header`",
		Signed:    "nothing: the value is compared",
		ID:        "`uuid` of each element; the delivery's is `eventId`",
		Type:      "`eventType` of each element",
		Time:      "`published` of each element: Okta asks to order by it",
		Batch:     "`data.events[]`",
		Handshake: "`GET` with `X-Okta-Verification-Challenge` → 200 `{\"verification\":\"<challenge>\"}`, before the hook is used; not signed",
		Retries:   "one, when there is no answer within 3 s or a 5xx; none after a 4xx. The ingress waits up to 2.5 s for Kafka",
		Notes:     []string{"The secret is what stands in the hook's field for the header's value, as a whole: with `Bearer ` before it, if it is there."},
		Config:    "provider: okta\nsecrets: [{id: \"2026-q4\", value: \"${OKTA_HOOK_SECRET}\"}]",
	},
}

type oktaScheme struct{ tokenScheme }

func (s *oktaScheme) greet(r *Request) (*Response, error) {
	if r.Method != http.MethodGet {
		return nil, nil
	}
	challenge := get(r.Header, "X-Okta-Verification-Challenge")
	if challenge == "" {
		return nil, errMethod
	}
	if len(challenge) > maxChallenge || !visible(challenge) {
		return nil, errHandshake
	}
	text, err := json.Marshal(map[string]string{"verification": challenge})
	if err != nil {
		return nil, errHandshake
	}
	return jsonResponse(string(text)), nil
}

var (
	oktaBody  = newFields("eventId", "data.events")
	oktaEvent = newFields("uuid", "eventType", "published")
)

func (s *oktaScheme) identify(r *Request) (Identity, error) {
	var v [2]value
	err := oktaBody.read(r.Body, v[:])
	return Identity{ID: v[0].text()}, err
}

func splitOkta(r *Request) ([]Part, error) {
	var v [2]value
	if err := oktaBody.read(r.Body, v[:]); err != nil {
		return nil, err
	}
	return partsOf(v[1], oktaEvent, func(v []value) Identity {
		return Identity{ID: v[0].text(), Type: v[1].str(), Time: v[2].isoTime()}
	})
}
