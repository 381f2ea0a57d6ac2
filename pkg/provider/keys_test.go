package provider_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
)

func TestOfflineKeys(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	cert, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{}, key.Public(), key)
	require.NoError(t, err)
	root, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	require.NoError(t, err)

	k, err := provider.ParseOfflineKeys([]byte(`{"fetch": {"https://a.example/c.pem": "-----BEGIN", "jwks:bank": {"keys": []}}, "roots": [` + string(root) + `]}`))
	require.NoError(t, err)
	require.NotNil(t, k.Roots())
	for name, want := range map[string]string{"https://a.example/c.pem": "-----BEGIN", "jwks:bank": `{"keys": []}`} {
		got, err := k.Fetch(t.Context(), &provider.Fetch{Name: name, URL: &url.URL{}})
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	_, err = k.Fetch(t.Context(), &provider.Fetch{Name: "https://b.example"})
	require.EqualError(t, err, "https://b.example is not among the given keys")

	k, err = provider.ParseOfflineKeys([]byte(`{}`))
	require.NoError(t, err)
	require.Nil(t, k.Roots(), "the system's")
	for _, text := range []string{``, `[]`, `{"fetch": []}`, `{"roots": ["x"]}`, `{"root": []}`, `{"roots": "x"}`} {
		_, err := provider.ParseOfflineKeys([]byte(text))
		require.Error(t, err, text)
	}
}
