package provider

import (
	"context"
	"crypto/sha1" //nolint:gosec // HMAC-SHA1 is what some providers sign with
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// hmacAny is any HMAC scheme, described in the source's section hmac. A timestamp_header that the template leaves out
// is refused, for anybody could write another time into it. An id_header that the template leaves out is allowed, as
// GitHub and Shopify have it, and said to be unsigned.
var hmacAny = &Provider{
	Name:        "hmac",
	credentials: secretOnly(newHexSecret),
	open:        openHMAC,
	sign:        signHMAC,
	sample:      sampleHMAC,
	Doc: Doc{
		Title:     "Any HMAC scheme, as data",
		URL:       "https://datatracker.ietf.org/doc/html/rfc2104",
		Signature: "the header `hmac.header`: `prefix` and signature; several of them where a `separator` is given",
		Signed:    "`hmac.signed`, a template with the placeholders `{body}` `{timestamp}` `{id}` `{url}` `{method}` `{path}` `{query}` `{header:Name}`; HMAC with SHA-1, SHA-256, SHA-384 or SHA-512; the key is the secret's text, or its hex or base64 (`secret_encoding`)",
		Tolerance: "`hmac.tolerance`, 5 minutes by default, both ways, where a `timestamp_header` is given: Unix seconds, Unix milliseconds or RFC 3339",
		ID:        "`event_id` (CEL), else `id_header`; signed where the template says so",
		Type:      "`event_type` (CEL), else `type_header`",
		Notes: []string{
			"`{body}` stands once in the template and is never left out; `{url}` needs `public_url`; `{{` and `}}` stand for braces.",
			"One signature must not fit two requests. Therefore `{id}` and `{header:Name}` need literal text between themselves and the body, and a value that contains the character of that text which touches it is refused; no digit may touch `{timestamp}`; and a `timestamp_header` must be signed. A header named in `signed` must be there, once.",
			"Where `{url}` or `{query}` directly precedes `{body}`, a request with a query of its own must have a body that begins as JSON, and no bracket in the query, or the two could be cut elsewhere: for forms, give the query in `public_url`.",
			"Where there is a `separator`, the header is split, spaces are trimmed, and what has not the prefix or is no signature is skipped.",
		},
		Config: `provider: hmac
hmac:
  header: X-Signature
  algorithm: sha256                  # sha1 sha256 sha384 sha512
  encoding: hex                      # hex base64 base64url
  prefix: "sha256="
  separator: ","                     # only where the header may hold several signatures
  signed: "{timestamp}.{body}"
  timestamp_header: X-Timestamp
  tolerance: 5m
  id_header: X-Event-Id
  type_header: X-Event-Type
  secret_encoding: text              # text hex base64
event_id: body.id                    # instead of id_header
event_type: body.kind
secrets: ["${PARTNER_SECRET}"]`,
	},
}

// hmacRules is the section hmac, checked, with its defaults in place.
type hmacRules struct {
	header, stampHeader, idHeader, typeHeader string // canonical; empty: none

	also              []string // further headers that may carry a signature (canonical)
	prefix, separator string
	newHash           func() hash.Hash
	decode            decoding
	encode            func([]byte) string
	secret            func(text string) ([]byte, error)
	signed            template
	readStamp         func(text string) (time.Time, bool)
	writeStamp        func(t time.Time) string
}

type hmacScheme struct {
	noHandshake
	hmacRules
	macs   *macs
	window window
	url    *publicURL
	// queryMeetsBody says that the request's own query touches the body in the signed text: who holds one request could
	// move bytes from one into the other. Only a body that begins as JSON does shows where it was cut.
	queryMeetsBody bool
}

func openHMAC(o *opening) opened {
	if o.HMAC == nil {
		o.errorf("hmac", "is missing: provider hmac needs it, with at least the key header")
		return opened{}
	}
	rules, errs := newHMACRules(o.HMAC)
	o.errs = append(o.errs, errs...)
	if len(errs) > 0 {
		return opened{}
	}
	opened := openRules(o, rules, o.HMAC.Tolerance, "hmac.signed")
	if s, ok := opened.scheme.(*hmacScheme); ok {
		s.queryMeetsBody = s.signed.precedesBody(partQuery) || s.signed.precedesBody(partURL) && s.url != nil && !s.url.hasQuery
	}
	return opened
}

// openRules opens a scheme whose rules are known; signed is how to call the signed text in an error.
func openRules(o *opening, rules hmacRules, tolerance time.Duration, signed string) opened {
	s := &hmacScheme{hmacRules: rules, macs: o.macs(rules.newHash, rules.secret), url: o.url, window: -1}
	if s.stampHeader != "" {
		preset := 5 * time.Minute
		if tolerance != 0 {
			preset = tolerance
		}
		s.window = o.tolerance(preset)
	}
	if s.signed.has(partURL) && s.url == nil {
		o.errorf("public_url", "is missing: the signed text (%s) contains {url}, the URL that the provider calls", signed)
	}
	security := append([]string{s.header}, s.also...)
	for _, name := range append([]string{s.stampHeader, s.idHeader, s.typeHeader}, s.signed.headers()...) {
		if name != "" {
			security = append(security, name)
		}
	}
	return opened{scheme: s, security: security, idUnsigned: s.idHeader != "" && !s.covers(s.idHeader, partID)}
}

// covers says whether the signature covers the header, by its own placeholder or by name.
func (h *hmacRules) covers(header string, kind partKind) bool {
	if h.signed.has(kind) {
		return true
	}
	for _, name := range h.signed.headers() {
		if name == header {
			return true
		}
	}
	return false
}

// newHMACRules checks the section; the errors are *ConfigError.
func newHMACRules(c *HMAC) (hmacRules, []error) {
	var errs []error
	wrong := func(key, format string, args ...any) {
		errs = append(errs, &ConfigError{Key: "hmac." + key, Err: fmt.Errorf(format, args...)})
	}
	header := func(key, name string) string {
		if name != "" && !isToken(name) {
			wrong(key, "%q is no header name", name)
		}
		return http.CanonicalHeaderKey(name)
	}
	h := hmacRules{
		header: header("header", c.Header), stampHeader: header("timestamp_header", c.TimestampHeader),
		idHeader: header("id_header", c.IDHeader), typeHeader: header("type_header", c.TypeHeader),
		prefix: c.Prefix, separator: c.Separator, readStamp: anyStamp,
		writeStamp: func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) },
	}
	if c.Header == "" {
		wrong("header", "is missing: the name of the header that carries the signature")
	}
	var err error
	if h.newHash, err = hashOf(c.Algorithm); err != nil {
		wrong("algorithm", "%w", err)
	}
	if h.decode, h.encode, err = encodingOf(c.Encoding); err != nil {
		wrong("encoding", "%w", err)
	}
	if h.secret, err = secretFormOf(c.SecretEncoding); err != nil {
		wrong("secret_encoding", "%w", err)
	}
	if h.signed, err = parseTemplate(c.Signed); err != nil {
		wrong("signed", "%w", err)
		return h, errs
	}
	if h.signed.has(partStamp) && h.stampHeader == "" {
		wrong("timestamp_header", "is missing: signed contains {timestamp}")
	}
	if h.signed.has(partID) && h.idHeader == "" {
		wrong("id_header", "is missing: signed contains {id}")
	}
	if h.stampHeader != "" && !h.covers(h.stampHeader, partStamp) {
		wrong("timestamp_header", "is not signed: signed does not contain {timestamp}, so that anybody could change it")
	}
	return h, errs
}

func hashOf(name string) (func() hash.Hash, error) {
	switch name {
	case "sha1":
		return sha1.New, nil
	case "sha256", "":
		return sha256.New, nil
	case "sha384":
		return sha512.New384, nil
	case "sha512":
		return sha512.New, nil
	}
	return sha256.New, fmt.Errorf("unknown algorithm %q: expected one of sha1, sha256, sha384, sha512", name)
}

func encodingOf(name string) (decoding, func([]byte) string, error) {
	switch name {
	case "hex", "":
		return appendHex, hex.EncodeToString, nil
	case "base64":
		return appendBase64, base64.StdEncoding.EncodeToString, nil
	case "base64url":
		return appendBase64URL, base64.RawURLEncoding.EncodeToString, nil
	}
	return nil, nil, fmt.Errorf("unknown encoding %q: expected one of hex, base64, base64url", name)
}

func secretFormOf(name string) (func(string) ([]byte, error), error) {
	switch name {
	case "text", "":
		return plainSecret, nil
	case "hex":
		return hexSecret, nil
	case "base64":
		return base64Secret, nil
	}
	return plainSecret, fmt.Errorf("unknown form %q: expected one of text, hex, base64", name)
}

func hexSecret(text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, errors.New("the secret is not hex, as secret_encoding says")
	}
	return b, nil
}

func base64Secret(text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("the secret is not base64 with padding, as secret_encoding says")
	}
	return b, nil
}

// isToken says whether name can be a header's (RFC 9110, token).
func isToken(name string) bool {
	for i := range len(name) {
		c := name[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return name != ""
}

func (s *hmacScheme) verify(_ context.Context, r *Request) (proof, error) {
	var space [128]byte
	sent, err := s.sent(space[:0], r.Header)
	if err != nil {
		return proof{}, err
	}
	in := s.input(r)
	at, err := s.stamp(in.stamp)
	if err != nil {
		return proof{}, err
	}
	if err := s.signed.check(&in); err != nil {
		return proof{}, err
	}
	key, err := s.macs.find(r.Now, sent, func(m *mac) { s.signed.write(m, &in) })
	if err != nil {
		return proof{}, err
	}
	if s.queryMeetsBody && r.RawQuery != "" && !hubspotBoundary(r.RawQuery, r.Body) {
		return proof{}, errSignedSplit
	}
	return proof{key: key, signedURL: in.url}, s.window.check(at, r.Now)
}

// sent appends the MACs that the request carries, in whichever header they stand.
func (s *hmacScheme) sent(sent []byte, h http.Header) ([]byte, error) {
	text := get(h, s.header)
	unsigned := text == ""
	if !unsigned {
		sent = s.signatures(sent, text, s.macs.size)
	}
	for _, name := range s.also {
		if text := get(h, name); text != "" {
			unsigned = false
			sent = s.signatures(sent, text, s.macs.size)
		}
	}
	switch {
	case unsigned:
		return nil, errUnsigned
	case len(sent) == 0:
		return nil, errMalformed
	}
	return sent, nil
}

// signatures appends the MACs that the header holds. What has another form is skipped.
func (h *hmacRules) signatures(sent []byte, header string, size int) []byte {
	if h.separator == "" {
		if text, ok := strings.CutPrefix(header, h.prefix); ok {
			sent, _ = h.decode(sent, text, size)
		}
		return sent
	}
	for part := range strings.SplitSeq(header, h.separator) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(part), h.prefix); ok {
			sent, _ = h.decode(sent, text, size)
		}
	}
	return sent
}

func (s *hmacScheme) input(r *Request) templateInput {
	in := templateInput{
		stamp: get(r.Header, s.stampHeader), id: get(r.Header, s.idHeader),
		method: r.Method, path: r.Path, query: r.RawQuery, header: r.Header, body: r.Body,
	}
	if s.signed.has(partURL) {
		in.url = s.url.of(r)
	}
	return in
}

func (s *hmacScheme) stamp(text string) (time.Time, error) {
	if s.stampHeader == "" {
		return time.Time{}, nil
	}
	if text == "" {
		return time.Time{}, errNoStamp
	}
	at, ok := s.readStamp(text)
	if !ok {
		return time.Time{}, errStampForm
	}
	return at, nil
}

func (s *hmacScheme) identify(r *Request) (Identity, error) {
	return Identity{ID: get(r.Header, s.idHeader), Type: get(r.Header, s.typeHeader)}, nil
}

func signHMAC(in *SignInput) (Signed, error) {
	if in.HMAC == nil {
		return Signed{}, errors.New("the section hmac is missing")
	}
	rules, errs := newHMACRules(in.HMAC)
	if len(errs) > 0 {
		return Signed{}, errors.Join(errs...)
	}
	return signRules(in, rules)
}

func signRules(in *SignInput, rules hmacRules) (Signed, error) {
	secret, err := decodeSecret(in.Secret, rules.secret)
	if err != nil {
		return Signed{}, err
	}
	u, err := url.Parse(in.URL)
	if err != nil {
		return Signed{}, fmt.Errorf("sign: %w", err)
	}
	h := signedHeaders(in)
	if rules.idHeader != "" {
		setIfAny(h, rules.idHeader, in.Sample.ID)
	}
	if rules.typeHeader != "" {
		setIfAny(h, rules.typeHeader, in.Sample.Type)
	}
	if rules.stampHeader != "" {
		h.Set(rules.stampHeader, rules.writeStamp(in.Now))
	}
	t := templateInput{
		stamp: get(h, rules.stampHeader), id: get(h, rules.idHeader), url: in.URL,
		method: in.Method, path: u.EscapedPath(), query: u.RawQuery, header: h, body: in.Body,
	}
	if t.method == "" {
		t.method = http.MethodPost
	}
	if err := rules.signed.check(&t); err != nil {
		return Signed{}, fmt.Errorf("sign: %w", err)
	}
	h.Set(rules.header, rules.prefix+rules.encode(sum(rules.newHash, secret, func(m *mac) { rules.signed.write(m, &t) })))
	return Signed{Header: h}, nil
}
