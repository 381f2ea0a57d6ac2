package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

const (
	relayPoll     = 500 * time.Millisecond // how long a record may wait when no commit of ours wakes the relay
	relayDelivery = 10 * time.Second       // of a record, until the producer gives up and the rows stay for the next try
	relayAnswer   = 30 * time.Second       // until a request that is on its way is given up
	relayLanes    = 4                      // topics that are published to at once
	relayPause    = 200 * time.Millisecond
	relayMaxPause = 15 * time.Second
)

// relay publishes what transactions have put into the outbox: after COMMIT, at least once, for each topic in the order in
// which it was put there. A topic is one processor's at a time. What Kafka acknowledged is removed; a crash in between
// publishes it again.
type relay struct {
	svc    *Service
	client *kgo.Client
	known  map[string]bool // topics of the configuration, for labels

	mu     sync.Mutex
	busy   map[string]bool
	after  map[string]time.Time // when a topic that failed is tried again
	pause  map[string]time.Duration
	faults map[string]string
}

// published wakes the relay.
func (e *engine) published() {
	select {
	case e.publish <- struct{}{}:
	default:
	}
}

// relay works until ctx ends.
func (s *Service) relay(ctx context.Context) {
	opts, err := kafka.Options(s.cfg.Kafka, s.Name())
	if err == nil {
		var client *kgo.Client
		// Acknowledged by all replicas in sync, and idempotent: what is sent again within the client is not written twice.
		// What nobody answers is given up all the same, and published again from its row: there may be no answer for hours.
		client, err = kgo.NewClient(append(opts,
			kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordDeliveryTimeout(relayDelivery), kgo.AllowIdempotentProduceCancellation(), kgo.UnknownTopicRetries(2),
			kgo.ProducerLinger(2*time.Millisecond), kgo.ProducerBatchCompression(kgo.Lz4Compression(), kgo.NoCompression()),
			kgo.MaxBufferedRecords(1<<20), kafka.Metrics(s.metrics.reg, "processor-outbox"),
		)...)
		if err == nil {
			defer client.Close()
			r := newRelay(s, client)
			r.run(ctx)
			return
		}
	}
	s.log.Error("nothing can be published", slog.Any("error", err)) // the consumer says the same, and does not begin
}

func newRelay(s *Service, client *kgo.Client) *relay {
	r := &relay{
		svc: s, client: client, known: map[string]bool{}, busy: map[string]bool{},
		after: map[string]time.Time{}, pause: map[string]time.Duration{}, faults: map[string]string{},
	}
	if t := s.cfg.Kafka.Results(); t != "" {
		r.known[t] = true
	}
	for _, op := range s.ops {
		if op.spec.Publish != nil {
			r.known[op.spec.Publish.Topic] = true
		}
	}
	return r
}

func (r *relay) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(relayPoll)
	defer tick.Stop()
	pulse := r.svc.dog.watch("the relay")
	defer r.svc.dog.forget(pulse)
	for ctx.Err() == nil {
		pulse.busy("looking for what is to be published", statementTimeout+store.EndTimeout)
		topics, err := r.waiting(ctx)
		if err != nil && ctx.Err() == nil {
			r.svc.log.Debug("the outbox cannot be read", slog.Any("error", err))
		}
		for _, topic := range topics {
			if r.begin(topic) {
				wg.Go(func() {
					defer r.svc.engine.published() // there may be more
					r.lane(ctx, topic)
				})
			}
		}
		pulse.idle()
		select {
		case <-ctx.Done():
		case <-tick.C:
		case <-r.svc.engine.publish:
		}
	}
}

func (r *relay) waiting(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return r.svc.engine.store.OutboxTopics(ctx)
}

// begin says whether a topic is to be published to now.
func (r *relay) begin(topic string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy[topic] || len(r.busy) >= relayLanes || time.Now().Before(r.after[topic]) {
		return false
	}
	r.busy[topic] = true
	return true
}

// lane publishes a topic's records until there are none, or it fails.
func (r *relay) lane(ctx context.Context, topic string) {
	pulse := r.svc.dog.watch("the relay to topic " + topic)
	defer r.svc.dog.forget(pulse)
	var err error
	for more := true; more && err == nil && ctx.Err() == nil; {
		more, err = r.once(ctx, topic, pulse)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.busy, topic)
	switch {
	case err == nil || ctx.Err() != nil:
		delete(r.after, topic)
		delete(r.pause, topic)
		delete(r.faults, topic)
	case errors.Is(err, store.ErrBusy):
		r.after[topic] = time.Now().Add(relayPoll)
	default:
		pause := min(max(2*r.pause[topic], relayPause), relayMaxPause)
		r.pause[topic], r.after[topic] = pause, time.Now().Add(pause)
		r.svc.metrics.outboxFailures.WithLabelValues(r.label(topic)).Inc()
		if r.faults[topic] != err.Error() {
			r.faults[topic] = err.Error()
			r.svc.log.Error("records wait in the outbox; trying again", slog.String("topic", topic), slog.Any("error", err))
		}
	}
}

// once publishes a topic's oldest rows, and removes those of which every record was acknowledged.
func (r *relay) once(ctx context.Context, topic string, pulse *pulse) (more bool, err error) {
	work := context.WithoutCancel(ctx) // what is sent is waited for, so that it is not sent again
	pulse.busy("reading the outbox", statementTimeout+store.EndTimeout)
	begin, cancel := context.WithTimeout(ctx, statementTimeout)
	lane, err := r.svc.engine.store.Lane(begin, topic, relayDelivery+relayAnswer)
	cancel()
	if err != nil {
		return false, err
	}
	pulse.busy("publishing", relayDelivery+relayAnswer)
	var done []int64
	var failure error
	acknowledged := 0
	for i, result := range r.send(work, lane.Rows) {
		if result == nil {
			done = append(done, lane.Rows[i].ID)
			acknowledged += len(lane.Rows[i].Records)
		} else if failure == nil {
			failure = result
		}
	}
	if len(done) > 0 {
		failpoint.Hit(failpoint.RelayPublished)
	}
	pulse.busy("removing what was published", statementTimeout+store.EndTimeout)
	end, cancel := context.WithTimeout(work, statementTimeout)
	defer cancel()
	if err := lane.Done(end, done); err != nil {
		return false, err
	}
	r.svc.metrics.outboxPublished.WithLabelValues(r.label(topic)).Add(float64(acknowledged))
	if errors.Is(failure, kerr.UnknownTopicOrPartition) {
		pulse.busy("making the topic", relayAnswer)
		failure = r.missing(work, topic)
	}
	return failure == nil && len(lane.Rows) > 0, failure
}

// send produces all records and waits for every answer: an error for each row of which not all were acknowledged. An
// answer comes within relayDelivery, or, where a request is on its way then, within relayAnswer more.
func (r *relay) send(ctx context.Context, rows []store.OutboxRow) []error {
	var mu sync.Mutex
	var wg sync.WaitGroup
	errs := make([]error, len(rows))
	for i := range rows {
		for _, record := range rows[i].Records {
			wg.Add(1)
			r.client.Produce(ctx, record, func(_ *kgo.Record, err error) {
				defer wg.Done()
				mu.Lock()
				defer mu.Unlock()
				if err != nil && errs[i] == nil {
					errs[i] = fmt.Errorf("publish: %w", err)
				}
			})
		}
	}
	wg.Wait()
	return errs
}

// missing makes the topic of the results; any other is its owner's to make.
func (r *relay) missing(ctx context.Context, topic string) error {
	k := r.svc.cfg.Kafka
	if topic != r.svc.cfg.Kafka.Results() || !k.CreateTopic {
		return errors.New("the topic does not exist: create it, and what waits is published")
	}
	ctx, cancel := context.WithTimeout(ctx, relayDelivery)
	defer cancel()
	return kafka.EnsureTopic(ctx, r.client, k, topic, 0)
}

func (r *relay) label(topic string) string {
	if r.known[topic] {
		return topic
	}
	return "other"
}
