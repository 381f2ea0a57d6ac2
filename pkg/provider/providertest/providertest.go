// Package providertest is the suite that every preset must pass. A preset comes in and a verdict of its test goes
// out; requests are made by the preset's own Sign and Sample and then spoilt. It never holds knowledge of a scheme
// that the preset's own golden files should hold.
package providertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// URL is what the provider calls in this suite: the public URL of Config with Request's path and query.
const URL = public + "/webhooks/test?a=b"

const public = "https://hooks.example.com"

// Config opens a source with the credentials.
func Config(p *provider.Provider, credentials ...provider.Credentials) provider.Config {
	c := provider.Config{Source: "test", Provider: p.Name, Options: map[string]any{"public_url": public}}
	for i, one := range credentials {
		maps.Copy(c.Options, one.Options)
		if one.Secret != "" {
			c.Secrets = append(c.Secrets, provider.Secret{Text: one.Secret})
			if p.NeedsSecretID() {
				c.Secrets[i].ID = fmt.Sprintf("secret-%d", i)
			}
		}
		if one.Keys != nil {
			c.Keys = one.Keys
		}
	}
	return c
}

// Request is the signed request as it comes in.
func Request(s provider.Signed, at time.Time) *provider.Request {
	path, query, _ := strings.Cut(strings.TrimPrefix(s.URL, public), "?")
	return &provider.Request{Method: s.Method, Path: path, RawQuery: query, Header: s.Header, Body: slices.Clone(s.Body), Now: at, FromProxy: true}
}

// suite is one preset under test, opened in one way.
type suite struct {
	*testing.T
	p        *provider.Provider
	hmac     *provider.HMAC
	several  func(good, bad string) string // joins two signature headers; nil: the scheme has one signature
	creds    []provider.Credentials        // three, in the preset's own form
	secrets  []provider.Secret             // theirs
	stamped  bool                          // the scheme signs a time
	security []string                      // headers that change with the secret or with the time
}

// Run puts a preset through the suite.
func Run(t *testing.T, p *provider.Provider) {
	t.Helper()
	if p.Name != "hmac" {
		run(t, &suite{p: p, several: several[p.Name]})
		return
	}
	for name, c := range hmacSchemes {
		t.Run(name, func(t *testing.T) { run(t, &suite{p: p, hmac: c.hmac, several: c.several}) })
	}
}

// several says how a scheme writes two signatures into one header.
var several = map[string]func(good, bad string) string{
	"stripe": func(good, bad string) string {
		stamp, signature, _ := strings.Cut(good, ",")
		_, other, _ := strings.Cut(bad, ",")
		return stamp + "," + other + "," + signature + ",v0=" + strings.Repeat("0", 64)
	},
	"paddle": func(good, bad string) string {
		stamp, signature, _ := strings.Cut(good, ";")
		_, other, _ := strings.Cut(bad, ";")
		return stamp + ";" + other + ";" + signature + ";h2=0"
	},
	"mollie":            func(good, bad string) string { return bad + ", " + good },
	"standard-webhooks": func(good, bad string) string { return "v1a," + good[3:] + " " + bad + " " + good },
	"calendly":          func(good, bad string) string { return good + bad[strings.IndexByte(bad, ','):] },
	"pagerduty":         func(good, bad string) string { return "v0=00, " + bad + " , " + good + " " },
	"gitlab-signed":     func(good, bad string) string { return bad + " " + good },
	"svix":              func(good, bad string) string { return bad + " " + good },
}

// repeatable are headers of which a scheme sends a line for each signature.
var repeatable = map[string]string{"mollie": "X-Mollie-Signature"}

var hmacSchemes = map[string]struct {
	hmac    *provider.HMAC
	several func(good, bad string) string
}{
	"defaults": {hmac: &provider.HMAC{Header: "X-Signature", IDHeader: "X-Id", TypeHeader: "X-Type"}},
	"timestamp": {hmac: &provider.HMAC{
		Header: "x-signature", Prefix: "sha256=", Signed: "{timestamp}.{body}", TimestampHeader: "x-timestamp", IDHeader: "x-id", TypeHeader: "x-type",
	}},
	"several": {
		hmac: &provider.HMAC{
			Header: "X-Signatures", Algorithm: "sha512", Encoding: "base64", Prefix: "v1=", Separator: ",",
			Signed: "{id}:{timestamp}:{body}", TimestampHeader: "X-Timestamp", IDHeader: "X-Id", TypeHeader: "X-Type",
		},
		several: func(good, bad string) string { return "v0=x, " + bad + ", " + good },
	},
	"request line": {hmac: &provider.HMAC{
		Header: "X-Signature", Algorithm: "sha1", Encoding: "base64url", Signed: "{method}\n{path}\n{query}\n{header:X-Type}\n{body}",
		IDHeader: "X-Id", TypeHeader: "X-Type",
	}},
}

func run(t *testing.T, s *suite) {
	t.Helper()
	for i := range 3 {
		s.creds = append(s.creds, s.p.NewCredentials())
		secret := provider.Secret{Text: s.creds[i].Secret}
		if s.p.NeedsSecretID() {
			secret.ID = fmt.Sprintf("secret-%d", i)
		}
		s.secrets = append(s.secrets, secret)
	}
	s.T = t
	s.lookAtHeaders()
	for name, check := range map[string]func(*suite){
		"samples": (*suite).samples, "valid": (*suite).valid, "tampered body": (*suite).tamperedBody, "flipped bits": (*suite).flipBits, "tampered headers": (*suite).tamperedHeaders,
		"wrong secret": (*suite).wrongSecret, "time": (*suite).time, "missing header": (*suite).missingHeader, "truncated signature": (*suite).truncated,
		"doubled header": (*suite).doubled, "several signatures": (*suite).severalSignatures, "upper case": (*suite).upperCase, "empty body": (*suite).emptyBody,
		"validity": (*suite).validity, "rotation": (*suite).rotation, "configuration": (*suite).configuration, "method": (*suite).method, "concurrent": (*suite).concurrent,
	} {
		t.Run(name, func(t *testing.T) {
			c := *s
			c.T = t
			check(&c)
		})
	}
}

// config opens the first credentials, with these secrets in place of theirs.
func (s *suite) config(secrets ...provider.Secret) provider.Config {
	c := Config(s.p, s.creds[0])
	c.Secrets, c.HMAC = slices.Clone(secrets), s.hmac
	if s.keyless() {
		c.Secrets = nil
	}
	return c
}

// keyless says that the preset has no secrets: what it needs stands among the options.
func (s *suite) keyless() bool { return s.creds[0].Secret == "" }

func (s *suite) open(secrets ...provider.Secret) *provider.Source {
	s.Helper()
	src, err := provider.New(s.config(secrets...))
	s.NoErr(err)
	return src
}

// NoErr ends the test on an error.
func (s *suite) NoErr(err error) {
	s.Helper()
	require.NoError(s, err)
}

func (s *suite) sample(seq int) provider.Sample {
	return s.p.Sample(rand.New(rand.NewPCG(1, uint64(seq))), provider.SampleInput{Seq: seq, Now: now})
}

// request signs a sample with the credentials of that number.
func (s *suite) request(sample provider.Sample, with int, at time.Time) *provider.Request {
	s.Helper()
	signed, err := s.p.Sign(&provider.SignInput{
		Secret: s.creds[with].Signer, Options: Config(s.p, s.creds[with]).Options, URL: URL, Body: sample.Body, Now: at, Sample: sample, HMAC: s.hmac,
	})
	s.NoErr(err)
	return Request(signed, now)
}

func (s *suite) accepts(src *provider.Source, r *provider.Request) provider.Verified {
	s.Helper()
	v, err := src.Receive(s.Context(), r)
	s.NoErr(err)
	return v
}

func (s *suite) refuses(src *provider.Source, r *provider.Request, status int) {
	s.Helper()
	v, err := src.Receive(s.Context(), r)
	var refusal *provider.Refusal
	require.ErrorAs(s, err, &refusal, "accepted as %+v", v)
	require.Equal(s, status, refusal.Status, refusal.Reason)
	require.Zero(s, v)
}

// lookAtHeaders finds out which headers carry the signature and the time: those that change with them.
func (s *suite) lookAtHeaders() {
	now1, now2 := s.request(s.sample(0), 0, now), s.request(s.sample(0), 0, now.Add(-time.Minute))
	base, otherTime := now1.Header, now2.Header
	otherSecret := s.request(s.sample(0), 1, now).Header
	s.stamped = !bytes.Equal(now1.Body, now2.Body) // Mailgun signs the time inside the body
	for name := range base {
		changes := base.Get(name) != otherTime.Get(name)
		s.stamped = s.stamped || changes
		if changes || base.Get(name) != otherSecret.Get(name) {
			s.security = append(s.security, name)
		}
	}
	slices.Sort(s.security)
}

// signature names the header that carries the signature.
func (s *suite) signature() string {
	base := s.request(s.sample(0), 0, now).Header
	otherSecret := s.request(s.sample(0), 1, now).Header
	for _, name := range s.security {
		if base.Get(name) != otherSecret.Get(name) {
			return name
		}
	}
	return ""
}

func (s *suite) samples() {
	ids := map[string]bool{}
	types := map[string]bool{}
	for seq := range 200 {
		a := s.p.Sample(rand.New(rand.NewPCG(1, 2)), provider.SampleInput{Seq: seq, Now: now})
		b := s.p.Sample(rand.New(rand.NewPCG(1, 2)), provider.SampleInput{Seq: seq, Now: now})
		require.Equal(s, a, b, "a seed repeats")
		ids[a.ID] = true
		v := s.sample(seq)
		types[v.Type] = true
		if strings.Contains(v.Header.Get("Content-Type"), "json") {
			require.True(s, json.Valid(v.Body), "%s", v.Body)
		}
		require.GreaterOrEqual(s, len(v.Body), 20)
		require.LessOrEqual(s, len(v.Body), 4<<10)
	}
	require.Len(s, ids, 200, "with the same seed, another number makes another ID (or name, where the scheme has none)")
	if !types[""] {
		require.Greater(s, len(types), 1)
	}
}

func (s *suite) valid() {
	src := s.open(s.secrets[0])
	for seq := range 20 {
		sample := s.sample(seq)
		v := s.accepts(src, s.request(sample, 0, now))
		require.Nil(s, v.Handshake)
		require.NotEmpty(s, v.ID)
		if !v.IDMissing && v.Parts == nil && (s.hmac == nil || s.hmac.IDHeader != "") {
			require.Equal(s, sample.ID, v.ID)
			require.Equal(s, sample.Type, v.Type)
		}
		ids := map[string]bool{}
		for _, p := range v.Parts {
			require.NotEmpty(s, p.ID)
			ids[p.ID] = true
		}
		require.Len(s, ids, len(v.Parts), "no two events of a delivery have one name")
		if !s.keyless() && !s.p.NeedsSecretID() {
			require.Regexp(s, "^k_[0-9a-f]{12}$", v.SecretID)
		}
		if s.p.Splits() {
			again, err := provider.NewSplitter(s.config(s.secrets[0]))
			s.NoErr(err)
			parts, err := again.Split(v.ID, s.request(sample, 0, now))
			s.NoErr(err)
			require.Equal(s, v.Parts, parts, "the processor splits as the ingress does")
		}
	}
	require.Equal(s, s.p, src.Provider())
}

// flipBits flips one bit at every place of the body.
func (s *suite) flipBits() {
	if s.p.Authenticity != provider.AuthSigned {
		return
	}
	src := s.open(s.secrets[0])
	r := s.request(s.sample(1), 0, now)
	r.Body = bytes.Clone(r.Body)
	for at := range r.Body {
		for _, bit := range s.bits(at) {
			r.Body[at] ^= 1 << bit
			s.refuses(src, r, http.StatusUnauthorized)
			r.Body[at] ^= 1 << bit
		}
	}
	s.accepts(src, r)
}

// bits are those to flip in the byte at that place: all, and one where a public key makes each look dear.
func (s *suite) bits(at int) []int {
	if s.creds[0].Signer != s.creds[0].Secret {
		return []int{at % 8}
	}
	return []int{0, 1, 2, 3, 4, 5, 6, 7}
}

func (s *suite) tamperedBody() {
	if s.p.Authenticity != provider.AuthSigned {
		return
	}
	src := s.open(s.secrets[0])
	sample := s.sample(1)
	sample.Body = s.request(sample, 0, now).Body
	for _, body := range [][]byte{
		sample.Body[1:], sample.Body[:len(sample.Body)-1], append(slices.Clone(sample.Body), ' '), append([]byte("\xef\xbb\xbf"), sample.Body...), nil,
	} {
		r := s.request(sample, 0, now)
		r.Body = body
		s.refuses(src, r, http.StatusUnauthorized)
	}
}

func (s *suite) tamperedHeaders() {
	src := s.open(s.secrets[0])
	for _, name := range s.security {
		r := s.request(s.sample(2), 0, now)
		whole := r.Header.Get(name)
		for i := range whole {
			for _, bit := range s.bits(i) {
				b := []byte(whole)
				b[i] ^= 1 << bit
				r.Header.Set(name, string(b))
				v, err := src.Receive(s.Context(), r)
				if either := hexDigest.MatchString(whole) || i < strings.IndexByte(whole, ' '); err == nil && either && strings.EqualFold(whole, string(b)) {
					continue // hex, and a scheme's name such as Bearer, mean the same in either case
				}
				var refusal *provider.Refusal
				require.ErrorAs(s, err, &refusal, "%s: %q accepted as %+v", name, b, v)
				require.Contains(s, []int{http.StatusBadRequest, http.StatusUnauthorized}, refusal.Status)
			}
		}
	}
}

func (s *suite) wrongSecret() {
	if s.p.Authenticity == provider.AuthNone {
		return
	}
	if s.keyless() {
		s.refuses(s.open(), s.request(s.sample(3), 1, now), http.StatusUnauthorized)
		return
	}
	s.refuses(s.open(s.secrets[0], s.secrets[2]), s.request(s.sample(3), 1, now), http.StatusUnauthorized)
}

func (s *suite) time() {
	src := s.open(s.secrets[0])
	for _, off := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		r := s.request(s.sample(4), 0, now.Add(off))
		if !s.stamped {
			s.accepts(src, r)
			continue
		}
		s.refuses(src, r, http.StatusUnauthorized)
		for option, ok := range map[string]bool{"off": true, "1441m": true, "1439m": false} {
			c := s.config(s.secrets[0])
			c.Options["tolerance"] = option
			wide, err := provider.New(c)
			s.NoErr(err)
			_, err = wide.Receive(s.Context(), r)
			require.Equal(s, ok, err == nil, option)
		}
	}
	if !s.stamped {
		c := s.config(s.secrets[0])
		c.Options["tolerance"] = "1h"
		_, err := provider.New(c)
		require.ErrorContains(s, err, "options.tolerance")
	}
}

func (s *suite) missingHeader() {
	src := s.open(s.secrets[0])
	for _, name := range s.security {
		r := s.request(s.sample(5), 0, now)
		r.Header.Set(name, "")
		s.refuses(src, r, http.StatusUnauthorized)
		r.Header.Del(name)
		s.refuses(src, r, http.StatusUnauthorized)
	}
	if len(s.security) == 0 {
		return
	}
	r := s.request(s.sample(5), 0, now)
	r.Header = nil
	s.refuses(src, r, http.StatusUnauthorized)
}

func (s *suite) truncated() {
	src := s.open(s.secrets[0])
	name := s.signature()
	if name == "" {
		return
	}
	whole := s.request(s.sample(6), 0, now).Header.Get(name)
	for n := range len(whole) {
		r := s.request(s.sample(6), 0, now)
		r.Header.Set(name, whole[:n])
		s.refuses(src, r, http.StatusUnauthorized)
	}
	for _, at := range []int{len(whole) / 2, len(whole) - 2, len(whole)} { // decoders of base64 skip line breaks
		for _, lines := range []string{"\n", "\r\n"} {
			r := s.request(s.sample(6), 0, now)
			r.Header.Set(name, whole[:at]+lines+whole[at:])
			_, err := src.Receive(s.Context(), r)
			require.True(s, err != nil || s.several != nil, "accepted with a line break in the signature")
		}
	}
	for _, more := range []string{"0", "=", "00", ",", " x", "\x00"} {
		r := s.request(s.sample(6), 0, now)
		r.Header.Set(name, whole+more)
		if _, err := src.Receive(s.Context(), r); err == nil {
			padding := more == "=" && s.hmac != nil && s.hmac.Encoding == "base64url"
			require.True(s, s.several != nil || padding, "accepted with %q behind the signature", more)
		}
	}
}

func (s *suite) doubled() {
	src := s.open(s.secrets[0])
	names := slices.Clone(s.security)
	for _, name := range s.p.SecurityHeaders {
		require.Equal(s, http.CanonicalHeaderKey(name), name)
		names = append(names, name)
	}
	if s.hmac != nil {
		names = append(names, s.hmac.IDHeader, s.hmac.TypeHeader)
	}
	for _, name := range names {
		r := s.request(s.sample(7), 0, now)
		if r.Header.Get(name) == "" {
			continue
		}
		r.Header.Add(name, r.Header.Get(name))
		if repeatable[s.p.Name] == name {
			s.accepts(src, r)
			continue
		}
		s.refuses(src, r, http.StatusBadRequest)
	}
}

func (s *suite) severalSignatures() {
	if s.several == nil {
		return
	}
	src := s.open(s.secrets[0])
	name := s.signature()
	r := s.request(s.sample(8), 0, now)
	good := r.Header.Get(name)
	bad := s.request(s.sample(8), 1, now).Header.Get(name)
	r.Header.Set(name, s.several(good, bad))
	s.accepts(src, r)
	r.Header.Set(name, s.several(bad, bad))
	s.refuses(src, r, http.StatusUnauthorized)
}

var hexDigest = regexp.MustCompile(`[0-9a-f]{40,128}$`)

func (s *suite) upperCase() {
	r := s.request(s.sample(9), 0, now)
	name := s.signature()
	if !hexDigest.MatchString(r.Header.Get(name)) {
		return
	}
	r.Header.Set(name, hexDigest.ReplaceAllStringFunc(r.Header.Get(name), strings.ToUpper))
	s.accepts(s.open(s.secrets[0]), r)
}

func (s *suite) emptyBody() {
	if s.p.Authenticity != provider.AuthSigned || len(s.security) == 0 {
		return
	}
	sample := s.sample(10)
	sample.Body = nil
	r := s.request(sample, 0, now)
	s.accepts(s.open(s.secrets[0]), r)
	r.Body = []byte(" ")
	s.refuses(s.open(s.secrets[0]), r, http.StatusUnauthorized)
}

func (s *suite) validity() {
	if s.keyless() {
		return
	}
	r := s.request(s.sample(11), 0, now)
	for _, c := range []struct {
		from, until time.Time
		ok          bool
	}{
		{from: now.Add(time.Second)},
		{until: now},
		{from: now.Add(-time.Hour), until: now.Add(-time.Second)},
		{from: now, until: now.Add(time.Second), ok: true},
		{from: now.Add(-time.Hour), ok: true},
	} {
		secret := s.secrets[0]
		secret.NotBefore, secret.NotAfter = c.from, c.until
		if c.ok {
			s.accepts(s.open(s.secrets[1], secret), r)
		} else {
			s.refuses(s.open(s.secrets[1], secret), r, http.StatusUnauthorized)
			s.refuses(s.open(secret), r, http.StatusUnauthorized)
		}
	}
}

func (s *suite) rotation() {
	if s.keyless() {
		return
	}
	secrets := slices.Clone(s.secrets)
	secrets[1].ID = "2026-q4"
	src := s.open(secrets...)
	seen := map[string]bool{}
	for i := range secrets {
		v := s.accepts(src, s.request(s.sample(12), i, now))
		seen[v.SecretID] = true
		alone := s.accepts(s.open(secrets[i]), s.request(s.sample(12), i, now))
		require.Equal(s, alone.SecretID, v.SecretID, "a secret's ID does not depend on its neighbours")
	}
	require.Len(s, seen, len(secrets))
	require.True(s, seen["2026-q4"])
}

func (s *suite) configuration() {
	good := s.config(s.secrets[0])
	for name, c := range map[string]struct {
		change func(*provider.Config)
		key    string
	}{
		"no secret":      {func(c *provider.Config) { c.Secrets = nil }, "secrets"},
		"empty secret":   {func(c *provider.Config) { c.Secrets = []provider.Secret{s.secrets[0], {}} }, "secrets[1]"},
		"blank secret":   {func(c *provider.Config) { c.Secrets = []provider.Secret{{Text: " "}} }, "secrets[0]"},
		"line break":     {func(c *provider.Config) { c.Secrets = []provider.Secret{{Text: s.secrets[0].Text + "\n"}} }, "secrets[0]"},
		"same secret":    {func(c *provider.Config) { c.Secrets = []provider.Secret{s.secrets[0], s.secrets[0]} }, "secrets[1]"},
		"unknown option": {func(c *provider.Config) { c.Options["tolerances"] = "1m" }, "options.tolerances"},
		"public URL":     {func(c *provider.Config) { c.Options["public_url"] = "hooks.example.com" }, "options.public_url"},
		"event_id":       {func(c *provider.Config) { c.EventID = "body." }, "event_id"},
	} {
		if s.keyless() && strings.HasPrefix(c.key, "secrets") || s.p.SecretLater && name == "no secret" {
			continue
		}
		cfg := good
		cfg.Options = maps.Clone(good.Options)
		c.change(&cfg)
		_, err := provider.New(cfg)
		var wrong *provider.ConfigError
		require.True(s, errors.As(err, &wrong), "%s: %v", name, err)
		require.Equal(s, c.key, wrong.Key, name)
	}
	if !s.keyless() {
		_, err := s.p.Sign(&provider.SignInput{HMAC: s.hmac, Now: now})
		require.Error(s, err, "Sign takes no empty secret")
	}
}

func (s *suite) method() {
	src := s.open(s.secrets[0])
	for _, method := range []string{"GET", "PUT", "HEAD", "post", ""} {
		if s.p.Accepts(method) {
			continue
		}
		r := s.request(s.sample(13), 0, now)
		r.Method = method
		s.refuses(src, r, http.StatusMethodNotAllowed)
	}
}

func (s *suite) concurrent() {
	src, keys := s.open(s.secrets...), len(s.secrets)
	if s.keyless() {
		keys = 1
	}
	var wg sync.WaitGroup
	for i := range 4 {
		requests := make([]*provider.Request, 25)
		for seq := range requests {
			requests[seq] = s.request(s.sample(100*i+seq), seq%keys, now)
		}
		wg.Go(func() {
			for _, r := range requests {
				body := bytes.Clone(r.Body)
				_, err := src.Receive(s.Context(), r)
				if err != nil || !bytes.Equal(body, r.Body) {
					s.Errorf("refused or changed: %v", err)
				}
			}
		})
	}
	wg.Wait()
}
