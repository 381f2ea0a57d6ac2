package telemetry

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const (
	// otlpTimeout is how long a batch of spans may take, with all its repetitions; OTLP's own default.
	otlpTimeout = 10 * time.Second
	// firstWait and longestWait are the waits between two attempts, unless the collector asks for longer.
	firstWait, longestWait = time.Second, 5 * time.Second
	// answerBytes is how much of a collector's answer is read.
	answerBytes = 64 << 10
)

// otlp sends spans by OTLP over HTTP. The library's own client does the same and links gRPC, which would make each program a third larger.
type otlp struct {
	url     string
	headers http.Header
	gzip    bool
	timeout time.Duration // of a batch; 0: none
	http    *http.Client
	ended   context.Context // ends with Stop
	end     context.CancelFunc
}

// rejectedError is what a collector says that has taken a part of a batch.
type rejectedError struct {
	spans int64
	why   string
}

func (e *rejectedError) Error() string {
	if e.spans == 0 {
		return fmt.Sprintf("the collector warns: %.200q", e.why)
	}
	return fmt.Sprintf("the collector has refused %d spans of a batch: %.200q", e.spans, e.why)
}

// newOTLP makes a client that sends to an URL, or, where that is empty, to where the environment says. The errors are usage errors.
func newOTLP(endpoint string) (*otlp, error) {
	c := &otlp{url: endpoint, timeout: otlpTimeout}
	var errs []error
	add := func(name string, set func(value string) error) {
		if value, variable := otlpEnv(name); value != "" {
			if err := set(value); err != nil {
				errs = append(errs, fmt.Errorf("%w: %s: %w", run.ErrUsage, variable, err))
			}
		}
	}
	if endpoint == "" {
		c.url = "http://localhost:4318/v1/traces"
		add("ENDPOINT", func(value string) (err error) {
			_, variable := otlpEnv("ENDPOINT")
			c.url, err = collectorURL(value, !strings.Contains(variable, "_TRACES_"))
			return err
		})
	}
	add("TIMEOUT", func(value string) error {
		ms, err := strconv.ParseInt(value, 10, 32)
		if err != nil || ms < 0 {
			return fmt.Errorf("expected a whole number of milliseconds (0: no limit), found %q", value)
		}
		c.timeout = time.Duration(ms) * time.Millisecond
		return nil
	})
	add("COMPRESSION", func(value string) error {
		c.gzip = value == "gzip"
		if !c.gzip && value != "none" {
			return fmt.Errorf("expected gzip or none, found %q", value)
		}
		return nil
	})
	c.headers = http.Header{}
	add("HEADERS", c.addHeaders)
	c.headers.Set("Content-Type", "application/x-protobuf")
	c.headers.Set("User-Agent", "Catchment-OTLP-Exporter-Go/"+run.Version)
	if c.gzip {
		c.headers.Set("Content-Encoding", "gzip")
	}
	if err := c.connect(); err != nil {
		errs = append(errs, err)
	}
	c.ended, c.end = context.WithCancel(context.Background())
	return c, errors.Join(errs...)
}

// otlpEnv reads a variable of OpenTelemetry's exporters: the one for traces counts before the one for all signals.
func otlpEnv(name string) (value, variable string) {
	for _, variable := range []string{"OTEL_EXPORTER_OTLP_TRACES_" + name, "OTEL_EXPORTER_OTLP_" + name} {
		if value := strings.TrimSpace(os.Getenv(variable)); value != "" {
			return value, variable
		}
	}
	return "", "OTEL_EXPORTER_OTLP_" + name
}

// collectorURL checks an URL of the environment. A base, which is for all signals, gets the path of traces appended.
func collectorURL(value string, base bool) (string, error) {
	u, ok := parseCollector(value)
	if !ok {
		return "", errors.New("expected a URL such as http://collector:4318 (passwords belong into OTEL_EXPORTER_OTLP_HEADERS)")
	}
	if base {
		u.Path, u.RawPath = strings.TrimRight(u.Path, "/")+"/v1/traces", ""
	}
	return u.String(), nil
}

// parseCollector says whether a text is the URL of a collector.
func parseCollector(text string) (*url.URL, bool) {
	u, err := url.Parse(text)
	return u, err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
}

// addHeaders reads name=value,name=value with percent-encoded values. They are secrets, which errors do not quote.
func (c *otlp) addHeaders(value string) error {
	for i, pair := range strings.Split(value, ",") {
		name, text, found := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		text, err := url.PathUnescape(strings.TrimSpace(text))
		switch {
		case strings.TrimSpace(pair) == "": // a comma too many
		case !found || err != nil || name == "" || strings.ContainsFunc(name, notOfNames) || strings.ContainsFunc(text, unicode.IsControl):
			return fmt.Errorf("expected name=value,name=value, with %%20 for a space and %%2C for a comma; pair %d is not one", i+1)
		default:
			c.headers.Set(name, text)
		}
	}
	return nil
}

// notOfNames says whether a rune cannot be part of a header's name.
func notOfNames(r rune) bool {
	return !strings.ContainsRune("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", r)
}

// connect makes the HTTP client. It follows no redirects: they would get our headers.
func (c *otlp) connect() error {
	const variables = "OTEL_EXPORTER_OTLP_CERTIFICATE, …_CLIENT_CERTIFICATE, …_CLIENT_KEY"
	var t settings.TLS
	t.CAFile, _ = otlpEnv("CERTIFICATE")
	t.CertFile, _ = otlpEnv("CLIENT_CERTIFICATE")
	t.KeyFile, _ = otlpEnv("CLIENT_KEY")
	if (t.CertFile == "") != (t.KeyFile == "") {
		return fmt.Errorf("%w: OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE, …_CLIENT_KEY: expected both, or neither", run.ErrUsage)
	}
	if t.CAFile+t.CertFile != "" && strings.HasPrefix(c.url, "http:") {
		return fmt.Errorf("%w: %s: expected an endpoint with https, found one with http", run.ErrUsage, variables)
	}
	secure, err := t.Config()
	if err != nil {
		return fmt.Errorf("%w: %s: %w", run.ErrUsage, variables, err)
	}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure, ForceAttemptHTTP2: true,
			TLSHandshakeTimeout: otlpTimeout, IdleConnTimeout: 90 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// Start does nothing: the first batch connects.
func (c *otlp) Start(context.Context) error { return nil }

// Stop ends what is under way.
func (c *otlp) Stop(context.Context) error {
	c.end()
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces sends spans, again and again while the collector is away or asks for it and there is time. An error means that
// they are lost.
func (c *otlp) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	body, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans}) // the bytes of an ExportTraceServiceRequest
	if err != nil {
		return err
	}
	if c.gzip {
		body = packed(body)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	defer context.AfterFunc(c.ended, cancel)() //nolint:contextcheck // ends with the client, whatever the batch is
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		again, after, err := c.post(ctx, body)
		if err == nil || !again {
			return err
		}
		pause := max(after, wait/2+rand.N(wait/2))
		if until, ok := ctx.Deadline(); ok && time.Until(until) < pause {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

func packed(body []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(body) // a buffer takes everything
	_ = z.Close()
	return out.Bytes()
}

// post makes one attempt. It says whether, and after how long at least, another one may help.
func (c *otlp) post(ctx context.Context, body []byte) (again bool, after time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return false, 0, err
	}
	req.Header = c.headers.Clone()
	resp, err := c.http.Do(req)
	if err != nil {
		if e := (*url.Error)(nil); errors.As(err, &e) {
			err = e.Err // without the URL, whose query may hold a token
		}
		return true, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, answerBytes)) // what counts is the status
	binary := resp.Header.Get("Content-Type") == "application/x-protobuf"
	if resp.StatusCode/100 == 2 {
		if binary {
			return false, 0, rejected(answer)
		}
		return false, 0, nil
	}
	why := strings.TrimSpace(string(answer))
	if binary {
		_, text := field(answer, 2) // google.rpc.Status.message
		why = string(text)
	}
	err = fmt.Errorf("the collector answers %s: %.200q", resp.Status, c.withoutSecrets(why))
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true, retryAfter(resp.Header.Get("Retry-After")), err
	}
	return false, 0, err
}

// withoutSecrets takes our headers out of what a collector says of them.
func (c *otlp) withoutSecrets(text string) string {
	for name, values := range c.headers {
		if name == "Content-Type" || name == "User-Agent" || name == "Content-Encoding" {
			continue
		}
		for _, word := range strings.Fields(values[0]) { // "Bearer token"
			text = strings.ReplaceAll(text, word, "***")
		}
	}
	return text
}

// retryAfter is how long the collector wants not to be asked: seconds, or a date; 0: it does not say.
func retryAfter(value string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(time.Until(date), 0)
	}
	return 0
}

// rejected reads an ExportTraceServiceResponse, whose Go type would link gRPC; nil: the collector has taken everything.
func rejected(answer []byte) error {
	_, partial := field(answer, 1)
	spans, _ := field(partial, 1)
	_, why := field(partial, 2)
	if spans == 0 && len(why) == 0 {
		return nil
	}
	return &rejectedError{int64(spans), string(why)}
}

// field is the last value of a field of a protobuf message: a number or bytes; zero: there is none, or the message is broken.
func field(message []byte, number protowire.Number) (n uint64, b []byte) {
	for len(message) > 0 {
		found, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return n, b
		}
		message = message[size:]
		if size = protowire.ConsumeFieldValue(found, kind, message); size < 0 {
			return n, b
		}
		if found == number && kind == protowire.VarintType {
			n, _ = protowire.ConsumeVarint(message)
		}
		if found == number && kind == protowire.BytesType {
			b, _ = protowire.ConsumeBytes(message)
		}
		message = message[size:]
	}
	return n, b
}
