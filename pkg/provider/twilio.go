package provider

import (
	"context"
	"crypto/sha1" //nolint:gosec // HMAC-SHA1 is what Twilio signs with
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"net/http"
	"strings"
	"time"
)

// twilio signs its parameters one behind the other. No sign shows where one ends, so the signature does not cover
// which is which: authenticity partial.
var twilio = &Provider{
	Name:            "twilio",
	Methods:         []string{http.MethodPost, http.MethodGet},
	SecurityHeaders: []string{"X-Twilio-Signature", twilioToken},
	Authenticity:    AuthPartial,
	options:         []string{"algorithm", "unbound_body"},
	credentials:     newTwilioCredentials,
	open:            openTwilio,
	sign:            signTwilio,
	sample:          sampleTwilio,
	split:           splitTwilio,
	Doc: Doc{
		Title:     "Twilio",
		URL:       "https://www.twilio.com/docs/usage/webhooks/webhooks-security",
		Signature: "`X-Twilio-Signature: <base64>`",
		Signed:    "the public URL with its query; of a form, each parameter's name and value behind it, sorted by name, distinct values of one name sorted. HMAC-SHA1; the key is the text of the auth token. Of any other body `bodySHA256` in the query, its SHA-256 in hex",
		ID:        "`I-Twilio-Idempotency-Token`, the same over Twilio's retries; not signed. Without it `MessageSid/MessageStatus` (or `SmsStatus`), `CallSid/CallStatus` (with `/SequenceNumber` where there is one; a call in progress only then), signed; else the digest of the body, or of the query where the body is empty",
		Type:      "parameter `EventType`, else `MessageStatus`, `SmsStatus` or `CallStatus`; of CloudEvents their `type`",
		Time:      "parameter `Timestamp` (RFC 2822); of CloudEvents their `time`",
		Batch:     "Event Streams: the body is an array of CloudEvents, named by their `id`",
		Retries:   "as the URL's fragment says (connection overrides); waits 15 s",
		Notes: []string{
			"`public_url` is required. It is tried without a port and with one, as Twilio's libraries try it.",
			"`options.algorithm: sha256` is for webhooks that are signed with a SharedKey: the secret is then that key's. The request's `X-Twilio-Webhooks-Signature-Settings` decides nothing.",
			"The parameters are signed one behind the other, without a sign between them: who has seen a request can cut the same text into other parameters, or move the beginning into the URL's query. Give `public_url` its query to prevent the latter.",
			"A body that is no form, and no `bodySHA256` in the query, is refused, for nothing covers it. `options.unbound_body: accept` takes it; its deliveries prove nothing but the URL.",
			"Twilio wants TwiML as the answer to a call or a message, which the ingress does not give: point its status callbacks and Event Streams here.",
			"A GET has its parameters in the query; its body is empty.",
		},
		Unverified: []string{
			"`I-Twilio-Idempotency-Token` is documented by third parties only",
			"retries by fragment, and 15 s",
			"that Event Streams sign as other JSON bodies",
		},
		Config: "provider: twilio\nsecrets: [\"${TWILIO_AUTH_TOKEN}\"]\npublic_url: https://hooks.example.com",
	},
}

const twilioToken = "I-Twilio-Idempotency-Token" //nolint:gosec // a header's name

type twilioScheme struct {
	noHandshake
	macs    *macs
	url     *publicURL
	decode  decoding
	unbound bool
}

var errTwilioAlgorithm = errors.New("expected sha1 or sha256")

func twilioHash(name string) (func() hash.Hash, error) {
	switch strings.ToLower(strings.TrimPrefix(name, "HMAC_")) {
	case "sha1", "":
		return sha1.New, nil
	case "sha256":
		return sha256.New, nil
	}
	return sha1.New, errTwilioAlgorithm
}

func openTwilio(o *opening) opened {
	newHash, err := twilioHash(o.text("algorithm", ""))
	if err != nil {
		o.errorf("options.algorithm", "%w", err)
	}
	unbound := o.text("unbound_body", "refuse")
	if unbound != "refuse" && unbound != "accept" {
		o.errorf("options.unbound_body", "expected refuse or accept")
	}
	if o.url == nil {
		o.errorf("public_url", "is missing: Twilio signs the URL that it calls")
	}
	return opened{scheme: &twilioScheme{macs: o.macs(newHash, plainSecret), url: o.url, decode: appendBase64, unbound: unbound == "accept"}}
}

func isForm(r *Request) bool {
	return r.Method != http.MethodGet && mediaType(r.Header) == "application/x-www-form-urlencoded"
}

func (s *twilioScheme) verify(_ context.Context, r *Request) (proof, error) {
	header := get(r.Header, "X-Twilio-Signature")
	if header == "" {
		return proof{}, errUnsigned
	}
	var space [sha256.Size]byte
	sent, ok := s.decode(space[:0], header, s.macs.size)
	if !ok {
		return proof{}, errMalformed
	}
	var form parameters
	if isForm(r) {
		if form, ok = formParameters(string(r.Body)); !ok {
			return proof{}, errMalformed
		}
	}
	if s.url == nil { // never: without it, the source does not open
		return proof{}, errMismatch
	}
	err := error(errMismatch)
	for _, u := range portForms(s.url.of(r)) {
		var key int
		if key, err = s.macs.find(r.Now, sent, func(m *mac) { writeTwilio(m, u, form) }); err == nil {
			return proof{key: key, signedURL: u}, s.bound(r, form)
		}
	}
	return proof{}, err
}

func writeTwilio(m *mac, u string, form parameters) {
	m.string(u)
	for _, p := range form {
		m.string(p.name)
		m.string(p.value)
	}
}

// bound refuses a body that the signature does not cover. The URL that it covers holds the configured public URL's
// query, if that has one, and else the request's. A URL with a digest is that of a body: without it, whoever saw a
// delivery could send it again as an empty one.
func (s *twilioScheme) bound(r *Request, form parameters) error {
	if form != nil {
		return nil
	}
	query, ok := formParameters(r.RawQuery)
	if s.url.hasQuery {
		_, text, _ := strings.Cut(s.url.text, "?")
		query, ok = formParameters(text)
	}
	if ok && len(r.Body) == 0 && !query.has("bodySHA256") {
		return nil
	}
	want := query.only("bodySHA256")
	if !ok || want == "" {
		if s.unbound {
			return nil
		}
		return errUnbound
	}
	sum := sha256.Sum256(r.Body)
	if subtle.ConstantTimeCompare([]byte(hex.EncodeToString(sum[:])), []byte(strings.ToLower(want))) != 1 {
		return errMismatch
	}
	return nil
}

// parameters are where the event's names stand.
func (s *twilioScheme) parameters(r *Request) parameters {
	text := r.RawQuery
	if isForm(r) {
		text = string(r.Body)
	}
	p, _ := formParameters(text)
	return p
}

func (s *twilioScheme) identify(r *Request) (Identity, error) {
	p := s.parameters(r)
	status := p.first("MessageStatus", "SmsStatus")
	id := Identity{ID: get(r.Header, twilioToken), Type: p.first("EventType", "MessageStatus", "SmsStatus", "CallStatus")}
	if at, err := time.Parse(time.RFC1123Z, p.only("Timestamp")); err == nil {
		id.Time, _ = inUTC(at)
	}
	if id.ID != "" {
		return id, nil
	}
	switch sid, call := p.first("MessageSid", "SmsSid"), p.only("CallSid"); {
	case sid != "" && status != "":
		id.ID = sid + "/" + status
	case call != "":
		id.ID = twilioCall(call, p.only("CallStatus"), p.only("SequenceNumber"))
	}
	if id.ID == "" && len(r.Body) == 0 && r.RawQuery != "" { // its digest is that of every other empty body
		sum := sha256.Sum256([]byte(r.RawQuery))
		id.ID = "sha256:" + hex.EncodeToString(sum[:])
	}
	return id, nil
}

// twilioCall names a call's event. Of a call in progress there may be many without a number (each Gather), which the
// status does not tell apart.
func twilioCall(sid, status, number string) string {
	switch {
	case status == "" || number == "" && status == "in-progress":
		return ""
	case number == "":
		return sid + "/" + status
	}
	return sid + "/" + status + "/" + number
}

func (s *twilioScheme) idUnsigned(r *Request) bool { return get(r.Header, twilioToken) != "" }

var twilioFields = newFields("id", "type", "time")

func splitTwilio(r *Request) ([]Part, error) {
	if isForm(r) {
		return nil, nil
	}
	return orWhole(partsOf(r.Body, twilioFields, func(v []value) Identity {
		return Identity{ID: v[0].text(), Type: v[1].str(), Time: v[2].isoTime()}
	}))
}

// signTwilio signs a form, or puts the digest of any other body into the URL.
func signTwilio(in *SignInput) (Signed, error) {
	algorithm, _ := in.Options["algorithm"].(string)
	newHash, err := twilioHash(algorithm)
	if err != nil {
		return Signed{}, err
	}
	h, u := signedHeaders(in), in.URL
	var form parameters
	if isForm(&Request{Method: in.Method, Header: h}) {
		var ok bool
		if form, ok = formParameters(string(in.Body)); !ok {
			return Signed{}, errors.New("the body is no form, as its content type says")
		}
	} else if len(in.Body) > 0 {
		sum := sha256.Sum256(in.Body)
		sign := "?"
		if strings.Contains(u, "?") {
			sign = "&"
		}
		u += sign + "bodySHA256=" + hex.EncodeToString(sum[:])
	}
	secret, err := decodeSecret(in.Secret, plainSecret)
	if err != nil {
		return Signed{}, err
	}
	h.Set("X-Twilio-Signature", base64.StdEncoding.EncodeToString(sum(newHash, secret, func(m *mac) { writeTwilio(m, u, form) })))
	return Signed{Header: h, URL: u}, nil
}

func newTwilioCredentials() Credentials {
	return Credentials{Secret: newHexSecret()[:32], Options: map[string]any{"public_url": "https://hooks.example.com"}}
}
