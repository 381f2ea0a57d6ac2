package processor

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

const (
	observeEvery = time.Second
	countEvery   = 15          // observations between two counts of what is stored
	configEvery  = time.Minute // between two looks at the topic's retention
)

// observe keeps the gauges up to date.
func (s *Service) observe(ctx context.Context) {
	tick := time.NewTicker(observeEvery)
	defer tick.Stop()
	var retention time.Duration
	var asked time.Time
	for n := 0; ; n++ {
		if n%countEvery == 0 {
			s.count(ctx)
		}
		s.mu.Lock()
		ses := s.session
		s.mu.Unlock()
		if ses != nil {
			if time.Since(asked) > configEvery {
				retention, asked = ses.retention(ctx), time.Now()
			}
			limit := math.Inf(1)
			if retention > 0 {
				limit = retention.Seconds()
			}
			s.metrics.retention.Set(limit)
			s.metrics.headroom.Set(limit - ses.observe().Seconds())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Service) count(ctx context.Context) {
	qctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if n, oldest, err := s.engine.store.OutboxStanding(qctx); err == nil {
		s.metrics.outboxRecords.Set(float64(n))
		s.metrics.outboxOldest.Set(oldest.Seconds())
	}
	st, err := s.engine.store.Standing(qctx)
	if ctx.Err() != nil {
		return
	}
	s.report(onPostgres, err) // also where no batch tells
	if err != nil {
		return
	}
	s.metrics.letters.Reset()
	for source, n := range st.DeadLetters {
		s.metrics.letters.WithLabelValues(s.metrics.source(source)).Add(float64(n))
	}
	s.metrics.retries.Set(float64(st.Retries))
}

// observe sets lag and age, and returns the age of the oldest record that waits.
func (ses *session) observe() time.Duration {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	var oldest time.Duration
	for p, w := range ses.workers {
		lag, since, _ := w.state()
		ses.eng.metrics.lag.WithLabelValues(strconv.Itoa(int(p))).Set(float64(lag))
		if !since.IsZero() {
			oldest = max(oldest, time.Since(since))
		}
	}
	ses.eng.metrics.oldest.Set(oldest.Seconds())
	ses.eng.metrics.upkeep.buffered.Set(float64(ses.eng.budget.held()))
	return oldest
}

// fault is what hinders one of the workers.
func (ses *session) fault() error {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	for _, w := range ses.workers {
		if _, _, err := w.state(); err != nil {
			return fmt.Errorf("postgres: %w", err)
		}
	}
	return nil
}

// retention reads the topic's retention; 0: unknown or unlimited.
func (ses *session) retention(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	configs, err := kadm.NewClient(ses.client).DescribeTopicConfigs(ctx, ses.topic)
	if err != nil {
		return 0
	}
	rc, err := configs.On(ses.topic, nil)
	if err != nil {
		return 0
	}
	for _, c := range rc.Configs {
		if c.Key == "retention.ms" {
			ms, err := strconv.ParseInt(c.MaybeValue(), 10, 64)
			if err == nil && ms > 0 {
				return time.Duration(ms) * time.Millisecond
			}
		}
	}
	return 0
}
