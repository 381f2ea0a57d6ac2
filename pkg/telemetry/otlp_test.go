package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/catchment-dev/catchment/pkg/certtest"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// batch is a span of a service, as the exporter gives it.
func batch() []*tracepb.ResourceSpans {
	return []*tracepb.ResourceSpans{{ScopeSpans: []*tracepb.ScopeSpans{{Spans: []*tracepb.Span{{Name: "one", TraceId: bytes.Repeat([]byte{1}, 16)}}}}}}
}

// heard is a request that a collector has got.
type heard struct {
	path   string
	header http.Header
	export collector.ExportTraceServiceRequest
}

// collecting is a collector that answers as it is told; the requests are read after the answer.
func collecting(t *testing.T, answer http.HandlerFunc) (server *httptest.Server, requests func() []*heard) {
	t.Helper()
	var mu sync.Mutex
	var all []*heard
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := &heard{path: r.URL.RequestURI(), header: r.Header}
		in := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			in, _ = gzip.NewReader(in)
		}
		text, _ := io.ReadAll(in)
		if err := proto.Unmarshal(text, &h.export); err != nil {
			h.path = "no OTLP"
		}
		mu.Lock()
		all = append(all, h)
		mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	return server, func() []*heard {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

func accepting(http.ResponseWriter, *http.Request) {}

// TestOTLPEnvironment sends a batch with each variable of the standard, and with the one for traces beside the one for all signals.
func TestOTLPEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string // {URL} stands for the collector's
		path string
		want map[string]string // headers
	}{
		"endpoint":            {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "{URL}"}, "/v1/traces", map[string]string{"Content-Type": "application/x-protobuf", "Content-Encoding": ""}},
		"endpoint, slash":     {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": " {URL}/ "}, "/v1/traces", nil},
		"endpoint, path":      {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "{URL}/otlp/"}, "/otlp/v1/traces", nil},
		"traces endpoint":     {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{URL}/as/it/is?a=b"}, "/as/it/is?a=b", nil},
		"traces endpoint, no": {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{URL}"}, "/", nil},
		"headers": {
			map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20a%2Cb==, x-tenant = one,User-Agent=mine,,"},
			"/v1/traces",
			map[string]string{"Authorization": "Bearer a,b==", "X-Tenant": "one", "User-Agent": "Catchment-OTLP-Exporter-Go/" + run.Version},
		},
		"traces headers": {
			map[string]string{"OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=one,x-other=two", "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x-tenant=three"},
			"/v1/traces",
			map[string]string{"X-Tenant": "three", "X-Other": ""},
		},
		"compression":        {map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}, "/v1/traces", map[string]string{"Content-Encoding": "gzip"}},
		"traces compression": {map[string]string{"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "none"}, "/v1/traces", map[string]string{"Content-Encoding": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			server, requests := collecting(t, accepting)
			server.Start()
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
			for k, v := range c.env {
				t.Setenv(k, string(bytes.ReplaceAll([]byte(v), []byte("{URL}"), []byte(server.URL))))
			}
			client, err := newOTLP("")
			require.NoError(t, err)
			require.NoError(t, client.UploadTraces(t.Context(), batch()))
			require.Len(t, requests(), 1)
			require.Equal(t, c.path, requests()[0].path)
			require.Equal(t, "one", requests()[0].export.ResourceSpans[0].ScopeSpans[0].Spans[0].Name)
			for k, v := range c.want {
				require.Equal(t, v, requests()[0].header.Get(k), k)
			}
		})
	}
}

// TestOTLPEndpoint holds the configuration's endpoint against the environment's, and what counts where neither is set.
func TestOTLPEndpoint(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "not used: x")
	c, err := newOTLP("http://collector:4318/v1/traces")
	require.NoError(t, err)
	require.Equal(t, "http://collector:4318/v1/traces", c.url)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	c, err = newOTLP("")
	require.NoError(t, err)
	require.Equal(t, "http://localhost:4318/v1/traces", c.url)
	require.Equal(t, 10*time.Second, c.timeout)
}

// TestOTLPWrong gives each variable a value that cannot be meant: the program does not start, and no secret is quoted.
func TestOTLPWrong(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.pem")
	require.NoError(t, os.WriteFile(broken, []byte("no PEM"), 0o600))
	secure := map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318"}
	for _, c := range []struct{ variable, value, want string }{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL"},
		{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://user:secret@collector:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: expected a URL"},
		{"OTEL_EXPORTER_OTLP_TIMEOUT", "10s", `OTEL_EXPORTER_OTLP_TIMEOUT: expected a whole number of milliseconds (0: no limit), found "10s"`},
		{"OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "-1", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: expected"},
		{"OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", `expected gzip or none, found "zstd"`},
		{"OTEL_EXPORTER_OTLP_HEADERS", "authorization", "pair 1 is not one"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "a=b,authorization=%zzsecret", "pair 2 is not one"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "authori zation=secret", "pair 1 is not one"},
		{"OTEL_EXPORTER_OTLP_HEADERS", "authorization=secret%0D%0Ax:y", "pair 1 is not one"},
		{"OTEL_EXPORTER_OTLP_CERTIFICATE", filepath.Join(filepath.Dir(broken), "missing.pem"), "missing.pem: no such file"},
		{"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", broken, "broken.pem: expected PEM certificates, found none"},
		{"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", broken, "…_CLIENT_KEY: expected both, or neither"},
		{"OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", broken, "…_CLIENT_KEY: expected both, or neither"},
	} {
		t.Run(c.variable+" "+filepath.Base(c.value), func(t *testing.T) {
			for k, v := range secure {
				t.Setenv(k, v)
			}
			t.Setenv(c.variable, c.value)
			_, err := Tracing(&settings.File{Telemetry: settings.Telemetry{Traces: "otlp"}}, "x", slog.New(slog.DiscardHandler))
			require.ErrorIs(t, err, run.ErrUsage)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "secret")
		})
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", broken)
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "x")
	_, err := newOTLP("")
	require.ErrorContains(t, err, "expected an endpoint with https, found one with http")
	require.ErrorContains(t, err, "OTEL_EXPORTER_OTLP_TIMEOUT", "all errors at once")
}

// TestOTLPSecure sends to a collector that has a certificate by an authority of its own and wants one of us.
func TestOTLPSecure(t *testing.T) {
	authority, other, dir := certtest.New(t), certtest.New(t), t.TempDir()
	server, requests := collecting(t, accepting)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{*authority.Issue(t, "collector", time.Now().Add(time.Hour), "127.0.0.1").TLS(t)},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: authority.Pool(),
	}
	server.StartTLS()
	ca, wrong := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "wrong.pem")
	authority.Write(t, ca)
	other.Write(t, wrong)
	cert, key := authority.Issue(t, "catchment", time.Now().Add(time.Hour)).Write(t, dir, "client")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "400")
	send := func() error {
		c, err := newOTLP("")
		require.NoError(t, err)
		return c.UploadTraces(t.Context(), batch())
	}
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", wrong)
	require.ErrorContains(t, send(), "certificate signed by unknown authority")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", ca)
	require.ErrorContains(t, send(), "tls")
	require.Empty(t, requests())
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")
	t.Setenv("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", cert)
	t.Setenv("OTEL_EXPORTER_OTLP_CLIENT_KEY", key)
	require.NoError(t, send())
	require.Len(t, requests(), 1)
}

// TestOTLPAgain meets a collector that is busy twice: the batch arrives, and not before the collector wanted it.
func TestOTLPAgain(t *testing.T) {
	for name, status := range map[string]int{"429": 429, "502": 502, "503": 503, "504": 504} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			server, requests := collecting(t, func(w http.ResponseWriter, _ *http.Request) {
				if asked.Add(1) == 1 {
					w.Header().Set("Retry-After", "2")
					w.WriteHeader(status)
				}
			})
			server.Start()
			c, err := newOTLP(server.URL)
			require.NoError(t, err)
			began := time.Now()
			c.timeout = time.Minute
			require.NoError(t, c.UploadTraces(t.Context(), batch()))
			require.GreaterOrEqual(t, time.Since(began), 2*time.Second)
			require.Len(t, requests(), 2)
			require.Equal(t, "one", requests()[1].export.ResourceSpans[0].ScopeSpans[0].Spans[0].Name)
		})
	}
}

// TestOTLPLost meets collectors that will not take the batch in time, or never; what is said of it names no secret.
func TestOTLPLost(t *testing.T) {
	refusal := append([]byte("\x08\x10\x12\x15"), "who is hunter2-token?"...) // google.rpc.Status
	partial, err := proto.Marshal(&collector.ExportTraceServiceResponse{PartialSuccess: &collector.ExportTracePartialSuccess{RejectedSpans: 7, ErrorMessage: "too old"}})
	require.NoError(t, err)
	warning, err := proto.Marshal(&collector.ExportTraceServiceResponse{PartialSuccess: &collector.ExportTracePartialSuccess{ErrorMessage: "old form"}})
	require.NoError(t, err)
	answer := func(status int, kind string, text []byte, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			_, _ = w.Write(text)
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"refused, text":   {answer(401, "text/plain", []byte("who is hunter2-token?")), `the collector answers 401 Unauthorized: "who is ***?"`},
		"refused, status": {answer(400, "application/x-protobuf", refusal), `the collector answers 400 Bad Request: "who is ***?"`},
		"later":           {answer(503, "text/plain", nil, "Retry-After", "3600"), "503 Service Unavailable"},
		"much later":      {answer(429, "text/plain", nil, "Retry-After", "Fri, 31 Dec 2100 23:59:59 GMT"), "429 Too Many Requests"},
		"elsewhere":       {answer(307, "text/plain", nil, "Location", "http://127.0.0.1:1/steal"), "307 Temporary Redirect"},
		"a part":          {answer(200, "application/x-protobuf", partial), `the collector has refused 7 spans of a batch: "too old"`},
		"a warning":       {answer(200, "application/x-protobuf", warning), `the collector warns: "old form"`},
	} {
		t.Run(name, func(t *testing.T) {
			server, requests := collecting(t, c.answer)
			server.Start()
			t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer hunter2-token")
			client, err := newOTLP(server.URL)
			require.NoError(t, err)
			require.ErrorContains(t, client.UploadTraces(t.Context(), batch()), c.want)
			require.Len(t, requests(), 1)
		})
	}
	for _, fine := range [][]byte{nil, []byte("\x0a\x00"), []byte("no protobuf"), {0x0a, 0xff}} {
		require.NoError(t, rejected(fine), "%q", fine)
	}
}

// failing is an exporter that fails.
type failing struct{ err error }

func (f failing) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return f.err }
func (f failing) Shutdown(context.Context) error                             { return nil }

// TestOTLPPartly counts only the spans that the collector has refused as lost.
func TestOTLPPartly(t *testing.T) {
	q := &quiet{SpanExporter: failing{&rejectedError{spans: 7}}, log: slog.New(slog.DiscardHandler)}
	require.NoError(t, q.ExportSpans(t.Context(), nil))
	require.EqualValues(t, 7, q.lost.Load())
}

// TestOTLPTimeout gives up a batch after the environment's time, however often the collector asks for it, and at once with Stop.
func TestOTLPTimeout(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "50")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "600000")
	server, _ := collecting(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	server.Start()
	c, err := newOTLP(server.URL)
	require.NoError(t, err)
	require.ErrorIs(t, c.UploadTraces(t.Context(), batch()), context.DeadlineExceeded)
	c.timeout = 0
	done := make(chan error, 1)
	go func() { done <- c.UploadTraces(context.Background(), batch()) }()
	require.NoError(t, c.Stop(t.Context()))
	require.ErrorIs(t, <-done, context.Canceled)
}
