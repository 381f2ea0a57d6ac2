package provider

import (
	"context"
	"crypto/ed25519"
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
		Signed:    "id `.` timestamp `.` body, HMAC-SHA256; the key is the secret's base64, behind `whsec_`. With a public key as the secret (`whpk_` and base64): Ed25519, version `v1a`",
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
		Signed:     "id `.` timestamp `.` body, HMAC-SHA256; the key is the secret's base64, behind `whsec_`. With a public key as the secret (`whpk_` and base64): Ed25519, version `v1a`",
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
	"Versions for which the source has no key are skipped: `v1` needs a `whsec_…`, `v1a` a `whpk_…`, and one source may have both. The reference libraries check `v1` alone. A private key (`whsk_…`) is refused at load.",
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
	macs          *macs       // v1
	public        *publicKeys // v1a
	window        window
}

func openStandard(o *opening, first, second standardNames) opened {
	s := &standardScheme{first: first, second: second, macs: &macs{size: sha256.Size}, public: &publicKeys{}, window: o.tolerance(5 * time.Minute)}
	if len(o.Secrets) == 0 {
		o.errorf("secrets", "is empty: provider %s needs at least one secret", o.provider.Name)
	}
	for i, secret := range o.Secrets {
		if strings.HasPrefix(secret.Text, "whpk_") {
			s.public.add(o, i, standardPublicKey)
			continue
		}
		b, err := decodeSecret(secret.Text, standardSecret)
		if err != nil {
			o.secretError(i, err)
			continue
		}
		s.macs.add(o.keys[i], i, sha256.New, b)
	}
	return opened{scheme: s}
}

var (
	errPrivateKey  = errors.New("this is a private key: expected the public one, which begins with whpk_, or a secret that begins with whsec_")
	errNotStandard = errors.New("the secret is not whsec_ and base64 with padding")
	errNotPublic   = errors.New("the secret is not whpk_ and base64 of the 32 bytes of an Ed25519 key")
	errNotPrivate  = errors.New("the secret is not whsk_ and base64 of an Ed25519 key")
)

func standardSecret(text string) ([]byte, error) {
	if strings.HasPrefix(text, "whsk_") {
		return nil, errPrivateKey
	}
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whsec_"))
	if err != nil {
		return nil, errNotStandard
	}
	return b, nil
}

func standardPublicKey(text string) (func(text, signature []byte) bool, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, "whpk_"))
	if err != nil || len(b) != ed25519.PublicKeySize {
		return nil, errNotPublic
	}
	return ed25519Check(b)
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
	key, err := s.find(r, id, stamp, get(r.Header, n.signature))
	if err != nil {
		return proof{}, err
	}
	return proof{key: key}, s.window.check(at, r.Now)
}

// find looks for a signature of either version that fits one of the keys that there are for it.
func (s *standardScheme) find(r *Request, id, stamp, header string) (key int, err error) {
	err = errMalformed
	var space [4 * sha256.Size]byte
	if sent := parseStandard(header, space[:0]); len(sent) > 0 && len(s.macs.keys) > 0 {
		key, err = s.macs.find(r.Now, sent, func(m *mac) {
			m.string(id)
			m.string(".")
			m.string(stamp)
			m.string(".")
			m.bytes(r.Body)
		})
		if err == nil {
			return key, nil
		}
	}
	if len(s.public.keys) == 0 {
		return noKey, err
	}
	text := append([]byte(id+"."+stamp+"."), r.Body...)
	for _, signature := range parseStandardPublic(header) {
		if key, err = s.public.find(r.Now, text, signature); err == nil {
			return key, nil
		}
	}
	return noKey, err
}

// maxPublic is how many signatures of version v1a are looked at: each costs a hundred times a MAC.
const maxPublic = 8

// parseStandardPublic gives the signatures of version v1a.
func parseStandardPublic(header string) [][]byte {
	var all [][]byte
	for part := range strings.SplitSeq(header, " ") {
		text, ok := strings.CutPrefix(part, "v1a,")
		if !ok || len(all) == maxPublic {
			continue
		}
		if b, ok := appendBase64(nil, text, ed25519.SignatureSize); ok {
			all = append(all, b)
		}
	}
	return all
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
	h := signedHeaders(in)
	setIfAny(h, n.id, in.Sample.ID)
	id, stamp := h.Get(n.id), strconv.FormatInt(in.Now.Unix(), 10)
	if id == "" {
		return Signed{}, errNeedsID
	}
	h.Set(n.stamp, stamp)
	if private, ok := strings.CutPrefix(in.Secret, "whsk_"); ok {
		b, err := base64.StdEncoding.DecodeString(private)
		if err != nil || len(b) < ed25519.SeedSize { // a seed, or a seed and its public key
			return Signed{}, errNotPrivate
		}
		text := append([]byte(id+"."+stamp+"."), in.Body...)
		h.Set(n.signature, "v1a,"+base64.StdEncoding.EncodeToString(ed25519.Sign(ed25519.NewKeyFromSeed(b[:ed25519.SeedSize]), text)))
		return Signed{Header: h}, nil
	}
	secret, err := decodeSecret(in.Secret, standardSecret)
	if err != nil {
		return Signed{}, err
	}
	h.Set(n.signature, "v1,"+base64Sum(sha256.New, secret, func(m *mac) {
		m.string(id + "." + stamp + ".")
		m.bytes(in.Body)
	}))
	return Signed{Header: h}, nil
}
