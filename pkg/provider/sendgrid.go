package provider

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"strconv"
	"time"
)

// sendgrid is the model of a delivery that is an array of events.
var sendgrid = &Provider{
	Name:            "sendgrid",
	SecurityHeaders: []string{sendgridSignature, sendgridStamp},
	credentials:     newSendGridKeys,
	open:            openSendGrid,
	sign:            signSendGrid,
	sample:          sampleSendGrid,
	split:           splitSendGrid,
	Doc: Doc{
		Title:     "SendGrid Event Webhook",
		URL:       "https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features",
		Signature: "`X-Twilio-Email-Event-Webhook-Signature: <base64 DER>`, `X-Twilio-Email-Event-Webhook-Timestamp` (Unix seconds)",
		Signed:    "timestamp, directly followed by the body; ECDSA P-256 with SHA-256; the secret is the public verification key as SendGrid shows it, base64 of its DER form",
		Tolerance: "5 min both ways: SendGrid's libraries look at none",
		ID:        "each event's `sg_event_id`",
		Type:      "each event's `event`",
		Time:      "each event's `timestamp`, Unix seconds",
		Batch:     "the body is a JSON array: each element is an event. An empty array is one event without a name, and so is a body that is no array",
		Retries:   "for up to 24 h",
		Notes: []string{
			"The line breaks between and behind the elements are signed, so the bytes must reach us unchanged.",
			"The OAuth token that SendGrid can send besides is not looked at.",
		},
		Unverified: []string{
			"that a retry is signed anew, with a new timestamp: if the log shows refusals as too old, set `tolerance: 25h` (or `off`); `sg_event_id` keeps a repetition from taking effect twice",
			"how long SendGrid sends a batch again, and that batches have up to about 768 KB",
		},
		Config: "provider: sendgrid\nsecrets: [\"${SENDGRID_PUBLIC_KEY}\"]",
		Signer: "base64 of the private key's PKCS #8 form (P-256)",
	},
}

const (
	sendgridSignature = "X-Twilio-Email-Event-Webhook-Signature"
	sendgridStamp     = "X-Twilio-Email-Event-Webhook-Timestamp"
)

type sendgridScheme struct {
	noHandshake
	signedStamp
}

func openSendGrid(o *opening) opened {
	return opened{scheme: &sendgridScheme{signedStamp: signedStamp{
		signature: sendgridSignature, stamp: sendgridStamp, decode: derSignature,
		keys: o.publicKeys(p256Key), window: o.tolerance(5 * time.Minute),
	}}}
}

// derSignature takes base64 with padding. A signature of P-256 has at most 72 bytes.
func derSignature(text string) ([]byte, bool) {
	if len(text) > 96 {
		return nil, false
	}
	b, err := decodeStrict(strictBase64, text)
	return b, err == nil
}

func (s *sendgridScheme) verify(_ context.Context, r *Request) (proof, error) {
	return s.signedStamp.verify(r)
}

func (s *sendgridScheme) identify(*Request) (Identity, error) { return Identity{}, nil }

var sendgridFields = newFields("sg_event_id", "event", "timestamp")

func splitSendGrid(r *Request) ([]Part, error) {
	return orWhole(partsOf(r.Body, sendgridFields, func(v []value) Identity {
		return Identity{ID: v[0].text(), Type: v[1].str(), Time: v[2].anyTime()}
	}))
}

func signSendGrid(in *SignInput) (Signed, error) {
	der, err := base64.StdEncoding.DecodeString(in.Secret)
	if err != nil {
		return Signed{}, errNoP256Signer
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return Signed{}, errNoP256Signer
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return Signed{}, errNoP256Signer
	}
	stamp := strconv.FormatInt(in.Now.Unix(), 10)
	sum := sha256.Sum256(append([]byte(stamp), in.Body...))
	signature, err := key.Sign(nil, sum[:], crypto.SHA256) // without chance: the same event has the same signature
	if err != nil {
		return Signed{}, err
	}
	h := signedHeaders(in)
	h.Set(sendgridStamp, stamp)
	h.Set(sendgridSignature, base64.StdEncoding.EncodeToString(signature))
	return Signed{Header: h}, nil
}

var errNoP256Signer = errors.New("to sign as SendGrid takes a private key: expected base64 of a P-256 key's PKCS #8 form")

func newSendGridKeys() Credentials {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Credentials{}
	}
	public, err1 := x509.MarshalPKIXPublicKey(&key.PublicKey)
	private, err2 := x509.MarshalPKCS8PrivateKey(key)
	if errors.Join(err1, err2) != nil {
		return Credentials{}
	}
	return Credentials{Secret: base64.StdEncoding.EncodeToString(public), Signer: base64.StdEncoding.EncodeToString(private)}
}
