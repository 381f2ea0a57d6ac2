package ingress

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// request is one request on its way through receive, with the memory that its delivery takes. Both are used again once
// the handler has returned and the producer is done with the record.
type request struct {
	passing
	pool    *sync.Pool
	users   atomic.Int32            // handler, and producer
	settled func(acknowledged bool) // settle
	encoder event.Encoder
	headers []event.Header
	space   []byte // for the body
}

// passing is what is forgotten with the request.
type passing struct {
	*gin.Context
	src       *source
	*rules           // the source's, as they were when the request came
	id        string // delivery ID
	from      netip.Addr
	started   time.Time
	body      []byte
	hold      hold
	received  time.Time // when the body had been read
	shown     provider.Request
	eventID   string // once verified
	secretID  string
	reader    pacedBody
	delivered event.Delivery
	span      trace.Span // nil: traces are off
}

// What a request may keep for the next one.
const (
	keptBody    = 4 << 10 // bytes
	keptHeaders = 64
)

func newRequests() *sync.Pool {
	p := &sync.Pool{}
	p.New = func() any {
		r := &request{pool: p}
		r.settled = r.settle
		return r
	}
	return p
}

func (s *Service) begin(c *gin.Context) *request {
	r := s.requests.Get().(*request)
	r.users.Store(1)
	r.Context, r.started, r.from = c, s.now(), s.sender(c)
	r.id = newDeliveryID(r.started)
	return r
}

// leave is called once by each user; with the last one the request is free for the next.
func (r *request) leave() {
	if r.users.Add(-1) > 0 {
		return
	}
	if cap(r.body) > cap(r.space) && cap(r.body) <= keptBody {
		r.space = r.body
	}
	if hs := r.delivered.Headers; cap(hs) > cap(r.headers) && cap(hs) <= keptHeaders {
		r.headers = hs
	}
	clear(r.headers[:cap(r.headers)])
	r.encoder.Release()
	r.passing = passing{}
	r.pool.Put(r)
}

// settle is called once the producer is done with the record. Where Kafka did not take it, the client may be writing it
// still: then its memory is left to the collector.
func (r *request) settle(acknowledged bool) {
	r.hold.release()
	if acknowledged {
		r.leave()
	}
}

// show fills in the request as the judge sees it.
func (s *Service) show(r *request) {
	req := r.Request
	r.shown = provider.Request{
		Method: req.Method, Path: req.URL.EscapedPath(), RawQuery: req.URL.RawQuery, Host: req.Host,
		Header: req.Header, Body: r.body, Now: r.received, FromProxy: s.proxies.include(req.RemoteAddr),
	}
	if req.TLS != nil {
		r.shown.Peer = req.TLS.PeerCertificates
	}
}

// delivery makes what goes to Kafka.
func (r *request) delivery(v *provider.Verified) *event.Delivery {
	req, hide, p := r.Request, &r.judge.redaction, r.judge.rules.Provider()
	d := &r.delivered
	*d = event.Delivery{
		Source: r.src.name, Provider: p.Name,
		ID: v.ID, Type: v.Type, Time: v.Time, ReceivedAt: r.received.UTC(), DeliveryID: r.id,
		SecretID: v.SecretID, RemoteAddr: r.address(), Method: req.Method,
		Path: r.shown.Path, Query: hide.query(req.URL.RawQuery), SignedURL: hide.url(v.SignedURL),
		ContentType: req.Header.Get("Content-Type"), Body: r.body,
		Headers: hide.stored(r.headers[:0], req),
	}
	if tp := req.Header.Get("Traceparent"); validTraceParent(tp) {
		d.TraceParent, d.TraceState = tp, req.Header.Get("Tracestate")
	}
	if mutant.On(mutant.M13) {
		d.Body = mutantRewritten(r.body)
	}
	var space [4]string
	flags := space[:0]
	switch r.judge.rules.Authenticity() {
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

// address is the sender's address as text.
func (r *request) address() string {
	if !r.from.IsValid() {
		return ""
	}
	return r.from.String()
}

// newDeliveryID makes a UUIDv7: milliseconds, their fraction in 12 bits, and 62 bits of the runtime's generator, which the
// system seeds. It is quick; delivery IDs are no secrets.
func newDeliveryID(now time.Time) string {
	ns := now.UnixNano()
	ms, rest := uint64(ns/1e6), uint64(ns%1e6)
	var u uuid.UUID
	binary.BigEndian.PutUint64(u[:8], ms<<16|7<<12|rest<<12/1e6)
	binary.BigEndian.PutUint64(u[8:], rand.Uint64()>>2|1<<63)
	return u.String()
}
