package provider

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// rfc9421 is HTTP Message Signatures, with what a webhook needs of it: the body's digest among the signed components.
var rfc9421 = &Provider{
	Name:            "rfc9421",
	SecurityHeaders: []string{"Signature", "Signature-Input", "Content-Digest"},
	options:         []string{"algorithm", "key_id", "components", "label", "tag"},
	credentials: func() Credentials {
		return Credentials{
			Secret:  base64.StdEncoding.EncodeToString(randomBytes(32)),
			Options: map[string]any{"algorithm": "hmac-sha256", "key_id": "catchment"},
		}
	},
	open:   openRFC9421,
	sign:   signRFC9421,
	sample: sampleHMAC,
	Doc: Doc{
		Title:     "HTTP Message Signatures",
		URL:       "https://www.rfc-editor.org/rfc/rfc9421",
		Signature: "`Signature-Input` and `Signature`, under a label; `Content-Digest` for the body",
		Signed:    "the components that `Signature-Input` names, which must contain those of option `components` (`content-digest` by default and always); `algorithm` is `hmac-sha256`, `ed25519`, `ecdsa-p256-sha256`, `rsa-pss-sha512` or `rsa-v1_5-sha256`",
		Tolerance: "5 minutes, both ways, of `created`, which is required; `expires` is honoured",
		ID:        "none, unless `event_id` says where it stands",
		Notes: []string{
			"The algorithm is the source's, never the request's: an `alg` that differs is refused. `key_id` is a text or a list; where it is given, `keyid` must be one of them. `label` and `tag` choose among several signatures.",
			"Secrets are base64: the key of HMAC, the 32 bytes of an Ed25519 public key, or a public key in DER form (SubjectPublicKeyInfo).",
			"`@authority`, `@target-uri` and `@scheme` are those of `public_url`; without it, `@authority` is the `Host` header, as it reaches us, and the scheme is https. Parameters of components (`sf`, `key`, `bs`, `req`, `tr`) are not understood, and refused.",
		},
		Config: "provider: rfc9421\noptions: {algorithm: hmac-sha256, key_id: \"2026-q4\", components: [\"@method\", \"@path\", \"content-digest\"]}\nsecrets: [\"${PARTNER_KEY}\"]\nevent_id: body.id\nevent_type: body.kind",
	},
}

type rfc9421Scheme struct {
	noHandshake
	algorithm  string
	keyIDs     []string
	components []string
	label, tag string
	keys       *publicKeys
	window     window
	url        *publicURL
}

func openRFC9421(o *opening) opened {
	s := &rfc9421Scheme{
		algorithm: o.text("algorithm", ""), keyIDs: o.list("key_id"), components: o.list("components"),
		label: o.text("label", ""), tag: o.text("tag", ""), window: o.tolerance(5 * time.Minute), url: o.url,
	}
	if !slices.Contains(s.components, "content-digest") {
		s.components = append(s.components, "content-digest")
	}
	if !slices.Contains(rfc9421Algorithms, s.algorithm) {
		o.errorf("options.algorithm", "is %q: expected one of %s", s.algorithm, strings.Join(rfc9421Algorithms, ", "))
		return opened{scheme: s}
	}
	s.keys = o.publicKeys(func(text string) (func(text, signature []byte) bool, error) { return rfc9421Key(s.algorithm, text) })
	return opened{scheme: s}
}

var (
	rfc9421Algorithms = []string{"hmac-sha256", "ed25519", "ecdsa-p256-sha256", "rsa-pss-sha512", "rsa-v1_5-sha256"}
	errRFC9421Key     = errors.New("the secret is not a key of that algorithm, in base64")
)

// rfc9421Key reads a key, and says how to check with it.
func rfc9421Key(algorithm, text string) (func(text, signature []byte) bool, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errRFC9421Key
	}
	if algorithm == "hmac-sha256" {
		if len(b) == 0 {
			return nil, errEmptySecret
		}
		return func(text, signature []byte) bool {
			m := hmac.New(sha256.New, b)
			m.Write(text)
			return hmac.Equal(m.Sum(nil), signature)
		}, nil
	}
	var public any = ed25519.PublicKey(b)
	if len(b) != ed25519.PublicKeySize {
		if public, err = x509.ParsePKIXPublicKey(b); err != nil {
			return nil, errRFC9421Key
		}
	}
	switch k := public.(type) {
	case ed25519.PublicKey:
		if algorithm == "ed25519" {
			return ed25519Check(k)
		}
	case *ecdsa.PublicKey:
		if algorithm == "ecdsa-p256-sha256" && k.Curve == elliptic.P256() {
			return func(text, signature []byte) bool {
				sum := sha256.Sum256(text)
				return len(signature) == 64 && ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
			}, nil
		}
	case *rsa.PublicKey:
		return rfc9421RSA(algorithm, k)
	}
	return nil, errRFC9421Key
}

func rfc9421RSA(algorithm string, k *rsa.PublicKey) (func(text, signature []byte) bool, error) {
	switch algorithm {
	case "rsa-pss-sha512":
		return func(text, signature []byte) bool {
			sum := sha512.Sum512(text)
			return rsa.VerifyPSS(k, crypto.SHA512, sum[:], signature, &rsa.PSSOptions{SaltLength: 64}) == nil
		}, nil
	case "rsa-v1_5-sha256":
		return func(text, signature []byte) bool {
			sum := sha256.Sum256(text)
			return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature) == nil
		}, nil
	}
	return nil, errRFC9421Key
}

// maxLabels is how many signatures of a request are looked at.
const maxLabels = 4

func (s *rfc9421Scheme) verify(_ context.Context, r *Request) (proof, error) {
	inputs, signatures := get(r.Header, "Signature-Input"), get(r.Header, "Signature")
	if inputs == "" || signatures == "" {
		return proof{}, errUnsigned
	}
	in, err := httpsfv.UnmarshalDictionary([]string{inputs})
	if err != nil || len(in.Names()) > maxLabels {
		return proof{}, errMalformed
	}
	sent, err := httpsfv.UnmarshalDictionary([]string{signatures})
	if err != nil {
		return proof{}, errMalformed
	}
	first := error(errUnsigned)
	for i, label := range in.Names() {
		p, err := s.one(r, label, in, sent)
		if err == nil {
			return p, nil
		}
		if i == 0 {
			first = err
		}
	}
	return proof{}, first
}

// one checks the signature of that label, then the digest that it covers.
func (s *rfc9421Scheme) one(r *Request, label string, in, sent *httpsfv.Dictionary) (proof, error) {
	member, _ := in.Get(label)
	list, ok := member.(httpsfv.InnerList)
	if !ok || (s.label != "" && s.label != label) || !s.takes(&list) {
		return proof{}, errMalformed
	}
	member, _ = sent.Get(label)
	item, _ := member.(httpsfv.Item)
	signature, ok := item.Value.([]byte)
	if !ok || !strings.Contains(get(r.Header, "Signature"), ":"+base64.StdEncoding.EncodeToString(signature)+":") {
		return proof{}, errMalformed // the same bytes have one spelling
	}
	text, err := s.base(r, &list)
	if err != nil {
		return proof{}, err
	}
	key, err := s.keys.find(r.Now, text, signature)
	if err != nil {
		return proof{}, err
	}
	if err := s.times(&list, r.Now); err != nil {
		return proof{}, err
	}
	return proof{key: key}, checkDigest(get(r.Header, "Content-Digest"), r.Body)
}

// takes looks at the parameters, and at which components there are.
func (s *rfc9421Scheme) takes(list *httpsfv.InnerList) bool {
	text := func(name string) (string, bool) {
		v, ok := list.Params.Get(name)
		if !ok {
			return "", false
		}
		t, _ := v.(string)
		return t, true
	}
	if alg, ok := text("alg"); ok && alg != s.algorithm {
		return false
	}
	if id, _ := text("keyid"); s.keyIDs != nil && !slices.Contains(s.keyIDs, id) {
		return false
	}
	if tag, _ := text("tag"); s.tag != "" && tag != s.tag {
		return false
	}
	var names []string
	for _, item := range list.Items {
		name, ok := item.Value.(string)
		if !ok || len(item.Params.Names()) > 0 || slices.Contains(names, name) {
			return false
		}
		names = append(names, name)
	}
	return !slices.ContainsFunc(s.components, func(c string) bool { return !slices.Contains(names, c) })
}

// times are judged after the signature, which covers them. What the sender lets expire has expired, whatever the
// source tolerates.
func (s *rfc9421Scheme) times(list *httpsfv.InnerList, now time.Time) error {
	if v, ok := list.Params.Get("expires"); ok {
		expires, ok := v.(int64)
		if !ok {
			return errStampForm
		}
		if now.Unix() > expires {
			return errStale
		}
	}
	if s.window < 0 {
		return nil
	}
	v, ok := list.Params.Get("created")
	if !ok {
		return errNoStamp
	}
	created, ok := v.(int64)
	if !ok || created < 0 || created > maxUnix {
		return errStampForm
	}
	return s.window.check(time.Unix(created, 0), now)
}

// base is the signed text (section 2.5).
func (s *rfc9421Scheme) base(r *Request, list *httpsfv.InnerList) ([]byte, error) {
	var b strings.Builder
	for _, item := range list.Items {
		name, _ := item.Value.(string)
		v, ok := s.component(r, name)
		if !ok {
			return nil, errSignedHeader
		}
		b.WriteString(`"` + name + `": ` + v + "\n")
	}
	params, err := httpsfv.Marshal(*list)
	if err != nil {
		return nil, errMalformed
	}
	b.WriteString(`"@signature-params": ` + params)
	return []byte(b.String()), nil
}

func (s *rfc9421Scheme) component(r *Request, name string) (string, bool) {
	if !strings.HasPrefix(name, "@") {
		values := r.Header[http.CanonicalHeaderKey(name)]
		if name == "host" && r.Host != "" {
			values = []string{r.Host}
		}
		trimmed := make([]string, len(values))
		for i, v := range values {
			trimmed[i] = strings.Trim(v, " \t")
		}
		return strings.Join(trimmed, ", "), len(values) > 0 && name == strings.ToLower(name)
	}
	target := s.target(r)
	switch name {
	case "@method":
		return r.Method, true
	case "@path":
		return cmpPath(target.EscapedPath()), true
	case "@query":
		return "?" + target.RawQuery, true
	case "@request-target":
		return withQuery(cmpPath(target.EscapedPath()), target.RawQuery), true
	case "@authority":
		return authority(target), target.Host != ""
	case "@scheme":
		return target.Scheme, true
	case "@target-uri":
		return target.String(), target.Host != ""
	}
	return "", false
}

func cmpPath(p string) string {
	if p == "" {
		return "/"
	}
	return p
}

// authority is the host in lower case, without the scheme's own port.
func authority(u *url.URL) string {
	host := strings.ToLower(u.Host)
	return strings.TrimSuffix(host, map[string]string{"https": ":443", "http": ":80"}[u.Scheme])
}

// target is what the sender called.
func (s *rfc9421Scheme) target(r *Request) *url.URL {
	text := withQuery("https://"+r.Host+r.Path, r.RawQuery)
	if s.url != nil {
		text = s.url.of(r)
	}
	u, err := url.Parse(text)
	if err != nil {
		return &url.URL{Scheme: "https", Path: r.Path, RawQuery: r.RawQuery}
	}
	return u
}

// checkDigest wants every digest that it knows to be the body's, and at least one (RFC 9530).
func checkDigest(header string, body []byte) error {
	d, err := httpsfv.UnmarshalDictionary([]string{header})
	if err != nil {
		return errMalformed
	}
	known := false
	for _, name := range d.Names() {
		var sum []byte
		switch name {
		case "sha-256":
			s := sha256.Sum256(body)
			sum = s[:]
		case "sha-512":
			s := sha512.Sum512(body)
			sum = s[:]
		default:
			continue
		}
		known = true
		member, _ := d.Get(name)
		item, _ := member.(httpsfv.Item)
		if sent, ok := item.Value.([]byte); !ok || subtle.ConstantTimeCompare(sent, sum) != 1 {
			return errDigest
		}
	}
	if !known {
		return errDigest
	}
	return nil
}

var errDigest = &Refusal{Status: http.StatusUnauthorized, Reason: "Content-Digest is not the body's"}

func (s *rfc9421Scheme) identify(*Request) (Identity, error) { return Identity{}, nil }

// signRFC9421 signs with HMAC alone: of the other algorithms the source knows no private key.
func signRFC9421(in *SignInput) (Signed, error) {
	if in.Options["algorithm"] != "hmac-sha256" {
		return Signed{}, errNoSign
	}
	key, err := base64.StdEncoding.DecodeString(in.Secret)
	if err != nil || len(key) == 0 {
		return Signed{}, errRFC9421Key
	}
	u, err := url.Parse(in.URL)
	if err != nil {
		return Signed{}, fmt.Errorf("sign: %w", err)
	}
	h := signedHeaders(in)
	sum := sha256.Sum256(in.Body)
	digest := "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
	keyID, _ := in.Options["key_id"].(string)
	params := fmt.Sprintf(`("@method" "@path" "content-digest");created=%d;keyid="%s"`, in.Now.Unix(), keyID)
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "\"@method\": %s\n\"@path\": %s\n\"content-digest\": %s\n\"@signature-params\": %s", in.Method, cmpPath(u.EscapedPath()), digest, params)
	h.Set("Content-Digest", digest)
	h.Set("Signature-Input", "sig1="+params)
	h.Set("Signature", "sig1=:"+base64.StdEncoding.EncodeToString(m.Sum(nil))+":")
	return Signed{Header: h}, nil
}
