// Package archiver keeps every record of the topics of deliveries and of results in object storage. Kafka's records come in and gapless,
// chained segments go out; a partition's offset is committed after its segment and checkpoint are durable. It must
// never overwrite, skip or drop a record: where that cannot be kept it stops the partition and says so.
package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/internal/checkpoint"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
)

// Waits between attempts: the store and Kafka are asked again for ever.
const (
	firstWait   = 100 * time.Millisecond
	longestWait = 5 * time.Second
)

// askTime is how long one question to Kafka may take.
const askTime = 15 * time.Second

// notReadyAfter is how long the store may fail before the archiver says that it is not ready.
const notReadyAfter = 30 * time.Second

// Service is the archiver. It implements run.Service.
type Service struct {
	kafka   settings.Kafka
	cfg     settings.Archiver
	options []kgo.Opt
	store   objstore.Store
	copy    objstore.Store // of the checkpoints; nil: none
	key     *checkpoint.Key
	ring    *keys.Ring // nil: rows are plain
	writer  string     // UUID of this process, in every segment's footer
	log     *slog.Logger
	metrics *metrics
	budget  *budget
	tracer  *telemetry.Tracer // nil: traces are off
	streams []*stream         // of deliveries, and of results if they are published

	mu      sync.Mutex
	failing time.Time // since when the store fails; zero when it does not
	failure error
}

// New returns the archiver of a configuration. It connects to nothing. The error is one of the configuration.
func New(cfg *settings.File, log *slog.Logger, reg prometheus.Registerer) (*Service, error) {
	if err := segment.Prepare(); err != nil {
		return nil, err
	}
	store, err := archive.Open(context.Background(), cfg.Archive)
	if err != nil {
		return nil, err
	}
	second, err := archive.OpenCopy(context.Background(), cfg.Archive)
	if err != nil {
		return nil, err
	}
	ring, err := keys.Open(context.Background(), cfg.Archive)
	if err != nil {
		return nil, err
	}
	s, err := newService(cfg, log, reg, store, second)
	if err != nil {
		return nil, err
	}
	s.ring = ring
	return s, nil
}

func newService(cfg *settings.File, log *slog.Logger, reg prometheus.Registerer, store, second objstore.Store) (*Service, error) {
	key, err := checkpoint.NewKey(cfg.Archive.CheckpointKey.Reveal())
	if err != nil {
		return nil, err
	}
	options, err := kafka.Options(cfg.Kafka, "catchment-archiver")
	if err != nil {
		return nil, err
	}
	s := &Service{
		kafka: cfg.Kafka, cfg: cfg.Archiver, options: options, store: store, copy: second, key: key,
		writer: uuid.NewString(), log: log.With(slog.String("service", "archiver")),
		budget: &budget{limit: int64(cfg.Archiver.BufferBytes)},
	}
	s.addStream(layout.Events, cfg.Kafka.Topic, cfg.Archiver.Group, (*row.Maker).From)
	if results := cfg.Kafka.Results(); results != "" {
		s.addStream(layout.Results, results, cfg.Archiver.ResultsGroup(), (*row.Maker).FromResult)
	}
	s.metrics, err = newMetrics(reg, s)
	return s, err
}

// Name returns "archiver".
func (s *Service) Name() string { return "archiver" }

// Ready says what keeps the archiver from its work: it is starting or stopping, the store has failed for a while, the brokers
// do not allow it, or a partition is halted and waits for a person. A topic of results that is not there yet is no reason.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if starting := s.streams[0].starting; starting != "" {
		return errors.New("archiver: " + starting)
	}
	if !s.failing.IsZero() && time.Since(s.failing) > notReadyAfter {
		return fmt.Errorf("archiver: the store has failed since %s: %w", s.failing.UTC().Format(time.RFC3339), s.failure)
	}
	var halted error
	for _, st := range s.streams {
		if st.current != nil {
			halted = errors.Join(halted, st.current.refusal(), st.current.halted())
		}
	}
	return halted
}

// Run archives until ctx ends, then closes the open segments within archiver.drain_timeout. It returns an error only
// when the store is unsafe; whatever else is wrong, it waits for.
func (s *Service) Run(ctx context.Context) error {
	defer s.wait("stopped")
	var watches, streams sync.WaitGroup
	defer watches.Wait()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	for _, st := range s.streams {
		watches.Go(func() { st.watchArrears(watching) })
	}
	if err := s.proveStore(ctx); err != nil {
		return err
	}
	for _, st := range s.streams {
		streams.Go(func() { st.run(ctx) })
	}
	streams.Wait()
	return nil
}

// proveStore does not return before the stores are proven or ctx ends.
func (s *Service) proveStore(ctx context.Context) error {
	if err := s.prove(ctx, "archive.url", "the archive's store", s.store); err != nil {
		return err
	}
	if s.copy != nil {
		if err := s.prove(ctx, "archive.checkpoint_copy", "the second place of the archive's checkpoints", s.copy); err != nil {
			return err
		}
	}
	if s.ring == nil {
		return nil
	}
	if err := s.prove(ctx, "archive.encryption.keys_url", "the store of the archive's keys", s.ring.Store()); err != nil {
		return err
	}
	if keeps, err := s.ring.KeepsVersions(ctx); err != nil || keeps {
		s.log.Warn("the bucket of archive.encryption.keys_url keeps deleted objects, or does not tell: catchment erase will refuse", slog.Bool("keeps", keeps), slog.Any("error", err))
	}
	return nil
}

// prove waits until the store of a key of the configuration keeps what it is given. what is its name in messages.
func (s *Service) prove(ctx context.Context, name, what string, store objstore.Store) (unsafe error) {
	s.wait("waiting for " + what)
	_ = s.retry(ctx, "probe "+name, func() error {
		err := objstore.Probe(ctx, store)
		if errors.Is(err, objstore.ErrUnsafe) {
			unsafe = fmt.Errorf("%s: %w", name, err)
			return nil
		}
		if err != nil && ctx.Err() == nil {
			s.wait(fmt.Sprintf("waiting for %s (%s): %v", what, name, err))
		}
		return s.stored(err)
	})
	return unsafe
}

func (s *Service) wait(reason string) {
	for _, st := range s.streams {
		st.wait(reason)
	}
}

// consumers returns those that run.
func (s *Service) consumers() (cs []*consumer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		if st.current != nil {
			cs = append(cs, st.current)
		}
	}
	return cs
}

// allPartitions returns those of all topics.
func (s *Service) allPartitions() (parts []*partition) {
	for _, c := range s.consumers() {
		parts = append(parts, c.partitions()...)
	}
	return parts
}

// retry calls try until it returns nil or ctx ends; then it returns ctx's error.
func (s *Service) retry(ctx context.Context, what string, try func() error) error {
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s.log.Warn("failed, trying again", slog.String("what", what), slog.Any("error", err), slog.String("wait", wait.String()))
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
	}
}

// stored notes how a call of the store went, and returns its error.
func (s *Service) stored(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.failing, s.failure = time.Time{}, nil
	case errors.Is(err, context.Canceled): // ours, not the store's
	default:
		s.metrics.storeErrors.Inc()
		s.failure = err
		if s.failing.IsZero() {
			s.failing = time.Now()
		}
	}
	return err
}

// failingFor is how long the store has failed; 0: it does not.
func (s *Service) failingFor(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing.IsZero() {
		return 0
	}
	return now.Sub(s.failing)
}
