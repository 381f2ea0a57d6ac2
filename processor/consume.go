package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

const (
	takeover      = 5 * time.Second // how long the old owner's transaction is waited for
	drain         = 10 * time.Second
	topicCheck    = 10 * time.Second
	commitEvery   = time.Second // of the advisory offsets
	claimAttempts = time.Minute
)

// errTopicChanged ends a session: the topic is gone, or another one of its name is there.
var errTopicChanged = errors.New("the topic was deleted or made anew")

// session is one membership in the consumer group.
type session struct {
	svc     *Service
	eng     *engine
	log     *slog.Logger
	ready   chan struct{} // closed: client and admin are set; the client begins to call us before kgo.NewClient returns
	client  *kgo.Client
	admin   *kadm.Client
	topic   string
	topicID [16]byte
	ctx     context.Context // of the workers: outlives the poll loop, so that batches in flight end
	end     context.CancelCauseFunc
	grace   time.Duration

	mu      sync.Mutex
	workers map[int32]*worker
	stood   map[int32]int64 // positions of the halted partitions
}

// consume joins the group and works until ctx ends or the session must be begun again.
func (s *Service) consume(ctx context.Context, topicID [16]byte) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	poll, end := context.WithCancelCause(ctx)
	defer end(nil)
	ses := &session{
		ready: make(chan struct{}), svc: s, eng: s.engine, log: s.log, topic: s.cfg.Kafka.Topic, topicID: topicID, ctx: work, end: end,
		grace: min(drain, s.cfg.Processor.Session/2), workers: map[int32]*worker{}, stood: map[int32]int64{},
	}
	opts, err := kafka.Options(s.cfg.Kafka, s.Name())
	if err != nil {
		return err
	}
	alive, drop := context.WithCancel(context.WithoutCancel(ctx))
	defer drop()
	client, err := kgo.NewClient(slices.Concat(opts, ses.options(), s.more, []kgo.Opt{kgo.WithContext(alive), kafka.Metrics(s.metrics.reg, "processor")})...)
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	ses.client, ses.admin = client, kadm.NewClient(client)
	close(ses.ready)
	s.use(ses)
	defer s.use(nil)
	go ses.every(poll, topicCheck, ses.checkTopic)
	go ses.every(poll, positionCheck, ses.checkPositions)
	go ses.every(poll, topicCheck, ses.checkFetches())
	go ses.every(poll, haltedCheck, ses.checkHalted)
	ses.poll(poll)
	closing := s.dog.watch("the consumer")
	defer s.dog.forget(closing)
	closing.busy("leaving the group", 3*drain)
	leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	client.AllowRebalance()
	if err := client.LeaveGroupContext(leave); err != nil { // revoke drains the workers and commits
		s.log.Debug("Kafka did not hear that we leave", slog.Any("error", err))
		drop() // a client that waits for brokers that do not answer does not close
	}
	client.CloseAllowingRebalance()
	client.AllowRebalance() // Close polls once more, and what leaves the group a second time would wait for that poll for ever
	ses.stopAll()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(poll)
}

func (ses *session) options() []kgo.Opt {
	cfg := ses.svc.cfg.Processor
	all, partition := ses.eng.budget.fetches()
	opts := []kgo.Opt{
		kgo.ConsumerGroup(cfg.Group), kgo.ConsumeTopics(ses.topic),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.SessionTimeout(cfg.Session), kgo.HeartbeatInterval(max(cfg.Session/4, 100*time.Millisecond)),
		kgo.ConsumeStartOffset(kgo.NoResetOffset()), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.AdjustFetchOffsetsFn(ses.position),
		kgo.OnPartitionsAssigned(ses.assigned), kgo.OnPartitionsRevoked(ses.revoked), kgo.OnPartitionsLost(ses.lost),
		kgo.BlockRebalanceOnPoll(), // records are handed to workers of the same assignment
		kgo.AutoCommitMarks(), kgo.AutoCommitInterval(commitEvery), kgo.AutoCommitCallback(ses.advised),
		kgo.KeepControlRecords(), // so that offsets have no gaps
		kgo.FetchMaxBytes(all), kgo.FetchMaxPartitionBytes(partition), kgo.FetchMaxWait(500 * time.Millisecond),
	}
	if mutant.On(mutant.M15) {
		opts = append(opts, kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
	}
	return opts
}

// position takes the partitions over: Postgres says where to go on, whatever Kafka's commit says.
func (ses *session) position(ctx context.Context, committed map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	<-ses.ready
	out := map[string]map[int32]kgo.Offset{ses.topic: {}}
	for p, kafkas := range committed[ses.topic] {
		ses.remove(p, 0) // of an assignment that was interrupted
		w, pos, err := ses.claim(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("take over partition %d: %w", p, err)
		}
		if at := kafkas.EpochOffset().Offset; at > pos.Next {
			ses.log.Warn("Postgres is behind Kafka's commit: it went back in time, or the commit was moved; going on from Postgres",
				slog.Int("partition", int(p)), slog.Int64("next_offset", pos.Next), slog.Int64("committed", at))
		}
		ses.mu.Lock()
		ses.workers[p] = w
		ses.mu.Unlock()
		w.start(ses.ctx) //nolint:contextcheck // a batch in flight outlives the group session
		go ses.watch(p, w)
		out[ses.topic][p] = kgo.NewOffset().At(pos.Next).WithEpoch(pos.LeaderEpoch)
	}
	return out, nil
}

// claim makes a new owner of the partition, however long Postgres or Kafka take to answer.
func (ses *session) claim(ctx context.Context, p int32) (*worker, store.Position, error) {
	part := store.Partition{Topic: ses.topic, TopicID: ses.topicID, Partition: p}
	pause := firstPause
	for {
		owner := uuid.New()
		pos, err := ses.claimOnce(ctx, part, owner)
		if err == nil {
			w := newWorker(ses.eng, part, owner, pos) //nolint:contextcheck // an expression has a deadline of its own
			w.moved = func(pos store.Position) { ses.moved(w, pos) }
			ses.log.Info("partition taken over", slog.Int("partition", int(p)), slog.Int64("next_offset", pos.Next))
			return w, pos, nil
		}
		if ctx.Err() != nil {
			return nil, pos, ctx.Err()
		}
		part := onKafka
		var own *store.OwnError
		if errors.As(err, &own) {
			part = onPostgres
		}
		ses.svc.report(part, fmt.Errorf("take over partition %d: %w", p, err))
		run.Pause(ctx, pause)
		pause = min(2*pause, longestPause)
	}
}

func (ses *session) claimOnce(ctx context.Context, part store.Partition, owner uuid.UUID) (store.Position, error) {
	ctx, cancel := context.WithTimeout(ctx, claimAttempts)
	defer cancel()
	starts, err := ses.admin.ListStartOffsets(ctx, ses.topic)
	if err != nil {
		return store.Position{}, fmt.Errorf("ask for the log's start: %w", err)
	}
	start, ok := starts.Lookup(ses.topic, part.Partition)
	if !ok || start.Err != nil {
		return store.Position{}, fmt.Errorf("ask for the log's start: %w", errors.Join(start.Err, errNoAnswer))
	}
	return ses.eng.store.Claim(ctx, part, start.Offset, owner, takeover)
}

var errNoAnswer = errors.New("no answer for the partition")

// watch ends the session, or halts the partition, when a worker stops by itself.
func (ses *session) watch(p int32, w *worker) {
	<-w.done
	var lost *lostError
	switch {
	case errors.As(w.err, &lost):
		ses.halt(p, lost)
	case errors.Is(w.err, store.ErrFenced), errors.Is(w.err, store.ErrMoved):
		ses.log.Warn("partition refused: joining the group again", slog.Int("partition", int(p)), slog.Any("error", w.err))
		ses.end(w.err)
	}
}

// moved follows a commit in Postgres: Kafka's offset is only a hint for lag metrics.
func (ses *session) moved(w *worker, pos store.Position) {
	p := w.part.Partition
	ses.client.MarkCommitOffsets(map[string]map[int32]kgo.EpochOffset{ses.topic: {p: {Epoch: pos.LeaderEpoch, Offset: pos.Next}}})
	failpoint.Hit(failpoint.AfterMark)
	if w.thirsty() {
		ses.client.ResumeFetchPartitions(map[string][]int32{ses.topic: {p}})
	}
	ses.svc.report(onPostgres, nil)
}

// advised hears what became of a commit in Kafka.
func (ses *session) advised(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
	if err != nil {
		ses.log.Debug("Kafka did not take the advisory commit", slog.Any("error", err))
		return
	}
	failpoint.Hit(failpoint.AfterKafkaCommit)
}

func (ses *session) assigned(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	<-ses.ready
	if parts := m[ses.topic]; len(parts) > 0 {
		ses.log.Info("partitions assigned", slog.Any("partitions", parts))
		ses.client.UpdateFetchMaxBytes(ses.eng.budget.fetches())
		ses.client.ResumeFetchPartitions(m)
	}
}

// revoked lets the batches in flight end, so that the next owner need not wait for them.
func (ses *session) revoked(ctx context.Context, cl *kgo.Client, m map[string][]int32) {
	if len(m[ses.topic]) == 0 {
		return
	}
	ses.removeAll(m[ses.topic], ses.grace)
	cctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := cl.CommitMarkedOffsets(cctx); err != nil {
		ses.log.Debug("Kafka did not take the advisory commit", slog.Any("error", err))
	}
	ses.log.Info("partitions revoked", slog.Any("partitions", m[ses.topic]))
}

// lost drops the work: another member may have the partitions already.
func (ses *session) lost(_ context.Context, _ *kgo.Client, m map[string][]int32) {
	ses.removeAll(m[ses.topic], 0)
	if len(m[ses.topic]) > 0 {
		ses.log.Warn("partitions lost", slog.Any("partitions", m[ses.topic]))
	}
}

func (ses *session) removeAll(parts []int32, grace time.Duration) {
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() { ses.remove(p, grace) })
	}
	wg.Wait()
}

func (ses *session) remove(p int32, grace time.Duration) {
	ses.mu.Lock()
	w := ses.workers[p]
	delete(ses.workers, p)
	delete(ses.stood, p)
	ses.mu.Unlock()
	ses.svc.unhalt(p)
	ses.eng.metrics.lag.DeleteLabelValues(strconv.Itoa(int(p)))
	if w != nil {
		w.stop(grace)
	}
}

func (ses *session) stopAll() {
	ses.mu.Lock()
	var parts []int32
	for p := range ses.workers {
		parts = append(parts, p)
	}
	ses.mu.Unlock()
	ses.removeAll(parts, ses.grace)
}

// poll hands records to the workers until ctx ends.
func (ses *session) poll(ctx context.Context) {
	for ctx.Err() == nil {
		ses.eng.budget.wait(ctx)
		fetches := ses.client.PollFetches(ctx)
		if fetches.IsClientClosed() {
			return
		}
		fetches.EachPartition(func(fp kgo.FetchTopicPartition) { ses.deliver(ctx, fp) })
		if !fetches.Empty() {
			failpoint.Hit(failpoint.AfterPoll)
		}
		ses.client.AllowRebalance()
	}
}

func (ses *session) deliver(ctx context.Context, fp kgo.FetchTopicPartition) {
	if fp.Err != nil {
		ses.fetchError(ctx, fp.Partition, fp.Err)
		return
	}
	ses.mu.Lock()
	w := ses.workers[fp.Partition]
	ses.mu.Unlock()
	if w == nil || fp.Topic != ses.topic {
		return // halted
	}
	if w.add(fp.Records, fp.HighWatermark) {
		ses.client.PauseFetchPartitions(map[string][]int32{ses.topic: {fp.Partition}})
		if w.thirsty() { // it drained meanwhile
			ses.client.ResumeFetchPartitions(map[string][]int32{ses.topic: {fp.Partition}})
		}
	}
}

func (ses *session) fetchError(ctx context.Context, p int32, err error) {
	var loss *kgo.ErrDataLoss
	switch {
	case ctx.Err() != nil:
	case errors.As(err, &loss):
		ses.halt(p, &lostError{fmt.Sprintf("the log was cut at %d, below the position %d", loss.ResetTo, loss.ConsumedTo)})
	case errors.Is(err, kerr.OffsetOutOfRange):
		ses.halt(p, &lostError{"the log does not reach the position: Kafka's retention overtook it, or the log was cut"})
	case errors.Is(err, kerr.UnknownTopicID), errors.Is(err, kerr.InconsistentTopicID), errors.Is(err, kerr.UnknownTopicOrPartition):
		ses.end(errTopicChanged)
	default:
		ses.svc.report(onKafka, fmt.Errorf("kafka: partition %d: %w", p, err))
	}
}

// halt stops a partition for good: going on would skip records.
func (ses *session) halt(p int32, why *lostError) {
	ses.mu.Lock()
	w := ses.workers[p]
	delete(ses.workers, p)
	if w != nil {
		ses.stood[p] = w.position()
	}
	ses.mu.Unlock()
	ses.client.PauseFetchPartitions(map[string][]int32{ses.topic: {p}})
	ses.svc.halt(p, why)
	if w != nil {
		go w.stop(0)
	}
}

// every calls check each d until ctx ends; its first error ends the session.
func (ses *session) every(ctx context.Context, d time.Duration, check func(context.Context) error) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := check(ctx); err != nil {
			ses.end(err)
			return
		}
	}
}

// checkTopic says when the topic is no longer the one whose position is kept.
func (ses *session) checkTopic(ctx context.Context) error {
	tctx, cancel := context.WithTimeout(ctx, topicCheck)
	defer cancel()
	id, err := kafka.TopicID(tctx, ses.client, ses.topic)
	if ctx.Err() == nil {
		ses.svc.report(onKafka, err)
	}
	if errors.Is(err, kafka.ErrNoTopic) || err == nil && id != ses.topicID {
		return errTopicChanged
	}
	return nil
}
