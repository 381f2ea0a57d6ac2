package ingress

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/catchment-dev/catchment/pkg/settings"
)

const (
	// http2Window is what one HTTP/2 connection may have under way to us before we have read it.
	http2Window = 1 << 20
	// bodyGrace is how long a body may take before min_body_rate counts.
	bodyGrace = 5 * time.Second
)

// server makes the HTTP server and the listener that it serves on.
func (s *Service) server() (*http.Server, net.Listener) {
	conns := newConnections(s.listener, s.cfg.Limits.Connections, s.cfg.H2C, s.tls != nil)
	srv := &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: s.cfg.ReadHeaderTimeout,
		ReadTimeout:       s.cfg.ReadTimeout,
		WriteTimeout:      s.cfg.ReadTimeout + longestAck(s.sources) + 10*time.Second,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    int(s.cfg.Limits.HeaderBytes),
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ConnState:         conns.noteState,
		Protocols:         &http.Protocols{},
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          s.cfg.Limits.Streams,
			MaxReceiveBufferPerConnection: http2Window,
			MaxReceiveBufferPerStream:     http2Window,
			SendPingTimeout:               30 * time.Second,
			WriteByteTimeout:              10 * time.Second,
		},
	}
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(s.cfg.H2C && s.tls == nil)
	if s.tls == nil {
		return srv, conns
	}
	srv.Protocols.SetHTTP2(true)
	srv.TLSConfig = s.tls.Clone() // the server changes its own
	return srv, newHandshakes(conns, s.tls, s.cfg.ReadHeaderTimeout)
}

// connKey finds a request's connection in its context.
type connKey struct{}

// connOf is the request's connection; nil: it came on none.
func connOf(r *http.Request) net.Conn {
	c, _ := r.Context().Value(connKey{}).(net.Conn)
	return c
}

// serve gives a request the TLS state that the server cannot see through our connections, and turns its look-out off.
func (s *Service) serve(w http.ResponseWriter, r *http.Request) {
	c := connOf(r)
	if sc, ok := c.(*secured); ok && r.TLS == nil {
		r.TLS = &sc.state
	}
	if o := looksOut(c); o != nil && r.ProtoMajor == 1 && r.ContentLength > 0 { // without a body it has begun already
		o.off = true
	}
	s.engine.ServeHTTP(w, r)
}

// pacedBody is a request's body that must come at min_body_rate at least. What arrives with the headers costs nothing.
type pacedBody struct {
	body    io.Reader
	w       http.ResponseWriter
	started time.Time     // by the steady clock
	limit   time.Duration // read_timeout
	rate    int64         // bytes a second; 0: any
	n       int64
	reads   int
}

// paced is the request's body, read no slower than it may come.
func (r *request) paced(cfg *settings.Ingress) io.Reader {
	r.reader = pacedBody{body: r.Request.Body, w: r.Writer, started: time.Now(), limit: cfg.ReadTimeout, rate: int64(cfg.Limits.MinBodyRate)}
	return &r.reader
}

// Read reads what has come, and moves the deadline on.
func (b *pacedBody) Read(p []byte) (int, error) {
	if b.reads++; b.reads > 1 && b.rate > 0 {
		allowed := bodyGrace + time.Duration(b.n)*time.Second/time.Duration(b.rate)
		// Where the connection cannot, read_timeout still holds.
		_ = http.NewResponseController(b.w).SetReadDeadline(b.started.Add(min(allowed, b.limit)))
	}
	n, err := b.body.Read(p)
	b.n += int64(n)
	return n, err
}
