package run

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Health is the answer of a service's operations listener.
type Health struct {
	URL     string `json:"url"`
	Healthy bool   `json:"healthy"`
	Detail  string `json:"detail"`
}

// Ask asks the service whose operations listener has this address whether it is ready, or alive. No answer is not healthy.
func Ask(ctx context.Context, address string, live bool) Health {
	h := Health{URL: BaseURL(address) + "/readyz"}
	if live {
		h.URL = BaseURL(address) + "/livez"
	}
	body, status, err := Get(ctx, h.URL, 4<<10)
	if err != nil {
		h.Detail = "no answer: " + err.Error()
		return h
	}
	h.Healthy, h.Detail = status == http.StatusOK, strings.TrimSpace(string(body))
	return h
}

// Get reads at most limit bytes of a URL.
func Get(ctx context.Context, url string, limit int64) (body []byte, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, limit))
	return body, resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// BaseURL is how to reach a listening address from this machine.
func BaseURL(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "http://" + listen
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// healthcheck is `SERVICE healthcheck`, for containers that hold no other program: 0 when the service is ready.
func healthcheck(name string, args []string, stderr io.Writer, ops func(configPath string) (string, error)) int {
	fs := flag.NewFlagSet(name+" healthcheck", flag.ContinueOnError)
	fs.SetOutput(stderr)
	path := configFlag(fs)
	live := fs.Bool("live", false, "ask whether it is alive rather than ready")
	timeout := fs.Duration("timeout", 3*time.Second, "how long to wait for the answer")
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	address, err := ops(*path)
	if err != nil {
		fmt.Fprintf(stderr, "%s healthcheck: %v\n", name, err)
		return ExitUsage
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	if h := Ask(ctx, address, *live); !h.Healthy {
		fmt.Fprintf(stderr, "%s: %s\n", h.URL, h.Detail)
		return ExitFailed
	}
	return ExitOK
}
