package ingress

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// judgeOf opens a source of the configuration text, which must be right.
func judgeOf(t *testing.T, source, text string) *Judge {
	t.Helper()
	cfg, err := settings.Parse("catchment.yaml", []byte(text), settings.NeedIngress, settings.NeedSources)
	require.NoError(t, err)
	j, errs := NewJudge(cfg, source, nil)
	require.Empty(t, errs)
	return j
}

// TestJudge holds what the judge says without a listener: the same words as the metric's.
func TestJudge(t *testing.T) {
	const text = "ingress: {max_body: 64kB}\nsources:\n" +
		"  stripe: {provider: stripe, secrets: [\"whsec_test_of_the_ingress\"]}\n" +
		"  slack: {provider: slack, secrets: [\"8f742231b10e8888abcd99yyyzzz85a5\"]}\n" +
		"  partner: {provider: hmac, secrets: [\"a shared secret of some length\"], hmac: {header: X-Signature}, on_missing_id: reject}\n"
	now := time.Unix(1_795_000_000, 0)
	sign := func(preset, secret string, s provider.Sample, opts map[string]any) *provider.Request {
		t.Helper()
		p, ok := provider.ByName(preset)
		require.True(t, ok)
		in := &provider.SignInput{Secret: secret, URL: "https://h/webhooks/x", Body: s.Body, Now: now, Sample: s, Options: opts}
		if preset == "hmac" {
			in.HMAC = &provider.HMAC{Header: "X-Signature", Algorithm: "sha256", Encoding: "hex", Signed: "{body}"}
		}
		signed, err := p.Sign(in)
		require.NoError(t, err)
		return &provider.Request{Method: signed.Method, Path: "/webhooks/x", Header: signed.Header, Body: signed.Body, Now: now}
	}
	edit := func(r *provider.Request, f func(*provider.Request)) *provider.Request { f(r); return r }
	stripe := sampleOf("stripe", 1)
	greeting := provider.Sample{Header: http.Header{}, Body: []byte(`{"token":"x","challenge":"3eZbrw1aBm2rZgRNFdxV","type":"url_verification"}`)}
	for name, c := range map[string]struct {
		source  string
		req     *provider.Request
		outcome string
		status  int
		reason  string
	}{
		"accepted":   {"stripe", sign("stripe", stripeSecret, stripe, nil), "accepted", 200, ""},
		"handshake":  {"slack", sign("slack", slackSecret, greeting, nil), "handshake", 200, ""},
		"mismatch":   {"stripe", sign("stripe", "whsec_another", stripe, nil), "unauthenticated", 401, "signature mismatch"},
		"stale":      {"stripe", edit(sign("stripe", stripeSecret, stripe, nil), func(r *provider.Request) { r.Now = now.Add(time.Hour) }), "unauthenticated", 401, "timestamp too old"},
		"method":     {"stripe", edit(sign("stripe", stripeSecret, stripe, nil), func(r *provider.Request) { r.Method = "PUT" }), "method_not_allowed", 405, "method not allowed"},
		"encoding":   {"stripe", edit(sign("stripe", stripeSecret, stripe, nil), func(r *provider.Request) { r.Header.Set("Content-Encoding", "gzip") }), "unsupported_encoding", 415, "content encoding is not identity"},
		"too large":  {"stripe", &provider.Request{Method: "POST", Header: http.Header{}, Body: bytes.Repeat([]byte("a"), 64_001), Now: now}, "too_large", 413, "body is larger than max_body"},
		"twice":      {"stripe", edit(sign("stripe", stripeSecret, stripe, nil), func(r *provider.Request) { r.Header.Add("Stripe-Signature", "t=1") }), "malformed", 400, "security header repeated"},
		"missing id": {"partner", sign("hmac", hmacSecret, provider.Sample{Header: http.Header{}, Body: []byte("plain")}, nil), "missing_id", 400, "no event ID in the delivery"},
	} {
		t.Run(name, func(t *testing.T) {
			g := judgeOf(t, c.source, text).Judge(context.Background(), c.req)
			require.Equal(t, c.outcome, g.Outcome)
			require.Equal(t, c.status, g.Status)
			require.Equal(t, c.reason, g.Reason)
			require.Equal(t, c.outcome == "handshake", g.Response != nil)
			if c.outcome == "accepted" {
				require.Equal(t, stripe.ID, g.Verified.ID)
			}
		})
	}
}

// TestOutcomeOf gives each status that a scheme may refuse with a name of its own.
func TestOutcomeOf(t *testing.T) {
	for status, want := range map[int]outcome{400: outMalformed, 401: outUnauthentic, 403: outForbidden, 405: outMethod, 503: outNoKey, 418: outInternal} {
		got := outcomeOf(&provider.Refusal{Status: status, Reason: "r"})
		require.Equal(t, want, got)
		if status != 418 {
			require.Equal(t, status, refusals[got].status)
		}
	}
}

func TestRedaction(t *testing.T) {
	r := redaction{headers: map[string]bool{"X-Gitlab-Token": true}, parameters: []string{"token"}}
	require.Equal(t, "a=%2F&token=[redacted]&b", r.query("a=%2F&token=s3cret&b"))
	require.Equal(t, "tok%65n=[redacted]&token=[redacted]&tokens=1", r.query("tok%65n=s3cret&token&tokens=1"))
	require.Equal(t, "https://h/p?token=[redacted]", r.url("https://h/p?token=s3cret"))
	require.Equal(t, "%zz=1&", r.query("%zz=1&"))
	req := &http.Request{Host: "h", URL: &url.URL{}, Header: http.Header{
		"X-Gitlab-Token": {"s3cret"}, "X-Original-Uri": {"/p?token=s3cret&x=1"}, "X-Other": {"why?"},
	}}
	require.Equal(t, []event.Header{
		{Name: "host", Value: "h"},
		{Name: "x-gitlab-token", Value: redacted},
		{Name: "x-original-uri", Value: "/p?token=[redacted]&x=1"},
		{Name: "x-other", Value: "why?"},
	}, r.stored(nil, req))
	require.Equal(t, "token=s3cret", (&redaction{}).query("token=s3cret"), "most sources have no secret parameter")
}

func TestPrefixes(t *testing.T) {
	ps, err := parsePrefixes([]string{"10.0.0.0/8", "192.0.2.1", "fd00::/8"})
	require.NoError(t, err)
	for remote, want := range map[string]bool{
		"10.1.2.3:4": true, "[::ffff:10.1.2.3]:4": true, "192.0.2.1:4": true, "192.0.2.2:4": false, "[fd00::1%eth0]:4": true, "@": false,
	} {
		require.Equal(t, want, ps.include(remote), remote)
	}
	_, err = parsePrefixes([]string{"proxy"})
	require.Error(t, err)
}
