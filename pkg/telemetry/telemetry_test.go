package telemetry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

func TestHandler(t *testing.T) {
	var ready error
	h := Handler(Registry(), func() error { return ready }, map[string]http.Handler{"/extra": http.NotFoundHandler()})
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	for _, path := range []string{"/livez", "/readyz"} {
		code, body := get(path)
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, "ok\n", body)
	}
	ready = errors.New("ingress: draining\nprocessor: no database")
	code, body := get("/readyz")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.Equal(t, "not ready: ingress: draining; processor: no database\n", body)
	code, _ = get("/livez")
	require.Equal(t, http.StatusOK, code, "a process that cannot work now need not be killed")
	_, body = get("/metrics")
	require.Contains(t, body, `catchment_build_info{revision="`)
	require.Contains(t, body, "go_goroutines")
	code, _ = get("/extra")
	require.Equal(t, http.StatusNotFound, code)
}

func TestRegistryIsNobodyElses(t *testing.T) {
	a, b := Registry(), Registry()
	require.NotSame(t, a, b)
	problems, err := testutil.GatherAndLint(a, "catchment_build_info")
	require.NoError(t, err)
	require.Empty(t, problems)
}

func TestOps(t *testing.T) {
	o, err := NewOps("127.0.0.1:0", "ingress.ops_listen", Handler(Registry(), func() error { return nil }, nil))
	require.NoError(t, err)
	_, err = NewOps(o.Addr(), "ingress.ops_listen", nil)
	require.ErrorContains(t, err, "listen for operations on "+o.Addr()+" (set ingress.ops_listen to another address)")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	resp, err := http.Get("http://" + o.Addr() + "/livez")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "ok\n", string(body))
	cancel()
	require.NoError(t, <-done)
}

func TestLoggerShowsNoSecret(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		log := Logger(settings.Telemetry{LogLevel: "info", LogFormat: format}, &out)
		log.Debug("below the level")
		log.Info("seen", slog.Any("secret", config.NewSecret("canary")), slog.Any("all", settings.Postgres{URL: config.NewSecret("canary")}))
		require.Contains(t, out.String(), "seen")
		require.NotContains(t, out.String(), "canary")
		require.NotContains(t, out.String(), "below")
	}
}
