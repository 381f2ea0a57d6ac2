package ingress

import (
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/telemetry"
)

// Trace lets requests make spans. It is called before Run.
func (s *Service) Trace(t *telemetry.Tracer) { s.tracer = t }

// traced handles a request within a span, which ends also when the request panics.
func (s *Service) traced(r *request) {
	s.beginTrace(r)
	panics := true
	defer func() { s.endTrace(r, panics) }()
	s.handle(r)
	panics = false
}

var knownMethods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}

// beginTrace begins the request's span. Senders are strangers: what they trace is linked to, and does not decide what we
// trace; only a proxy of ours may be the parent. The path is not told: some providers put a secret into it.
func (s *Service) beginTrace(r *request) {
	req := r.Request
	method := req.Method
	if !slices.Contains(knownMethods, method) {
		method = "_OTHER"
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(r.started), trace.WithAttributes(
		semconv.HTTPRequestMethodKey.String(method), semconv.HTTPRoute("/webhooks/{source}"), semconv.ClientAddress(r.address()),
		attribute.String("catchment.delivery_id", r.id))}
	ctx := req.Context()
	if parent := req.Header.Get("Traceparent"); parent != "" {
		if s.proxies.include(req.RemoteAddr) {
			ctx = trace.ContextWithRemoteSpanContext(ctx, telemetry.Remote(parent, req.Header.Get("Tracestate")))
		} else if caller := telemetry.Remote(parent, ""); caller.IsValid() {
			options = append(options, trace.WithLinks(trace.Link{SpanContext: caller}))
		}
	}
	_, r.span = s.tracer.Start(ctx, method+" /webhooks/{source}", options...)
}

// ended says how the request ended.
func (r *request) ended(o outcome) {
	if r.span == nil || !r.span.IsRecording() {
		return
	}
	r.span.SetAttributes(attribute.String("catchment.outcome", string(o)))
	if r.src != nil {
		r.span.SetAttributes(attribute.String("catchment.source", r.src.name))
	}
	if r.eventID != "" {
		r.span.SetAttributes(attribute.String("catchment.event_id", cut(r.eventID)))
	}
}

// endTrace ends the request's span.
func (s *Service) endTrace(r *request, panics bool) {
	if r.span.IsRecording() {
		status, kind := r.Writer.Status(), ""
		switch {
		case panics:
			status, kind = http.StatusInternalServerError, string(outInternal)
		case status >= http.StatusInternalServerError:
			kind = http.StatusText(status)
		}
		r.span.SetAttributes(semconv.HTTPResponseStatusCode(status))
		telemetry.Fail(r.span, kind)
	}
	if c := r.span.SpanContext(); r.src != nil && c.IsSampled() {
		r.src.seconds.mark(s.now().Sub(r.started), c.TraceID())
	}
	r.span.End()
}

// publish hands the delivery to Kafka, within a span from which its trace goes on, where the request has one.
func (s *Service) publish(r *request, d *event.Delivery) error {
	deadline := r.received.Add(r.src.ackTimeout)
	if r.span == nil {
		return s.pub.publish(d, &r.encoder, r.src.atOnce, deadline, r.settled)
	}
	began := time.Now()
	_, span := s.tracer.Start(trace.ContextWithSpan(r.Request.Context(), r.span), "send "+s.pub.topic, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(telemetry.Messaging("send", "send", s.pub.topic)...), trace.WithAttributes(semconv.MessagingMessageBodySize(len(d.Body))))
	d.TraceParent, d.TraceState = telemetry.Header(span.SpanContext())
	err := s.pub.publish(d, &r.encoder, r.src.atOnce, deadline, r.settled)
	if err != nil {
		telemetry.Fail(span, "not acknowledged")
	} else if c := span.SpanContext(); c.IsSampled() {
		s.metrics.ack.mark(time.Since(began), c.TraceID())
	}
	span.End()
	return err
}
