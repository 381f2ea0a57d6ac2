// Package processor runs operations. Kafka records come in, and for every event that is new its operations' effects,
// its results and the position go out to Postgres in one transaction. It never acts twice on an event, never lets an
// older version overwrite a newer one, and never moves past a record that is not stored.
package processor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// retryWorkers is how many retries run beside each other.
const retryWorkers = 2

// faultShows is how long an error of Kafka keeps the service from being ready: no success is told where no records come.
const faultShows = 15 * time.Second

// Service is the processor.
type Service struct {
	cfg     *settings.File
	log     *slog.Logger
	metrics *metrics
	ops     []*operation
	reader  *reader
	engine  *engine

	mu      sync.Mutex
	phase   string           // what start-up waits for; empty: it is over
	faults  map[string]fault // by part: why the last try failed
	halted  map[int32]string
	session *session
	ahead   error // why tomorrow's events have no place

	tracer *telemetry.Tracer // nil: traces are off

	certificate bool // we show one to Postgres
	upkeep      upkeep
	now         func() time.Time
	dog         *watchdog
	tick        time.Duration // of the watchdog
	dump        io.Writer     // gets the stacks of a processor that hangs

	more []kgo.Opt // of the consumer, for tests
}

// New checks the operations and makes the service, with the handlers that they name. The error is config.Errors when the configuration is wrong.
func New(cfg *settings.File, log *slog.Logger, reg prometheus.Registerer, handlers ...Handler) (*Service, error) {
	ops, errs := compile(cfg)
	reader, more := newReader(cfg)
	errs = append(errs, attach(cfg, ops, handlers, log)...)
	if err := append(errs, more...).Err(); err != nil {
		return nil, err
	}
	_, shown, err := store.CertificateEnds(cfg.Postgres)
	if err != nil {
		return nil, fmt.Errorf("postgres.url: %w", err)
	}
	c := *cfg
	fillDefaults(&c.Processor)
	sources := map[string]bool{}
	for name := range c.Sources {
		sources[name] = true
	}
	s := &Service{
		cfg: &c, log: log.With(slog.String("service", "processor")), metrics: newMetrics(reg, sources), ops: ops, reader: reader,
		phase: "starting", halted: map[int32]string{}, faults: map[string]fault{}, upkeep: standardUpkeep(),
		certificate: shown, now: time.Now, dog: newWatchdog(c.Processor.StallTimeout), tick: time.Second, dump: os.Stderr,
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "catchment", Name: "processor_postgres_up", Help: "1: the last look at Postgres, every 15 s and in each batch, found it and what we need in it.",
	}, s.postgresUp))
	return s, nil
}

func (s *Service) postgresUp() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults[onPostgres].err != nil || s.faults[onSchema].err != nil || s.session != nil && s.session.fault() != nil {
		return 0
	}
	return 1
}

// Certificates tells when the certificate ends that we show to Postgres, by the key that names it.
func (s *Service) Certificates() map[string]func() (time.Time, error) {
	if !s.certificate {
		return nil
	}
	return map[string]func() (time.Time, error){"postgres.url": func() (time.Time, error) {
		ends, _, err := store.CertificateEnds(s.cfg.Postgres)
		return ends, err
	}}
}

// fillDefaults serves configurations that were built in Go; Load has set them already.
func fillDefaults(p *settings.Processor) {
	if p.Group == "" {
		p.Group = "catchment-processor"
	}
	if p.Batch <= 0 {
		p.Batch = 1000
	}
	if p.TxTimeout <= 0 {
		p.TxTimeout = 30 * time.Second
	}
	if p.StallTimeout <= 0 {
		p.StallTimeout = time.Minute
	}
	if p.Session <= 0 {
		p.Session = 10 * time.Second
	}
	if p.BufferBytes <= 0 {
		p.BufferBytes = 64 << 20
	}
}

// Name is "catchment-processor".
func (s *Service) Name() string { return "catchment-processor" }

// Ready says whether the service can do its work; the error says what hinders it.
func (s *Service) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, why := range s.halted {
		return fmt.Errorf("partition %d is halted: %s", p, why)
	}
	err := s.faultsNow(s.phase != "")
	switch {
	case s.phase != "" && err != nil:
		return fmt.Errorf("%s: %w", s.phase, err)
	case s.phase != "":
		return errors.New(s.phase)
	}
	err = errors.Join(err, s.ahead)
	if s.session != nil && s.faults[onPostgres].err == nil {
		err = errors.Join(err, s.session.fault())
	}
	return err
}

// Run works until ctx ends. It waits for Postgres, the schema, Kafka and the topic for as long as they need. Only a
// wrong configuration ends it, with config.Errors, and a part of it that hangs: then the process must end.
func (s *Service) Run(ctx context.Context) error { return s.guard(ctx, s.run) }

func (s *Service) run(ctx context.Context) error {
	db, err := store.Open(ctx, s.cfg.Postgres, s.Name())
	if err != nil {
		return err
	}
	defer db.Close()
	s.setEngine(db)
	s.enter("waiting for Postgres")
	if err := s.untilDone(ctx, databasePart, s.prepare); err != nil || ctx.Err() != nil {
		return err
	}
	var wg sync.WaitGroup
	background, stop := context.WithCancel(ctx)
	defer wg.Wait()
	defer stop()
	for range retryWorkers {
		wg.Go(func() { s.engine.retries(background) })
	}
	wg.Go(func() { s.observe(background) })
	wg.Go(func() { s.engine.watchPaused(background) })
	wg.Go(func() { s.engine.jobs(background, s.behind()) })
	wg.Go(func() { s.makeAhead(background) })
	wg.Go(func() { s.age(background) })
	wg.Go(func() { s.relay(background) })
	for ctx.Err() == nil {
		var id [16]byte
		s.enter("waiting for Kafka")
		err := s.untilDone(ctx, func(error) string { return onKafka }, func(ctx context.Context) (err error) { id, err = s.findTopic(ctx); return err })
		if err != nil || ctx.Err() != nil {
			return err
		}
		s.enter("")
		if err := s.consume(ctx, id); err != nil {
			s.log.Warn("consuming ended; it begins again", slog.Any("error", err))
			run.Pause(ctx, time.Second)
		}
	}
	return nil
}

func (s *Service) setEngine(db *store.Store) {
	e := &engine{
		store: db, ops: s.ops, reader: s.reader, byName: map[string]*operation{}, bySource: map[string][]*operation{},
		batch: s.cfg.Processor.Batch, txTimeout: s.cfg.Processor.TxTimeout, budget: newBudget(int(s.cfg.Processor.BufferBytes)), dog: s.dog, tracer: s.tracer, group: s.cfg.Processor.Group, now: s.now, log: s.log, metrics: s.metrics, publish: make(chan struct{}, 1),
	}
	s.metrics.pool.store.Store(db)
	db.PublishResults(s.cfg.Kafka.Results())
	for _, waived := range s.cfg.Kafka.Accept {
		e.gapsOK = e.gapsOK || waived == kafka.CheckCleanup
	}
	for _, op := range slices.SortedStableFunc(slices.Values(s.ops), func(a, b *operation) int { return a.level - b.level }) {
		e.byName[op.spec.Name] = op
		e.metrics.circuits.WithLabelValues(op.spec.Name).Set(0)
		e.bySource[op.spec.On.Source] = append(e.bySource[op.spec.On.Source], op)
	}
	s.engine = e
}

// prepare migrates when asked to, and prepares the operations. config.Errors are final.
func (s *Service) prepare(ctx context.Context) error {
	if s.cfg.Processor.Migrate {
		url, err := MigrateURL(s.cfg.Postgres)
		if err != nil {
			return err
		}
		if err := Migrate(ctx, url.Reveal()); err != nil {
			return err
		}
	}
	if err := s.engine.store.CheckRights(ctx); err != nil {
		return err
	}
	if err := s.engine.store.CheckSchema(ctx); err != nil {
		return err
	}
	if err := s.engine.store.KeepSettings(ctx); err != nil {
		return err
	}
	errs, err := describe(ctx, s.cfg, s.engine.store, s.ops)
	if err != nil {
		return err
	}
	if err := errs.Err(); err != nil {
		return err
	}
	for _, op := range s.ops {
		if err := s.engine.store.Define(ctx, op.spec.Name, op.definition, op.digest); err != nil {
			return err
		}
	}
	return s.engine.loadPaused(ctx)
}

func (s *Service) findTopic(ctx context.Context) ([16]byte, error) {
	opts, err := kafka.Options(s.cfg.Kafka, s.Name())
	if err != nil {
		return [16]byte{}, err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return [16]byte{}, fmt.Errorf("kafka: %w", err)
	}
	defer cl.Close()
	return kafka.TopicID(ctx, cl, s.cfg.Kafka.Topic)
}

// untilDone calls f until it succeeds or ctx ends (nil), or the configuration is found wrong (config.Errors). part says
// what is to blame for an error.
func (s *Service) untilDone(ctx context.Context, part func(error) string, f func(context.Context) error) error {
	pause := firstPause
	for ctx.Err() == nil {
		tctx, cancel := context.WithTimeout(ctx, time.Minute)
		err := f(tctx)
		cancel()
		var wrong config.Errors
		if errors.As(err, &wrong) {
			return wrong
		}
		if ctx.Err() == nil {
			s.report(part(err), err)
		}
		if err == nil {
			return nil
		}
		run.Pause(ctx, pause)
		pause = min(2*pause, longestPause)
	}
	return nil
}

func (s *Service) enter(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase = phase
}

// report keeps why the last try failed, and logs it when it is another reason than before; nil: it succeeded.
func (s *Service) report(part string, err error) {
	s.mu.Lock()
	before := s.faults[part].err
	if err == nil {
		delete(s.faults, part)
		if part == onPostgres {
			delete(s.faults, onSchema)
		}
	} else {
		s.faults[part] = fault{err, time.Now()}
	}
	phase := s.phase
	s.mu.Unlock()
	if err == nil || before != nil && before.Error() == err.Error() {
		return
	}
	switch {
	case store.IsCredentials(err):
		s.log.Error("Postgres refuses us: check postgres.url and its password; trying again", slog.Any("error", err))
	case refusedByKafka(err):
		s.log.Error("Kafka refuses us: check kafka.sasl, kafka.tls and the rights of the user; trying again", slog.Any("error", err))
	default:
		s.log.Warn("not possible now; trying again", slog.String("phase", phase), slog.Any("error", err))
	}
}

func refusedByKafka(err error) bool {
	for _, e := range []error{kerr.SaslAuthenticationFailed, kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (s *Service) use(ses *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.session = ses
}

func (s *Service) halt(p int32, why *lostError) {
	s.mu.Lock()
	s.halted[p] = why.why
	s.mu.Unlock()
	s.metrics.halted.WithLabelValues(strconv.Itoa(int(p))).Set(1)
	s.log.Error("partition halted: its position is lost, and going on would skip events", slog.Int("partition", int(p)), slog.String("why", why.why))
}

func (s *Service) unhalt(p int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.halted, p)
	s.metrics.halted.DeleteLabelValues(strconv.Itoa(int(p)))
}
