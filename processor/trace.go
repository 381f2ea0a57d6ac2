package processor

import (
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/telemetry"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// idLength is how many bytes of an event's ID a span shows.
const idLength = 128

// Trace lets batches make spans. It is called before Run.
func (s *Service) Trace(t *telemetry.Tracer) { s.tracer = t }

// traced makes the spans of a committed batch: one in the trace of each event that is sampled, and below it one for each
// attempt of an operation. It returns one of the traces; not valid: there is none.
func (e *engine) traced(b *batch, began time.Time) (one trace.TraceID) {
	if e.tracer == nil {
		return one
	}
	ended := time.Now()
	parts := b.parts()
	if len(parts) == 0 {
		return one
	}
	about := append(telemetry.Messaging("process", "process", b.part.Topic), semconv.MessagingConsumerGroupName(e.group),
		semconv.MessagingDestinationPartitionID(strconv.Itoa(int(b.part.Partition))), semconv.MessagingBatchMessageCount(len(b.items)))
	e.tracer.Together("process "+b.part.Topic, began, ended, parts, about...)
	return parts[0].Of.TraceID()
}

// parts is what the batch did for each of its events that is sampled, and for each such record that holds none.
func (b *batch) parts() (parts []telemetry.Part) {
	var steps map[store.Key][]telemetry.Step
	var repeats map[*event.Event]string
	for i := range b.items {
		it := &b.items[i]
		parent, state := event.TraceContext(it.rec)
		if !telemetry.Sampled(parent) || it.skip {
			continue
		}
		of := telemetry.Remote(parent, state)
		if !of.IsSampled() {
			continue
		}
		if steps == nil {
			steps, repeats = b.steps(), b.again()
		}
		p := telemetry.Part{Of: of, About: []attribute.KeyValue{semconv.MessagingKafkaOffset(int(it.rec.Offset))}}
		if it.ev == nil {
			p.Error = it.reason
			parts = append(parts, p)
			continue
		}
		became, ok := repeats[it.ev]
		if !ok && !b.isNew(i) {
			became = "known" // the same record, read again
		} else if !ok {
			became = status(b.states[i])
			p.Steps = steps[it.key()]
		}
		if became == failed || became == dead {
			p.Error = became
		}
		p.About = append(p.About, attribute.String("catchment.source", it.ev.Source),
			attribute.String("catchment.event_id", it.ev.ID[:min(len(it.ev.ID), idLength)]), attribute.String("catchment.outcome", became))
		parts = append(parts, p)
	}
	return parts
}

// steps are the attempts of the batch, by their events.
func (b *batch) steps() map[store.Key][]telemetry.Step {
	steps := map[store.Key][]telemetry.Step{}
	for i := range b.writes.Results {
		r := &b.writes.Results[i]
		s := telemetry.Step{Name: "operation " + r.Operation, Began: r.Started, About: []attribute.KeyValue{
			attribute.String("catchment.operation", r.Operation), attribute.String("catchment.outcome", r.Outcome), attribute.Int("catchment.attempt", r.Attempt),
		}}
		took := r.Took
		if r.Effect != nil {
			s.Began, took = r.Effect.Started, r.Effect.Took
		}
		s.Ended = s.Began.Add(took)
		if r.Outcome == failed || r.Outcome == dead {
			s.Error = r.Outcome
		}
		steps[r.Key] = append(steps[r.Key], s)
	}
	return steps
}

// again is what became of the events that were known.
func (b *batch) again() map[*event.Event]string {
	all := map[*event.Event]string{}
	for _, r := range b.writes.Repeats {
		all[r.Event] = map[bool]string{false: "duplicate", true: "conflict"}[r.Conflict]
	}
	return all
}
