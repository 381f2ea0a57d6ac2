package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const (
	// mostLinks is how many links a span has at most.
	mostLinks = 128
	// flushTime is how long the end of a program waits for the collector to take what is left.
	flushTime = time.Second
	// tellEvery is how often the log tells of a collector that does not take spans.
	tellEvery = time.Minute
)

// Tracer makes spans and sends them to a collector. Where traces are off there is none, which costs nothing.
type Tracer struct {
	trace.Tracer
	provider *sdktrace.TracerProvider
}

// Traced is a service that makes spans. Trace is called once, before Run, and only where traces are on.
type Traced interface{ Trace(t *Tracer) }

// Tracing gives the services a tracer, if the configuration or the environment asks for one. The returned function sends
// what is left, for a second at most. Whatever the collector does, nobody waits for it: spans that it does not take are lost.
func Tracing(cfg *settings.File, program string, log *slog.Logger, services ...run.Service) (stop func(), err error) {
	t, err := newTracer(cfg, program, log)
	if err != nil || t == nil {
		return func() {}, err
	}
	for _, s := range services {
		if traced, ok := s.(Traced); ok {
			traced.Trace(t)
		}
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		_ = t.provider.Shutdown(ctx) // what is not sent is told by the exporter
	}, nil
}

// newTracer returns nil where traces are off.
func newTracer(cfg *settings.File, program string, log *slog.Logger) (*Tracer, error) {
	if on, err := wanted(cfg.Telemetry); !on {
		return nil, err
	}
	endpoint, err := endpointURL(cfg)
	if err != nil {
		return nil, err
	}
	client, err := newOTLP(endpoint)
	if err != nil {
		return nil, err
	}
	exporter, err := otlptrace.New(context.Background(), client)
	if err != nil {
		return nil, err
	}
	// The environment's OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES count before ours.
	about, err := resource.New(context.Background(),
		resource.WithAttributes(semconv.ServiceName(program), semconv.ServiceNamespace("catchment"), semconv.ServiceVersion(run.Version)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("%w: OTEL_RESOURCE_ATTRIBUTES: %w", run.ErrUsage, err)
	}
	q := &quiet{SpanExporter: exporter, log: log}
	otel.SetErrorHandler(q) // what the library has to say belongs into our log, in its form
	options := []sdktrace.TracerProviderOption{sdktrace.WithBatcher(q), sdktrace.WithResource(about)}
	if os.Getenv("OTEL_TRACES_SAMPLER") == "" {
		options = append(options, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(1/float64(max(cfg.Telemetry.TraceOneIn, 1))))))
	}
	provider := sdktrace.NewTracerProvider(options...)
	return &Tracer{provider.Tracer("github.com/catchment-dev/catchment", trace.WithInstrumentationVersion(run.Version)), provider}, nil
}

// wanted says whether traces are on. The error is one of the configuration or the environment.
func wanted(cfg settings.Telemetry) (bool, error) {
	how := os.Getenv("OTEL_TRACES_EXPORTER")
	switch {
	case strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true"), how == "none", how == "" && cfg.Traces != "otlp":
		return false, nil
	case how != "" && how != "otlp":
		return false, fmt.Errorf("%w: OTEL_TRACES_EXPORTER: expected otlp or none, found %q", run.ErrUsage, how)
	}
	if p := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf"); p != "http/protobuf" {
		return false, fmt.Errorf("%w: OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf, found %q", run.ErrUsage, p)
	}
	return true, nil
}

// endpointURL is the configuration's URL that spans are sent to; without a path it has OTLP's own. Empty: the configuration has none.
func endpointURL(cfg *settings.File) (string, error) {
	if cfg.Telemetry.TraceEndpoint == "" {
		return "", nil
	}
	u, ok := parseCollector(cfg.Telemetry.TraceEndpoint)
	if !ok {
		return "", fmt.Errorf("%w: %w", run.ErrUsage, cfg.Errorf("telemetry.trace_endpoint",
			"expected a URL such as http://collector:4318/v1/traces (passwords belong into OTEL_EXPORTER_OTLP_HEADERS)"))
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return u.String(), nil
}

// quiet tells of a collector that does not answer in our log, once a minute.
type quiet struct {
	sdktrace.SpanExporter
	log  *slog.Logger
	told atomic.Int64 // Unix time
	lost atomic.Int64 // spans
}

// ExportSpans sends spans. Those that cannot be sent are lost.
func (q *quiet) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := q.SpanExporter.ExportSpans(ctx, spans); err != nil {
		lost := int64(len(spans))
		if e := (*rejectedError)(nil); errors.As(err, &e) {
			lost = e.spans
		}
		q.lost.Add(lost)
		q.Handle(err)
	}
	return nil
}

// Handle tells of an error of the library.
func (q *quiet) Handle(err error) {
	now := time.Now().Unix()
	if before := q.told.Load(); now-before < int64(tellEvery.Seconds()) || !q.told.CompareAndSwap(before, now) {
		return
	}
	q.log.Warn("the collector of traces does not take spans; they are lost: check telemetry.trace_endpoint",
		slog.Int64("lost_spans", q.lost.Load()), slog.Any("error", err))
}

// Sampled says whether a W3C trace parent, version 00, wants its trace to be recorded.
func Sampled(parent string) bool {
	return len(parent) == 55 && strings.IndexByte("13579bdf", parent[54]) >= 0
}

// Remote reads a W3C trace context; not valid: there is none.
func Remote(parent, state string) trace.SpanContext {
	if parent == "" {
		return trace.SpanContext{}
	}
	carrier := propagation.MapCarrier{"traceparent": parent, "tracestate": state}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}

// Header writes a valid trace context as W3C has it.
func Header(c trace.SpanContext) (parent, state string) {
	return "00-" + c.TraceID().String() + "-" + c.SpanID().String() + "-" + (c.TraceFlags() & trace.FlagsSampled).String(), c.TraceState().String()
}

// Part is what a piece of work on many records did for one of them: its trace, what is said of it, and the steps of it.
type Part struct {
	Of    trace.SpanContext
	About []attribute.KeyValue
	Error string // what kind of failure it is; empty: none
	Steps []Step
}

// Step is a piece of a part.
type Step struct {
	Name         string
	Began, Ended time.Time
	About        []attribute.KeyValue
	Error        string // what kind of failure it is; empty: none
}

// Together makes the spans of work that many records share, such as a transaction: one in the trace of each record that is
// sampled. The first one links to all others' causes, up to 128, and each of them to the first; about is said of each.
func (t *Tracer) Together(name string, began, ended time.Time, parts []Part, about ...attribute.KeyValue) {
	var links []trace.Link
	for i := range min(len(parts), mostLinks) {
		links = append(links, trace.Link{SpanContext: parts[i].Of})
	}
	for i := range parts {
		p, own := &parts[i], links[1:]
		if i > 0 {
			own = links[:1]
		}
		ctx, span := t.Start(trace.ContextWithRemoteSpanContext(context.Background(), p.Of), name, trace.WithTimestamp(began),
			trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(own...), trace.WithAttributes(about...), trace.WithAttributes(p.About...))
		if i == 0 {
			links[0].SpanContext = span.SpanContext() // the others link to the work, not to its cause
		}
		for _, s := range p.Steps {
			_, step := t.Start(ctx, s.Name, trace.WithTimestamp(s.Began), trace.WithAttributes(s.About...))
			Fail(step, s.Error)
			step.End(trace.WithTimestamp(s.Ended))
		}
		Fail(span, p.Error)
		span.End(trace.WithTimestamp(ended))
	}
}

// Fail marks a span as failed. Only the kind of a failure is told, never its text: that may hold what a body holds.
func Fail(span trace.Span, kind string) {
	if kind == "" {
		return
	}
	span.SetAttributes(semconv.ErrorTypeKey.String(kind))
	span.SetStatus(codes.Error, "")
}

// Observe adds a time to a histogram, with the trace that tells more of it, unless that is not valid.
func Observe(h prometheus.Histogram, took time.Duration, of trace.TraceID) {
	if x, ok := h.(prometheus.ExemplarObserver); ok && of.IsValid() {
		x.ObserveWithExemplar(took.Seconds(), prometheus.Labels{"trace_id": of.String()})
		return
	}
	h.Observe(took.Seconds())
}

// Messaging is what the semantic conventions want of each span about Kafka.
func Messaging(operation, typ, topic string) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKafka, semconv.MessagingOperationName(operation), attribute.String("messaging.operation.type", typ),
		semconv.MessagingDestinationName(topic),
	}
}
