package archiver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/catchment-dev/catchment/archiver/internal/chain"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/telemetry"
)

var (
	errOvertaken = errors.New("Kafka's retention has deleted records that are not archived")
	errCut       = errors.New("Kafka's log ends before the archive does")
	errGap       = errors.New("records are missing in Kafka's log")
)

// queuedRecord is a record of the queue, and what row.RecordSize says of it.
type queuedRecord struct {
	*kgo.Record
	size int64
}

// releasedBytes of the queue are given back to the budget at once, which wakes who fetches.
const releasedBytes = 64 << 10

// partition archives one partition while it is assigned to this process. Its goroutine runs run.
type partition struct {
	c      *consumer
	number int32
	log    *slog.Logger
	chain  *chain.Chain
	ctx    context.Context // ends when the partition is another's, or no time is left
	cancel context.CancelFunc

	wake    chan struct{} // there are records in the queue
	pressed chan struct{} // close the open segment: memory is short
	closing chan struct{} // archive what there is, and end
	done    chan struct{}
	drained sync.Once

	open atomic.Int64 // bytes of the open segment

	guard  sync.Mutex
	queue  []queuedRecord
	queued int64     // bytes of the queue
	stays  bool      // the goroutine waits for a store, and the queue with it
	since  time.Time // broker's timestamp of the first record that is not archived
	reason error     // why it is halted
	last   error     // why it takes no more records, and is halted when it has archived those it has

	// Only the goroutine of run uses these, after locate.
	tip     chain.Tip
	maker   row.Maker
	builder *segment.Builder
	held    int64          // bytes of the builder that the budget knows of
	traces  []tracedRecord // of the open segment's records, those that are sampled
}

// locate finds the end of the partition's chain. It waits for the store; its only error is ctx's. When there is no
// place to go on from, the partition is halted.
func (p *partition) locate(ctx context.Context, committed int64, b bounds) error {
	var halt error
	err := p.c.retry(ctx, "find the end of the archive", func() error {
		var err error
		p.tip, err = p.find(ctx, committed, b)
		if errors.Is(err, chain.ErrConflict) {
			halt, err = err, nil
		}
		return p.c.stored(err)
	})
	switch {
	case err != nil:
		return err
	case halt != nil:
		p.halt(halt)
	case committed > p.tip.Next:
		p.log.Warn("the archive ends before Kafka's committed offset: going on behind the archive's end", slog.Any("next", p.tip.Next), slog.Any("committed", committed))
	default:
		p.log.Info("going on behind the archive's end", slog.Any("next", p.tip.Next))
	}
	return nil
}

func (p *partition) find(ctx context.Context, committed int64, b bounds) (chain.Tip, error) {
	start, ok := b.start.Lookup(p.c.topic, p.number)
	end, ok2 := b.end.Lookup(p.c.topic, p.number)
	if !ok || !ok2 {
		return chain.Tip{}, fmt.Errorf("partition %d has no bounds", p.number)
	}
	tip, ok, err := p.chain.Locate(ctx, committed)
	if err == nil && !ok {
		tip, err = p.chain.Begin(ctx, start.Offset)
	}
	if err == nil {
		tip, err = p.chain.CatchUp(ctx, tip, start.Offset)
	}
	switch {
	case err != nil:
		return tip, err
	case tip.Next < start.Offset:
		return tip, fmt.Errorf("%w: %w: offsets %d to %d", chain.ErrConflict, errOvertaken, tip.Next, start.Offset-1)
	case tip.Next > end.Offset:
		return tip, fmt.Errorf("%w: %w: at %d, the archive at %d", chain.ErrConflict, errCut, end.Offset, tip.Next)
	}
	return tip, nil
}

// put queues records. It never blocks.
func (p *partition) put(records []*kgo.Record) {
	if len(records) == 0 {
		return
	}
	var size int64
	queue := make([]queuedRecord, len(records))
	for i, r := range records {
		queue[i] = queuedRecord{r, row.RecordSize(r)}
		size += queue[i].size
	}
	p.guard.Lock()
	defer p.guard.Unlock()
	if p.reason != nil || p.last != nil {
		return
	}
	if p.c.budget.lags(p.queued) {
		for _, r := range records {
			row.Detach(r)
		}
	}
	p.queue = append(p.queue, queue...)
	p.queuedMore(size)
	if p.since.IsZero() {
		p.since = records[0].Timestamp
	}
	signal(p.wake)
}

// queuedMore counts bytes of the queue, in the budget as well. The caller holds guard.
func (p *partition) queuedMore(bytes int64) {
	p.queued += bytes
	if !p.stays {
		p.c.budget.queued.Add(bytes)
	}
	p.c.budget.add(bytes)
}

// retry calls try until it succeeds or the partition is another's. Meanwhile the queue does not keep others from fetching.
func (p *partition) retry(what string, try func() error) error {
	p.stay(true)
	defer p.stay(false)
	return p.c.retry(p.ctx, what, try)
}

func (p *partition) stay(stays bool) {
	p.guard.Lock()
	defer p.guard.Unlock()
	bytes := p.queued
	if p.stays = stays; stays {
		bytes = -bytes
	}
	p.c.budget.queued.Add(bytes)
	p.c.budget.tell()
}

func (p *partition) run() {
	defer close(p.done)
	defer p.release()
	age := time.NewTimer(p.c.cfg.SegmentAge)
	defer age.Stop()
	for {
		err := p.archiveQueue()
		if err == nil && p.builder != nil {
			age.Reset(time.Until(p.builder.Opened().Add(p.c.cfg.SegmentAge)))
		}
		if err == nil {
			select {
			case <-p.wake:
				continue
			case <-age.C:
				err = p.closeSegment("age")
			case <-p.pressed:
				err = p.closeSegment("memory")
				p.c.budget.relieved(p)
			case <-p.closing:
				p.end()
				return
			case <-p.ctx.Done():
				return
			}
		}
		if err != nil {
			p.stop(err)
			return
		}
	}
}

// end archives everything that the partition has.
func (p *partition) end() {
	err := p.archiveQueue()
	for err == nil && p.builder != nil {
		err = p.closeSegment("stop")
	}
	p.guard.Lock()
	err = cmp.Or(err, p.last)
	p.guard.Unlock()
	if err != nil {
		p.stop(err)
	}
}

// stop halts the partition, unless it only was another's.
func (p *partition) stop(err error) {
	if p.ctx.Err() == nil {
		p.halt(err)
	}
}

// archiveQueue moves the queued records into segments. After an error the partition cannot go on.
func (p *partition) archiveQueue() error {
	p.guard.Lock()
	records := p.queue
	p.queue = nil
	p.guard.Unlock()
	var archived int64
	for i, r := range records {
		if err := p.archive(r.Record, r.size); err != nil {
			return err
		}
		records[i].Record = nil
		if archived += r.size; archived >= releasedBytes || i == len(records)-1 {
			p.guard.Lock()
			p.queuedMore(-archived)
			p.guard.Unlock()
			archived = 0
		}
	}
	return nil
}

// archive adds one record to the open segment, and closes segments where that is due.
func (p *partition) archive(r *kgo.Record, size int64) error {
	for p.builder != nil && r.Offset == p.builder.Next() && day(r.Timestamp) != day(p.builder.Day()) {
		if err := p.closeSegment("day"); err != nil {
			return err
		}
	}
	next := p.tip.Next
	if p.builder != nil {
		next = p.builder.Next()
	}
	if r.Offset < next {
		return nil // in a segment of another archiver
	}
	if r.Offset > next {
		return fmt.Errorf("%w: %w: offsets %d to %d", chain.ErrConflict, errGap, next, r.Offset-1)
	}
	w := p.c.row(&p.maker, r, p.chain.Partition.TopicID)
	if err := p.seal(w); err != nil {
		return err
	}
	if p.builder == nil {
		p.builder = segment.NewBuilder(p.chain.Partition, next, p.c.writer)
	}
	if err := p.builder.Append(w, r.LeaderEpoch, size); err != nil {
		return err
	}
	p.noteTrace(r)
	p.hold(p.builder.Memory())
	if p.builder.Raw() >= int64(p.c.cfg.SegmentBytes) {
		return p.closeSegment("size")
	}
	return nil
}

// seal encrypts the row, and waits for the store of the keys as long as that takes. An error is final.
func (p *partition) seal(w *row.Row) error {
	if err := p.c.ring.Seal(p.ctx, w); err == nil {
		return nil
	}
	var unusable error
	err := p.retry("have the key of a record's source and day", func() error {
		err := p.c.ring.Seal(p.ctx, w)
		if errors.Is(err, keys.ErrUnusable) {
			unusable, err = err, nil
		}
		return p.c.stored(err)
	})
	return errors.Join(err, unusable)
}

// closeSegment stores the open segment, if there is one, and tries until that succeeds. When another archiver's
// segment stands in its place, the rows behind that one are the open segment afterwards. An error is final.
func (p *partition) closeSegment(why string) error {
	if p.builder == nil {
		return nil
	}
	s, err := p.builder.Finish(p.tip.Segment)
	if err != nil {
		return err
	}
	p.hold(int64(len(s.Body)))
	started := time.Now()
	var added chain.Added
	var conflict error
	err = p.retry("store "+s.Key(p.c.kind), func() error {
		var err error
		added, err = p.chain.Add(p.ctx, p.tip, s)
		if errors.Is(err, chain.ErrConflict) {
			conflict, err = err, nil
		}
		return p.c.stored(err)
	})
	if err = errors.Join(err, conflict); err != nil {
		return err
	}
	p.tip, p.builder = added.Tip, nil
	p.c.archived(p.number, p.tip)
	p.account(s, added, why, time.Since(started), p.traced(s, added, started))
	if s.Last >= p.tip.Next {
		if p.builder, err = segment.Rest(s, p.tip.Next); err != nil {
			return err
		}
	}
	p.passed()
	return nil
}

func (p *partition) account(s *segment.Segment, added chain.Added, why string, took time.Duration, of trace.TraceID) {
	if added.Adopted {
		p.c.metrics.adopted.Inc()
		p.log.Info("adopted another archiver's segment", slog.Any("first", s.First), slog.Any("last", added.Tip.Next-1))
		return
	}
	p.c.metrics.segments.Inc()
	p.c.metrics.records.Add(float64(s.Count()))
	p.c.metrics.bytes.Add(float64(len(s.Body)))
	telemetry.Observe(p.c.metrics.stores, took, of)
	p.log.Info("segment archived", slog.String("key", s.Key(p.c.kind)), slog.Any("records", s.Count()), slog.Int("bytes", len(s.Body)), slog.String("closed_by", why), slog.String("took", took.String()))
}

// passed notes what is the oldest record now, and how much memory the open segment takes.
func (p *partition) passed() {
	var held int64
	p.guard.Lock()
	p.since = time.Time{}
	if p.builder != nil {
		held, p.since = p.builder.Memory(), p.builder.Day()
	} else if len(p.queue) > 0 {
		p.since = p.queue[0].Timestamp
	}
	p.guard.Unlock()
	p.hold(held)
}

// hold tells the budget how much memory the open segment takes now.
func (p *partition) hold(bytes int64) {
	p.c.budget.add(bytes - p.held)
	p.held = bytes
	p.open.Store(bytes)
}

// release gives back to the budget what the partition still held when its goroutine ended.
func (p *partition) release() {
	p.hold(0)
	p.builder = nil
	p.guard.Lock()
	p.queuedMore(-p.queued)
	p.queue = nil
	p.guard.Unlock()
	p.c.budget.relieved(p)
}

// halt stops the partition for good: a person has to look at it. Nothing is fetched of it any more.
func (p *partition) halt(reason error) {
	p.guard.Lock()
	first := p.reason == nil
	if first {
		p.reason = reason
	}
	if p.since.IsZero() {
		p.since = time.Now()
	}
	p.guard.Unlock()
	p.cancel()
	if first {
		p.c.client.PauseFetchPartitions(map[string][]int32{p.c.topic: {p.number}})
		p.log.Error("partition is halted: nothing of it is archived until this is resolved", slog.Any("error", reason))
	}
}

// finish halts the partition after what was fetched of it is archived: Kafka may not have it any more.
func (p *partition) finish(reason error) {
	p.guard.Lock()
	p.last = cmp.Or(p.last, reason)
	p.guard.Unlock()
	p.c.client.PauseFetchPartitions(map[string][]int32{p.c.topic: {p.number}})
	p.drain()
}

// drain asks the goroutine to archive what it has and to end; done says when.
func (p *partition) drain() { p.drained.Do(func() { close(p.closing) }) }

// abandon ends the goroutine at once and waits for it.
func (p *partition) abandon() {
	p.cancel()
	<-p.done
}

func (p *partition) haltedBy() error {
	p.guard.Lock()
	defer p.guard.Unlock()
	return p.reason
}

func (p *partition) oldest() time.Time {
	p.guard.Lock()
	defer p.guard.Unlock()
	return p.since
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
