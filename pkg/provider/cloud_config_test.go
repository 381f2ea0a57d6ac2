package provider_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// TestListOptionWithoutValue: a key with nothing behind it is no list, and never the absence of a check.
func TestListOptionWithoutValue(t *testing.T) {
	for preset, names := range map[string][]string{
		"jwt": {"algorithms", "issuer", "audience"}, "rfc9421": {"key_id", "components"},
		"sns": {"topic_arn"}, "msgraph": {"client_state"}, "cloudevents": {"allowed_origins"}, "mtls": {"names"},
	} {
		for _, name := range names {
			cfg := provider.Config{Provider: preset, Options: map[string]any{name: nil}, Secrets: []provider.Secret{{ID: "a", Text: "shared secret"}}}
			require.Contains(t, problems(t, cfg), "options."+name+": expected a text, or a list of them, none of them empty", preset)
		}
	}
}

// TestJWTSecretForms: what is public must not become a shared secret, with which everybody could sign.
func TestJWTSecretForms(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	spki, err := x509.MarshalPKIXPublicKey(&ec.PublicKey)
	require.NoError(t, err)
	pkcs1 := x509.MarshalPKCS1PublicKey(&key.PublicKey)
	pemText := strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})), "\n", " ")
	jwk := `{"kty":"EC","crv":"P-256","x":"dlnId_tTtWi6odTNNLzgBwWREszLvsuEvX7kQpA1QaM","y":"FTyfky8mHD0Tb9AOtuj7zqPURVyEPdrEwpdmdjbdQRI"}`
	form, fits := "the secret is a key or a certificate", "the secret is a key for none of options.algorithms"
	for name, c := range map[string]struct {
		text string
		algs []any
		want string
	}{
		"PKCS #1":                   {base64.StdEncoding.EncodeToString(pkcs1), []any{"HS256"}, form},
		"PKCS #1 without algorithm": {base64.StdEncoding.EncodeToString(pkcs1), nil, form},
		"PEM in one line":           {pemText, nil, form},
		"JWK":                       {jwk, nil, form},
		"text for RS256":            {"shared secret", []any{"RS256"}, fits},
		"EC key for RS256":          {base64.StdEncoding.EncodeToString(spki), []any{"RS256"}, fits},
		"EC key for HS256":          {base64.StdEncoding.EncodeToString(spki), []any{"HS256"}, fits},
		"EC key":                    {base64.StdEncoding.EncodeToString(spki), []any{"RS256", "ES256"}, ""},
		"text":                      {"shared secret", []any{"HS384"}, ""},
	} {
		options := map[string]any{}
		if c.algs != nil {
			options["algorithms"] = c.algs
		}
		got := strings.Join(problems(t, provider.Config{Provider: "jwt", Options: options, Secrets: []provider.Secret{{ID: "a", Text: c.text}}}), "; ")
		if c.want == "" {
			require.Empty(t, got, name)
			continue
		}
		require.True(t, strings.HasPrefix(got, "secrets[0]: "+c.want), "%s: %s", name, got)
	}
}
