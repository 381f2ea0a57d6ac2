// Package ingress takes webhooks in. HTTP requests come in; verified deliveries go out to Kafka, and a 200 to
// the sender once Kafka has acknowledged them. It never answers 200 on a doubt, and never changes a body.
package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
)

const defaultAckTimeout = 4 * time.Second

// Service is the ingress.
type Service struct {
	cfg     settings.Ingress
	log     *slog.Logger
	sources map[string]*source
	proxies prefixes
	engine  *gin.Engine
	metrics *metrics
	secrets *secrets
	budget  *budget
	limits  *limits
	lookup  lookup
	strays  history                          // of requests for no source
	sampled struct{ genuine, other sampler } // of the log of refusals: verified requests and all others
	pub     *publisher
	topic   *topicGuard
	clock   *clock
	now     func() time.Time
	tracer  *telemetry.Tracer // nil: traces are off

	certificate *watched[*tls.Certificate] // that we show; nil: none

	requests *sync.Pool // of *request
	listener net.Listener
	tls      *tls.Config // nil: HTTP
	draining atomic.Bool
}

// source is one endpoint with all that its requests need, looked up once.
type source struct {
	name       string
	rules      atomic.Pointer[rules]
	history    history
	ackTimeout time.Duration
	maxBody    int64
	quota      *quota // nil: none
	atOnce     bool   // no linger
	counters   map[outcome]prometheus.Counter
	seconds    *timing
}

// rules are what a reload of the secrets replaces, all at once; a request keeps those with which it began.
type rules struct {
	judge    *Judge
	verified map[string]prometheus.Counter // by the secret's ID
}

// New opens every source and listens on ingress.listen. It does not need Kafka to be there. The error is
// config.Errors for a wrong configuration, or that of listening.
func New(cfg *settings.File, log *slog.Logger, reg prometheus.Registerer) (*Service, error) {
	s := &Service{
		cfg: cfg.Ingress, log: log.With(slog.String("service", "ingress")), sources: map[string]*source{},
		metrics: newMetrics(reg), now: time.Now, requests: newRequests(),
	}
	var err error
	if s.proxies, err = parsePrefixes(cfg.Ingress.TrustedProxies); err != nil {
		return nil, err
	}
	s.budget = &budget{limit: int64(cfg.Ingress.InFlightBytes), gauge: s.metrics.inflight}
	var errs, es config.Errors
	for name := range cfg.Sources {
		src, es := s.openSource(cfg, name)
		errs = append(errs, es...)
		s.sources[name] = src
	}
	if s.lookup, es = s.openLookup(cfg); len(es) > 0 {
		errs = append(errs, es...)
	}
	if err := errs.Err(); err != nil {
		return nil, err
	}
	s.secrets = newSecrets(cfg, s)
	if need := largestBody(s.sources) + requestOverhead + 1; s.budget.limit < need {
		s.log.Warn("the largest bodies will always be refused: ingress.in_flight_bytes is less than one of them needs", slog.Int64("in_flight_bytes", s.budget.limit), slog.Int64("needed", need))
	}
	if s.limits, err = newLimits(cfg.Ingress.Limits); err != nil {
		return nil, err
	}
	if s.pub, err = newPublisher(cfg, s.sources, s.log, s.metrics, s.forget); err != nil {
		return nil, err
	}
	s.topic = &topicGuard{
		cfg: cfg.Kafka, maxBody: largestBody(s.sources), log: s.log, client: s.pub.client,
		resize: s.pub.bulkhead.resize, metrics: s.metrics, gone: s.pub.gone, anew: s.pub.anew,
	}
	s.clock = newClock(cfg, s.pub, func() time.Time { return s.now() }, s.log)
	s.metrics.verdicts(s)
	if s.tls, s.certificate, err = serverTLS(cfg, s.asksForCertificates(), s.log); err != nil {
		s.pub.close()
		return nil, err
	}
	if s.engine, err = s.routes(); err != nil {
		return nil, err
	}
	if s.listener = cfg.Ingress.Listener; s.listener != nil {
		return s, nil
	}
	if s.listener, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", cfg.Ingress.Listen); err != nil {
		s.pub.close()
		s.lookup.close()
		return nil, fmt.Errorf("listen for webhooks on %s (set ingress.listen to another address): %w", cfg.Ingress.Listen, err)
	}
	return s, nil
}

func (s *Service) openSource(cfg *settings.File, name string) (*source, config.Errors) {
	c := cfg.Sources[name]
	judge, errs := NewJudge(cfg, name, nil)
	if len(errs) > 0 {
		return nil, errs
	}
	p := judge.rules.Provider()
	src := &source{
		name: name, maxBody: judge.maxBody, atOnce: c.Linger != nil && *c.Linger == 0, ackTimeout: c.AckTimeout, quota: newQuota(c.Quota),
		counters: s.metrics.counters(name), seconds: s.metrics.seconds(name),
	}
	src.rules.Store(s.metrics.rules(name, judge))
	if src.ackTimeout == 0 {
		src.ackTimeout = p.AckTimeout
	}
	if src.ackTimeout == 0 {
		src.ackTimeout = defaultAckTimeout
	}
	if judge.rules.Authenticity() == provider.AuthNone {
		s.log.Warn("this source takes requests from anybody: nothing about them is checked", slog.String("source", name), slog.String("provider", p.Name))
	}
	return src, nil
}

// asksForCertificates says whether a source decides by its senders' certificates.
func (s *Service) asksForCertificates() bool {
	for _, src := range s.sources {
		if p := src.rules.Load().judge.rules.Provider(); p.Name == "mtls" || p.Authenticity == provider.AuthConnection {
			return true
		}
	}
	return false
}

// openLookup opens the store of the dedup look-up. Without one, replays are looked for all the same.
func (s *Service) openLookup(cfg *settings.File) (lookup, config.Errors) {
	d := cfg.Ingress.Dedup
	if d.Store == "redis" {
		return newShared(cfg, s.log, s.metrics)
	}
	return newRecent(d.Entries, d.TTL, d.Store == "memory", s.metrics), nil
}

func largestBody(sources map[string]*source) int64 {
	var n int64
	for _, s := range sources {
		n = max(n, s.maxBody)
	}
	return n
}

func longestAck(sources map[string]*source) time.Duration {
	var d time.Duration
	for _, s := range sources {
		d = max(d, s.ackTimeout)
	}
	return d
}

// forget empties the look-up: Kafka may have lost what it acknowledged.
func (s *Service) forget() { s.lookup.forget(s.topic.scope()) }

// Reload reads the sources' secrets again. Those that cannot be read stay as they are.
func (s *Service) Reload() { s.secrets.reload() }

// Name returns "ingress".
func (s *Service) Name() string { return "ingress" }

// Addr returns the address that webhooks are taken on.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// ServeHTTP answers one request, as the listener would.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.engine.ServeHTTP(w, r) }

// Ready says why the service must get no traffic: it starts, drains, the topic is unsafe or our clock unsound. A Kafka outage is
// no reason: 503 is the honest answer then.
func (s *Service) Ready() error {
	if s.draining.Load() {
		return errors.New("draining")
	}
	if err := s.topic.err(); err != nil {
		return err
	}
	return s.clock.err()
}

// Run serves until ctx ends. Then it stops being ready, goes on for drain_delay, ends the requests in flight
// within drain_timeout, and waits for Kafka's last answers.
func (s *Service) Run(ctx context.Context) error {
	defer s.lookup.close()
	defer s.pub.close()
	watching, stop := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	for _, watch := range []func(context.Context){s.topic.run, s.clock.run, s.secrets.watch} {
		watchers.Go(func() { watch(watching) })
	}
	defer func() { stop(); watchers.Wait() }()

	srv, listener := s.server()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	s.log.Info("taking webhooks", slog.String("address", s.Addr()), slog.Int("sources", len(s.sources)))
	select {
	case err := <-served:
		return fmt.Errorf("serve webhooks: %w", err)
	case <-ctx.Done():
	}
	return s.drain(context.WithoutCancel(ctx), srv)
}

func (s *Service) drain(ctx context.Context, srv *http.Server) error {
	// From here on each answer ends its connection in HTTP/1. Idle ones stay until Shutdown, and so do those of HTTP/2: a balancer
	// that has not heard yet may be writing a request on one, and would not send it again. In HTTP/2 an answer that ends its
	// connection drops the requests that are under way on it besides.
	s.draining.Store(true)
	if s.cfg.DrainDelay > 0 {
		<-time.After(s.cfg.DrainDelay)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DrainTimeout)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		_ = srv.Close()
		s.log.Warn("requests were still in flight at the end of drain_timeout", slog.String("drain_timeout", s.cfg.DrainTimeout.String()))
	}
	if err := s.pub.flush(ctx); err != nil {
		s.log.Warn("Kafka had not answered for every record at the end of drain_timeout; their senders got 503 and will send again", slog.Any("error", err))
	}
	return nil
}
