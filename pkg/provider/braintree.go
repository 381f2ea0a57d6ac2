package provider

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // HMAC-SHA1 is what Braintree signs with
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

var braintree = &Provider{
	Name:             "braintree",
	HandshakeMethods: []string{http.MethodGet},
	Authenticity:     AuthPartial,
	options:          []string{"public_key", "private_key"},
	credentials:      newBraintreeKeys,
	open:             openBraintree,
	sign:             signBraintree,
	sample:           sampleBraintree,
	Doc: Doc{
		Title:     "Braintree",
		URL:       "https://developer.paypal.com/braintree/docs/guides/webhooks/parse",
		Signature: "form field `bt_signature`: `<public key>|<hex>` pairs, joined by `&`; the one with our public key counts",
		Signed:    "form field `bt_payload` (base64, with its line breaks), or the same and a line break, HMAC-SHA1; the key is the SHA-1 of the private key's text",
		ID:        "none: the body's digest",
		Type:      "`kind` in the XML (`check` is the test notification of the control panel)",
		Time:      "`timestamp` in the XML, RFC 3339",
		Handshake: "GET `?bt_challenge=<20 to 32 hex digits>`: answered `<public key>|<hex HMAC-SHA1 of the challenge>` as text; anything else is refused, or we would sign what anybody asks for",
		Notes: []string{
			"`public_key` and `private_key` of the gateway's API key stand among the options; there are no `secrets`. After a new key was made, Braintree signs with all active ones, so the configuration may change at any time before the old one is deleted.",
			"Of the form nothing but `bt_payload` is signed. The same notification in another spelling of the form has another digest: deduplicate operations on the subject's own ID.",
			"The payload must be XML with the root `notification`: what the handshake signs can therefore never pass for one. The XML is read without entities or a DTD.",
			"No time of sending is signed; `timestamp` is when the notification was made.",
		},
		Unverified: []string{"Retries hourly for up to 24 h; waits 30 s."},
		Config:     "provider: braintree\noptions: {public_key: \"${BRAINTREE_PUBLIC_KEY}\", private_key: \"${BRAINTREE_PRIVATE_KEY}\"}",
	},
}

type braintreeScheme struct {
	noHandshake
	public string
	key    *macKey
}

func openBraintree(o *opening) opened {
	o.keyless("the options public_key and private_key")
	s := &braintreeScheme{public: o.option("public_key")}
	if s.public == "" || strings.ContainsAny(s.public, "|&") {
		o.errorf("options.public_key", "expected the public key of the gateway's API key")
	}
	key, err := decodeSecret(o.option("private_key"), braintreeKey)
	if err != nil {
		o.errorf("options.private_key", "expected the private key of the gateway's API key: %w", err)
		return opened{}
	}
	s.key = newMACKey(macAlways, sha1.New, key)
	return opened{scheme: s}
}

// macAlways is a key that is valid at any time: it stands among the options, which know no validity.
var macAlways = key{}

func braintreeKey(text string) ([]byte, error) {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // it is Braintree's derivation
	return sum[:], nil
}

// greet answers the challenge. Its form is what keeps us from signing a payload that somebody made up.
func (s *braintreeScheme) greet(r *Request) (*Response, error) {
	if r.Method != http.MethodGet {
		return nil, nil
	}
	query, err := url.ParseQuery(r.RawQuery)
	if err != nil || len(query["bt_challenge"]) != 1 {
		return nil, errHandshake
	}
	challenge := query["bt_challenge"][0]
	if len(challenge) < 20 || len(challenge) > 32 || strings.Trim(challenge, "0123456789abcdef") != "" {
		return nil, errHandshake
	}
	return textResponse(s.public + "|" + hex.EncodeToString(s.key.of(func(m *mac) { m.string(challenge) }))), nil
}

func (s *braintreeScheme) verify(_ context.Context, r *Request) (proof, error) {
	signatures, payload, err := parseBraintree(r)
	if err != nil {
		return proof{}, err
	}
	sent, err := s.signature(signatures)
	if err != nil {
		return proof{}, err
	}
	fits := s.key.fits(sent, sha1.Size, func(m *mac) { m.string(payload) }) ||
		s.key.fits(sent, sha1.Size, func(m *mac) { m.string(payload); m.string("\n") })
	if !fits {
		return proof{}, errMismatch
	}
	if _, ok := readBraintree(payload); !ok {
		return proof{}, errMalformed
	}
	return proof{key: noKey}, nil
}

// parseBraintree takes the form apart. A payload with other characters than base64 has is refused, as Braintree's
// own libraries do.
func parseBraintree(r *Request) (signatures, payload string, err error) {
	if mediaType(r.Header) != "application/x-www-form-urlencoded" {
		return "", "", errUnsigned
	}
	form, err := url.ParseQuery(string(r.Body))
	if err != nil {
		return "", "", errMalformed
	}
	if len(form["bt_signature"]) == 0 || len(form["bt_payload"]) == 0 {
		return "", "", errUnsigned
	}
	if len(form["bt_signature"]) > 1 || len(form["bt_payload"]) > 1 {
		return "", "", errMalformed
	}
	signatures, payload = form["bt_signature"][0], form["bt_payload"][0]
	if payload == "" || strings.ContainsFunc(payload, notBraintree) {
		return "", "", errMalformed
	}
	return signatures, payload, nil
}

func notBraintree(c rune) bool { return !strings.ContainsRune(base62+"+=/\n", c) }

// signature decodes the MACs that stand behind our public key.
func (s *braintreeScheme) signature(pairs string) (sent []byte, err error) {
	err = errMismatch
	for pair := range strings.SplitSeq(pairs, "&") {
		public, text, _ := strings.Cut(pair, "|")
		if public != s.public {
			continue
		}
		err = errMalformed
		sent, _ = appendHex(sent, text, sha1.Size)
	}
	if len(sent) > 0 {
		return sent, nil
	}
	return nil, err
}

func (s *braintreeScheme) identify(r *Request) (Identity, error) {
	_, payload, err := parseBraintree(r)
	if err != nil {
		return Identity{}, err
	}
	id, _ := readBraintree(payload)
	return id, nil
}

// readBraintree reads kind and timestamp, which are children of the root.
func readBraintree(payload string) (id Identity, ok bool) {
	text, err := base64.StdEncoding.DecodeString(payload) // skips line breaks
	if err != nil {
		return Identity{}, false
	}
	var n notification
	dec := xml.NewDecoder(bytes.NewReader(text))
	dec.Entity = map[string]string{}
	if err := dec.Decode(&n); err != nil || n.XMLName.Local != "notification" || len(n.Kind) != 1 || len(n.Timestamp) > 1 {
		return Identity{}, false
	}
	if len(bytes.TrimSpace(text[dec.InputOffset():])) > 0 {
		return Identity{}, false
	}
	id.Type = strings.TrimSpace(n.Kind[0])
	if len(n.Timestamp) == 1 {
		id.Time, _ = rfc3339(strings.TrimSpace(n.Timestamp[0]))
	}
	return id, id.Type != ""
}

// notification takes lists, so that a second one is seen.
type notification struct {
	XMLName   xml.Name
	Kind      []string `xml:"kind"`
	Timestamp []string `xml:"timestamp"`
}

// signBraintree takes the XML, and makes the form of it.
func signBraintree(in *SignInput) (Signed, error) {
	public, _ := in.Options["public_key"].(string)
	key, err := decodeSecret(in.Secret, braintreeKey)
	if err != nil || public == "" {
		return Signed{}, errors.New("expected the options public_key and private_key")
	}
	var payload strings.Builder
	for text := base64.StdEncoding.EncodeToString(in.Body); text != ""; {
		n := min(60, len(text))
		payload.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	form := url.Values{
		"bt_signature": {public + "|" + hexSum(sha1.New, key, func(m *mac) { m.string(payload.String()) })},
		"bt_payload":   {payload.String()},
	}
	h := signedHeaders(in)
	h.Set("Content-Type", "application/x-www-form-urlencoded")
	return Signed{Header: h, Body: []byte(form.Encode())}, nil
}

func newBraintreeKeys() Credentials {
	private := newHexSecret()[:32]
	return Credentials{Options: map[string]any{"public_key": newHexSecret()[:16], "private_key": private}, Signer: private}
}
