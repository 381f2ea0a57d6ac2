package ingress

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/run"
)

const headerDeliveryID = "Catchment-Delivery-Id"

func (s *Service) routes() (*gin.Engine, error) {
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.RedirectTrailingSlash, e.RedirectFixedPath, e.HandleMethodNotAllowed = false, false, false
	if err := e.SetTrustedProxies(s.cfg.TrustedProxies); err != nil {
		return nil, fmt.Errorf("ingress.trusted_proxies: expected addresses or prefixes: %w", err)
	}
	e.Use(s.recover)
	e.Any("/webhooks/:source", s.receive)
	e.Any("/webhooks/:source/*rest", s.receive)
	e.NoRoute(s.receive)
	return e, nil
}

// recover turns a panic into a 500: the sender will try again.
func (s *Service) recover(c *gin.Context) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a request", slog.String("panic", run.Panicked(p)), slog.String("stack", string(debug.Stack())))
			if !c.Writer.Written() {
				writeProblem(c.Writer, refusals[outInternal], c.Writer.Header().Get(headerDeliveryID))
			}
		}
	}()
	c.Next()
}

// receive answers one request: route, read, verify, look up, publish, answer. A request that panics is not used again.
func (s *Service) receive(c *gin.Context) {
	r := s.begin(c)
	if s.tracer == nil {
		s.handle(r)
	} else {
		s.traced(r)
	}
	if mutant.On(mutant.M3) {
		mutantLend(r)
	}
	r.leave()
}

func (s *Service) handle(r *request) {
	c := r.Context
	c.Writer.Header()[headerDeliveryID] = []string{r.id}
	if s.draining.Load() && c.Request.ProtoMajor == 1 {
		c.Header("Connection", "close")
	}
	src, ok := s.sources[sourceName(c)]
	if !ok {
		s.refuse(r, outUnknown, "unknown source")
		return
	}
	r.src, r.rules = src, src.rules.Load()
	defer func() { src.seconds.observe(s.now().Sub(r.started)) }()
	ticket, wait := s.limits.enter(r.from)
	if wait > 0 {
		s.refuseLimited(r, outRateLimited, wait, "the limits of an address, or of all requests in flight")
		return
	}
	defer s.limits.leave(ticket)
	if err := s.clock.err(); err != nil {
		s.refuse(r, outBadClock, err.Error())
		return
	}
	if o, reason := r.judge.admit(c.Request.Method, c.Request.Header); o != "" {
		s.refuse(r, o, reason)
		return
	}
	if tooManyLines(c.Request.Header, s.cfg.Limits.Headers) {
		s.refuse(r, outMalformed, "more header lines than ingress.limits.headers")
		return
	}
	r.hold.of = s.budget
	handedOver := false
	defer func() {
		if !handedOver { // also after a panic
			r.hold.release()
		}
	}()
	var err error
	if r.body, r.hold.bytes, err = s.budget.read(r.paced(&s.cfg), c.Request.ContentLength, r.judge.maxBody, r.space); err != nil {
		s.refuseRead(r, err)
		return
	}
	r.received = s.now()
	handedOver = s.accept(r)
}

// sender is the address that the request comes from; the zero address when it has none.
func (s *Service) sender(c *gin.Context) netip.Addr {
	if len(s.proxies) > 0 {
		a, _ := netip.ParseAddr(c.ClientIP())
		return a.Unmap().WithZone("")
	}
	if conn := trackedOf(connOf(c.Request)); conn != nil && conn.peer.IsValid() {
		return conn.peer
	}
	ap, _ := netip.ParseAddrPort(c.Request.RemoteAddr)
	return ap.Addr().Unmap().WithZone("")
}

// sourceName is the path's second element. Requests with a method that the router does not know have no parameter.
func sourceName(c *gin.Context) string {
	if name := c.Param("source"); name != "" {
		return name
	}
	rest, _ := strings.CutPrefix(c.Request.URL.Path, "/webhooks/")
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// accept handles a request that has been read. It returns true once the producer has taken over the body: then
// the producer lets go of the request's hold.
func (s *Service) accept(r *request) bool {
	s.show(r)
	g := r.judge.verify(r.Request.Context(), &r.shown)
	r.eventID, r.secretID = g.Verified.ID, g.Verified.SecretID
	switch g.outcome() {
	case outAccepted:
		r.countVerified(&g.Verified)
	case outHandshake:
		r.countVerified(&g.Verified)
		r.src.counters[outHandshake].Inc()
		r.ended(outHandshake)
		r.write(g.Response)
		return false
	default:
		if mutant.On(mutant.M12) {
			mutantEnqueue(s, r)
		}
		s.refuse(r, g.outcome(), g.Reason)
		return false
	}
	if wait := r.src.quota.take(); wait > 0 {
		s.refuseLimited(r, outQuota, wait, "the source's quota is used up")
		return false
	}
	if r.judge.inspect(&g, r.body); g.outcome() != outAccepted {
		s.refuse(r, g.outcome(), g.Reason)
		return false
	}
	if err := s.topic.err(); err != nil {
		s.refuse(r, outUnsafeTopic, "the topic is not safe")
		return false
	}
	d := r.delivery(&g.Verified)
	sight := newSighting(s.lookup.hasher(), s.topic.scope(), r.src.name, d.ID, r.body, d.Verdict.Has(event.FlagIDUnsigned))
	known := s.lookup.look(&sight, r.received)
	if known.seen {
		r.succeed(outDuplicate, d.ID, g.Response)
		return false
	}
	for _, flag := range g.Flags {
		d.Verdict = d.Verdict.With(flag)
	}
	if known.replayed {
		d.Verdict = d.Verdict.With(event.FlagReplaySuspect)
	}
	if mutant.On(mutant.M14) {
		s.lookup.add(&sight, s.now())
	}
	r.users.Add(1)
	switch err := s.publish(r, d); {
	case err == nil:
		s.lookup.add(&sight, s.now())
		r.succeed(outAccepted, d.ID, g.Response)
	case errors.Is(err, errDeadline):
		s.refuse(r, outAckTimeout, "no acknowledgement within "+r.src.ackTimeout.String())
	case errors.Is(err, errFull), errors.Is(err, errShare):
		s.refuse(r, outOverloaded, err.Error())
	default:
		s.refuse(r, outKafkaError, err.Error())
	}
	return true
}

// countVerified shows which secret is in use. Handshakes that prove nothing are not counted.
func (r *request) countVerified(v *provider.Verified) {
	if c, ok := r.verified[v.SecretID]; ok && (v.Handshake == nil || v.SecretID != "") {
		c.Inc()
	}
}

// validTraceParent checks the form of W3C trace context, version 00.
func validTraceParent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	for i, c := range []byte(s[3:]) {
		if hexDigit := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'; !hexDigit && i != 32 && i != 49 {
			return false
		}
	}
	return s[3:35] != strings.Repeat("0", 32) && s[36:52] != strings.Repeat("0", 16)
}

var contentJSON = []string{"application/json"} // never written to

// succeed answers 200, or as the provider demands.
func (r *request) succeed(o outcome, id string, own *provider.Response) {
	r.src.counters[o].Inc()
	r.ended(o)
	r.src.history.accepted.store(&Moment{At: r.received.UTC(), DeliveryID: r.id, EventID: id, SecretID: r.secretID, Outcome: string(o)})
	if own != nil {
		r.write(own)
		return
	}
	var space [256]byte
	body := append(space[:0], `{"status":`...)
	body = appendJSON(body, string(o))
	body = append(body, `,"id":`...)
	body = appendJSON(body, id)
	body = append(body, `,"source":`...)
	body = appendJSON(body, r.src.name)
	body = append(body, '}')
	r.Writer.Header()["Content-Type"] = contentJSON
	r.Writer.WriteHeader(http.StatusOK)
	_, _ = r.Writer.Write(body)
}

// appendJSON appends a string of JSON.
func appendJSON(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || strings.IndexByte(`"\<>&`, c) >= 0 {
			quoted, _ := json.Marshal(s) // strings always marshal
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// write sends an answer that a provider demands word for word.
func (r *request) write(a *provider.Response) {
	h := r.Writer.Header()
	for name, values := range a.Header {
		if name != headerDeliveryID {
			h[name] = values
		}
	}
	r.Writer.WriteHeader(a.Status)
	_, _ = r.Writer.Write(a.Body)
}

func (s *Service) refuseRead(r *request, err error) {
	// What is left of the body is not worth reading.
	r.Header("Connection", "close")
	switch {
	case errors.Is(err, errTooLarge):
		s.refuse(r, outTooLarge, "body is larger than max_body")
	case errors.Is(err, errNoRoom):
		s.refuse(r, outOverloaded, err.Error())
	default:
		s.refuse(r, outBadRead, "body could not be read: "+err.Error())
	}
}

// refuse answers with a problem and logs one line.
func (s *Service) refuse(r *request, o outcome, reason string) {
	name, past := unknownSource, &s.strays
	if r.src != nil {
		name, past = r.src.name, &r.src.history
		r.src.counters[o].Inc()
	} else {
		s.metrics.requests.WithLabelValues(name, string(o)).Inc()
	}
	r.ended(o)
	ref := refusals[o]
	if o == outMethod {
		r.Header("Allow", r.judge.rules.Provider().Allow())
	}
	past.refused.store(&Moment{
		At: s.now().UTC(), DeliveryID: r.id, EventID: r.eventID, Outcome: string(o), Reason: reason,
	})
	attrs := []slog.Attr{
		slog.String("delivery_id", r.id), slog.String("source", name), slog.Int("status", ref.status), slog.String("outcome", string(o)),
		slog.String("reason", reason), slog.String("remote_addr", r.address()),
	}
	if r.eventID != "" {
		attrs = append(attrs, slog.String("event_id", cut(r.eventID)))
	}
	s.logRefusal(r.eventID != "", attrs)
	writeProblem(r.Writer, ref, r.id)
}

// cut keeps foreign text in the log short; the log's encoder escapes it.
func cut(s string) string {
	const most = 128
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
