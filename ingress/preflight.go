package ingress

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const (
	preflightEvery = time.Minute
	preflightRetry = time.Second
	preflightLimit = 15 * time.Second
)

var errStarting = errors.New("the topic has not been checked yet")

// topicGuard knows whether the topic keeps the promises. It looks at start, every minute, every second until it has
// an answer, and when the producer does not find the topic. When Kafka cannot be asked, the last verdict stands.
type topicGuard struct {
	cfg     settings.Kafka
	maxBody int64
	log     *slog.Logger
	client  *kgo.Client
	verdict atomic.Pointer[verdict]
	failure atomic.Pointer[error] // why Kafka could not be asked, last
	resize  func(partitions int)  // told of the topic's size
	metrics *metrics
	gone    <-chan struct{} // says that the topic may be another than it was
	anew    func()          // to be called when there is a topic again
}

type verdict struct {
	err   error
	scope [32]byte // hash of cluster ID and topic ID
}

func (g *topicGuard) err() error {
	if v := g.verdict.Load(); v != nil {
		return v.err
	}
	if why := g.failure.Load(); why != nil {
		return fmt.Errorf("%w: kafka: %w", errStarting, *why)
	}
	return errStarting
}

// scope says which topic of which cluster acknowledgements belong to.
func (g *topicGuard) scope() [32]byte {
	if v := g.verdict.Load(); v != nil {
		return v.scope
	}
	return [32]byte{}
}

func (g *topicGuard) run(ctx context.Context) {
	var logged time.Time
	gone := false
	for {
		wait := preflightEvery
		err := g.look(ctx)
		if err != nil && ctx.Err() == nil {
			why := err
			g.failure.Store(&why)
		}
		if err != nil && ctx.Err() == nil && time.Since(logged) >= preflightEvery {
			g.log.Warn("the topic could not be checked", slog.String("topic", g.cfg.Topic), slog.Any("error", err))
			logged = time.Now()
		}
		if err == nil && gone && !errors.Is(g.err(), kafka.ErrNoTopic) {
			g.anew()
			gone = false
		}
		if err != nil || gone || g.err() != nil {
			wait = preflightRetry
		}
		if gone, err = g.pause(ctx, wait, gone); err != nil {
			return
		}
	}
}

// pause waits until it is time for the next look. At least preflightRetry lies between two, however loud the producer
// complains. The error is that of ctx.
func (g *topicGuard) pause(ctx context.Context, wait time.Duration, gone bool) (bool, error) {
	least, next := time.After(preflightRetry), time.After(wait)
	for {
		complaints := g.gone
		if least != nil {
			complaints = nil
		}
		select {
		case <-ctx.Done():
			return gone, ctx.Err()
		case <-complaints:
			return true, nil
		case <-least:
			least = nil
		case <-next:
			return gone, nil
		}
	}
}

// look makes a new verdict. The error says that Kafka could not be asked.
func (g *topicGuard) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, preflightLimit)
	defer cancel()
	err := g.ask(ctx)
	// To judge the topic's settings is another right than to write: once it was judged, its verdict stands.
	if errors.Is(err, kafka.ErrNotAllowed) || g.verdict.Load() == nil && kafka.IsNotAllowed(err) {
		g.conclude(&verdict{err: fmt.Errorf("%w: the ingress needs Describe, DescribeConfigs and Write on topic %s", err, g.cfg.Topic), scope: g.scope()})
		return nil
	}
	return err
}

func (g *topicGuard) ask(ctx context.Context) error {
	if err := kafka.CheckWritable(ctx, g.client, g.cfg.Topic); err != nil && !errors.Is(err, kafka.ErrNoTopic) {
		return err
	}
	report, err := kafka.CheckTopic(ctx, g.client, g.cfg, g.cfg.Topic, g.maxBody)
	if errors.Is(err, kafka.ErrNoTopic) && g.cfg.CreateTopic {
		if err := kafka.EnsureTopic(ctx, g.client, g.cfg, g.cfg.Topic, g.maxBody); err != nil {
			return err
		}
		g.log.Info("made the topic", slog.String("topic", g.cfg.Topic), slog.Any("partitions", g.cfg.Partitions), slog.Any("replication_factor", g.cfg.ReplicationFactor))
		if report, err = kafka.CheckTopic(ctx, g.client, g.cfg, g.cfg.Topic, g.maxBody); err != nil {
			return err // not every broker has heard of it yet
		}
	}
	if errors.Is(err, kafka.ErrNoTopic) {
		g.conclude(&verdict{err: err})
		return nil
	}
	if err != nil {
		return err
	}
	g.resize(report.Partitions)
	g.metrics.underReplicated.Set(float64(report.UnderReplicated))
	g.metrics.belowMinInsync.Set(float64(report.BelowMinInsync))
	v := &verdict{err: report.Err(), scope: sha256.Sum256(append([]byte(report.ClusterID), report.TopicID[:]...))}
	g.conclude(v)
	return nil
}

// conclude logs a verdict when it is another than before.
func (g *topicGuard) conclude(v *verdict) {
	old := g.verdict.Swap(v)
	switch {
	case v.err != nil && (old == nil || old.err == nil || old.err.Error() != v.err.Error()):
		g.log.Error("not taking webhooks: the topic would not take them, or not keep what it acknowledges (kafka.accept waives a check by its name)", slog.Any("error", v.err))
	case v.err == nil && (old == nil || old.err != nil):
		g.log.Info("the topic is safe", slog.String("topic", g.cfg.Topic))
	}
}
