package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"
)

var xDotCom = &Provider{
	Name:             "x",
	AckTimeout:       8 * time.Second,
	HandshakeMethods: []string{http.MethodGet},
	SecurityHeaders:  []string{"X-Twitter-Webhooks-Signature"},
	credentials:      secretOnly(newHexSecret),
	open:             openX,
	sign:             signX,
	sample:           sampleX,
	Doc: Doc{
		Title:     "X (Twitter)",
		URL:       "https://docs.x.com/x-api/webhooks/introduction",
		Signature: "`x-twitter-webhooks-signature: sha256=<base64>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the app's consumer secret",
		ID:        "none: the body's digest. IDs inside the objects name a post or a message, of which several deliveries may tell",
		Type:      "`data.event_type` (X Activity); else the name of the member that ends in `_events` or `_event` (`tweet_create_events`), if there is one",
		Handshake: "the challenge (CRC), `GET ?crc_token=…`, at registration and hourly (v2) or daily (enterprise), is answered with `{\"response_token\":\"sha256=<base64 HMAC-SHA256 of the token>\"}`, signed with the first secret that is valid now",
		Retries:   "waits 10 s (v2), so the ingress waits up to 8 s for Kafka; enterprise sends 3 times within 5 min",
		Notes: []string{
			"The answer to a challenge is made by the key and over the text alone that sign a delivery. Therefore a token is answered only if it has 1 to 256 letters, digits and `+/=_-.~`, and no body of that form is taken for a delivery.",
			"The URL may have no port. With `event_id`, an ID inside the objects can be chosen where one source carries one kind of activity.",
		},
		Unverified: []string{"the form of a `crc_token`", "that a repetition has the same body"},
		Config:     "provider: x\nsecrets: [\"${X_CONSUMER_SECRET}\"]",
	},
}

type xScheme struct {
	noHandshake
	body bodyMAC
}

func openX(o *opening) opened {
	return opened{scheme: &xScheme{body: bodyMAC{macs: o.macs(sha256.New, plainSecret), prefix: "sha256=", decode: appendBase64}}}
}

// greet answers the challenge. Whoever asks gets an answer, as X wants it.
func (s *xScheme) greet(r *Request) (*Response, error) {
	if r.Method != http.MethodGet {
		return nil, nil
	}
	query, err := url.ParseQuery(r.RawQuery)
	token := query["crc_token"]
	if err != nil || len(token) != 1 || !isNonce(token[0]) {
		return nil, errHandshake
	}
	key := s.body.macs.current(r.Now)
	if key == noKey {
		return nil, errNoSecret
	}
	sum := s.body.macs.sum(key, func(m *mac) { m.string(token[0]) })
	return jsonResponse(`{"response_token":"sha256=` + base64.StdEncoding.EncodeToString(sum) + `"}`), nil
}

func (s *xScheme) verify(_ context.Context, r *Request) (proof, error) {
	if len(r.Body) <= 256 && isNonce(string(r.Body)) {
		return proof{}, errIsChallenge
	}
	return s.body.verify(r, get(r.Header, "X-Twitter-Webhooks-Signature"))
}

var xFields = newFields("data.event_type")

func (s *xScheme) identify(r *Request) (Identity, error) {
	var v [1]value
	if err := xFields.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	if typ := v[0].str(); typ != "" {
		return Identity{Type: typ}, nil
	}
	var typ string
	for _, name := range value(r.Body).names() {
		if !xActivity(name) {
			continue
		}
		if typ != "" {
			return Identity{}, nil
		}
		typ = name
	}
	return Identity{Type: typ}, nil
}

func xActivity(name string) bool {
	return strings.HasSuffix(name, "_events") || strings.HasSuffix(name, "_event")
}

func signX(in *SignInput) (Signed, error) {
	h := signedHeaders(in)
	h.Set("X-Twitter-Webhooks-Signature", "sha256="+base64Sum(sha256.New, []byte(in.Secret), func(m *mac) { m.bytes(in.Body) }))
	return Signed{Header: h}, nil
}
