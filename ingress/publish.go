package ingress

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/pkg/settings"
)

var (
	errFull     = errors.New("the producer's buffer is full")
	errShare    = errors.New("the partition's share of in_flight_bytes is used up: its broker does not answer, or not fast enough")
	errDeadline = errors.New("no acknowledgement in time")
)

// recordOverhead is what headers and key may add to a body in a batch.
const recordOverhead = 128 << 10

// deliveryTimeout is how long an unacknowledged record is kept and tried after its sender got a 503. The
// producer lets go of it only where that cannot break the partition's sequence.
const deliveryTimeout = 30 * time.Second

// publisher hands deliveries to Kafka and waits for acks=all.
type publisher struct {
	client *kgo.Client // with linger
	atOnce *kgo.Client // without; nil when no source asks for it
	topic  string
	m      *metrics
	log    *slog.Logger
	waits  sync.Pool     // of *wait
	gone   chan struct{} // has room for one: a produce met a topic that is no longer there, or not for us

	bulkhead *bulkhead
}

func newPublisher(cfg *settings.File, sources map[string]*source, log *slog.Logger, m *metrics, onLoss func()) (*publisher, error) {
	common, err := kafka.Options(cfg.Kafka, "catchment-ingress")
	if err != nil {
		return nil, err
	}
	common = append(common,
		kgo.DefaultProduceTopic(cfg.Kafka.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),                   // with idempotence, which is the client's default
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2 of the key, as every Kafka client does
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(int32(max(largestBody(sources)+recordOverhead, 1_000_012))),
		kgo.MaxBufferedRecords(1<<20),
		kgo.MaxBufferedBytes(int(cfg.Ingress.InFlightBytes)*2), // the budget is the bound; this one catches headers
		kgo.RecordDeliveryTimeout(deliveryTimeout),
		kgo.ProduceRequestTimeout(10*time.Second),
		kgo.ProducerOnDataLossDetected(func(topic string, partition int32) {
			m.dataLoss.Inc()
			log.Error("Kafka may have lost acknowledged records: the broker does not know what this producer wrote", slog.String("topic", topic), slog.Any("partition", partition))
			onLoss()
		}),
	)
	p := &publisher{
		topic: cfg.Kafka.Topic, m: m, log: log,
		gone: make(chan struct{}, 1), bulkhead: newBulkhead(cfg.Kafka.Topic, int64(cfg.Ingress.InFlightBytes)),
	}
	p.waits.New = p.newWait
	open := func(name string, linger time.Duration) (*kgo.Client, error) {
		cl, err := kgo.NewClient(append(common[:len(common):len(common)], kgo.ProducerLinger(linger), kafka.Metrics(m.reg, name))...)
		if err != nil {
			return nil, fmt.Errorf("kafka client: %w", err)
		}
		return cl, nil
	}
	if p.client, err = open("ingress", cfg.Ingress.Linger); err != nil {
		return nil, err
	}
	for _, s := range sources {
		if s.atOnce && p.atOnce == nil {
			if p.atOnce, err = open("ingress-at-once", 0); err != nil {
				p.client.Close()
				return nil, err
			}
		}
	}
	return p, nil
}

// wait is what one request waits with: for Kafka's answer or its deadline, whichever comes first. One channel for both
// costs less than to choose between two.
type wait struct {
	ended    chan error // has room for both
	late     *time.Timer
	answered func(*kgo.Record, error) // the record's promise

	part    *slot
	start   time.Time
	called  called
	release func(acknowledged bool)
}

// called is what a log calls a delivery.
type called struct{ source, event, delivery string }

func (p *publisher) newWait() any {
	w := &wait{ended: make(chan error, 2)}
	w.late = time.AfterFunc(time.Hour, func() { w.ended <- errDeadline })
	w.late.Stop()
	w.answered = func(r *kgo.Record, err error) {
		w.part.answered(r, w.start.Sub(processStart), err)
		if err == nil && p.log.Enabled(context.Background(), slog.LevelDebug) {
			p.logAcknowledged(w.called, r)
		}
		w.release(err == nil) // from here on the record may be another's
		w.ended <- err        // never blocks, also when nobody waits any more
	}
	return w
}

// logAcknowledged says where a delivery lies, for whoever wants to hold the log against Kafka (docs/reliability.md).
func (p *publisher) logAcknowledged(n called, r *kgo.Record) {
	sum := sha256.Sum256(r.Value)
	p.log.Debug("acknowledged", slog.String("source", n.source), slog.String("event_id", n.event), slog.String("delivery_id", n.delivery),
		slog.Any("partition", r.Partition), slog.Int64("offset", r.Offset), slog.String("body_sha256", hex.EncodeToString(sum[:])))
}

// publish returns nil once Kafka has acknowledged d with acks=all, errDeadline at the deadline, errFull when
// there is no room, errShare when there is none for its partition, or Kafka's error. release is called once, when the
// producer is done with d's body and what e made: that may be long after errDeadline. The request's context has no part in
// this: a sender that hangs up must not cancel a batch that holds other senders' records.
func (p *publisher) publish(d *event.Delivery, e *event.Encoder, atOnce bool, deadline time.Time, release func(acknowledged bool)) error {
	cl := p.client
	if atOnce {
		cl = p.atOnce
	}
	record := e.Encode(d)
	part := p.bulkhead.take(record)
	if part == nil {
		release(false)
		return errShare
	}
	w := p.waits.Get().(*wait)
	start := time.Now()
	w.part, w.start, w.called, w.release = part, start, called{d.Source, d.ID, d.DeliveryID}, release
	cl.TryProduce(context.Background(), record, w.answered)
	if mutant.On(mutant.M1) {
		return nil
	}
	w.late.Reset(deadline.Sub(start))
	err := <-w.ended
	if mutant.On(mutant.M2) {
		err = nil
	}
	if err == errDeadline { //nolint:errorlint // Kafka's own errors are others
		return err
	}
	if w.late.Stop() {
		w.part, w.called, w.release = nil, called{}, nil
		p.waits.Put(w) // only now is it sure that nothing more comes
	}
	switch {
	case err == nil:
		p.m.ack.observe(time.Since(start))
		return nil
	case errors.Is(err, kgo.ErrMaxBuffered):
		return errFull
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition), kafka.IsNotAllowed(err):
		select {
		case p.gone <- struct{}{}:
		default:
		}
	}
	return fmt.Errorf("produce: %w", err)
}

// anew lets the producers learn of the topic as if for the first time. They never take on by themselves that a topic
// was deleted and made again under another ID, and refuse every record of it; those that they hold fail now.
func (p *publisher) anew() {
	for _, cl := range p.clients() {
		cl.PurgeTopicsFromProducing(p.topic)
	}
}

func (p *publisher) clients() []*kgo.Client {
	if p.atOnce == nil {
		return []*kgo.Client{p.client}
	}
	return []*kgo.Client{p.client, p.atOnce}
}

// flush waits until Kafka has answered for every record, or ctx ends.
func (p *publisher) flush(ctx context.Context) error {
	var errs []error
	for _, cl := range p.clients() {
		errs = append(errs, cl.Flush(ctx))
	}
	return errors.Join(errs...)
}

func (p *publisher) close() {
	for _, cl := range p.clients() {
		cl.Close()
	}
}
