package provider

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTwinHeaders: X_Hub_Signature_256 is X-Hub-Signature-256 to some proxies and frameworks.
func TestTwinHeaders(t *testing.T) {
	src, err := New(Config{Source: "a", Provider: "github", Secrets: []Secret{{Text: "It's a Secret to Everybody"}}})
	require.NoError(t, err)
	p, _ := ByName("github")
	body := []byte(`{"a":1}`)
	signed, err := p.Sign(&SignInput{Secret: "It's a Secret to Everybody", URL: "http://h/webhooks/a", Body: body, Now: time.Now()})
	require.NoError(t, err)
	receive := func(name string) error {
		h := signed.Header.Clone()
		if name != "" {
			h[http.CanonicalHeaderKey(name)] = []string{"x"}
		}
		_, err := src.Receive(context.Background(), &Request{Method: http.MethodPost, Path: "/webhooks/a", Header: h, Body: body, Now: time.Now()})
		return err
	}
	require.NoError(t, receive(""))
	require.NoError(t, receive("X_Other_Header"))
	for _, name := range []string{"X_Hub_Signature_256", "X-Hub_Signature-256", "x_hub_signature_256"} {
		require.ErrorIs(t, receive(name), errTwinHeader, name)
	}
}
