package provider

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

var plaid = &Provider{
	Name:            "plaid",
	SecurityHeaders: []string{"Plaid-Verification"},
	options:         []string{"client_id", "secret", "environment"},
	credentials:     newPlaidKey,
	open:            openPlaid,
	sign:            signPlaid,
	sample:          samplePlaid,
	Doc: Doc{
		Title:     "Plaid",
		URL:       "https://plaid.com/docs/api/webhooks/webhook-verification/",
		Signature: "`Plaid-Verification: <JWT>`, with ES256 and nothing else",
		Signed:    "the claims `iat` and `request_body_sha256` (hex SHA-256 of the body), ECDSA P-256 with SHA-256; the key is the one that the JWT's `kid` names",
		Tolerance: "`iat`: 5 minutes, both ways (Plaid looks at the age alone)",
		ID:        "none: the body's digest",
		Type:      "body `webhook_type` (what happened stands in `webhook_code`)",
		Notes: []string{
			"Keys come from Plaid's `/webhook_verification_key/get`, which wants `client_id` and `secret` of the API (an entry of `secrets` serves as well); `environment` is `production` (the default) or `sandbox`. A key is kept for a day and not used once it has expired. While it cannot be fetched, the answer is 503.",
			"Offline the keys are given as `jwks:{source}`: `{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":…,\"x\":…,\"y\":…,\"expired_at\":null}]}`; nothing else is needed then, neither options nor secrets.",
			"Two notifications with the same bytes are one event, for Plaid gives no ID.",
		},
		Unverified: []string{"Retries for up to 24 h; waits 10 s."},
		Signer:     "the private key of a key that the source is given, in PEM",
		Config:     "provider: plaid\noptions: {client_id: \"${PLAID_CLIENT_ID}\", secret: \"${PLAID_SECRET}\", environment: production}",
	},
}

// plaidHosts serve the keys.
var plaidHosts = map[string]string{"": "production.plaid.com", "production": "production.plaid.com", "sandbox": "sandbox.plaid.com"}

type plaidScheme struct {
	noHandshake
	window window
	keys   Keys
	source string
	url    *url.URL
	client string
	secret string

	mu    sync.Mutex
	known map[string]plaidKey // by kid
}

// plaidKey is one that was fetched.
type plaidKey struct {
	key       *ecdsa.PublicKey
	expiredAt time.Time // zero: it has not expired
	fetchedAt time.Time
}

const (
	plaidKeyAge  = 24 * time.Hour // then an old key is asked for again, for it may have expired
	maxPlaidKeys = 16
)

func openPlaid(o *opening) opened {
	s := &plaidScheme{
		window: o.tolerance(5 * time.Minute), keys: o.Keys, source: o.Source,
		client: o.option("client_id"), secret: o.option("secret"), known: map[string]plaidKey{},
	}
	environment := o.option("environment")
	host, ok := plaidHosts[environment]
	if !ok {
		o.errorf("options.environment", "expected production or sandbox, found %q", environment)
	}
	s.url = &url.URL{Scheme: "https", Host: host, Path: "/webhook_verification_key/get"}
	for i, one := range o.Secrets {
		if _, err := decodeSecret(one.Text, plainSecret); err != nil {
			o.errorf(fmt.Sprintf("secrets[%d]", i), "%w", err)
		}
		if s.secret == "" {
			s.secret = one.Text
		}
	}
	if s.client != "" && s.secret == "" {
		o.errorf("options.secret", "is missing: Plaid's API wants client_id and secret")
	}
	return opened{scheme: s}
}

func (s *plaidScheme) verify(ctx context.Context, r *Request) (proof, error) {
	t, err := parsePlaid(get(r.Header, "Plaid-Verification"))
	if err != nil {
		return proof{}, err
	}
	key, err := s.key(ctx, t.kid, r.Now)
	if err != nil {
		return proof{}, err
	}
	digest := sha256.Sum256([]byte(t.signed))
	if !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(t.signature[:32]), new(big.Int).SetBytes(t.signature[32:])) {
		return proof{}, errMismatch
	}
	body := sha256.Sum256(r.Body)
	if subtle.ConstantTimeCompare(body[:], t.body[:]) != 1 {
		return proof{}, errMismatch
	}
	return proof{key: noKey}, s.window.check(t.at, r.Now)
}

// plaidToken is a JWT, taken apart and not yet verified.
type plaidToken struct {
	kid       string
	signed    string // the text that the signature covers
	signature []byte // r and s
	at        time.Time
	body      [sha256.Size]byte
}

var (
	plaidHeader = newFields("alg", "kid", "crit")
	plaidClaims = newFields("iat", "request_body_sha256")
)

// maxToken is far above Plaid's own 400 characters.
const maxToken = 4096

// parsePlaid takes the one form that Plaid sends: three parts in base64url without padding, in the one way to write
// them, of which the first names ES256 and a key.
func parsePlaid(text string) (t plaidToken, err error) {
	if text == "" {
		return t, errUnsigned
	}
	parts := strings.Split(text, ".")
	if len(text) > maxToken || !visible(text) || len(parts) != 3 {
		return t, errMalformed
	}
	var raw [3][]byte
	for i, part := range parts {
		if raw[i], err = decodeStrict(strictBase64URL, part); err != nil {
			return t, errMalformed
		}
	}
	var h [3]value
	if plaidHeader.read(raw[0], h[:]) != nil || h[0].str() != "ES256" || h[2] != nil || !looksLikeUUID(h[1].str()) {
		return t, errMalformed
	}
	var c [2]value
	if plaidClaims.read(raw[1], c[:]) != nil || len(raw[2]) != 64 {
		return t, errMalformed
	}
	at, ok := unixSeconds(string(c[0]))
	if !ok {
		return t, errStampForm
	}
	if n, err := hex.Decode(t.body[:], []byte(padTo(c[1].str(), 2*sha256.Size))); err != nil || n != sha256.Size {
		return t, errMalformed
	}
	t.kid, t.at, t.signature, t.signed = h[1].str(), at, raw[2], text[:strings.LastIndexByte(text, '.')]
	return t, nil
}

// padTo returns the text if it has that length; else one that no decoder takes.
func padTo(text string, n int) string {
	if len(text) != n {
		return "-"
	}
	return text
}

// looksLikeUUID keeps us from asking Plaid for what cannot be one of its keys.
func looksLikeUUID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i := range len(text) {
		c := text[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f'):
			return false
		}
	}
	return true
}

// key finds the key, among those that were fetched or by fetching it.
func (s *plaidScheme) key(ctx context.Context, kid string, now time.Time) (*ecdsa.PublicKey, error) {
	s.mu.Lock()
	k, ok := s.known[kid]
	s.mu.Unlock()
	if age := now.Sub(k.fetchedAt); !ok || age > plaidKeyAge || age < -plaidKeyAge {
		var err error
		if k, err = s.fetch(ctx, kid, now, ok); err != nil {
			return nil, err
		}
	}
	if !k.expiredAt.IsZero() && !now.Before(k.expiredAt) {
		return nil, errKeyUnknown
	}
	return k.key, nil
}

// fetch asks for a key. One that is not yet known may be newer than what is remembered.
func (s *plaidScheme) fetch(ctx context.Context, kid string, now time.Time, known bool) (plaidKey, error) {
	f := &Fetch{Name: "jwks:" + s.source, Source: s.source, Fresh: true}
	if s.client != "" {
		body, err := json.Marshal(map[string]string{"client_id": s.client, "secret": s.secret, "key_id": kid})
		if err != nil {
			return plaidKey{}, errNoKey
		}
		f.Method, f.URL, f.Body, f.Header = http.MethodPost, s.url, body, http.Header{"Content-Type": {"application/json"}}
	}
	content, err := s.keys.Fetch(ctx, f)
	switch {
	case err == nil:
	case s.client == "":
		return plaidKey{}, errNoClient
	default:
		return plaidKey{}, errNoKey
	}
	k, err := readPlaidKey(content, kid)
	if err != nil {
		return plaidKey{}, errKeyUnknown
	}
	k.fetchedAt = now
	s.mu.Lock()
	defer s.mu.Unlock()
	if !known && len(s.known) >= maxPlaidKeys {
		clear(s.known)
	}
	s.known[kid] = k
	return k, nil
}

// jwk is a key in the form of RFC 7517, with Plaid's own member.
type jwk struct {
	Kty       string `json:"kty"`
	Crv       string `json:"crv"`
	Alg       string `json:"alg"`
	Use       string `json:"use"`
	Kid       string `json:"kid"`
	X         string `json:"x"`
	Y         string `json:"y"`
	ExpiredAt *int64 `json:"expired_at"` // Unix seconds
}

// readPlaidKey finds a key in a key set, or in what Plaid answers: {"key":{…}}.
func readPlaidKey(content []byte, kid string) (plaidKey, error) {
	var set struct {
		Keys []jwk `json:"keys"`
		Key  *jwk  `json:"key"`
	}
	if err := json.Unmarshal(content, &set); err != nil {
		return plaidKey{}, err
	}
	if set.Key != nil {
		set.Keys = append(set.Keys, *set.Key)
	}
	for _, k := range set.Keys {
		if k.Kid == kid {
			key, err := k.ecdsa()
			return plaidKey{key: key, expiredAt: k.expired()}, err
		}
	}
	return plaidKey{}, errors.New("the key is not among them")
}

func (k *jwk) expired() time.Time {
	if k.ExpiredAt == nil {
		return time.Time{}
	}
	return time.Unix(*k.ExpiredAt, 0)
}

var errJWK = errors.New("expected an EC key for ES256 on the curve P-256")

// ecdsa takes the one kind of key that ES256 has.
func (k *jwk) ecdsa() (*ecdsa.PublicKey, error) {
	x, errX := base64.RawURLEncoding.DecodeString(k.X)
	y, errY := base64.RawURLEncoding.DecodeString(k.Y)
	if k.Kty != "EC" || k.Crv != "P-256" || k.Alg != "" && k.Alg != "ES256" || k.Use != "" && k.Use != "sig" || errX != nil || errY != nil || len(x) > 32 || len(y) > 32 {
		return nil, errJWK
	}
	point := make([]byte, 65)
	point[0] = 4
	copy(point[33-len(x):33], x)
	copy(point[65-len(y):], y)
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
}

var plaidFields = newFields("webhook_type")

func (s *plaidScheme) identify(r *Request) (Identity, error) {
	var v [1]value
	err := plaidFields.read(r.Body, v[:])
	return Identity{Type: v[0].str()}, err
}

// plaidKid is the ID of the key that Sign uses.
const plaidKid = "6c5516e1-92dc-479e-a8ff-5a51992e0001"

// signPlaid takes the private key in PEM as the secret.
func signPlaid(in *SignInput) (Signed, error) {
	block, _ := pem.Decode([]byte(in.Secret))
	if block == nil {
		return Signed{}, errors.New("expected a private key in PEM")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return Signed{}, fmt.Errorf("expected a private key: %w", err)
	}
	body := sha256.Sum256(in.Body)
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256","kid":"`+plaidKid+`","typ":"JWT"}`)) + "." +
		base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"iat":%d,"request_body_sha256":"%x"}`, in.Now.Unix(), body))
	digest := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return Signed{}, fmt.Errorf("sign: %w", err)
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	h := signedHeaders(in)
	h.Set("Plaid-Verification", text+"."+base64.RawURLEncoding.EncodeToString(signature[:]))
	return Signed{Header: h}, nil
}

func newPlaidKey() Credentials {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	der, err := x509.MarshalECPrivateKey(key)
	must(err)
	point, err := key.PublicKey.Bytes()
	must(err)
	set := fmt.Appendf(nil, `{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"%s","x":"%s","y":"%s","created_at":1560466143,"expired_at":null}]}`,
		plaidKid, base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[33:]))
	return Credentials{
		Options: map[string]any{"client_id": newHexSecret()[:24], "secret": newHexSecret()[:30]},
		Signer:  string(encodePEM("EC PRIVATE KEY", der)), Keys: &OfflineKeys{Content: map[string][]byte{anyKeySet: set}},
	}
}
