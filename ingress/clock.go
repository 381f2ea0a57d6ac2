package ingress

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/settings"
)

const (
	clockEvery  = time.Minute     // how often brokers are asked
	clockTick   = time.Second     // how often our own clock is looked at, and brokers while something is unclear
	clockMemory = 5 * time.Minute // how long what was found out counts
	clockStep   = 500 * time.Millisecond
)

var processStart = time.Now()

// monotonic is the time since the process began. It does not count a machine's sleep.
func monotonic() time.Duration { return time.Since(processStart) }

// clock knows whether our clock agrees with the brokers'. With a wrong one every timestamp of a signature would be
// outside its time, and some senders take the 401 for final; a 503 they try again.
//
// Kafka has no request for a broker's time, but partition leaders stamp what they append. A leader's newest stamp is
// not later than its time now: that bounds from above how far we are ahead of it. And it is not earlier than the
// stamp of a record of ours that it has acknowledged, of which we know when we sent it: that bounds it from below.
type clock struct {
	tolerance time.Duration
	topic     string
	client    *kgo.Client
	slots     *atomic.Pointer[[]*slot] // of the bulkhead
	now       func() time.Time
	log       *slog.Logger
	verdict   atomic.Pointer[error]

	steady func() time.Duration
	sleeps bool // steady goes on while the machine sleeps

	mu      sync.Mutex
	brokers int
	leaders map[int32]*bounds
	last    reading
	unclear time.Duration // until then brokers are asked at each tick
}

// reading is what two clocks said at one moment.
type reading struct {
	wall   time.Time
	steady time.Duration
}

// bounds say how far we are ahead of a leader: at least low, at most high.
type bounds struct {
	low, high     time.Duration
	lowAt, highAt time.Duration // when that was found out, by the steady clock
}

const (
	noLow  = time.Duration(math.MinInt64)
	noHigh = time.Duration(math.MaxInt64)
)

func newClock(cfg *settings.File, p *publisher, now func() time.Time, log *slog.Logger) *clock {
	c := &clock{
		tolerance: cfg.Ingress.ClockTolerance, topic: cfg.Kafka.Topic, client: p.client, slots: &p.bulkhead.slots,
		now: now, log: log, leaders: map[int32]*bounds{},
	}
	c.steady, c.sleeps = steadyClock()
	c.last = c.read()
	c.unclear = c.last.steady + clockEvery
	return c
}

func (c *clock) read() reading { return reading{c.now().Round(0), c.steady()} }

// err says why times cannot be judged, or nil.
func (c *clock) err() error {
	if e := c.verdict.Load(); e != nil {
		return *e
	}
	return nil
}

func (c *clock) run(ctx context.Context) {
	tick := time.NewTicker(clockTick)
	defer tick.Stop()
	var asked time.Duration
	for first := true; ; first = false {
		c.noticeStep()
		now := c.steady()
		if first || now-asked >= clockEvery || now < c.unclearUntil() || c.err() != nil {
			asked = now
			if err := c.ask(ctx); err != nil && ctx.Err() == nil {
				c.log.Debug("brokers could not be asked for their newest timestamps", slog.Any("error", err))
			}
		}
		c.judge()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (c *clock) unclearUntil() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.unclear
}

// noticeStep sees when somebody has set our clock: what was known of the distance to the brokers' has changed by as
// much. Where the steady clock stops while the machine sleeps, that cannot be told from a sleep, and all is forgotten.
func (c *clock) noticeStep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.read()
	step := r.wall.Sub(c.last.wall) - (r.steady - c.last.steady)
	c.last = r
	if step.Abs() < clockStep {
		return
	}
	c.unclear = r.steady + clockEvery
	if !c.sleeps {
		clear(c.leaders)
		return
	}
	for _, b := range c.leaders {
		if b.low != noLow {
			b.low += step
		}
		if b.high != noHigh {
			b.high += step
		}
	}
}

// ask learns the newest timestamp of each partition.
func (c *clock) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, preflightLimit)
	defer cancel()
	adm := kadm.NewClient(c.client)
	meta, err := adm.Metadata(ctx, c.topic)
	if err != nil {
		return err
	}
	sent := c.acknowledged()
	listed, err := adm.ListMaxTimestampOffsets(ctx, c.topic)
	if err != nil && len(listed) == 0 {
		return err
	}
	found := map[int32]*bounds{}
	now, mono := c.now(), monotonic()
	for _, p := range meta.Topics[c.topic].Partitions {
		o, ok := listed.Lookup(c.topic, p.Partition)
		if !ok || o.Err != nil || o.Timestamp <= 0 {
			continue
		}
		b := found[p.Leader]
		if b == nil {
			b = &bounds{low: noLow, high: noHigh}
			found[p.Leader] = b
		}
		newest := time.UnixMilli(o.Timestamp)
		b.high = min(b.high, now.Sub(newest))
		if at, ok := sent[p.Partition]; ok {
			b.low = max(b.low, now.Add(at-mono).Sub(newest.Add(time.Millisecond))) // stamps are cut to milliseconds
		}
	}
	c.learn(len(meta.Brokers), found)
	return nil
}

// acknowledged says for each partition when its newest acknowledged record was handed over.
func (c *clock) acknowledged() map[int32]time.Duration {
	m := map[int32]time.Duration{}
	if slots := c.slots.Load(); slots != nil {
		for i, s := range *slots {
			if at := s.acked.Load(); at > 0 {
				m[int32(i)] = time.Duration(at)
			}
		}
	}
	return m
}

// learn keeps of the old and the new bounds the closer ones. Where they contradict each other the broker's clock was
// set, and the new ones count.
func (c *clock) learn(brokers int, found map[int32]*bounds) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.brokers = brokers
	now := c.steady()
	for leader, b := range found {
		b.lowAt, b.highAt = now, now
		if old := c.leaders[leader]; old != nil && old.low <= b.high && b.low <= old.high {
			if old.low > b.low && now-old.lowAt < clockMemory {
				b.low, b.lowAt = old.low, old.lowAt
			}
			if old.high < b.high && now-old.highAt < clockMemory {
				b.high, b.highAt = old.high, old.highAt
			}
		}
		c.leaders[leader] = b
	}
	for leader, b := range c.leaders {
		if now-b.lowAt >= clockMemory {
			b.low = noLow
		}
		if now-b.highAt >= clockMemory {
			b.high = noHigh
		}
		if b.low == noLow && b.high == noHigh {
			delete(c.leaders, leader)
		}
	}
}

// judge lets the leaders vote. Our clock is wrong when more of them say so than deny it, and at least two, or the
// only broker that there is.
func (c *clock) judge() {
	c.mu.Lock()
	var ahead, notAhead, behind, notBehind int
	for _, b := range c.leaders {
		count(&ahead, b.low > c.tolerance)
		count(&notAhead, b.high <= c.tolerance)
		count(&behind, b.high < -c.tolerance)
		count(&notBehind, b.low >= -c.tolerance)
	}
	need := min(2, max(1, c.brokers))
	c.mu.Unlock()
	var err error
	switch {
	case ahead >= need && ahead > notAhead:
		err = fmt.Errorf("clock unsound: it is more than %s ahead of %d brokers' clocks", c.tolerance, ahead)
	case behind >= need && behind > notBehind:
		err = fmt.Errorf("clock unsound: it is more than %s behind %d brokers' clocks", c.tolerance, behind)
	}
	old := c.err()
	c.verdict.Store(&err)
	switch {
	case err != nil && old == nil:
		c.log.Error("not taking webhooks: timestamps of signatures cannot be judged", slog.Any("error", err))
	case err == nil && old != nil:
		c.log.Info("the clock agrees with the brokers' again")
	}
}

func count(n *int, yes bool) {
	if yes {
		*n++
	}
}
