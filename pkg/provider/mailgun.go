package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"strconv"
	"time"
)

// mailgun signs two members of the body and nothing of the event.
var mailgun = &Provider{
	Name:         "mailgun",
	IDUnsigned:   true,
	Authenticity: AuthPartial,
	credentials:  secretOnly(newHexSecret),
	open:         openMailgun,
	sign:         signMailgun,
	sample:       sampleMailgun,
	Doc: Doc{
		Title:     "Mailgun",
		URL:       "https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks",
		Signature: "in the body: `signature.timestamp`, `.token` and `.signature` (hex); of a form or multipart form (routes) the three fields at the top",
		Signed:    "timestamp, directly followed by the token; HMAC-SHA256; the key is the webhook signing key. The event itself is not signed",
		Tolerance: "9 hours both ways: Mailgun leaves it to the receiver",
		ID:        "body `event-data.id`, not signed; forms have none: the body's digest",
		Type:      "body `event-data.event`; of a form, `event`",
		Time:      "body `event-data.timestamp`, Unix seconds with a fraction",
		Retries:   "after 10, 10, 15 and 30 min, 1, 2 and 4 h (8 h in all), until answered with 200, or with 406, which ends them",
		Notes: []string{
			"Whoever has seen one delivery can put its signature under another event within the tolerance. A token that comes again with another body is what the replay guard is for.",
			"The timestamp has ten digits: no digit can change sides between it and the token.",
			"A subaccount's events carry `parent-signature` besides, made with the parent's key: either may fit.",
			"A route's multipart form has another boundary with each attempt, so its digest names the attempt: set `event_id` if that matters.",
		},
		Unverified: []string{
			"whether each attempt is signed anew: users report genuine messages that a window of 5 minutes refused, so the window spans Mailgun's 8 hours of retries",
			"`parent-signature` is documented by third parties only",
		},
		Config: "provider: mailgun\nsecrets: [\"${MAILGUN_SIGNING_KEY}\"]",
	},
}

type mailgunScheme struct {
	noHandshake
	macs   *macs
	window window
}

func openMailgun(o *opening) opened {
	return opened{scheme: &mailgunScheme{macs: o.macs(sha256.New, plainSecret), window: o.tolerance(9 * time.Hour)}}
}

// mailgunProof is one signature and what it covers.
type mailgunProof struct{ stamp, token, signature string }

var mailgunProofs = newFields(
	"signature.timestamp", "signature.token", "signature.signature",
	"parent-signature.timestamp", "parent-signature.token", "parent-signature.signature",
)

// readMailgun finds the signatures in the body.
func readMailgun(r *Request) ([]mailgunProof, error) {
	names := []string{"timestamp", "token", "signature"}
	switch mediaType(r.Header) {
	case "application/x-www-form-urlencoded":
		return mailgunForm(formFields(r.Body, names...))
	case "multipart/form-data":
		return mailgunForm(multipartFields(get(r.Header, "Content-Type"), r.Body, names...))
	}
	var v [6]value
	if err := mailgunProofs.read(r.Body, v[:]); err != nil {
		return nil, err
	}
	return []mailgunProof{{v[0].text(), v[1].text(), v[2].str()}, {v[3].text(), v[4].text(), v[5].str()}}, nil
}

func mailgunForm(v []string, ok bool) ([]mailgunProof, error) {
	if !ok {
		return nil, errMalformed
	}
	return []mailgunProof{{v[0], v[1], v[2]}}, nil
}

func (s *mailgunScheme) verify(_ context.Context, r *Request) (proof, error) {
	proofs, err := readMailgun(r)
	if err != nil {
		return proof{}, err
	}
	err = errUnsigned
	for _, p := range proofs {
		if p.signature == "" {
			continue
		}
		var found proof
		if found, err = s.check(r.Now, &p); err == nil {
			return found, nil
		}
	}
	return proof{}, err
}

func (s *mailgunScheme) check(now time.Time, p *mailgunProof) (proof, error) {
	if p.stamp == "" {
		return proof{}, errNoStamp
	}
	at, ok := fixedSeconds(p.stamp)
	if !ok {
		return proof{}, errStampForm
	}
	var space [sha256.Size]byte
	sent, ok := appendHex(space[:0], p.signature, sha256.Size)
	if !ok || p.token == "" {
		return proof{}, errMalformed
	}
	key, err := s.macs.find(now, sent, func(m *mac) {
		m.string(p.stamp)
		m.string(p.token)
	})
	if err != nil {
		return proof{}, err
	}
	return proof{key: key}, s.window.check(at, now)
}

var mailgunFields = newFields("event-data.id", "event-data.event", "event-data.timestamp")

func (s *mailgunScheme) identify(r *Request) (Identity, error) {
	switch mediaType(r.Header) {
	case "application/x-www-form-urlencoded":
		v, _ := formFields(r.Body, "event")
		return Identity{Type: first(v)}, nil
	case "multipart/form-data":
		v, _ := multipartFields(get(r.Header, "Content-Type"), r.Body, "event")
		return Identity{Type: first(v)}, nil
	}
	var v [3]value
	if err := mailgunFields.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	return Identity{ID: v[0].text(), Type: v[1].str(), Time: v[2].floatTime()}, nil
}

func first(v []string) string {
	if len(v) == 0 {
		return ""
	}
	return v[0]
}

// floatTime reads Unix seconds with a fraction, to the microsecond; zero when there are none.
func (v value) floatTime() time.Time {
	f, err := strconv.ParseFloat(v.text(), 64)
	if err != nil || !(f >= 1 && f <= maxUnix) {
		return time.Time{}
	}
	return time.UnixMicro(int64(math.Round(f * 1e6))).UTC()
}

var mailgunSignature = newFields("signature")

// signMailgun writes the signature into a JSON body; one that is there is replaced.
func signMailgun(in *SignInput) (Signed, error) {
	secret, err := decodeSecret(in.Secret, plainSecret)
	if err != nil {
		return Signed{}, err
	}
	stamp := strconv.FormatInt(in.Now.Unix(), 10)
	about := sha256.Sum256(in.Body)
	token := hex.EncodeToString(about[:25])
	mac := hexSum(sha256.New, secret, func(m *mac) { m.string(stamp + token) })
	text := `{"timestamp":"` + stamp + `","token":"` + token + `","signature":"` + mac + `"}`

	var v [1]value
	if err := mailgunSignature.read(in.Body, v[:]); err != nil {
		return Signed{}, err
	}
	names := value(in.Body).names()
	var body []byte
	switch {
	case len(names) == 0:
		return Signed{}, errors.New("the body is no JSON object with members: Mailgun's signature stands among them")
	case v[0] != nil:
		at := len(in.Body) - cap(v[0]) // v[0] lies inside the body
		body = append(append(append(body, in.Body[:at]...), text...), in.Body[at+len(v[0]):]...)
	default:
		at := 1
		for in.Body[at-1] != '{' {
			at++
		}
		body = append(append(append(append(body, in.Body[:at]...), `"signature":`+text...), ','), in.Body[at:]...)
	}
	return Signed{Header: signedHeaders(in), Body: body}, nil
}
