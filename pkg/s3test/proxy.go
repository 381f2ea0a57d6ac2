package s3test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fault is what a Proxy does to one request.
type Fault string

// The faults. With the first ones the server never sees the request; with the others it has done what was asked.
const (
	None       Fault = ""
	Error500   Fault = "answer 500"
	Error503   Fault = "answer 503"
	CutRequest Fault = "cut the connection within the request"
	Damage     Fault = "damage the request's body" // the server sees that its checksum is wrong
	Slow       Fault = "wait before the request"
	Lost       Fault = "let it succeed, then cut the connection"
	Late       Fault = "let it succeed, then wait until the client has gone"
	Truncate   Fault = "cut the connection within the answer"
	Corrupt    Fault = "damage the answer's body"
	Unasked    Fault = "answer 200 for 412" // as a store that ignores If-None-Match
)

const (
	slowness       = 300 * time.Millisecond
	headerChecksum = "X-Amz-Checksum-Sha256"
)

// Proxy stands between a client and the bucket's server. It counts what it has done, so that a test can want it.
type Proxy struct {
	URL string // for settings.Archive, instead of the bucket's

	target  *url.URL
	choose  func(*http.Request) Fault
	server  *httptest.Server
	through http.Transport

	mu          sync.Mutex
	faults      map[Fault]int
	requests    int
	written     map[string]string // checksum of each object that was made through the proxy
	same, other int
}

// Proxy returns one before the bucket's server. choose is called for each request, concurrently, and may wait.
func (b *Bucket) Proxy(t testing.TB, choose func(*http.Request) Fault) *Proxy {
	t.Helper()
	target, err := url.Parse(b.Endpoint)
	if err != nil {
		t.Fatalf("s3test: %v", err)
	}
	p := &Proxy{target: target, choose: choose, faults: map[Fault]int{}, written: map[string]string{}}
	p.through.DisableCompression = true
	p.server = httptest.NewServer(p)
	query := url.Values{"region": {b.Region}, "endpoint": {p.server.URL}, "path_style": {"true"}}
	p.URL = "s3://" + b.Name + "?" + query.Encode()
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
		p.through.CloseIdleConnections()
	})
	return p
}

// IsWrite says whether a request writes an object whose key begins with prefix.
func IsWrite(r *http.Request, prefix string) bool {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	return r.Method == http.MethodPut && strings.HasPrefix(key, prefix)
}

// IsRead says whether a request reads an object.
func IsRead(r *http.Request) bool {
	return r.Method == http.MethodGet && !r.URL.Query().Has("list-type")
}

// Faults says how often each fault was made.
func (p *Proxy) Faults() map[Fault]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.faults)
}

// Requests says how many came.
func (p *Proxy) Requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests
}

// Refused says how many objects were refused because they were there, with the same bytes and with others.
func (p *Proxy) Refused() (same, other int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.same, p.other
}

func (p *Proxy) made(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults[f]++
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.requests++
	p.mu.Unlock()
	fault := p.choose(r)
	switch fault {
	case Error500, Error503:
		p.made(fault)
		status := map[Fault]int{Error500: http.StatusInternalServerError, Error503: http.StatusServiceUnavailable}[fault]
		http.Error(w, "", status)
		return
	case CutRequest:
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		p.made(fault)
		panic(http.ErrAbortHandler)
	case Slow:
		p.made(fault)
		<-time.After(slowness)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil { // the client has gone
		panic(http.ErrAbortHandler)
	}
	if fault == Damage && len(body) > 0 {
		p.made(fault)
		body[len(body)/2] ^= 1
	}
	status, header, answer := p.forward(r, body)
	p.note(r, status)
	switch {
	case fault == Lost:
		p.made(fault)
		panic(http.ErrAbortHandler)
	case fault == Late:
		p.made(fault)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case fault == Unasked && status == http.StatusPreconditionFailed:
		p.made(fault)
		status, header, answer = http.StatusOK, http.Header{}, nil
	case fault == Corrupt && status < 300 && len(answer) > 0:
		p.made(fault)
		answer[len(answer)/2] ^= 1
	}
	maps.Copy(w.Header(), header)
	w.WriteHeader(status)
	if fault == Truncate && status < 300 && len(answer) > 1 {
		p.made(fault)
		_, _ = w.Write(answer[:len(answer)/2])
		panic(http.ErrAbortHandler)
	}
	_, _ = w.Write(answer)
}

// forward asks the server. What it was asked for it does, also when the client has gone meanwhile.
func (p *Proxy) forward(r *http.Request, body []byte) (int, http.Header, []byte) {
	out := r.Clone(context.WithoutCancel(r.Context()))
	out.URL.Scheme, out.URL.Host, out.RequestURI = p.target.Scheme, p.target.Host, ""
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	resp, err := p.through.RoundTrip(out)
	if err != nil {
		return http.StatusBadGateway, http.Header{}, nil
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return http.StatusBadGateway, http.Header{}, nil
	}
	return resp.StatusCode, resp.Header, answer
}

// note remembers what was written, and what was refused.
func (p *Proxy) note(r *http.Request, status int) {
	if r.Method != http.MethodPut {
		return
	}
	sum := r.Header.Get(headerChecksum)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case status < 300:
		p.written[r.URL.Path] = sum
	case status == http.StatusPreconditionFailed && p.written[r.URL.Path] == sum:
		p.same++
	case status == http.StatusPreconditionFailed:
		p.other++
	}
}
