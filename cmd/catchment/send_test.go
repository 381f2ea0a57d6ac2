package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/sender"
	"github.com/catchment-dev/catchment/ingress"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
)

func TestSendTellsWhatHappened(t *testing.T) {
	for name, tc := range map[string]struct {
		refuseEvery int64
		code        int
		accepted    int
	}{
		"all accepted":  {0, 0, 50},
		"some refused":  {5, 1, 40},
		"every refused": {1, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if i := n.Add(1); tc.refuseEvery > 0 && i%tc.refuseEvery == 0 {
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			}))
			t.Cleanup(srv.Close)
			code, stdout, stderr := tool(t, "send", "stripe", "--url", srv.URL, "--secret", "whsec_x", "--count", "50", "--output", "json")
			require.Equal(t, tc.code, code, stderr)
			var r sender.Report
			require.NoError(t, json.Unmarshal([]byte(stdout), &r))
			require.Equal(t, tc.accepted, r.Accepted)
			require.Equal(t, 50-tc.accepted, r.Statuses["503"])
			if tc.code != 0 {
				require.Contains(t, stderr, "were not accepted")
			}
		})
	}
}

func TestSendFindsTheSource(t *testing.T) {
	paths := make(chan string, 100)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { paths <- r.URL.Path }))
	t.Cleanup(srv.Close)
	listen := "ingress: {listen: \"" + srv.Listener.Addr().String() + "\"}\n"
	secret := filepath.Join(t.TempDir(), "secret")
	for name, tc := range map[string]struct {
		sources string
		args    []string
		path    string // where it was posted
		want    string // in standard error otherwise
	}{
		"by the provider's name": {"sources: {stripe: {provider: stripe, secrets: [whsec_a]}, other: {provider: stripe, secrets: [whsec_b]}}", nil, "/webhooks/stripe", ""},
		"the only one":           {"sources: {shop: {provider: stripe, secrets: [whsec_a]}}", nil, "/webhooks/shop", ""},
		"the named one":          {"sources: {a: {provider: stripe, secrets: [whsec_a]}, b: {provider: stripe, secrets: [whsec_b]}}", []string{"--source", "b"}, "/webhooks/b", ""},
		"several":                {"sources: {a: {provider: stripe, secrets: [whsec_a]}, b: {provider: stripe, secrets: [whsec_b]}}", nil, "", "--source"},
		"none":                   {"sources: {gh: {provider: github, secrets: [x]}}", nil, "", "no source for stripe"},
		"of another provider":    {"sources: {gh: {provider: github, secrets: [x]}}", []string{"--source", "gh"}, "", "made for github"},
		"a missing secret file":  {"sources: {stripe: {provider: stripe, secrets: [{file: " + secret + "}]}}", nil, "", secret},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := tool(t, append([]string{"send", "stripe", "--config", writeConfig(t, listen+tc.sources+"\n")}, tc.args...)...)
			if tc.want != "" {
				require.Equal(t, 2, code)
				require.Contains(t, stderr, tc.want)
				return
			}
			require.Equal(t, 0, code, stderr)
			require.Equal(t, tc.path, <-paths)
		})
	}
}

// TestSendAsEveryProvider sends to sources as their users configure them, of which the sender finds out all it needs
// but for private keys.
func TestSendAsEveryProvider(t *testing.T) {
	for _, p := range provider.All {
		t.Run(p.Name, func(t *testing.T) {
			c := p.NewCredentials()
			srv := httptest.NewUnstartedServer(nil)
			t.Cleanup(srv.Close)
			config := sourceConfig(t, p, c, srv.Listener.Addr().String())
			srv.Config.Handler = judging(t, config, p.Name, c.Keys)
			srv.Start()
			args := []string{"send", p.Name, "--config", config, "--count", "20", "--output", "json"}
			if code, _, stderr := tool(t, args...); code != 0 {
				require.Contains(t, stderr, "it cannot sign")
				require.NotEmpty(t, p.Doc.Signer, "what --secret is to be")
				args = append(args, "--secret", c.Signer)
			}
			code, stdout, stderr := tool(t, args...)
			require.Equal(t, 0, code, stderr)
			var r sender.Report
			require.NoError(t, json.Unmarshal([]byte(stdout), &r))
			require.Equal(t, 20, r.Accepted)
		})
	}
}

// sourceConfig writes a configuration with one source, which has the preset's name.
func sourceConfig(t *testing.T, p *provider.Provider, c provider.Credentials, listen string) string {
	t.Helper()
	source := map[string]any{"provider": p.Name, "options": maps.Clone(c.Options)}
	if c.Secret != "" {
		source["secrets"] = []any{map[string]any{"id": "test", "value": c.Secret}}
	}
	if c.Options["public_url"] == nil {
		source["public_url"] = "https://hooks.example.com"
	}
	if p.Name == "hmac" {
		source["hmac"] = map[string]any{"header": "X-Signature", "signed": "{method} {url} {timestamp}.{body}", "timestamp_header": "X-Time", "id_header": "X-Id"}
	}
	path := filepath.Join(t.TempDir(), "catchment.yaml")
	writeJSON(t, path, map[string]any{"ingress": map[string]any{"listen": listen}, "sources": map[string]any{p.Name: dollars(source)}})
	return path
}

// judging answers as the ingress would, without Kafka.
func judging(t *testing.T, path, source string, offline *provider.OfflineKeys) http.Handler {
	t.Helper()
	cfg, err := settings.Load(path, settings.NeedIngress, settings.NeedSources)
	require.NoError(t, err)
	if offline == nil {
		offline = &provider.OfflineKeys{}
	}
	judge, errs := ingress.NewJudge(cfg, source, offline)
	require.Empty(t, errs)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		g := judge.Judge(r.Context(), &provider.Request{
			Method: r.Method, Path: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery, Header: r.Header, Body: body, Now: time.Now(), FromProxy: true,
		})
		w.WriteHeader(g.Status)
		_ = json.NewEncoder(w).Encode(map[string]string{"id": g.Verified.ID, "title": g.Reason})
	})
}

func TestShare(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "7": 7, "10%": 100, "0.25%": 3, "-1": -1, "x": -1, "1.5": -1, "%": -1} {
		got, err := share(text, 1000)
		if want < 0 {
			require.Error(t, err, text)
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
}

func TestWebhooksURL(t *testing.T) {
	cfg := &settings.File{Ingress: settings.Ingress{Listen: ":8443"}}
	require.Equal(t, "http://127.0.0.1:8443/webhooks/", webhooksURL(cfg))
	cfg.Ingress.TLS = &settings.ServerTLS{}
	require.Equal(t, "https://127.0.0.1:8443/webhooks/", webhooksURL(cfg))
}
