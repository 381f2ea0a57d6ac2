package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/catchment-dev/catchment/archiver/internal/chain"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/pkg/kafka"
)

const (
	pollRecords   = 2_000     // at a time, so that a rebalance never waits for long
	fetchBytes    = 16 << 20  // of one fetch of one broker, besides archiver.buffer_bytes
	partitionPart = 512 << 10 // of that for one partition: a record keeps the memory of all that came with it
	commitTime    = 10 * time.Second
	watchInterval = 10 * time.Second
	rebalanceTime = 30 * time.Second // what a rebalance may take besides the drain
	locateAtOnce  = 8                // partitions
	refusalShows  = 30 * time.Second // how long a refusal of the brokers keeps us from being ready; it comes again before
)

// consumer archives one incarnation of the topic, as a member of the group. Each partition that it is assigned has a
// goroutine of its own, which alone makes and stores that partition's segments.
type consumer struct {
	*stream
	topicID  [16]byte
	ready    chan struct{} // closed: client and admin are set; the client begins to call us before kgo.NewClient returns
	client   *kgo.Client
	admin    *kadm.Client
	replaced chan struct{}
	look     chan struct{} // look at the topic now
	commits  chan struct{} // there are positions to commit

	guard     sync.Mutex
	parts     map[int32]*partition
	positions map[int32]kgo.EpochOffset // archived, not yet committed
	complaint map[string]time.Time      // when which fetch error was logged
	refused   error                     // the brokers do not let us read
	refusedAt time.Time
}

func newConsumer(s *stream, topicID [16]byte) (*consumer, error) {
	c := &consumer{
		stream: s, topicID: topicID,
		replaced: make(chan struct{}), look: make(chan struct{}, 1), commits: make(chan struct{}, 1),
		ready: make(chan struct{}), parts: map[int32]*partition{}, positions: map[int32]kgo.EpochOffset{}, complaint: map[string]time.Time{},
	}
	client, err := kgo.NewClient(append(slices.Clone(s.options),
		kgo.ConsumerGroup(s.group),
		kgo.ConsumeTopics(s.topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(s.cfg.Session),
		kgo.HeartbeatInterval(s.cfg.Session/3),
		kgo.RebalanceTimeout(s.cfg.DrainTimeout+rebalanceTime),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(), // what is polled is handed out before a partition can go
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.KeepControlRecords(), // they have offsets: without them there would be gaps
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxPartitionBytes(partitionPart),
		kgo.MaxConcurrentFetches(3),
		kgo.MetadataMaxAge(time.Minute), // new partitions
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) {}), // locate does the work
		kgo.OnPartitionsRevoked(c.revoked),
		kgo.OnPartitionsLost(c.lost),
		kgo.AdjustFetchOffsetsFn(c.locate),
		kafka.Metrics(s.metrics.reg, s.consumerName()),
	)...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	c.client, c.admin = client, kadm.NewClient(client)
	close(c.ready)
	return c, nil
}

// run consumes until ctx ends or the topic is replaced. It then archives what it has, leaves the group and returns.
func (c *consumer) run(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var background sync.WaitGroup
	background.Go(func() { c.watchTopic(ctx) })
	background.Go(func() { c.commitLoop(ctx) })
	background.Go(func() {
		if c.waitAdmitted(ctx) {
			cancel(errAdmitted)
		}
	})
	go func() {
		select {
		case <-c.replaced:
			cancel(errTopicReplaced)
		case <-ctx.Done():
		}
	}()
	for c.waitForRoom(ctx) {
		fetches := c.client.PollRecords(ctx, pollRecords)
		if ctx.Err() == nil {
			c.handOut(fetches)
		}
		c.client.AllowRebalance()
	}
	c.wait("closing segments")
	c.guard.Lock()
	all := c.take(c.parts)
	c.guard.Unlock()
	c.close(all) //nolint:contextcheck // the commit outlives the context that ended the loop
	background.Wait()
	c.client.CloseAllowingRebalance()
	return context.Cause(ctx)
}

// waitForRoom blocks while too many bytes are held: nothing is polled, and Kafka keeps the rest. false: ctx has ended.
func (c *consumer) waitForRoom(ctx context.Context) bool {
	for (c.budget.full() || c.budget.ahead()) && ctx.Err() == nil {
		if c.budget.full() {
			c.budget.press(c.allPartitions())
		}
		select {
		case <-ctx.Done():
		case <-c.freed:
		}
	}
	return ctx.Err() == nil
}

// partitions returns those that are assigned.
func (c *consumer) partitions() []*partition {
	c.guard.Lock()
	defer c.guard.Unlock()
	return slices.Collect(maps.Values(c.parts))
}

// handOut gives each partition its records. Errors come first: after some of them records must not be taken.
func (c *consumer) handOut(fetches kgo.Fetches) {
	fetches.EachError(func(_ string, number int32, err error) { c.fetchError(number, err) })
	fetches.EachPartition(func(f kgo.FetchTopicPartition) {
		c.guard.Lock()
		p := c.parts[f.Partition]
		c.guard.Unlock()
		if p != nil {
			p.put(f.Records)
		}
	})
}

func (c *consumer) fetchError(number int32, err error) {
	c.guard.Lock()
	p := c.parts[number]
	c.guard.Unlock()
	_, cut := errors.AsType[*kgo.ErrDataLoss](err)
	_, huge := errors.AsType[*kgo.ErrDecompressTooLarge](err)
	switch {
	case p != nil && cut:
		p.halt(fmt.Errorf("%w: %w", chain.ErrConflict, err))
	case p != nil && (huge || errors.Is(err, kerr.OffsetOutOfRange)):
		p.finish(fmt.Errorf("%w: %w", chain.ErrConflict, err))
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.UnknownTopicOrPartition):
		signal(c.look)
	}
	const quiet = 10 * time.Second
	c.guard.Lock()
	if kafka.IsNotAllowed(err) {
		c.refused, c.refusedAt = err, time.Now()
	}
	last := c.complaint[err.Error()]
	if time.Since(last) > quiet {
		c.complaint = map[string]time.Time{err.Error(): time.Now()}
	}
	c.guard.Unlock()
	if time.Since(last) > quiet {
		c.log.Warn("fetch failed", slog.Any("partition", number), slog.Any("error", err))
	}
}

// refusal is why the brokers do not let us read the topic or join the group; nil: they do, or have not said so for a while.
func (c *consumer) refusal() error {
	c.guard.Lock()
	defer c.guard.Unlock()
	if c.refused == nil || time.Since(c.refusedAt) > refusalShows {
		return nil
	}
	return fmt.Errorf("archiver: reading topic %s in group %s: %w", c.topic, c.group, c.refused)
}

// revoked archives what the partitions have, so that their next owner goes on right behind it.
func (c *consumer) revoked(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	c.close(c.forget(gone)) //nolint:contextcheck // the client's context may end before the commit
}

// lost drops what the partitions have: they may be another's already, who reads the same records again.
func (c *consumer) lost(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	for _, p := range c.forget(gone) {
		p.abandon()
	}
}

// forget takes the partitions off the consumer.
func (c *consumer) forget(gone map[string][]int32) []*partition {
	<-c.ready
	c.client.ResumeFetchPartitions(gone) // a halted partition is looked at anew wherever it comes next
	c.guard.Lock()
	defer c.guard.Unlock()
	parts := map[int32]*partition{}
	for _, number := range gone[c.topic] {
		if p := c.parts[number]; p != nil {
			parts[number] = p
		}
	}
	return c.take(parts)
}

func (c *consumer) take(parts map[int32]*partition) []*partition {
	var out []*partition
	for number, p := range parts {
		out = append(out, p)
		delete(c.parts, number)
	}
	return out
}

// close has the partitions archive what they hold, within the drain timeout, and commits their positions.
func (c *consumer) close(parts []*partition) {
	if len(parts) == 0 {
		return
	}
	deadline := time.After(c.cfg.DrainTimeout)
	for _, p := range parts {
		p.drain()
	}
	for _, p := range parts {
		select {
		case <-p.done:
		case <-deadline:
			c.log.Warn("drain timeout: records that are not archived stay in Kafka", slog.Any("partition", p.number))
			deadline = closed
		}
	}
	for _, p := range parts {
		p.abandon()
	}
	c.commit()
}

// closed is a channel that never blocks a receiver.
var closed = func() chan time.Time { ch := make(chan time.Time); close(ch); return ch }()

// locate says where to fetch from: behind the end of each partition's chain in the store. Kafka's offsets are hints.
// A partition for which there is no such place is left out, and is halted.
func (c *consumer) locate(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	mine := offsets[c.topic]
	for _, p := range c.forget(map[string][]int32{c.topic: slices.Collect(maps.Keys(mine))}) {
		p.abandon()
	}
	bounds, err := c.logBounds(ctx)
	if err != nil {
		return nil, err
	}
	var group errgroup.Group
	group.SetLimit(locateAtOnce)
	found := make(map[int32]*partition, len(mine))
	for number, offset := range mine {
		p := c.newPartition(number)
		found[number] = p
		group.Go(func() error { return p.locate(ctx, offset.EpochOffset().Offset, bounds) })
	}
	if err := group.Wait(); err != nil {
		for _, p := range found {
			p.cancel()
		}
		return nil, err
	}
	c.guard.Lock()
	defer c.guard.Unlock()
	for number, p := range found {
		c.parts[number] = p
		if p.haltedBy() != nil {
			delete(mine, number)
			close(p.done)
			continue
		}
		mine[number] = kgo.NewOffset().At(p.tip.Next).WithEpoch(p.tip.LeaderEpoch)
		go p.run() //nolint:contextcheck // a span of another process is read without a context
	}
	return offsets, nil
}

// bounds are the first offset of each partition's log and the one behind its last.
type bounds struct{ start, end kadm.ListedOffsets }

func (c *consumer) logBounds(ctx context.Context) (b bounds, err error) {
	err = c.retry(ctx, "ask Kafka for the log's bounds", func() error {
		b.start, b.end, err = kafka.LogBounds(ctx, c.admin, c.topic)
		return errors.Join(err, b.start.Error(), b.end.Error())
	})
	return b, err
}

func (c *consumer) newPartition(number int32) *partition {
	ctx, cancel := context.WithCancel(context.Background()) // it outlives ctx: open segments are closed after a stop
	return &partition{
		c: c, number: number, ctx: ctx, cancel: cancel,
		log: c.log.With(slog.Int("partition", int(number))),
		chain: &chain.Chain{
			Store: c.store, Copy: c.copy, Kind: c.kind, Key: c.key,
			Partition: layout.Partition{Topic: c.topic, TopicID: c.topicID, Number: number},
		},
		wake: make(chan struct{}, 1), pressed: make(chan struct{}, 1),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
}

// archived notes that everything before the offset is in the store, for the next commit.
func (c *consumer) archived(number int32, tip chain.Tip) {
	c.guard.Lock()
	c.positions[number] = kgo.EpochOffset{Epoch: tip.LeaderEpoch, Offset: tip.Next}
	c.guard.Unlock()
	signal(c.commits)
}

func (c *consumer) commitLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.commits:
			c.commit() //nolint:contextcheck // the commit has its own time
		}
	}
}

// commit tells Kafka how far the archive is. Nothing depends on it but what others see as lag, so that a failure is
// only logged.
func (c *consumer) commit() {
	c.guard.Lock()
	positions := c.positions
	c.positions = map[int32]kgo.EpochOffset{}
	c.guard.Unlock()
	if len(positions) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitTime)
	defer cancel()
	c.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{c.topic: positions},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
			if err == nil && resp != nil {
				for _, t := range resp.Topics {
					for _, p := range t.Partitions {
						err = errors.Join(err, kerr.ErrorForCode(p.ErrorCode))
					}
				}
			}
			if err != nil {
				c.log.Info("offsets are not committed: they are only a hint, the archive has the position", slog.Any("error", err))
			}
		})
}

// watchTopic notices a topic that was made again, and keeps its retention.
func (c *consumer) watchTopic(ctx context.Context) {
	for {
		if id, err := kafka.TopicID(ctx, c.client, c.topic); err == nil && id != c.topicID {
			close(c.replaced)
			return
		}
		if retention, err := topicRetention(ctx, c.admin, c.topic); err == nil {
			c.retention.Store(int64(retention))
		}
		select {
		case <-ctx.Done():
			return
		case <-c.look:
		case <-time.After(watchInterval):
		}
	}
}

// oldest is the age of the oldest record that was fetched and is not archived.
func (c *consumer) oldest(now time.Time) time.Duration {
	c.guard.Lock()
	defer c.guard.Unlock()
	var age time.Duration
	for _, p := range c.parts {
		if since := p.oldest(); !since.IsZero() {
			age = max(age, now.Sub(since))
		}
	}
	return age
}

func (c *consumer) halted() error {
	c.guard.Lock()
	defer c.guard.Unlock()
	var errs []error
	for number, p := range c.parts {
		if err := p.haltedBy(); err != nil {
			errs = append(errs, fmt.Errorf("archiver: partition %d of %s is halted: %w", number, c.topic, err))
		}
	}
	return errors.Join(errs...)
}

func (c *consumer) haltedCount() int {
	c.guard.Lock()
	defer c.guard.Unlock()
	n := 0
	for _, p := range c.parts {
		if p.haltedBy() != nil {
			n++
		}
	}
	return n
}

// signal wakes who waits on ch, or will.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
