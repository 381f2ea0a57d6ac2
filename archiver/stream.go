package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/pkg/kafka"
)

// lookForResults is how long to wait before looking again for a topic of results that is not there.
const lookForResults = 10 * time.Second

// errTopicReplaced ends a session: the topic was deleted and made again.
var errTopicReplaced = errors.New("the topic was deleted and made again")

// stream is one topic that is archived, through all its incarnations. Each has a client and a group of its own, so that
// nothing of one topic waits for the other: no rebalance, no topic that is missing.
type stream struct {
	*Service
	kind         layout.Kind
	topic, group string
	row          func(*row.Maker, *kgo.Record, [16]byte) *row.Row
	log          *slog.Logger
	freed        chan struct{}             // the budget was given bytes back
	retention    atomic.Int64              // of the topic, in nanoseconds; negative: without end; 0: not known yet
	waits        atomic.Pointer[time.Time] // since when something waits in Kafka, zero: nothing does; nil: not known, or the consumer tells

	// Guarded by Service.mu.
	starting string // what it waits for; empty when it runs
	current  *consumer
}

func (s *Service) addStream(kind layout.Kind, topic, group string, of func(*row.Maker, *kgo.Record, [16]byte) *row.Row) {
	st := &stream{
		Service: s, kind: kind, topic: topic, group: group, row: of, log: s.log.With(slog.String("topic", topic)),
		freed: make(chan struct{}, 1), starting: "not started",
	}
	s.streams, s.budget.freed = append(s.streams, st), append(s.budget.freed, st.freed)
}

func (st *stream) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := st.session(ctx)
		if err != nil && ctx.Err() == nil {
			st.log.Warn("consuming starts anew", slog.Any("reason", err))
		}
	}
}

// session consumes one incarnation of the topic.
func (st *stream) session(ctx context.Context) error {
	st.wait("waiting for Kafka and topic " + st.topic)
	id, err := st.waitForTopic(ctx)
	if err != nil {
		return err
	}
	c, err := newConsumer(st, id)
	if err != nil {
		return err
	}
	st.mu.Lock()
	st.starting, st.current = "", c
	st.mu.Unlock()
	err = c.run(ctx)
	st.mu.Lock()
	st.current = nil
	st.mu.Unlock()
	return err
}

func (st *stream) waitForTopic(ctx context.Context) (id [16]byte, err error) {
	cl, err := kgo.NewClient(st.options...)
	if err != nil {
		return id, fmt.Errorf("kafka: %w", err)
	}
	defer cl.Close()
	find := func() error {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		var err error
		id, err = kafka.TopicID(ctx, cl, st.topic)
		if err != nil {
			st.wait(fmt.Sprintf("waiting for Kafka and topic %s: %v", st.topic, err))
		}
		return err
	}
	if st.kind == layout.Events {
		return id, st.retry(ctx, "find the topic", find)
	}
	// Nobody may ever publish results: that is no failure to tell of again and again.
	for told := false; ; told = true {
		if err = find(); err == nil || ctx.Err() != nil {
			return id, err
		}
		if !told {
			st.log.Info("results are archived as soon as their topic is found", slog.Any("reason", err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookForResults):
		}
	}
}

func (st *stream) wait(reason string) {
	st.mu.Lock()
	st.starting = reason
	st.mu.Unlock()
}
