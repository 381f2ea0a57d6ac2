package wire

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/pkg/s3relay"
)

// StoreFault is what a Store does to one request.
type StoreFault string

// The faults of a store. With the first ones it never sees the request; with the others it has done what was asked.
const (
	None       StoreFault = ""
	Error500   StoreFault = "500"
	Error503   StoreFault = "503"
	CutRequest StoreFault = "cut"      // within the request
	Slow       StoreFault = "slow"     // a second before each request
	Lost       StoreFault = "lost"     // it succeeds, and the connection is cut before the answer
	Late       StoreFault = "late"     // it succeeds, and there is no answer as long as the fault lasts
	Truncate   StoreFault = "truncate" // the connection is cut within the answer
)

const storeSlowness = time.Second

// Store stands before an S3 server. It knows where a request ends, and so can let it succeed and not say so.
type Store struct {
	server  *http.Server
	address string
	*s3relay.Relay

	mu      sync.Mutex
	fault   StoreFault
	prefix  string // of the keys that the fault is for
	hook    func(key string) (wait <-chan struct{}, cut bool)
	changed chan struct{} // closed when the fault changes
	made    map[StoreFault]int
}

// NewStore listens on a free port of loopback, for an S3 server at target (host:port).
func NewStore(ctx context.Context, target string) (*Store, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{
		Relay: s3relay.New(&url.URL{Scheme: "http", Host: target}), address: l.Addr().String(),
		made: map[StoreFault]int{}, changed: make(chan struct{}),
	}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.server.Serve(l) }()
	return s, nil
}

// Address is where it listens, as host:port.
func (s *Store) Address() string { return s.address }

// Close ends it.
func (s *Store) Close() {
	_ = s.server.Close()
	s.Relay.Close()
}

// Set chooses the fault of every request for a key that begins with prefix; None ends it.
func (s *Store) Set(f StoreFault, prefix string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.prefix = f, prefix
	close(s.changed)
	s.changed = make(chan struct{})
}

// Hook calls f once with the key, before the server sees the next request that writes a key that begins with prefix; the
// request goes on when the channel that f returns is closed, or is cut then, and never comes there. f = nil takes the hook away.
func (s *Store) Hook(prefix string, f func(key string) (wait <-chan struct{}, cut bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = nil
	if f == nil {
		return
	}
	s.hook = func(key string) (<-chan struct{}, bool) {
		if !strings.HasPrefix(key, prefix) {
			return nil, false
		}
		s.hook = nil
		return f(key)
	}
}

// Faults says how often each fault was made.
func (s *Store) Faults() map[StoreFault]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.made)
}

// choose takes the fault for a request, and counts it. wait, unless nil, is closed when the request may go on; changed, when
// another fault is chosen.
func (s *Store) choose(r *http.Request) (fault StoreFault, wait, changed <-chan struct{}) {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hook != nil && r.Method == http.MethodPut {
		var cut bool
		if wait, cut = s.hook(key); cut {
			return CutRequest, wait, nil
		}
	}
	if s.fault == None || !strings.HasPrefix(key, s.prefix) {
		return None, wait, nil
	}
	if f := s.fault; (f == Lost || f == Late) && r.Method != http.MethodPut {
		return None, wait, nil
	}
	s.made[s.fault]++
	return s.fault, wait, s.changed
}

// ServeHTTP implements http.Handler.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fault, wait, changed := s.choose(r)
	if wait != nil {
		<-wait
	}
	switch fault {
	case Error500:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case Error503:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	case CutRequest:
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		hangUp(w)
		return
	case Slow:
		select {
		case <-time.After(storeSlowness):
		case <-r.Context().Done():
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		hangUp(w)
		return
	}
	status, header, answer := s.Forward(r, body)
	switch fault {
	case Lost:
		hangUp(w)
		return
	case Late:
		select {
		case <-r.Context().Done():
		case <-changed:
		}
		hangUp(w)
		return
	case Truncate:
		if len(answer) > 1 {
			answer = answer[:len(answer)/2]
		}
	}
	maps.Copy(w.Header(), header)
	w.WriteHeader(status)
	_, _ = w.Write(answer)
	if fault == Truncate {
		hangUp(w)
	}
}

// hangUp cuts the connection.
func hangUp(w http.ResponseWriter) {
	h, ok := w.(http.Hijacker)
	if !ok {
		return
	}
	if c, _, err := h.Hijack(); err == nil {
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = c.Close()
	}
}
