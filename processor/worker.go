package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

const (
	statementTimeout = 30 * time.Second // of our own statements
	firstPause       = 50 * time.Millisecond
	longestPause     = 5 * time.Second
	maxBatchBytes    = 8 << 20 // of one transaction, unless one record is larger
	queuedBatches    = 4
	slowest          = 6 // doublings of the time for one record's transaction
)

// engine is what workers and retries share.
type engine struct {
	store     *store.Store
	ops       []*operation
	byName    map[string]*operation
	bySource  map[string][]*operation
	reader    *reader
	batch     int
	txTimeout time.Duration
	budget    *budget
	dog       *watchdog
	tracer    *telemetry.Tracer // nil: traces are off
	group     string
	gapsOK    bool // the topic may be compacted
	paused    atomic.Pointer[map[string]bool]
	now       func() time.Time
	log       *slog.Logger
	metrics   *metrics
	publish   chan struct{} // something may be in the outbox
}

// lostError says that a partition's position is no longer in the log. The partition halts.
type lostError struct{ why string }

func (e *lostError) Error() string { return "the position is lost: " + e.why }

// worker writes one partition's records, in order, one transaction a batch.
type worker struct {
	eng   *engine
	part  store.Partition
	owner uuid.UUID
	read  func(*kgo.Record) []item
	moved func(store.Position) // after each commit
	log   *slog.Logger

	mu     sync.Mutex
	queue  []*kgo.Record
	bytes  int
	oldest time.Time // Kafka's time of the oldest record that is not committed
	high   int64     // high watermark
	next   int64
	paused bool
	ended  bool  // nothing is queued any more
	fault  error // why the last try failed; nil: it did not

	wake  chan struct{}
	quit  chan struct{} // closed: finish the batch and stop
	done  chan struct{}
	abort context.CancelFunc
	pulse *pulse
	early *pulse // of the preparation of the next batch
	ahead *ahead // nil: nothing is prepared
	stale bool   // most events of the last batch were known: it is not worth while to evaluate expressions ahead
	err   error  // why it stopped by itself; valid after done
	size  int    // events of the next batch at most; a record is not divided
	slow  uint   // how often the time for a record alone is doubled, since it was too short
	apart bool   // an operation failed in the last batch: the next one begins with savepoints
}

func newWorker(eng *engine, part store.Partition, owner uuid.UUID, pos store.Position) *worker {
	return &worker{
		eng: eng, part: part, owner: owner, next: pos.Next, size: eng.batch, moved: func(store.Position) {},
		read:  func(r *kgo.Record) []item { return eng.reader.read(part, r) },
		log:   eng.log.With(slog.String("topic", part.Topic), slog.Int("partition", int(part.Partition))),
		pulse: &pulse{name: fmt.Sprintf("the worker of partition %d", part.Partition)},
		early: &pulse{name: fmt.Sprintf("the preparation of partition %d", part.Partition)},
		wake:  make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
}

// start runs the worker until stop, or until it cannot go on.
func (w *worker) start(ctx context.Context) {
	ctx, w.abort = context.WithCancel(ctx)
	w.eng.budget.join()
	w.eng.dog.add(w.pulse)
	w.eng.dog.add(w.early)
	go func() {
		defer close(w.done)
		defer w.discard()
		defer w.eng.dog.forget(w.pulse)
		defer w.eng.dog.forget(w.early)
		defer w.join()
		defer w.abort()
		w.err = w.loop(ctx)
	}()
}

// stop lets the batch in flight end within grace, then drops it.
func (w *worker) stop(grace time.Duration) {
	w.signal()
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-w.done:
	case <-t.C:
		w.abort()
		<-w.done
	}
}

func (w *worker) stopping() bool {
	select {
	case <-w.quit:
		return true
	default:
		return false
	}
}

func (w *worker) signal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.quit:
	default:
		close(w.quit)
	}
}

// add queues records and says whether fetching should pause.
func (w *worker) add(records []*kgo.Record, high int64) (full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false
	}
	detach(records)
	size := 0
	for _, r := range records {
		size += recordBytes(r)
	}
	w.queue = append(w.queue, records...)
	w.bytes += size
	w.eng.budget.take(size)
	w.high = max(w.high, high)
	if w.oldest.IsZero() && len(w.queue) > 0 {
		w.oldest = w.queue[0].Timestamp
	}
	w.paused = w.paused || len(w.queue) >= queuedBatches*w.eng.batch || w.bytes >= w.eng.budget.half()
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return w.paused
}

// thirsty says once that a paused partition has room again.
func (w *worker) thirsty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.paused && len(w.queue) <= queuedBatches*w.eng.batch/2 && w.bytes <= w.eng.budget.half()/2 {
		w.paused = false
		return true
	}
	return false
}

// take waits for records and returns up to n of them, which stay queued until drop; nil: stop.
func (w *worker) take(ctx context.Context, n int) []*kgo.Record {
	for {
		select {
		case <-w.quit:
			return nil
		case <-ctx.Done():
			return nil
		default:
		}
		w.mu.Lock()
		records := w.queue
		w.mu.Unlock()
		if len(records) > 0 {
			return leading(records, n)
		}
		select {
		case <-w.wake:
		case <-w.quit:
		case <-ctx.Done():
		}
	}
}

// leading is the first records, at most n, and not many bytes of them unless one is large.
func leading(records []*kgo.Record, n int) []*kgo.Record {
	size, i := 0, 0
	for i < len(records) && i < n && (i == 0 || size+recordBytes(records[i]) <= maxBatchBytes) {
		size += recordBytes(records[i])
		i++
	}
	return records[:i:i]
}

// drop takes the records below the position off the queue.
func (w *worker) drop(next int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	size := 0
	for len(w.queue) > 0 && w.queue[0].Offset < next {
		size += recordBytes(w.queue[0])
		w.queue[0] = nil
		w.queue = w.queue[1:]
	}
	w.bytes -= size
	w.eng.budget.free(size)
	w.oldest = time.Time{}
	if len(w.queue) > 0 {
		w.oldest = w.queue[0].Timestamp
	} else {
		w.queue = nil
	}
}

// discard forgets what is queued when the worker has ended: it is fetched again by the next one.
func (w *worker) discard() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.eng.budget.leave()
	w.eng.budget.free(w.bytes)
	w.queue, w.bytes, w.ended = nil, 0, true
}

func (w *worker) loop(ctx context.Context) error {
	for {
		w.pulse.idle()
		records := w.take(ctx, w.eng.batch)
		w.pulse.busy("reading records", statementTimeout)
		if records == nil {
			return ctx.Err()
		}
		stale, err := w.check(records)
		if err != nil {
			return err
		}
		if stale > 0 {
			w.drop(w.next)
			continue
		}
		if err := w.write(ctx, records); err != nil {
			return err
		}
	}
}

// check counts the leading records that are behind the position, and refuses a gap: what is missing would be lost.
func (w *worker) check(records []*kgo.Record) (stale int, err error) {
	for stale < len(records) && records[stale].Offset < w.next {
		stale++
	}
	if stale > 0 || w.eng.gapsOK || mutant.On(mutant.M15) {
		return stale, nil
	}
	next := w.next
	for _, r := range records {
		if r.Offset != next {
			return 0, &lostError{fmt.Sprintf("expected offset %d, the log goes on at %d", next, r.Offset)}
		}
		next++
	}
	return 0, nil
}

// write commits the records in one transaction, or in several smaller ones after timeouts and refusals. It tries
// again, in place, for as long as only the database or the way to it is to blame.
func (w *worker) write(ctx context.Context, records []*kgo.Record) error {
	var items []item
	pause, deferred := firstPause, false
	for len(items)+len(records) > 0 && !w.stopping() {
		for len(items) < w.size && len(records) > 0 {
			items = append(items, w.itemsOf(records[0])...)
			records = records[1:]
		}
		if len(records) == 0 && w.ahead == nil {
			w.prepare(ctx, items[len(items)-1].rec)
		}
		n := whole(items, w.size)
		b := &batch{eng: w.eng, part: w.part, owner: w.owner, expected: w.next, items: items[:n], apart: w.apart || deferred, deferred: deferred}
		began := time.Now()
		err := w.once(ctx, b)
		if err == nil {
			items = items[n:]
			w.committed(b, time.Since(began), w.eng.traced(b, began)) //nolint:contextcheck // a span of another process is read without a context
			pause, deferred = firstPause, false
			continue
		}
		deferred = deferred || errors.Is(err, errDeferred)
		again, err := w.react(ctx, b, err)
		if err != nil {
			return err
		}
		if again {
			continue
		}
		if err := w.rest(ctx, &pause); err != nil {
			return err
		}
	}
	return nil
}

// once makes one try under the batch's deadline. An unknown outcome is found out.
func (w *worker) once(ctx context.Context, b *batch) error {
	limit := w.eng.txTimeout
	if b.items[0].rec == b.items[len(b.items)-1].rec {
		limit <<= w.slow
		for _, op := range w.eng.ops {
			limit += op.spec.Timeout << w.slow // one record must have the time that its operations may take
		}
	}
	tctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	b.pulse = w.pulse
	w.pulse.busy("a batch", limit+store.EndTimeout)
	err := b.commit(tctx)
	if errors.Is(err, store.ErrUnknown) {
		return w.resolve(ctx, b, err)
	}
	if err != nil && tctx.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w after %s: %w", errTooSlow, limit, err)
	}
	return err
}

var errTooSlow = errors.New("the batch took too long")

// resolve asks Postgres whether a COMMIT that nobody answered took place.
func (w *worker) resolve(ctx context.Context, b *batch, cause error) error {
	w.eng.metrics.unknown.Inc()
	w.log.Warn("the outcome of a COMMIT is unknown: reading the position", slog.Any("error", cause))
	pause := firstPause
	for {
		w.pulse.busy("reading the position", statementTimeout)
		tctx, cancel := context.WithTimeout(ctx, statementTimeout)
		pos, owner, err := w.eng.store.Progress(tctx, w.part)
		cancel()
		switch {
		case err != nil:
			w.fail(err)
			if err := w.rest(ctx, &pause); err != nil {
				return err
			}
		case owner != w.owner:
			return store.ErrFenced
		case pos.Next == b.next().Next:
			return nil // it did
		case pos.Next == b.expected:
			return cause // it did not
		default:
			return store.ErrMoved
		}
	}
}

// deferredBatch bounds the batches in which deferred constraints are checked after each operation: each check looks at
// all that was written before.
const deferredBatch = 64

// react decides what follows from a failed try: again at once, again after a pause, or, with an error, the end.
func (w *worker) react(ctx context.Context, b *batch, err error) (again bool, end error) {
	var own *store.OwnError
	switch {
	case ctx.Err() != nil:
		return false, ctx.Err()
	case errors.Is(err, store.ErrFenced), errors.Is(err, store.ErrMoved):
		w.eng.metrics.fenced.Inc()
		return false, err
	case errors.Is(err, errDeferred) && !b.deferred:
		w.size = min(w.size, deferredBatch)
		return true, nil
	case errors.As(err, &own) && store.Classify(err) == store.Poison:
		w.refused(b, err)
		return true, nil
	case store.NoPartition(err):
		w.pulse.busy("making a partition", statementTimeout)
		err = w.eng.addDay(ctx, err)
	}
	if errors.Is(err, errTooSlow) {
		w.slow = min(w.slow+1, slowest)
	}
	w.size = max(1, len(b.items)/2) // what made it fail may not meet a smaller one: time, locks
	w.fail(err)
	return false, nil
}

// refused narrows down to the record of which Postgres does not take an event's own row; it becomes a dead letter.
func (w *worker) refused(b *batch, err error) {
	if b.items[0].rec != b.items[len(b.items)-1].rec {
		w.size = max(1, len(b.items)/2)
		return
	}
	for i := range b.items {
		b.items[i].ev, b.items[i].skip = nil, i > 0
	}
	b.items[0].err, b.items[0].reason = err, reasonUnstorable
}

// rest waits, longer each time, with jitter; an error when the worker is to stop.
func (w *worker) rest(ctx context.Context, pause *time.Duration) error {
	w.pulse.busy("a pause", *pause)
	t := time.NewTimer(*pause/2 + rand.N(*pause/2+1))
	defer t.Stop()
	*pause = min(2**pause, longestPause)
	select {
	case <-t.C:
		return nil
	case <-w.quit:
		return context.Canceled
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *worker) fail(err error) {
	w.mu.Lock()
	first := w.fault == nil
	w.fault = err
	w.mu.Unlock()
	w.eng.metrics.tries.Inc()
	if store.IsCredentials(err) {
		w.log.Error("Postgres refuses us: check postgres.url and its password", slog.Any("error", err))
	} else if first {
		w.log.Warn("a batch could not be written; it is tried again", slog.Any("error", err))
	}
}

func (w *worker) committed(b *batch, took time.Duration, of trace.TraceID) {
	pos := b.next()
	w.drop(pos.Next)
	w.mu.Lock()
	w.next = pos.Next
	healed := w.fault != nil
	w.fault = nil
	w.mu.Unlock()
	w.size, w.slow = min(w.eng.batch, max(2*w.size, 1)), 0
	w.apart = b.sum.failures > 0
	w.stale = len(b.news) < len(b.items)/2
	for op, signs := range b.sum.signs {
		w.eng.learn(op, b.sum.messages[op], signs...)
	}
	if healed {
		w.log.Info("batches are written again", slog.Int64("next_offset", pos.Next))
	}
	w.eng.metrics.add(b.sum, took, of)
	w.eng.published()
	w.moved(pos)
}

// position is where the worker stands: what is below it is committed.
func (w *worker) position() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.next
}

// state tells how far the worker is: lag in records, time of the oldest record waiting, and what hinders it.
func (w *worker) state() (lag int64, oldest time.Time, fault error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return max(w.high-w.next, int64(len(w.queue))), w.oldest, w.fault
}

// backoff is the delay after the given attempt: it doubles, with jitter of a quarter both ways.
func backoff(r settings.Retry, attempt int) time.Duration {
	d := r.Initial
	for i := 1; i < attempt && d < r.Max; i++ {
		d *= 2
	}
	d = min(d, r.Max)
	return d - d/4 + rand.N(d/2+1)
}
