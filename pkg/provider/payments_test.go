package provider_test

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/provider/providertest"
)

var at = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// genuine opens a source with new credentials, and signs a request for it at that time.
func genuine(t *testing.T, name string, keys func(provider.Keys) provider.Keys, when time.Time) (*provider.Source, *provider.Request) {
	t.Helper()
	p, ok := provider.ByName(name)
	require.True(t, ok)
	c := p.NewCredentials()
	cfg := providertest.Config(p, c)
	if keys != nil {
		cfg.Keys = keys(c.Keys)
	}
	src, err := provider.New(cfg)
	require.NoError(t, err)
	sample := p.Sample(rand.New(rand.NewPCG(1, 1)), provider.SampleInput{Now: when})
	signed, err := p.Sign(&provider.SignInput{Secret: c.Signer, Options: cfg.Options, URL: providertest.URL, Body: sample.Body, Now: when, Sample: sample})
	require.NoError(t, err)
	return src, providertest.Request(signed, when)
}

func TestAnswersOfPaymentProviders(t *testing.T) {
	for name, want := range map[string]*provider.Response{
		"adyen": {Status: 200, Body: []byte("[accepted]")},
		"xero":  {Status: 200},
		"plaid": nil,
	} {
		src, r := genuine(t, name, nil, at)
		v, err := src.Receive(t.Context(), r)
		require.NoError(t, err)
		if want == nil {
			require.Nil(t, v.Answer)
			continue
		}
		require.Equal(t, want.Status, v.Answer.Status)
		require.Equal(t, string(want.Body), string(v.Answer.Body))
		require.Empty(t, v.Answer.Header["Set-Cookie"])
	}
}

// counting counts what is asked for, and fails from a number on.
type counting struct {
	provider.Keys
	asked []*provider.Fetch
	fail  bool
}

func (c *counting) Fetch(ctx context.Context, f *provider.Fetch) ([]byte, error) {
	c.asked = append(c.asked, f)
	if c.fail {
		return nil, errors.New("the network is down")
	}
	return c.Keys.Fetch(ctx, f)
}

func requireStatus(t *testing.T, status int, err error) {
	t.Helper()
	var refusal *provider.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, status, refusal.Status, refusal.Reason)
}

// TestPayPalFetchesLittle wants nothing fetched for a request that names no certificate of PayPal's or is malformed,
// and a certificate once that has verified a request.
func TestPayPalFetchesLittle(t *testing.T) {
	keys := &counting{}
	src, r := genuine(t, "paypal", func(k provider.Keys) provider.Keys { keys.Keys = k; return keys }, at)
	for name, value := range map[string]string{
		"Paypal-Cert-Url": "https://evil.example/c.pem", "Paypal-Auth-Algo": "SHA1withRSA", "Paypal-Transmission-Sig": "?", "Paypal-Transmission-Time": "x",
	} {
		bad := *r
		bad.Header = r.Header.Clone()
		bad.Header.Set(name, value)
		_, err := src.Receive(t.Context(), &bad)
		requireStatus(t, http.StatusUnauthorized, err)
	}
	require.Empty(t, keys.asked)

	keys.fail = true
	_, err := src.Receive(t.Context(), r)
	requireStatus(t, http.StatusServiceUnavailable, err)
	keys.fail = false
	forged := *r
	forged.Body = []byte(`{}`)
	_, err = src.Receive(t.Context(), &forged)
	requireStatus(t, http.StatusUnauthorized, err)
	for range 3 {
		_, err := src.Receive(t.Context(), r)
		require.NoError(t, err)
	}
	require.Len(t, keys.asked, 3, "once it failed, once for the forged request, once for the genuine ones")
	require.Equal(t, r.Header.Get("Paypal-Cert-Url"), keys.asked[2].URL.String())
	require.Equal(t, "test", keys.asked[2].Source)

	keys.fail = true
	_, err = src.Receive(t.Context(), r)
	require.NoError(t, err, "what has verified a request is kept")
	later := *r
	later.Now = at.Add(25 * time.Hour)
	_, err = src.Receive(t.Context(), &later)
	requireStatus(t, http.StatusServiceUnavailable, err)
}

// TestPlaidFetches looks at what Plaid is asked, and when.
func TestPlaidFetches(t *testing.T) {
	keys := &counting{}
	src, r := genuine(t, "plaid", func(k provider.Keys) provider.Keys { keys.Keys = k; return keys }, at)
	for range 3 {
		_, err := src.Receive(t.Context(), r)
		require.NoError(t, err)
	}
	require.Len(t, keys.asked, 1)
	f := keys.asked[0]
	require.Equal(t, "jwks:test", f.Name)
	require.Equal(t, "test", f.Source)
	require.True(t, f.Fresh)
	require.Equal(t, "POST", f.Method)
	require.Equal(t, "https://production.plaid.com/webhook_verification_key/get", f.URL.String())
	require.Equal(t, "application/json", f.Header.Get("Content-Type"))
	var asked map[string]string
	require.NoError(t, json.Unmarshal(f.Body, &asked))
	require.Equal(t, []string{"6c5516e1-92dc-479e-a8ff-5a51992e0001", "24", "30"}, []string{asked["key_id"], lengthOf(asked["client_id"]), lengthOf(asked["secret"])})

	keys.fail = true
	_, err := src.Receive(t.Context(), r)
	require.NoError(t, err)
	bad := *r
	bad.Header = http.Header{"Plaid-Verification": {"a.b.c"}}
	_, err = src.Receive(t.Context(), &bad)
	requireStatus(t, http.StatusUnauthorized, err)
	require.Len(t, keys.asked, 1)
}

func lengthOf(s string) string {
	b, _ := json.Marshal(len(s))
	return string(b)
}

func TestPaymentOptions(t *testing.T) {
	secret := []provider.Secret{{Text: "s"}}
	for name, c := range map[string]struct {
		cfg  provider.Config
		want []string
	}{
		"adyen, not hex":           {provider.Config{Provider: "adyen", Secrets: []provider.Secret{{Text: "xyz"}}}, []string{"secrets[0]: the HMAC key is not hex"}},
		"paypal, nothing":          {provider.Config{Provider: "paypal"}, []string{"options.webhook_id: expected the webhook's ID, such as 8PT597110X687430LKGECATA"}},
		"paypal, secrets":          {provider.Config{Provider: "paypal", Secrets: secret, Options: map[string]any{"webhook_id": "W"}}, []string{"secrets: have no effect: provider paypal has the option webhook_id instead"}},
		"paypal, fine":             {provider.Config{Provider: "paypal", Options: map[string]any{"webhook_id": "W"}}, nil},
		"braintree, fine":          {provider.Config{Provider: "braintree", Options: map[string]any{"public_key": "a", "private_key": "b"}}, nil},
		"braintree, no key":        {provider.Config{Provider: "braintree", Options: map[string]any{"public_key": "a"}}, []string{"options.private_key: expected the private key of the gateway's API key: the secret is empty"}},
		"mollie, nothing":          {provider.Config{Provider: "mollie"}, []string{"secrets: is empty: provider mollie needs at least one secret"}},
		"mollie, both":             {provider.Config{Provider: "mollie", Secrets: secret, Options: map[string]any{"classic": true}}, []string{"options.classic: is for a source without secrets: classic webhooks are unsigned, and next to signed ones anybody could send them"}},
		"mollie, classic":          {provider.Config{Provider: "mollie", Options: map[string]any{"classic": true}}, nil},
		"mollie, signed":           {provider.Config{Provider: "mollie", Secrets: secret, Options: map[string]any{"classic": false}}, nil},
		"mollie, no truth value":   {provider.Config{Provider: "mollie", Secrets: secret, Options: map[string]any{"classic": "yes"}}, []string{"options.classic: expected true or false"}},
		"plaid, given keys":        {provider.Config{Provider: "plaid"}, nil},
		"plaid, sandbox":           {provider.Config{Provider: "plaid", Secrets: secret, Options: map[string]any{"client_id": "c", "environment": "sandbox"}}, nil},
		"plaid, half":              {provider.Config{Provider: "plaid", Options: map[string]any{"client_id": "c"}}, []string{"options.secret: is missing: Plaid's API wants client_id and secret"}},
		"plaid, other environment": {provider.Config{Provider: "plaid", Options: map[string]any{"environment": "development"}}, []string{`options.environment: expected production or sandbox, found "development"`}},
		"square, no URL":           {provider.Config{Provider: "square", Secrets: secret}, []string{"public_url: is missing: the signed text ({url}{body}) contains {url}, the URL that the provider calls"}},
	} {
		require.Equal(t, c.want, problems(t, c.cfg), name)
	}
}

// TestMollieClassicIsUnverified wants a source that takes unsigned requests to say so, and no event to hide another.
func TestMollieClassicIsUnverified(t *testing.T) {
	src, err := provider.New(provider.Config{Provider: "mollie", Options: map[string]any{"classic": true}})
	require.NoError(t, err)
	require.Equal(t, provider.AuthNone, src.Authenticity())
	r := &provider.Request{Method: "POST", Path: "/webhooks/mollie", Header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, Body: []byte("id=tr_d0b0E3EA3v"), Now: at}
	first, err := src.Receive(t.Context(), r)
	require.NoError(t, err)
	r.Now = at.Add(time.Millisecond)
	second, err := src.Receive(t.Context(), r)
	require.NoError(t, err)
	require.NotEqual(t, first.ID, second.ID)

	signed, err := provider.New(provider.Config{Provider: "mollie", Secrets: []provider.Secret{{Text: "s"}}})
	require.NoError(t, err)
	require.Equal(t, provider.AuthSigned, signed.Authenticity())
	_, err = signed.Receive(t.Context(), r)
	requireStatus(t, http.StatusUnauthorized, err)
}
