package provider

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

var standardWebhooks = &Provider{
	Name:            "standard-webhooks",
	SecurityHeaders: standardSecurity,
	credentials:     secretOnly(newWhsec),
	open:            func(o *opening) opened { return openStandard(o, webhookNames, svixNames) },
	sign:            func(in *SignInput) (Signed, error) { return signStandard(in, webhookNames) },
	sample:          sampleStandard,
	Doc: Doc{
		Title:     "Standard Webhooks 1.0",
		URL:       "https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md",
		Signature: "`webhook-signature: v1,<base64>[ v1,<base64>…]`, `webhook-id`, `webhook-timestamp`",
		Signed:    "id `.` timestamp `.` body, HMAC-SHA256; the key is the secret's base64, behind `whsec_`",
		Tolerance: "5 minutes, both ways; Unix seconds",
		ID:        "`webhook-id`, the same for every retry; signed",
		Type:      "body `type` (the specification advises it)",
		Time:      "body `timestamp`, RFC 3339 (likewise); `webhook-timestamp` is that of the attempt",
		Retries:   "the sender's to decide; the specification advises back-off over several days, and 15 to 30 s for an answer",
		Notes:     standardNotes,
		Config:    "provider: standard-webhooks\nsecrets: [\"${STANDARD_WEBHOOKS_SECRET}\"]",
	},
}

// Svix is Standard Webhooks, which came out of it, with header names of its own.
var svix = &Provider{
	Name:            "svix",
	SecurityHeaders: standardSecurity,
	credentials:     secretOnly(newWhsec),
	open:            func(o *opening) opened { return openStandard(o, svixNames, webhookNames) },
	sign:            func(in *SignInput) (Signed, error) { return signStandard(in, svixNames) },
	sample:          sampleStandard,
	Doc: Doc{
		Title:      "Svix",
		URL:        "https://docs.svix.com/receiving/verifying-payloads/how-manual",
		Signature:  "`svix-signature: v1,<base64>[ v1,<base64>…]`, `svix-id`, `svix-timestamp`",
		Signed:     "id `.` timestamp `.` body, HMAC-SHA256; the key is the secret's base64, behind `whsec_`",
		Tolerance:  "5 minutes, both ways; Unix seconds",
		ID:         "`svix-id`, the same for every retry; signed",
		Type:       "body `type` (the specification advises it)",
		Time:       "body `timestamp`, RFC 3339 (likewise); `svix-timestamp` is that of the attempt",
		Retries:    "8 attempts over about 28 h by default; waits 15 s",
		Notes:      standardNotes,
		Unverified: []string{"The schedule of the attempts, and the 15 s."},
		Config:     "provider: svix\nsecrets: [\"${SVIX_SECRET}\"]",
	},
}

var standardNotes = []string{
	"Other versions than `v1` are skipped (`v1a` is a signature with Ed25519, which the reference libraries do not check either); keys for Ed25519 (`whpk_`, `whsk_`) are refused at load.",
	"An ID must be visible ASCII without a dot: the signature of `a.1` would fit `a` with another time and body.",
	"The Go library takes the empty key; this preset does not.",
	"Svix writes `svix-` for `webhook-`. Either is read, a complete set of the preset's own names first, and never a mixture.",
}

// standardNames are the three headers, canonical.
type standardNames struct{ id, stamp, signature string }

var (
	webhookNames = standardNames{id: "Webhook-Id", stamp: "Webhook-Timestamp", signature: "Webhook-Signature"}
	svixNames    = standardNames{id: "Svix-Id", stamp: "Svix-Timestamp", signature: "Svix-Signature"}

	standardSecurity = []string{
		webhookNames.id, webhookNames.stamp, webhookNames.signature,
		svixNames.id, svixNames.stamp, svixNames.signature,
	}
)

func (n standardNames) complete(h http.Header) bool {
	return get(h, n.id) != "" && get(h, n.stamp) != "" && get(h, n.signature) != ""
}

type standardScheme struct {
	noHandshake
	first, second standardNames
	macs          *macs
	window        window
}

func openStandard(o *opening, first, second standardNames) opened {
	return opened{scheme: &standardScheme{
		first: first, second: second,
		macs: o.macs(sha256.New, standardSecret), window: o.tolerance(5 * time.Minute),
	}}
}

var (
	errAsymmetric  = errors.New("this is a key for Ed25519 signatures (v1a): expected a secret that begins with whsec_")
	errNotStandard = errors.New("the secret is not whsec_ and base64 with padding")
)

func standardSecret(text string) ([]byte, error) {
	if strings.HasPrefix(text, "whpk_") || strings.HasPrefix(text, "whsk_") {
		return nil, errAsymmetric
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
	if err != nil {
		return nil, errNotStandard
	}
	return b, nil
}

// names are those that the request uses.
func (s *standardScheme) names(h http.Header) standardNames {
	if !s.first.complete(h) && s.second.complete(h) {
		return s.second
	}
	return s.first
}

func (s *standardScheme) verify(_ context.Context, r *Request) (proof, error) {
	n := s.names(r.Header)
	if !n.complete(r.Header) {
		return proof{}, errUnsigned
	}
	id, stamp := get(r.Header, n.id), get(r.Header, n.stamp)
	if !standardID(id) {
		return proof{}, errIDForm
	}
	at, ok := unixSeconds(stamp)
	if !ok {
		return proof{}, errStampForm
	}
	var space [4 * sha256.Size]byte
	sent := parseStandard(get(r.Header, n.signature), space[:0])
	if len(sent) == 0 {
		return proof{}, errMalformed
	}
	key, err := s.macs.find(r.Now, sent, func(m *mac) {
		m.string(id)
		m.string(".")
		m.string(stamp)
		m.string(".")
		m.bytes(r.Body)
	})
	if err != nil {
		return proof{}, err
	}
	return proof{key: key}, s.window.check(at, r.Now)
}

// parseStandard appends the MACs of version v1 to sent.
func parseStandard(header string, sent []byte) []byte {
	for part := range strings.SplitSeq(header, " ") {
		if text, ok := strings.CutPrefix(part, "v1,"); ok {
			sent, _ = appendBase64(sent, text, sha256.Size) // what is no MAC cannot fit
		}
	}
	return sent
}

// standardID takes visible ASCII but the dot.
func standardID(id string) bool { return visible(id) && !strings.Contains(id, ".") }

var standardFields = newFields("type", "timestamp")

func (s *standardScheme) identify(r *Request) (Identity, error) {
	var v [2]value
	if err := standardFields.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	return Identity{ID: get(r.Header, s.names(r.Header).id), Type: v[0].str(), Time: v[1].isoTime()}, nil
}

func signStandard(in *SignInput, n standardNames) (Signed, error) {
	secret, err := decodeSecret(in.Secret, standardSecret)
	if err != nil {
		return Signed{}, err
	}
	h := signedHeaders(in)
	setIfAny(h, n.id, in.Sample.ID)
	id, stamp := h.Get(n.id), strconv.FormatInt(in.Now.Unix(), 10)
	if id == "" {
		return Signed{}, errNeedsID
	}
	h.Set(n.stamp, stamp)
	h.Set(n.signature, "v1,"+base64Sum(sha256.New, secret, func(m *mac) {
		m.string(id + "." + stamp + ".")
		m.bytes(in.Body)
	}))
	return Signed{Header: h}, nil
}
