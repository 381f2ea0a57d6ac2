// Package s3relay is the middle of a proxy before an S3 server: it asks the server what a request asks, and knows what was
// written. Requests come in with the whole of their bodies, and the server's answers go out. It must never make a fault of
// its own: those are its users'.
package s3relay

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"sync"
)

// HeaderChecksum is the header with the SHA-256 of what is written, in base64.
const HeaderChecksum = "X-Amz-Checksum-Sha256"

// Relay is one before one server. Its methods can be called concurrently.
type Relay struct {
	target  *url.URL
	through http.Transport

	mu          sync.Mutex
	written     map[string]string // checksum by path of what was written through here
	found       map[string]bool   // what was to be written through here, and was there
	same, other int
}

// New returns one for the server at target, of which scheme and host count.
func New(target *url.URL) *Relay {
	r := &Relay{target: target, written: map[string]string{}, found: map[string]bool{}}
	r.through.DisableCompression = true
	r.through.MaxIdleConnsPerHost = 16
	return r
}

// Close ends the connections that are not in use.
func (r *Relay) Close() { r.through.CloseIdleConnections() }

// Forward asks the server. What it was asked for it does, also when the client has gone meanwhile. A server that does not
// answer, or not to the end, is a 502.
func (r *Relay) Forward(req *http.Request, body []byte) (status int, header http.Header, answer []byte) {
	status, header, answer = r.ask(req, body)
	r.note(req, status)
	return status, header, answer
}

func (r *Relay) ask(req *http.Request, body []byte) (int, http.Header, []byte) {
	out := req.Clone(context.WithoutCancel(req.Context()))
	out.URL.Scheme, out.URL.Host, out.RequestURI = r.target.Scheme, r.target.Host, ""
	out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	resp, err := r.through.RoundTrip(out)
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
func (r *Relay) note(req *http.Request, status int) {
	if req.Method != http.MethodPut {
		return
	}
	sum := req.Header.Get(HeaderChecksum)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case status < 300:
		r.written[req.URL.Path] = sum
	case status == http.StatusPreconditionFailed:
		r.found[req.URL.Path] = true
		if r.written[req.URL.Path] == sum {
			r.same++
		} else {
			r.other++
		}
	}
}

// Has says whether an object was written through here, or found to be there.
func (r *Relay) Has(bucket, key string) bool {
	path := "/" + bucket + "/" + key
	r.mu.Lock()
	defer r.mu.Unlock()
	_, written := r.written[path]
	return written || r.found[path]
}

// Refused says how many writes were refused because the key was there: with the bytes that had been written through here,
// and with others.
func (r *Relay) Refused() (same, other int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.same, r.other
}
