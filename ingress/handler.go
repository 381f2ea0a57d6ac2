package ingress

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
)

const (
	headerDeliveryID = "Catchment-Delivery-Id"
	redacted         = "[redacted]"
)

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
			s.log.Error("panic in a request", slog.String("panic", fmt.Sprint(p)), slog.String("stack", string(debug.Stack())))
			if !c.Writer.Written() {
				writeProblem(c.Writer, refusals[outInternal], c.Writer.Header().Get(headerDeliveryID))
			}
		}
	}()
	c.Next()
}

// request is one request on its way through receive.
type request struct {
	*gin.Context
	src      *source
	id       string // delivery ID
	started  time.Time
	body     []byte
	received time.Time // when the body had been read
	digest   [32]byte
	eventID  string // once verified
}

// receive answers one request: route, read, verify, look up, publish, answer.
func (s *Service) receive(c *gin.Context) {
	r := &request{Context: c, started: s.now(), id: newDeliveryID()}
	c.Header(headerDeliveryID, r.id)
	src, ok := s.sources[sourceName(c)]
	if !ok {
		s.refuse(r, outUnknown, "unknown source")
		return
	}
	r.src = src
	defer func() { src.seconds.Observe(s.now().Sub(r.started).Seconds()) }()
	if !src.rules.Provider().Accepts(c.Request.Method) {
		c.Header("Allow", src.rules.Provider().Allow())
		s.refuse(r, outMethod, "method not allowed")
		return
	}
	if enc := c.Request.Header.Values("Content-Encoding"); len(enc) > 0 && (len(enc) > 1 || !strings.EqualFold(enc[0], "identity")) {
		s.refuse(r, outEncoding, "content encoding is not identity")
		return
	}
	body, held, err := s.budget.read(c.Request.Body, c.Request.ContentLength, src.maxBody)
	release := sync.OnceFunc(func() { s.budget.give(held) })
	handedOver := false
	defer func() {
		if !handedOver { // also after a panic
			release()
		}
	}()
	if err != nil {
		s.refuseRead(r, err)
		return
	}
	r.body, r.received = body, s.now()
	handedOver = s.accept(r, release)
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
// the producer calls release.
func (s *Service) accept(r *request, release func()) bool {
	v, err := r.src.rules.Receive(r.Request.Context(), &provider.Request{
		Method: r.Request.Method, Path: r.Request.URL.EscapedPath(), RawQuery: r.Request.URL.RawQuery,
		Header: r.Request.Header, Body: r.body, Now: r.received,
	})
	if err != nil {
		s.refuseVerify(r, err)
		return false
	}
	s.metrics.verified.WithLabelValues(r.src.name, v.SecretID).Inc()
	if v.Handshake != nil {
		s.handshake(r, v.Handshake)
		return false
	}
	if err := s.topic.err(); err != nil {
		s.refuse(r, outUnsafeTopic, "the topic is not safe")
		return false
	}
	r.digest = sha256.Sum256(r.body)
	d := s.delivery(r, &v)
	r.eventID = d.ID
	if v.IDMissing && r.src.rejectNoID {
		s.refuse(r, outMissingID, "no event ID in the delivery")
		return false
	}
	var key seenKey
	if s.seen != nil {
		key = keyOf(s.topic.scope(), r.src.name, d.ID, r.digest)
		if s.seen.has(key, r.received) {
			s.succeed(r, outDuplicate, d.ID)
			return false
		}
	}
	switch err := s.pub.publish(d, r.src.atOnce, r.received.Add(r.src.ackTimeout), release); {
	case err == nil:
		if s.seen != nil {
			s.seen.add(key, s.now())
		}
		s.succeed(r, outAccepted, d.ID)
	case errors.Is(err, errDeadline):
		s.refuse(r, outAckTimeout, "no acknowledgement within "+r.src.ackTimeout.String())
	case errors.Is(err, errFull):
		s.refuse(r, outOverloaded, err.Error())
	default:
		s.refuse(r, outKafkaError, err.Error())
	}
	return true
}

// delivery makes what goes to Kafka.
func (s *Service) delivery(r *request, v *provider.Verified) *event.Delivery {
	req := r.Request
	d := &event.Delivery{
		Source: r.src.name, Provider: r.src.rules.Provider().Name,
		ID: v.ID, Type: v.Type, Time: v.Time, ReceivedAt: r.received.UTC(), DeliveryID: r.id,
		SecretID: v.SecretID, RemoteAddr: r.ClientIP(), Method: req.Method,
		Path: req.URL.EscapedPath(), Query: req.URL.RawQuery, SignedURL: v.SignedURL,
		ContentType: req.Header.Get("Content-Type"), Body: r.body,
		Headers: storedHeaders(req, r.src.secret),
	}
	if tp := req.Header.Get("Traceparent"); validTraceParent(tp) {
		d.TraceParent, d.TraceState = tp, req.Header.Get("Tracestate")
	}
	var flags []string
	switch r.src.rules.Provider().Authenticity {
	case provider.AuthSigned:
		flags = append(flags, event.FlagVerified)
	case provider.AuthNone:
		flags = append(flags, event.FlagUnverified)
	default:
		flags = append(flags, event.FlagVerified, event.FlagWeak)
	}
	if v.Parts != nil {
		flags = append(flags, event.FlagBatch)
	}
	if v.IDMissing {
		flags = append(flags, event.FlagIDDigest)
	} else if v.IDUnsigned {
		flags = append(flags, event.FlagIDUnsigned)
	}
	if d.Type == "" {
		flags = append(flags, event.FlagNoType)
	}
	d.Verdict = event.NewVerdict(flags...)
	return d
}

// storedHeaders lists the request's headers by name, those that hold a secret redacted. Go's server moves Host
// out of the headers; it is evidence as well.
func storedHeaders(req *http.Request, secret map[string]bool) []event.Header {
	hs := make([]event.Header, 0, len(req.Header)+1)
	hs = append(hs, event.Header{Name: "host", Value: req.Host})
	for name, values := range req.Header {
		lower := strings.ToLower(name)
		for _, v := range values {
			if secret[name] {
				v = redacted
			}
			hs = append(hs, event.Header{Name: lower, Value: v})
		}
	}
	slices.SortStableFunc(hs, func(a, b event.Header) int { return strings.Compare(a.Name, b.Name) })
	return hs
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

// accepted is the body of a 200.
type accepted struct {
	Status string `json:"status"`
	ID     string `json:"id"`
	Source string `json:"source"`
}

func (s *Service) succeed(r *request, o outcome, id string) {
	r.src.counters[o].Inc()
	body, _ := json.Marshal(accepted{string(o), id, r.src.name}) // strings always marshal
	r.Header("Content-Type", "application/json")
	r.Writer.WriteHeader(http.StatusOK)
	_, _ = r.Writer.Write(body)
}

func (s *Service) handshake(r *request, a *provider.Response) {
	r.src.counters[outHandshake].Inc()
	for name, values := range a.Header {
		r.Writer.Header()[name] = values
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

func (s *Service) refuseVerify(r *request, err error) {
	var ref *provider.Refusal
	if !errors.As(err, &ref) {
		s.refuse(r, outInternal, err.Error())
		return
	}
	o := outMalformed
	if ref.Status == http.StatusUnauthorized {
		o = outUnauthentic
	}
	s.refuse(r, o, ref.Reason)
}

// refuse answers with a problem and logs one line.
func (s *Service) refuse(r *request, o outcome, reason string) {
	name := unknownSource
	if r.src != nil {
		name = r.src.name
		r.src.counters[o].Inc()
	} else {
		s.metrics.requests.WithLabelValues(name, string(o)).Inc()
	}
	ref := refusals[o]
	attrs := []any{"delivery_id", r.id, "source", name, "status", ref.status, "outcome", string(o), "reason", reason, "remote_addr", r.ClientIP()}
	if r.eventID != "" {
		attrs = append(attrs, "event_id", cut(r.eventID))
	}
	s.log.Warn("refused", attrs...)
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

func newDeliveryID() string {
	id, err := uuid.NewV7()
	if err != nil {
		panic("no randomness: " + err.Error()) //nolint:forbidigo // crypto/rand never fails on supported systems
	}
	return id.String()
}
