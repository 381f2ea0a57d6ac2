package archiver

import (
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/catchment-dev/catchment/archiver/internal/chain"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/telemetry"
)

// mostTraces is how many records of one segment are traced at most.
const mostTraces = 1000

// tracedRecord is a sampled record of the open segment.
type tracedRecord struct {
	of     trace.SpanContext
	offset int64
}

// Trace lets segments make spans. It is called before Run.
func (s *Service) Trace(t *telemetry.Tracer) { s.tracer = t }

// noteTrace keeps a sampled record's trace until its segment is stored.
func (p *partition) noteTrace(r *kgo.Record) {
	if p.c.tracer == nil || len(p.traces) >= mostTraces {
		return
	}
	parent, state := event.TraceContext(r)
	if !telemetry.Sampled(parent) {
		return
	}
	if of := telemetry.Remote(parent, state); of.IsSampled() {
		p.traces = append(p.traces, tracedRecord{of, r.Offset})
	}
}

// traced makes the spans of a stored segment: one in the trace of each record that is sampled. It returns one of the traces;
// not valid: there is none.
func (p *partition) traced(s *segment.Segment, added chain.Added, began time.Time) (one trace.TraceID) {
	if len(p.traces) == 0 {
		return one
	}
	var parts []telemetry.Part
	var rest []tracedRecord
	for _, t := range p.traces {
		if t.offset >= added.Tip.Next {
			rest = append(rest, t)
			continue
		}
		parts = append(parts, telemetry.Part{Of: t.of, About: []attribute.KeyValue{semconv.MessagingKafkaOffset(int(t.offset))}})
	}
	p.traces = rest
	if added.Adopted || len(parts) == 0 {
		return one // who wrote it has told
	}
	about := append(telemetry.Messaging("archive", "process", p.c.topic), semconv.MessagingConsumerGroupName(p.c.group),
		semconv.MessagingDestinationPartitionID(strconv.Itoa(int(p.number))), semconv.MessagingBatchMessageCount(int(s.Count())),
		attribute.String("catchment.segment", s.Key(p.c.kind)))
	p.c.tracer.Together("archive "+p.c.topic, began, time.Now(), parts, about...)
	return parts[0].Of.TraceID()
}
