package provider

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// jwt is a signed token beside the body: it proves who sends, and what they send only where it says so.
var jwt = &Provider{
	Name:         "jwt",
	Authenticity: AuthToken,
	digestIDs:    true,
	options:      []string{"algorithms", "issuer", "audience", "header", "jwks_url", "digest_claim"},
	credentials: func() Credentials {
		return Credentials{Secret: newHexSecret() + newHexSecret(), Options: map[string]any{"algorithms": []any{"HS256"}, "issuer": "https://partner.example"}}
	},
	open:   openJWT,
	sign:   signJWT,
	sample: sampleHMAC,
	Doc: Doc{
		Title:     "JSON Web Token",
		URL:       "https://www.rfc-editor.org/rfc/rfc8725",
		Signature: "`Authorization: Bearer <JWT>`; another header with the bare token or with `Bearer`: option `header`",
		Signed:    "the token: HS, RS, PS, ES (256, 384, 512) or EdDSA, as `algorithms` lists. The body is not covered, unless `digest_claim` names a claim with its SHA-256 (hex, base64 or base64url)",
		Tolerance: "1 minute, around `exp` (required), `nbf` and `iat`",
		ID:        "none, unless `event_id` says where it stands",
		Notes: []string{
			"Without `algorithms`, each key stands for one: text for HS256, RSA for RS256, P-256 for ES256, Ed25519 for EdDSA. A token never chooses, and a public key is never taken for a shared secret.",
			"Keys are `secrets` (the shared secret's text, or a public key in base64 DER form), or the key set at `jwks_url`, which is fetched from that host alone, remembered, and asked for again when a token names a key that it has not. Offline it is `jwks:<source>`, for which a source needs neither URL nor secrets.",
			"`issuer` and `audience` are texts or lists; where one is given, the token must have one of them.",
			"The header is stored redacted.",
		},
		Config: "provider: jwt\noptions: {algorithms: [HS256], issuer: \"https://partner.example\", audience: catchment}\nsecrets: [\"${PARTNER_JWT_SECRET}\"]\nevent_id: body.id\nevent_type: body.kind",
	},
}

type jwtScheme struct {
	noHandshake
	header, digest    string
	issuers, audience []string
	algorithms        []jose.SignatureAlgorithm // of the key set and of the parser
	keys              []jwtKey
	source            string
	keySets           bool     // keys are in a key set as well
	jwks              *url.URL // where it is; nil: it is given
	fetch             Keys
	last              atomic.Pointer[jwtKeySet]
	window            window
}

type jwtKey struct {
	key
	index      int
	value      any
	algorithms []jose.SignatureAlgorithm
}

type jwtKeySet struct {
	text []byte
	set  jose.JSONWebKeySet
}

var jwtAlgorithms = []jose.SignatureAlgorithm{
	jose.HS256, jose.HS384, jose.HS512, jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

func openJWT(o *opening) opened {
	s := &jwtScheme{
		header: o.headerOption("Authorization"), digest: o.text("digest_claim", ""), issuers: o.list("issuer"), audience: o.list("audience"),
		source: o.Source, fetch: o.Keys, window: o.tolerance(time.Minute),
	}
	for _, name := range o.list("algorithms") {
		if !slices.Contains(jwtAlgorithms, jose.SignatureAlgorithm(name)) {
			o.errorf("options.algorithms", "has %q: expected some of %v", name, jwtAlgorithms)
		}
		s.algorithms = append(s.algorithms, jose.SignatureAlgorithm(name))
	}
	if text := o.text("jwks_url", ""); text != "" {
		u, err := url.Parse(text)
		if err != nil || !publicURLForm(u) {
			o.errorf("options.jwks_url", "is %w", errFetchURL)
		}
		s.jwks, s.keySets = u, true
	} else if k, ok := o.Keys.(*OfflineKeys); ok && k.given("jwks:"+o.Source) {
		s.keySets = true
	} else if len(o.Secrets) == 0 {
		o.errorf("secrets", "is empty: provider jwt needs at least one secret, or the option jwks_url")
	}
	for i, one := range o.Secrets {
		value, natural, err := jwtSecret(one.Text)
		if err != nil {
			o.secretError(i, err)
			continue
		}
		k := jwtKey{key: o.keys[i], index: i, value: value, algorithms: []jose.SignatureAlgorithm{natural}}
		if s.algorithms != nil {
			k.algorithms = slices.DeleteFunc(slices.Clone(s.algorithms), func(a jose.SignatureAlgorithm) bool { return !jwtFits(a, value) })
		}
		if len(k.algorithms) == 0 {
			o.secretError(i, errJWTFits)
		}
		s.keys = append(s.keys, k)
	}
	return opened{scheme: s, security: []string{s.header}, secret: []string{s.header}}
}

// jwtSecret reads a public key in base64 DER form; any other text is a shared secret, unless it is a key or a
// certificate in another form: with HMAC, everybody who has the public key could sign.
func jwtSecret(text string) (any, jose.SignatureAlgorithm, error) {
	if _, err := decodeSecret(text, plainSecret); err != nil {
		return nil, "", err
	}
	b, _ := base64.StdEncoding.DecodeString(text)
	public, _ := x509.ParsePKIXPublicKey(b)
	if public == nil {
		if otherKeyForm(text, b) {
			return nil, "", errJWTForm
		}
		return []byte(text), jose.HS256, nil
	}
	switch k := public.(type) {
	case *rsa.PublicKey:
		return k, jose.RS256, nil
	case ed25519.PublicKey:
		return k, jose.EdDSA, nil
	case *ecdsa.PublicKey:
		return k, map[int]jose.SignatureAlgorithm{256: jose.ES256, 384: jose.ES384, 521: jose.ES512}[k.Params().BitSize], nil
	}
	return nil, "", errJWTKey
}

// otherKeyForm finds PEM, a JWK, and the DER forms of a certificate and of PKCS #1.
func otherKeyForm(text string, der []byte) bool {
	_, errCertificate := x509.ParseCertificate(der)
	_, errRSA := x509.ParsePKCS1PublicKey(der)
	var k jose.JSONWebKey
	return errCertificate == nil || errRSA == nil || k.UnmarshalJSON([]byte(text)) == nil || strings.Contains(text, "-----BEGIN ")
}

var (
	errJWTKey  = errors.New("the secret is a public key of a kind that no algorithm is for")
	errJWTForm = errors.New("the secret is a key or a certificate, and no shared secret: expected base64 of a public key's DER form (SubjectPublicKeyInfo)")
	errJWTFits = errors.New("the secret is a key for none of options.algorithms: a text is for HS256, HS384 and HS512, a public key for its own kind")
)

// jwtFits says whether keys of that kind are for the algorithm: a public key never checks an HMAC.
func jwtFits(a jose.SignatureAlgorithm, key any) bool {
	switch key.(type) {
	case []byte:
		return strings.HasPrefix(string(a), "HS")
	case *rsa.PublicKey:
		return strings.HasPrefix(string(a), "RS") || strings.HasPrefix(string(a), "PS")
	case *ecdsa.PublicKey:
		return strings.HasPrefix(string(a), "ES")
	case ed25519.PublicKey:
		return a == jose.EdDSA
	}
	return false
}

func (s *jwtScheme) verify(ctx context.Context, r *Request) (proof, error) {
	text := get(r.Header, s.header)
	if text == "" {
		return proof{}, errNoToken
	}
	if token, ok := bearerToken(text); ok {
		text = token
	} else if s.header == "Authorization" {
		return proof{}, errTokenForm
	}
	if !compactForm(text) {
		return proof{}, errMalformed
	}
	allowed := s.algorithms
	if allowed == nil {
		allowed = jwtAlgorithms
	}
	token, err := jose.ParseSignedCompact(text, allowed)
	if err != nil {
		return proof{}, errMalformed
	}
	claims, key, err := s.find(ctx, token, r.Now)
	if err != nil {
		return proof{}, err
	}
	return proof{key: key}, s.judge(claims, r)
}

// compactForm wants three parts of base64 in the one spelling that each has.
func compactForm(text string) bool {
	parts := strings.Split(text, ".")
	return len(parts) == 3 && len(text) <= 16<<10 && !slices.ContainsFunc(parts, func(p string) bool {
		_, err := decodeStrict(strictBase64URL, p)
		return err != nil
	})
}

// find returns the claims, and the index of the secret under which the token holds.
func (s *jwtScheme) find(ctx context.Context, token *jose.JSONWebSignature, now time.Time) ([]byte, int, error) {
	algorithm := jose.SignatureAlgorithm(token.Signatures[0].Protected.Algorithm)
	usable := s.keySets
	for i := range s.keys {
		k := &s.keys[i]
		if !k.validAt(now) {
			continue
		}
		usable = true
		if !slices.Contains(k.algorithms, algorithm) {
			continue
		}
		if claims, err := token.Verify(k.value); err == nil {
			return claims, k.index, nil
		}
	}
	if !usable {
		return nil, noKey, errNoSecret
	}
	if !s.keySets {
		return nil, noKey, errMismatch
	}
	claims, err := s.byKeySet(ctx, token, algorithm)
	return claims, noKey, err
}

// byKeySet asks for the key set again when it has not the key that the token names.
func (s *jwtScheme) byKeySet(ctx context.Context, token *jose.JSONWebSignature, algorithm jose.SignatureAlgorithm) ([]byte, error) {
	id := token.Signatures[0].Protected.KeyID
	for _, fresh := range []bool{false, true} {
		set, err := s.keySet(ctx, fresh)
		if err != nil {
			return nil, errNoKey
		}
		known := false
		for i := range set.Keys {
			k := &set.Keys[i]
			if (id != "" && k.KeyID != id) || (k.Use != "" && k.Use != "sig") {
				continue
			}
			known = true
			_, shared := k.Key.([]byte)
			if shared || !jwtFits(algorithm, k.Key) || (k.Algorithm != "" && k.Algorithm != string(algorithm)) || !s.asymmetric(algorithm, k.Key) {
				continue
			}
			if claims, err := token.Verify(k.Key); err == nil {
				return claims, nil
			}
		}
		if known {
			return nil, errMismatch
		}
	}
	return nil, errKeyUnknown
}

// asymmetric says whether the algorithm is allowed for a key of the set.
func (s *jwtScheme) asymmetric(a jose.SignatureAlgorithm, key any) bool {
	if s.algorithms != nil {
		return slices.Contains(s.algorithms, a)
	}
	switch key.(type) {
	case *rsa.PublicKey:
		return a == jose.RS256
	case *ecdsa.PublicKey:
		return a == jose.ES256
	}
	return a == jose.EdDSA
}

func (s *jwtScheme) keySet(ctx context.Context, fresh bool) (*jose.JSONWebKeySet, error) {
	b, err := s.fetch.Fetch(ctx, &Fetch{Name: "jwks:" + s.source, Source: s.source, URL: s.jwks, Fresh: fresh})
	if err != nil {
		return nil, err
	}
	if last := s.last.Load(); last != nil && bytes.Equal(last.text, b) {
		return &last.set, nil
	}
	set := &jwtKeySet{text: b}
	if err := json.Unmarshal(b, &set.set); err != nil {
		return nil, err
	}
	s.last.Store(set)
	return &set.set, nil
}

var jwtFields = newFields("iss", "aud", "exp", "nbf", "iat")

// judge looks at the claims of a token that is genuine.
func (s *jwtScheme) judge(claims []byte, r *Request) error {
	var v [5]value
	if err := jwtFields.read(claims, v[:]); err != nil {
		return errClaims
	}
	audience := []string{v[1].str()}
	for _, one := range v[1].elements() {
		audience = append(audience, one.str())
	}
	ours := func(name string) bool { return slices.Contains(s.audience, name) }
	if (s.issuers != nil && !slices.Contains(s.issuers, v[0].str())) || (s.audience != nil && !slices.ContainsFunc(audience, ours)) {
		return errClaims
	}
	if err := s.times(v[2], v[3:], r.Now); err != nil {
		return err
	}
	if s.digest == "" {
		return nil
	}
	var d [1]value
	if err := newFields(s.digest).read(claims, d[:]); err != nil {
		return errClaims
	}
	sum := sha256.Sum256(r.Body)
	for _, form := range []string{hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(sum[:]), base64.RawURLEncoding.EncodeToString(sum[:])} {
		if subtle.ConstantTimeCompare([]byte(form), []byte(d[0].str())) == 1 {
			return nil
		}
	}
	return errMismatch
}

func (s *jwtScheme) times(exp value, starts []value, now time.Time) error {
	if s.window < 0 {
		return nil
	}
	until, ok := numericDate(exp)
	if !ok {
		return errNoStamp
	}
	if now.After(until.Add(time.Duration(s.window))) {
		return errStale
	}
	for _, v := range starts {
		if v == nil {
			continue
		}
		from, ok := numericDate(v)
		if !ok {
			return errStampForm
		}
		if from.After(now.Add(time.Duration(s.window))) {
			return errFuture
		}
	}
	return nil
}

// numericDate reads Unix seconds; a fraction is cut off.
func numericDate(v value) (time.Time, bool) {
	whole, _, _ := strings.Cut(string(v), ".")
	return unixSeconds(whole)
}

func (s *jwtScheme) identify(*Request) (Identity, error) { return Identity{}, nil }

var errClaims = &Refusal{Status: http.StatusUnauthorized, Reason: "token for another audience, of another issuer, or with doubled claims"}

// signJWT signs with the shared secret, or with a private key in PEM form.
func signJWT(in *SignInput) (Signed, error) {
	if _, err := decodeSecret(in.Secret, plainSecret); err != nil && !strings.HasPrefix(in.Secret, "-----BEGIN") {
		return Signed{}, err
	}
	key := jose.SigningKey{Algorithm: jose.HS256, Key: []byte(in.Secret)}
	if block, _ := pem.Decode([]byte(in.Secret)); block != nil {
		private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return Signed{}, err
		}
		key = jose.SigningKey{Algorithm: jose.ES256, Key: private}
	}
	signer, err := jose.NewSigner(key, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return Signed{}, err
	}
	claims := map[string]any{"iat": in.Now.Unix(), "exp": in.Now.Add(30 * time.Second).Unix()}
	for option, claim := range map[string]string{"issuer": "iss", "audience": "aud"} {
		if text, ok := in.Options[option].(string); ok {
			claims[claim] = text
		}
	}
	if name, ok := in.Options["digest_claim"].(string); ok {
		sum := sha256.Sum256(in.Body)
		claims[name] = hex.EncodeToString(sum[:])
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return Signed{}, err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return Signed{}, err
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		return Signed{}, fmt.Errorf("sign: %w", err)
	}
	h := signedHeaders(in)
	h.Set(signHeader(in, "Authorization"), "Bearer "+text)
	return Signed{Header: h}, nil
}
