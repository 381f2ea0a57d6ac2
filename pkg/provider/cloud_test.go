package provider_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// TestHandshakeHeaders looks at what golden files leave out: the answers' headers.
func TestHandshakeHeaders(t *testing.T) {
	token := []provider.Secret{{ID: "a", Text: "tok-1"}}
	open := func(cfg provider.Config) *provider.Source {
		src, err := provider.New(cfg)
		require.NoError(t, err)
		return src
	}
	v, err := open(provider.Config{Provider: "cloudevents", Secrets: token}).Receive(t.Context(), &provider.Request{
		Method: "OPTIONS", Header: http.Header{"Webhook-Request-Origin": {"a.example"}, "Webhook-Request-Rate": {"120"}, "Webhook-Request-Callback": {"https://a.example/confirm"}},
	})
	require.NoError(t, err)
	require.Equal(t, &provider.Response{Status: 200, Header: http.Header{
		"Webhook-Allowed-Origin": {"a.example"}, "Webhook-Allowed-Rate": {"*"}, "Allow": {"POST"},
	}}, v.Handshake)

	v, err = open(provider.Config{Provider: "msgraph", Options: map[string]any{"client_state": "s"}}).Receive(t.Context(), &provider.Request{
		Method: "POST", RawQuery: "validationToken=a", Header: http.Header{"Content-Type": {"text/plain"}},
	})
	require.NoError(t, err)
	require.Equal(t, http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "X-Content-Type-Options": {"nosniff"}}, v.Handshake.Header)

	v, err = open(provider.Config{Provider: "okta", Secrets: token}).Receive(t.Context(), &provider.Request{
		Method: "GET", Header: http.Header{"X-Okta-Verification-Challenge": {"abc"}},
	})
	require.NoError(t, err)
	require.Equal(t, "application/json", v.Handshake.Header.Get("Content-Type"))
}

func TestCloudConfiguration(t *testing.T) {
	token := []provider.Secret{{ID: "a", Text: "tok-1"}}
	for name, c := range map[string]struct {
		cfg  provider.Config
		want string
	}{
		"no topic":         {provider.Config{Provider: "sns"}, "options.topic_arn: is missing: anybody can make SNS sign messages of another topic"},
		"no ARN":           {provider.Config{Provider: "sns", Options: map[string]any{"topic_arn": "orders"}}, `options.topic_arn: "orders" is no topic: expected arn:aws:sns:<region>:<account>:<name>`},
		"topic, number":    {provider.Config{Provider: "sns", Options: map[string]any{"topic_arn": 5}}, "options.topic_arn: expected a text, or a list of them, none of them empty"},
		"topic, empty":     {provider.Config{Provider: "sns", Options: map[string]any{"topic_arn": []any{}}}, "options.topic_arn: expected a text, or a list of them, none of them empty"},
		"sns, secret":      {provider.Config{Provider: "sns", Secrets: token, Options: map[string]any{"topic_arn": "arn:x"}}, "secrets: have no effect: provider sns has the option topic_arn instead"},
		"no state":         {provider.Config{Provider: "msgraph"}, "options.client_state: is missing: the clientState of your subscriptions"},
		"none, secret":     {provider.Config{Provider: "none", Secrets: token}, "secrets: have no effect: provider none has no check instead"},
		"basic, no colon":  {provider.Config{Provider: "basic", Secrets: token}, "secrets[0]: expected user:password, neither of them empty"},
		"no ID":            {provider.Config{Provider: "bearer", Secrets: []provider.Secret{{Text: "x"}}}, "secrets[0]: needs an id: the secrets of provider bearer are passwords or tokens, which are not named by their digests: write {id: 2026-q4, value: …}"},
		"header name":      {provider.Config{Provider: "api-key", Secrets: token, Options: map[string]any{"header": "a b"}}, `options.header: "a b" is no header name`},
		"header and query": {provider.Config{Provider: "api-key", Secrets: token, Options: map[string]any{"header": "a", "query": "b"}}, "options.query: stands beside header: the key is in one of them"},
		"rate":             {provider.Config{Provider: "cloudevents", Secrets: token, Options: map[string]any{"allowed_rate": "often"}}, `options.allowed_rate: expected requests per minute as a text such as "600", or *`},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, []string{c.want}, problems(t, c.cfg)) })
	}
}
