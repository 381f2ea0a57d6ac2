package provider_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// TestJWTGivenKeySet: whoever gives a source's key set needs to say no more of its keys.
func TestJWTGivenKeySet(t *testing.T) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: "k1"}}, nil)
	require.NoError(t, err)
	now := time.Unix(1_795_435_200, 0)
	token, err := signer.Sign([]byte(`{"exp":1795435260}`))
	require.NoError(t, err)
	text, err := token.CompactSerialize()
	require.NoError(t, err)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &private.PublicKey, KeyID: "k1"}}})
	require.NoError(t, err)
	keys, err := provider.ParseOfflineKeys([]byte(`{"fetch":{"jwks:partner":` + string(set) + `}}`))
	require.NoError(t, err)

	src, err := provider.New(provider.Config{Source: "partner", Provider: "jwt", Keys: keys})
	require.NoError(t, err)
	r := &provider.Request{Method: http.MethodPost, Header: http.Header{"Authorization": {"Bearer " + text}}, Body: []byte("{}"), Now: now}
	_, err = src.Receive(t.Context(), r)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+text[:len(text)-4]+"AAAA")
	_, err = src.Receive(t.Context(), r)
	require.ErrorContains(t, err, "signature mismatch")

	_, err = provider.New(provider.Config{Source: "another", Provider: "jwt", Keys: keys})
	require.ErrorContains(t, err, "secrets: is empty")
}
