package run

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBaseURL(t *testing.T) {
	for listen, want := range map[string]string{
		":8080": "http://127.0.0.1:8080", "0.0.0.0:1": "http://127.0.0.1:1", "[::]:2": "http://127.0.0.1:2", "10.0.0.7:3": "http://10.0.0.7:3",
	} {
		require.Equal(t, want, BaseURL(listen))
	}
}

// A container that holds a service alone asks it by the service's own program.
func TestHealthcheck(t *testing.T) {
	ready := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" && !ready {
			http.Error(w, "no brokers", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	check := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := Main("svc", append([]string{"healthcheck"}, args...), &out, nil, func(path string) (string, error) {
			if path == "none.yaml" {
				return "", errors.New("there is no such file")
			}
			return address, nil
		})
		return code, out.String()
	}
	code, text := check()
	require.Equal(t, ExitOK, code, text)
	ready = false
	code, text = check()
	require.Equal(t, ExitFailed, code)
	require.Contains(t, text, "no brokers")
	code, text = check("--live")
	require.Equal(t, ExitOK, code, text)
	code, text = check("--config", "none.yaml")
	require.Equal(t, ExitUsage, code)
	require.Contains(t, text, "no such file")
	code, _ = check("now")
	require.Equal(t, ExitUsage, code)
	server.Close()
	code, text = check("--timeout", "30s")
	require.Equal(t, ExitFailed, code)
	require.Contains(t, text, "no answer")
}
