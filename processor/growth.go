package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// upkeep says how often what is stored is looked after.
type upkeep struct {
	partitions time.Duration // between two looks at the partitions of the next days
	drop       time.Duration // between two looks for days that are over their retention
	sweep      time.Duration // between two walks through the tables for rows that are over theirs
}

func standardUpkeep() upkeep {
	return upkeep{partitions: 10 * time.Minute, drop: time.Minute, sweep: 6 * time.Hour}
}

// upkeepMetrics tell of what is kept, in Postgres and in memory.
type upkeepMetrics struct {
	daysAhead prometheus.Gauge
	dropped   prometheus.Counter
	swept     *prometheus.CounterVec
	buffered  prometheus.Gauge
}

func newUpkeepMetrics(reg prometheus.Registerer) *upkeepMetrics {
	m := &upkeepMetrics{
		daysAhead: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "catchment", Name: "processor_partitions_ahead",
			Help: "Days from tomorrow on that have a partition for their events; -1: not even today has.",
		}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "catchment", Name: "processor_dropped_partitions_total", Help: "Days of events that were removed after processor.retention.",
		}),
		swept: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "catchment", Name: "processor_aged_rows_total", Help: "Rows deleted after their retention.",
		}, []string{"kind"}),
		buffered: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "catchment", Name: "processor_buffered_bytes",
			Help: "Bytes of records that are fetched and not committed; processor.buffer_bytes bounds them.",
		}),
	}
	reg.MustRegister(m.daysAhead, m.dropped, m.swept, m.buffered)
	return m
}

// addDay makes the partitions that a batch missed; the batch is then tried again. Events wait for them, none is lost.
func (e *engine) addDay(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	made, err := e.store.MakePartitions(ctx)
	if err != nil {
		e.log.Error("there is no partition for today's events, and none can be made: nothing is stored until there is", slog.Any("error", err))
		return errors.Join(cause, err)
	}
	e.log.Warn("there was no partition for today's events", slog.Int("made", made))
	return cause
}

// makeAhead makes the partitions of the next days, until ctx ends.
func (s *Service) makeAhead(ctx context.Context) {
	for ctx.Err() == nil {
		s.lookAhead(ctx)
		run.Pause(ctx, s.upkeep.partitions)
	}
}

// upkeepOf is what age removes.
func upkeepOf(p settings.Processor) store.Upkeep {
	ages := p.Retention > 0
	return store.Upkeep{Days: ages, Results: ages && p.ResultsRetention > 0, Identities: ages && p.IdentityRetention > 0}
}

func (s *Service) lookAhead(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	made, why := s.engine.store.MakePartitions(ctx)
	if made > 0 {
		s.log.Info("partitions made", slog.Int("days", made))
	}
	rights := s.engine.store.CheckUpkeep(ctx, upkeepOf(s.cfg.Processor))
	days, err := s.engine.store.PartitionsAhead(ctx)
	if err != nil {
		s.log.Debug("the partitions of the next days are not known", slog.Any("error", err))
		return // Postgres is away, which is told elsewhere
	}
	s.metrics.upkeep.daysAhead.Set(float64(days))
	var fault error
	var lacking *store.RightsError
	switch {
	case errors.As(rights, &lacking):
		fault = fmt.Errorf("days are made, or removed, no more; %d from tomorrow on are there: %w", max(days, 0), lacking)
		s.log.Error("a right is missing that will be needed: it is told now, and not at midnight", slog.Any("error", fault))
	case why != nil:
		s.log.Warn("the partitions of the next days could not be made: trying again", slog.Int("days_ahead", days), slog.Any("error", why))
	}
	if days < 1 {
		fault = errors.Join(fault, fmt.Errorf("there is no partition of catchment.bodies for %s: run catchment migrate, or let the processor make it: %w",
			map[bool]string{true: "today", false: "tomorrow"}[days < 0], errors.Join(why, errNoPartition)))
		s.log.Error("nothing can be stored without a partition for the day", slog.Any("error", fault))
	}
	s.mu.Lock()
	s.ahead = fault
	s.mu.Unlock()
}

var errNoPartition = errors.New("it was not made")

// age removes what is over its retention, until ctx ends. One process of the group does: the one that has partition 0.
func (s *Service) age(ctx context.Context) {
	p := s.cfg.Processor
	if p.Retention == 0 {
		return
	}
	if p.IdentityRetention > 0 {
		s.log.Warn("processor.identity_retention shortens a promise: an event that comes again later than that takes effect again",
			slog.Duration("identity_retention", p.IdentityRetention))
	}
	swept := time.Now()
	for ctx.Err() == nil {
		if s.leads() {
			s.dropDays(ctx)
			if time.Since(swept) >= s.upkeep.sweep {
				s.sweep(ctx)
				swept = time.Now()
			}
		}
		run.Pause(ctx, s.upkeep.drop)
	}
}

// leads says whether this process has partition 0, and so does what one of the group must do.
func (s *Service) leads() bool {
	s.mu.Lock()
	ses := s.session
	_, halted := s.halted[0]
	s.mu.Unlock()
	if ses == nil {
		return false
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	return halted || ses.workers[0] != nil
}

// dropDays drops the days that are over processor.retention.
func (s *Service) dropDays(ctx context.Context) {
	for ctx.Err() == nil {
		dctx, cancel := context.WithTimeout(ctx, statementTimeout)
		d, err := s.engine.store.DropPartition(dctx, s.cfg.Processor.Retention)
		cancel()
		switch {
		case store.IsBusy(err):
			s.log.Info("a day's events are over their retention, and still read or retried: trying again", slog.Any("error", err))
			return
		case err != nil:
			s.log.Warn("a day's events could not be removed: trying again", slog.Any("error", err))
			return
		case d == nil:
			return
		}
		s.metrics.upkeep.dropped.Inc()
		s.log.Info("a day's events are over their retention and removed", slog.String("day", d.Day.Format(time.DateOnly)), slog.Int64("kept_open", d.Kept))
	}
}

// sweep deletes identities, results and further deliveries that are over their retention, at half speed.
func (s *Service) sweep(ctx context.Context) {
	p := s.cfg.Processor
	rest := func(took time.Duration) error {
		run.Pause(ctx, took)
		return ctx.Err()
	}
	for _, kind := range []struct {
		name string
		rows store.Aged
		age  time.Duration
	}{
		{"results", store.AgedResults(), p.ResultsRetention}, {"repeats", store.AgedRepeats(), p.ResultsRetention}, {"identities", store.AgedIdentities(), p.IdentityRetention},
	} {
		if kind.age == 0 || kind.name == "identities" && !s.outlivesLog(ctx) {
			continue
		}
		n, err := s.engine.store.Sweep(ctx, kind.rows, kind.age, rest)
		s.metrics.upkeep.swept.WithLabelValues(kind.name).Add(float64(n))
		if err != nil && ctx.Err() == nil {
			s.log.Warn("old rows could not be deleted: trying again later", slog.String("kind", kind.name), slog.Any("error", err))
		} else if n > 0 {
			s.log.Info("old rows deleted", slog.String("kind", kind.name), slog.Int64("rows", n))
		}
	}
}

// identityMargin is how much longer than the topic's records their identities must stay.
const identityMargin = 7 * 24 * time.Hour

// outlivesLog says whether identities stay longer than the records of the topic as it is, from which events could come
// again; kafka.retention, which the configuration is checked by, is that of a topic that we made.
func (s *Service) outlivesLog(ctx context.Context) bool {
	s.mu.Lock()
	ses := s.session
	s.mu.Unlock()
	if ses == nil {
		return false
	}
	if log := ses.retention(ctx); log+identityMargin > s.cfg.Processor.IdentityRetention {
		s.log.Error("no identities are deleted: processor.identity_retention must be 7 days longer than the topic keeps its records",
			slog.Duration("identity_retention", s.cfg.Processor.IdentityRetention), slog.Duration("topic_retention", log))
		return false
	}
	return true
}
