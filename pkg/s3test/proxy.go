package s3test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/catchment-dev/catchment/pkg/s3relay"
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
	Unheard    Fault = "cut the connection instead of answering 412"
)

const slowness = 300 * time.Millisecond

// Proxy stands between a client and the bucket's server. It counts what it has done, so that a test can want it.
type Proxy struct {
	URL string // for settings.Archive, instead of the bucket's

	*s3relay.Relay // what was refused

	choose func(*http.Request) Fault
	server *httptest.Server

	mu       sync.Mutex
	faults   map[Fault]int
	requests int
}

// Proxy returns one before the bucket's server. choose is called for each request, concurrently, and may wait.
func (b *Bucket) Proxy(t testing.TB, choose func(*http.Request) Fault) *Proxy {
	t.Helper()
	target, err := url.Parse(b.Endpoint)
	if err != nil {
		t.Fatalf("s3test: %v", err)
	}
	p := &Proxy{Relay: s3relay.New(target), choose: choose, faults: map[Fault]int{}}
	p.server = httptest.NewServer(p)
	query := url.Values{"region": {b.Region}, "endpoint": {p.server.URL}, "path_style": {"true"}}
	p.URL = "s3://" + b.Name + "?" + query.Encode()
	t.Cleanup(func() {
		p.server.CloseClientConnections()
		p.server.Close()
		p.Close()
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
	status, header, answer := p.Forward(r, body)
	switch {
	case fault == Lost:
		p.made(fault)
		panic(http.ErrAbortHandler)
	case fault == Late:
		p.made(fault)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case fault == Unheard && status == http.StatusPreconditionFailed:
		p.made(fault)
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
