package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/sender"
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

func TestBaseURL(t *testing.T) {
	for listen, want := range map[string]string{
		":8080": "http://127.0.0.1:8080", "0.0.0.0:1": "http://127.0.0.1:1", "[::]:2": "http://127.0.0.1:2", "10.0.0.7:3": "http://10.0.0.7:3",
	} {
		require.Equal(t, want, baseURL(listen))
	}
}
