package archiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/internal/chain"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const patience = 2 * time.Minute // on a busy machine

// rig is a topic, a store and archivers between them.
type rig struct {
	*testing.T
	cluster *kafkatest.Cluster
	topic   string
	client  *kgo.Client // produces
	store   objstore.Store
	second  objstore.Store // of the archivers' checkpoints; nil: what cfg says
	cfg     settings.File
	ring    *keys.Ring // nil: the archive is plain
	made    int64      // records produced
}

func newRig(t *testing.T, partitions int) *rig {
	t.Helper()
	cluster := kafkatest.New(t)
	r := &rig{T: t, cluster: cluster, topic: cluster.Topic(t, partitions)}
	r.client = cluster.Client(t, kgo.DefaultProduceTopic(r.topic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	r.cfg = settings.File{
		Kafka:   cluster.Config(r.topic),
		Archive: settings.Archive{URL: "file://" + t.TempDir()},
		Archiver: settings.Archiver{
			Group: r.topic, SegmentBytes: 64 << 20, SegmentAge: 200 * time.Millisecond,
			BufferBytes: 256 << 20, DrainTimeout: 30 * time.Second, Session: 6 * time.Second,
		},
	}
	var err error
	r.store, err = archive.Open(t.Context(), r.cfg.Archive)
	require.NoError(t, err)
	return r
}

// running is one archiver.
type running struct {
	*Service
	cancel context.CancelFunc
	ended  chan error
}

// start runs an archiver on the store, or on the rig's when it is nil.
func (r *rig) start(store objstore.Store) *running {
	r.Helper()
	if store == nil {
		store = r.store
	}
	log := slog.New(slog.NewTextHandler(r.Output(), nil))
	cfg := r.cfg
	second := r.second
	if second == nil {
		var err error
		second, err = archive.OpenCopy(r.Context(), cfg.Archive)
		require.NoError(r, err)
	}
	s, err := newService(&cfg, log, prometheus.NewRegistry(), store, second)
	require.NoError(r, err)
	s.ring, err = keys.Open(r.Context(), cfg.Archive) // each its own, as in processes of their own
	require.NoError(r, err)
	ctx, cancel := context.WithCancel(context.Background())
	a := &running{s, cancel, make(chan error, 1)}
	go func() { a.ended <- s.Run(ctx) }()
	r.Cleanup(func() { a.stop(r) })
	return a
}

// stop ends the archiver as SIGTERM would, and waits for it.
func (a *running) stop(r *rig) {
	a.cancel()
	select {
	case err := <-a.ended:
		require.NoError(r, err)
		a.ended <- nil
	case <-time.After(patience):
		require.Fail(r, "the archiver does not stop")
	}
}

// delivery makes a delivery whose bytes are as unruly as the world's.
func delivery(random *rand.Rand) *event.Delivery {
	body := make([]byte, 1+random.IntN(2000))
	for i := range body {
		body[i] = byte(random.Uint32())
	}
	id := uuid.NewString()
	return &event.Delivery{
		Source: "stripe", Provider: "stripe", ID: "evt_" + id, Type: "payment_intent.succeeded",
		Time: time.Unix(1_700_000_000, 0).UTC(), ReceivedAt: time.Now().UTC().Truncate(time.Microsecond),
		DeliveryID: id, SecretID: "k_1", RemoteAddr: "192.0.2.1", Method: "POST", Path: "/webhooks/stripe",
		Query: "a=b", Verdict: event.NewVerdict(event.FlagVerified), ContentType: "application/json",
		TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		Headers: []event.Header{
			{Name: "content-type", Value: "application/json"},
			{Name: "x-latin", Value: "caf\xe9"},
			{Name: "x-twice", Value: "1"},
			{Name: "stripe-signature", Value: "t=1,v1=abc"},
			{Name: "x-twice", Value: "\xff\xfe"},
		},
		Body: body,
	}
}

// produce writes deliveries, spread over the partitions.
func (r *rig) produce(n int) {
	r.Helper()
	r.send(deliveries(n, uint64(r.made))...)
}

func deliveries(n int, seed uint64) []*kgo.Record {
	random := rand.New(rand.NewPCG(1, seed))
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = event.Encode(delivery(random))
	}
	return records
}

func (r *rig) send(records ...*kgo.Record) {
	r.Helper()
	require.NoError(r, r.trySend(records))
}

func (r *rig) trySend(records []*kgo.Record) error {
	err := r.client.ProduceSync(r.Context(), records...).FirstErr()
	if err == nil {
		atomic.AddInt64(&r.made, int64(len(records)))
	}
	return err
}

// archived is the number of records that checkpoints account for.
func (r *rig) archived() (n int64) {
	seen := map[archive.Partition]bool{}
	for s, err := range archive.Segments(context.Background(), r.store) {
		require.NoError(r, err)
		if seen[s.Partition] {
			continue
		}
		seen[s.Partition] = true
		for cp, err := range archive.Checkpoints(context.Background(), r.store, s.Partition, 0) {
			require.NoError(r, err)
			n += cp.Last - cp.First + 1
		}
	}
	return n
}

func (r *rig) waitArchived(n int64) {
	r.Helper()
	require.Eventually(r, func() bool { return r.archived() >= n }, patience, 20*time.Millisecond)
}

// judge waits until everything is archived, and then holds the archive against Kafka, which it reads with a client of
// its own: chains without gap or overlap, and every record's bytes.
func (r *rig) judge() (segments int) {
	r.Helper()
	r.waitArchived(atomic.LoadInt64(&r.made))
	inKafka := r.readKafka()
	problems, err := archive.Check(context.Background(), r.store, func(w *archive.Record) error {
		if w.IsResult() {
			return nil
		}
		at := place{w.Partition, w.Offset}
		record := inKafka[at]
		if record == nil {
			return fmt.Errorf("%v is not in Kafka, or twice in the archive", at)
		}
		delete(inKafka, at)
		if err := r.ring.Unseal(context.Background(), w); err != nil {
			return err
		}
		return sameRecord(record, w)
	})
	require.NoError(r, err)
	require.Empty(r, problems)
	require.Empty(r, inKafka, "records that are not archived")
	for _, err := range archive.Segments(context.Background(), r.store) {
		require.NoError(r, err)
		segments++
	}
	return segments
}

type place struct {
	partition int32
	offset    int64
}

func (r *rig) readKafka() map[place]*kgo.Record {
	r.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cl := r.cluster.Client(r, kgo.ConsumeTopics(r.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListEndOffsets(ctx, r.topic)
	require.NoError(r, err)
	out := map[place]*kgo.Record{}
	var want int
	ends.Each(func(o kadm.ListedOffset) { want += int(o.Offset) })
	for len(out) < want {
		fetches := cl.PollFetches(ctx)
		require.NoError(r, fetches.Err())
		fetches.EachRecord(func(record *kgo.Record) { out[place{record.Partition, record.Offset}] = record })
	}
	return out
}

// sameRecord compares what the archive gives back with what Kafka holds.
func sameRecord(record *kgo.Record, w *archive.Record) error {
	want, err := event.Decode(record)
	got, ok := w.Delivery()
	if ok != (err == nil) {
		return fmt.Errorf("offset %d: decodable is %v in the archive", w.Offset, ok)
	}
	if !bytes.Equal(record.Value, w.Body) {
		return fmt.Errorf("offset %d: the body differs", w.Offset)
	}
	if !record.Timestamp.Equal(w.KafkaTimestamp) {
		return fmt.Errorf("offset %d: the timestamp differs", w.Offset)
	}
	if err != nil {
		return nil
	}
	// Columns group the values of one name; the order of values within a name counts.
	wantHeaders, gotHeaders := want.HeaderMap(), got.HeaderMap()
	want.Headers, got.Headers, want.Body, got.Body = nil, nil, nil, nil
	if !reflect.DeepEqual(wantHeaders, gotHeaders) || !reflect.DeepEqual(want, got) {
		return fmt.Errorf("offset %d: %s%s", w.Offset, cmp.Diff(wantHeaders, gotHeaders), cmp.Diff(want, got))
	}
	return nil
}

func (r *rig) committed() (total int64) {
	r.Helper()
	offsets, err := kadm.NewClient(r.client).FetchOffsets(r.Context(), r.cfg.Archiver.Group)
	require.NoError(r, err)
	offsets.Each(func(o kadm.OffsetResponse) { total += o.At })
	return total
}

func TestRecordsBecomeSegmentsAndOffsetsFollow(t *testing.T) {
	urls := map[string]string{"file": "file://" + t.TempDir()}
	if bucket := s3test.New(t); bucket != nil {
		urls["s3"] = bucket.URL
	}
	for name, url := range urls {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 3)
			r.cfg.Archive.URL = url
			key, _, err := note.GenerateKey(nil, "example.com/archive")
			require.NoError(t, err)
			r.cfg.Archive.CheckpointKey = config.NewSecret(key)
			r.store, err = archive.Open(t.Context(), r.cfg.Archive)
			require.NoError(t, err)
			a := r.start(nil)
			require.Eventually(t, func() bool { return a.Ready() == nil }, patience, 10*time.Millisecond)
			r.produce(500)
			r.send(
				&kgo.Record{Key: []byte("k"), Value: []byte("no delivery"), Headers: []kgo.RecordHeader{{Key: "x", Value: []byte("\xff")}, {Key: "x", Value: []byte("2")}}},
				&kgo.Record{},
			)
			r.judge()
			require.Eventually(t, func() bool { return r.committed() == 502 }, patience, 20*time.Millisecond)
			a.stop(r)
			require.Error(t, a.Ready())
		})
	}
}

func TestSegmentsAreClosed(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*settings.Archiver)
		stop bool
		want int // segments, of ten records of about 1 KiB each in one partition
	}{
		"by size": {func(a *settings.Archiver) { a.SegmentBytes, a.SegmentAge = 1, time.Hour }, false, 10},
		"by age":  {func(a *settings.Archiver) { a.SegmentAge = time.Second }, false, 1},
		"by stop": {func(a *settings.Archiver) { a.SegmentAge = time.Hour }, true, 1},
		// Ten records exceed the buffer, so that nothing more is polled until segments are closed.
		"by memory": {func(a *settings.Archiver) { a.SegmentAge, a.BufferBytes = time.Hour, 1 }, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1)
			c.set(&r.cfg.Archiver)
			r.produce(10)
			a := r.start(nil)
			if c.stop {
				require.Eventually(t, a.holdsRecords, patience, 10*time.Millisecond)
				a.stop(r)
			}
			require.Equal(t, c.want, r.judge())
			require.Eventually(t, func() bool { return r.committed() == 10 }, patience, 20*time.Millisecond)
		})
	}
}

// The largest bodies that an ingress takes are one record each, and a segment of them is one upload.
func TestLargestBodies(t *testing.T) {
	r := newRig(t, 1)
	r.inBucket()
	r.client = r.cluster.Client(t, kgo.DefaultProduceTopic(r.topic), kgo.ProducerBatchMaxBytes(26_000_000), kgo.BrokerMaxWriteBytes(64<<20))
	for n := range uint64(4) {
		d := delivery(rand.New(rand.NewPCG(25, n)))
		d.Body = make([]byte, settings.MaxBody)
		_, _ = rand.NewChaCha8([32]byte{byte(n)}).Read(d.Body)
		r.send(event.Encode(d))
	}
	p := r.process(r.cfg.Archive.URL)
	p.Start()
	r.judge()
	r.everyRow()
	_, peak := p.Memory()
	t.Logf("%d MiB at its highest", peak>>20)
	require.Less(t, peak, int64(512<<20))
	p.Stop()
}

func TestSegmentsAreCutAtMidnightUTC(t *testing.T) {
	r := newRig(t, 1)
	// A broker's clock cannot be set, so that this topic takes the producer's.
	_, err := kadm.NewClient(r.client).AlterTopicConfigs(t.Context(),
		[]kadm.AlterConfig{{Op: kadm.SetConfig, Name: "message.timestamp.type", Value: kadm.StringPtr("CreateTime")}}, r.topic)
	require.NoError(t, err)
	midnight := time.Now().UTC().Truncate(24 * time.Hour)
	for _, at := range []time.Duration{-2 * time.Millisecond, -time.Millisecond, 0, time.Hour} {
		record := event.Encode(delivery(rand.New(rand.NewPCG(1, uint64(at)))))
		record.Timestamp = midnight.Add(at)
		r.send(record)
	}
	r.cfg.Archiver.SegmentAge = time.Second
	r.start(nil)
	require.Equal(t, 2, r.judge())
	var days []string
	for s, err := range archive.Segments(t.Context(), r.store) {
		require.NoError(t, err)
		days = append(days, fmt.Sprintf("%s from %d", s.Day.Format(time.DateOnly), s.First))
	}
	require.Equal(t, []string{
		midnight.Add(-time.Hour).Format(time.DateOnly) + " from 0",
		midnight.Format(time.DateOnly) + " from 2",
	}, days)
}

// fault is a store between an archiver and the rig's.
type fault struct {
	objstore.Store
	create func(ctx context.Context, key string, create func() error) error
}

func (f *fault) Create(ctx context.Context, key string, body []byte) error {
	return f.create(ctx, key, func() error { return f.Store.Create(ctx, key, body) })
}

func isSegment(key string) bool    { return strings.HasPrefix(key, "events/") }
func isCheckpoint(key string) bool { return strings.HasPrefix(key, "checkpoints/") }

var errFault = errors.New("injected")

func TestStoreFaults(t *testing.T) {
	for name, create := range map[string]func(call int, create func() error) error{
		"the first answer for each object is lost": func(call int, create func() error) error {
			err := create()
			if call == 1 {
				return errFault
			}
			return err
		},
		"each object fails twice": func(call int, create func() error) error {
			if call <= 2 {
				return errFault
			}
			return create()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2)
			var guard sync.Mutex
			calls := map[string]int{}
			a := r.start(&fault{r.store, func(_ context.Context, key string, do func() error) error {
				guard.Lock()
				calls[key]++
				call := calls[key]
				guard.Unlock()
				return create(call, do)
			}})
			for range 3 {
				r.produce(20)
				r.waitArchived(r.made)
			}
			r.judge()
			a.stop(r)
		})
	}
}

func TestKilledArchiverIsFollowed(t *testing.T) {
	for name, c := range map[string]struct {
		dies  func(key string) bool // at the creation of this object
		after bool                  // after it was created
	}{
		"before the segment":    {isSegment, false},
		"after the segment":     {isSegment, true},
		"after the checkpoint":  {isCheckpoint, true},
		"when the chain begins": {func(key string) bool { return strings.HasPrefix(key, "starts/") }, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1)
			r.cfg.Archiver.DrainTimeout = 0 // what is killed does not drain
			r.produce(30)
			died := make(chan struct{})
			var once sync.Once
			first := r.start(&fault{r.store, func(ctx context.Context, key string, create func() error) error {
				if !c.dies(key) {
					select {
					case <-died: // the dead do not write
						<-ctx.Done()
						return ctx.Err()
					default:
						return create()
					}
				}
				if c.after {
					if err := create(); err != nil {
						return err
					}
				}
				once.Do(func() { close(died) })
				<-ctx.Done()
				return ctx.Err()
			}})
			select {
			case <-died:
			case <-time.After(patience):
				require.Fail(t, "it never came to that")
			}
			first.stop(r)
			require.Zero(t, max(0, r.committed()), "nothing is committed before segment and checkpoint are known to be durable")
			r.produce(30)
			r.cfg.Archiver.DrainTimeout = 30 * time.Second
			second := r.start(nil)
			r.judge()
			second.stop(r)
		})
	}
}

// Two archivers that both believe to own a partition: groups of their own make them so.
func TestTwoArchiversOfOnePartitionMakeOneChain(t *testing.T) {
	r := newRig(t, 2)
	r.cfg.Archiver.SegmentAge = 50 * time.Millisecond
	var archivers []*running
	for i := range 3 {
		r.cfg.Archiver.Group = fmt.Sprintf("%s-%d", r.topic, i)

		archivers = append(archivers, r.start(nil))
	}
	for range 10 {
		r.produce(40)
	}
	r.judge()
	for _, a := range archivers {
		a.stop(r)
	}
	r.judge()
}

// The hung one has read 10 records, is overtaken by one that archives 25, and wakes up with its upload.
func TestHungArchiverAdoptsWhatOvertookIt(t *testing.T) {
	r := newRig(t, 1)
	r.cfg.Archiver.SegmentAge = 500 * time.Millisecond
	r.produce(10)
	hung, wake := make(chan struct{}), make(chan struct{})
	var once sync.Once
	sleeper := r.start(&fault{r.store, func(_ context.Context, key string, create func() error) error {
		if isSegment(key) {
			once.Do(func() { close(hung) })
			<-wake
		}
		return create()
	}})
	<-hung
	r.produce(15)
	r.cfg.Archiver.Group += "-other"
	other := r.start(nil)
	r.judge()
	close(wake)
	r.produce(10)
	r.judge()
	other.stop(r)
	r.produce(5)
	r.judge()
	require.NoError(t, sleeper.Ready())
	sleeper.stop(r)
	r.judge()
}

func TestRebalancesUnderLoad(t *testing.T) {
	r := newRig(t, 6)
	r.cfg.Archiver.SegmentAge = 50 * time.Millisecond
	stop := kafkatest.Load(t, func() error { return r.trySend(deliveries(50, uint64(atomic.LoadInt64(&r.made)))) })
	shares := func(archivers ...*running) func() bool {
		return func() bool {
			var parts int
			for _, a := range archivers {
				n := a.partitions()
				if n == 0 {
					return false
				}
				parts += n
			}
			return parts == 6
		}
	}
	one := r.start(nil)
	require.Eventually(t, shares(one), patience, 10*time.Millisecond)
	two := r.start(nil)
	require.Eventually(t, shares(one, two), patience, 10*time.Millisecond)
	three := r.start(nil)
	require.Eventually(t, shares(one, two, three), patience, 10*time.Millisecond)
	one.stop(r)
	require.Eventually(t, shares(two, three), patience, 10*time.Millisecond)
	two.stop(r)
	require.Eventually(t, shares(three), patience, 10*time.Millisecond)
	stop()
	r.judge()
	three.stop(r)
}

// partitions is the number of those that the archiver has.
func (a *running) partitions() int { return len(a.allPartitions()) }

// haltedWith waits until the archiver is not ready for that reason.
func (a *running) haltedWith(r *rig, reason string) {
	r.Helper()
	require.Eventually(r, func() bool {
		err := a.Ready()
		return err != nil && strings.Contains(err.Error(), reason)
	}, patience, 10*time.Millisecond)
}

func TestOvertakenByRetentionHalts(t *testing.T) {
	r := newRig(t, 1)
	a := r.start(nil)
	r.produce(10)
	r.judge()
	a.stop(r)

	r.produce(20)
	var gone kadm.Offsets
	gone.Add(kadm.Offset{Topic: r.topic, Partition: 0, At: 15})
	_, err := kadm.NewClient(r.client).DeleteRecords(t.Context(), gone)
	require.NoError(t, err)
	a = r.start(nil)
	a.haltedWith(r, "offsets 10 to 14")
	r.produce(5)
	a.stop(r)
	require.EqualValues(t, 10, r.archived())
	require.EqualValues(t, 10, r.committed())
}

// What was fetched when Kafka's retention overtakes the partition is archived, for Kafka may not have it any more.
func TestOvertakenKeepsWhatWasFetched(t *testing.T) {
	r := newRig(t, 1)
	r.cfg.Archiver.SegmentAge = time.Hour
	a := r.start(nil)
	r.produce(10)
	fetched := func() bool {
		parts := a.allPartitions()
		return len(parts) == 1 && parts[0].open.Load() > 0
	}
	require.Eventually(t, fetched, patience, 10*time.Millisecond)
	a.allPartitions()[0].c.fetchError(0, kerr.OffsetOutOfRange)
	a.haltedWith(r, kerr.OffsetOutOfRange.Error())
	require.Positive(t, r.archived())
	a.stop(r)
}

func TestLogThatEndsBeforeTheArchiveHalts(t *testing.T) {
	r := newRig(t, 1)
	r.produce(10)
	id, err := kafka.TopicID(t.Context(), r.client, r.topic)
	require.NoError(t, err)
	ahead := &chain.Chain{Store: r.store, Partition: layout.Partition{Topic: r.topic, TopicID: id}}
	_, err = ahead.Begin(t.Context(), 100)
	require.NoError(t, err)
	a := r.start(nil)
	a.haltedWith(r, errCut.Error())
	a.stop(r)
	require.Zero(t, r.archived())
}

func TestOtherRecordsInTheArchiveHalt(t *testing.T) {
	r := newRig(t, 1)
	// Another topic's records stand where this one's belong, as after a log that was cut and written anew.
	id, err := kafka.TopicID(t.Context(), r.client, r.topic)
	require.NoError(t, err)
	r.produce(1)
	var mine *kgo.Record
	for _, record := range r.readKafka() {
		mine = record
	}
	p := layout.Partition{Topic: r.topic, TopicID: id}
	b := segment.NewBuilder(p, 0, "other")
	mine.Value = []byte("something else")
	require.NoError(t, b.Append(row.From(mine, id), 0, 1))
	other, err := b.Finish("")
	require.NoError(t, err)
	require.NoError(t, r.store.Create(t.Context(), other.Key(layout.Events), other.Body))

	a := r.start(nil)
	a.haltedWith(r, "another record")
	a.stop(r)
	require.Zero(t, r.archived())
	require.Zero(t, max(0, r.committed()))
}

func TestTopicMadeAgainBeginsNewChains(t *testing.T) {
	r := newRig(t, 2)
	a := r.start(nil)
	r.produce(30)
	r.judge()
	admin := kadm.NewClient(r.client)
	_, err := admin.DeleteTopic(t.Context(), r.topic)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := admin.CreateTopic(t.Context(), 2, 3, nil, r.topic)
		return err == nil
	}, patience, 100*time.Millisecond)
	r.client = r.cluster.Client(t, kgo.DefaultProduceTopic(r.topic), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	r.produce(20)
	r.waitArchived(50)
	a.stop(r)
	problems, err := archive.Check(t.Context(), r.store, nil)
	require.NoError(t, err)
	require.Empty(t, problems)
	chains := map[archive.Partition]bool{}
	for s, err := range archive.Segments(t.Context(), r.store) {
		require.NoError(t, err)
		chains[s.Partition] = true
	}
	require.Len(t, chains, 4)
}

func TestWaitsForKafkaTopicAndStore(t *testing.T) {
	r := newRig(t, 1)
	r.topic += ".later"
	r.cfg.Kafka.Topic = r.topic
	var up atomic.Bool
	a := r.start(&fault{r.store, func(_ context.Context, _ string, create func() error) error {
		if !up.Load() {
			return errFault
		}
		return create()
	}})
	a.haltedWith(r, "waiting for the archive's store")
	up.Store(true)
	a.haltedWith(r, "waiting for Kafka and topic "+r.topic)
	_, err := kadm.NewClient(r.client).CreateTopic(t.Context(), 1, 3, nil, r.topic)
	require.NoError(t, err)
	r.client = r.cluster.Client(t, kgo.DefaultProduceTopic(r.topic))
	r.produce(10)
	r.judge()
}

func TestStopLeavesNothingRunning(t *testing.T) {
	r := newRig(t, 2)
	before := goleak.IgnoreCurrent()
	for range 5 {
		a := r.start(nil)
		r.produce(20)
		r.waitArchived(r.made)
		a.stop(r)
	}
	r.client.Close()
	goleak.VerifyNone(t, before)
}

func TestStopsWhileKafkaIsAway(t *testing.T) {
	r := newRig(t, 1)
	r.cluster = kafkatest.Breakable(t)
	r.topic = r.cluster.Topic(t, 1)
	r.client = r.cluster.Client(t, kgo.DefaultProduceTopic(r.topic))
	r.cfg.Kafka = r.cluster.Config(r.topic)
	r.cfg.Archiver.SegmentAge = time.Hour
	a := r.start(nil)
	r.produce(10)
	require.Eventually(t, a.holdsRecords, patience, 10*time.Millisecond)
	if fake := r.cluster.Fake(); fake != nil {
		fake.Close()
	} else {
		for i := range r.cluster.Brokers {
			r.cluster.Kill(i)
		}
	}
	began := time.Now()
	a.stop(r)
	require.Less(t, time.Since(began), 30*time.Second)
	require.EqualValues(t, 10, r.archived(), "the store was there")
}

// holdsRecords says whether there are records that are not archived.
func (a *running) holdsRecords() bool {
	for _, c := range a.consumers() {
		if c.oldest(time.Now()) > 0 {
			return true
		}
	}
	return false
}

func TestUnsafeStoreIsRefused(t *testing.T) {
	r := newRig(t, 1)
	careless := &fault{r.store, func(_ context.Context, _ string, create func() error) error {
		if err := create(); !errors.Is(err, objstore.ErrExists) {
			return err
		}
		return nil
	}}
	s, err := newService(&r.cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), careless, nil)
	require.NoError(t, err)
	require.ErrorIs(t, s.Run(t.Context()), objstore.ErrUnsafe)
}

// While the store is away, what is held stays bounded; afterwards nothing is missing.
func TestMemoryIsBoundedWhileTheStoreIsAway(t *testing.T) {
	const limit = 1 << 20
	r := newRig(t, 2)
	r.cfg.Archiver.BufferBytes = limit
	var up atomic.Bool
	a := r.start(&fault{r.store, func(_ context.Context, key string, create func() error) error {
		if isSegment(key) && !up.Load() {
			return errFault
		}
		return create()
	}})
	var held int64
	for range 20 {
		r.produce(1000) // about 1 MiB
		held = max(held, a.budget.load())
	}
	require.Eventually(t, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.budget.full() && !a.failing.IsZero()
	}, patience, 10*time.Millisecond)
	require.Less(t, held, int64(limit+4<<20), "the limit and one poll")
	require.NoError(t, a.Ready(), "a short failure is no reason")
	a.mu.Lock()
	a.failing = a.failing.Add(-notReadyAfter)
	a.mu.Unlock()
	require.ErrorIs(t, a.Ready(), errFault)
	up.Store(true)
	r.judge()
	require.NoError(t, a.Ready())
}

// A segment that is long in being stored does not keep other partitions from being archived, although the records behind it
// are more than wait otherwise; and what waits has its exact bytes.
func TestOneSlowUploadHoldsUpNobody(t *testing.T) {
	const limit = 8 << 20
	r := newRig(t, 2)
	r.cfg.Archiver.BufferBytes = limit
	released := make(chan struct{})
	a := r.start(&fault{r.store, func(_ context.Context, key string, create func() error) error {
		if isSegment(key) && strings.Contains(key, "-00000-") {
			<-released
		}
		return create()
	}})
	r.produce(4000) // about 2 MiB for each
	require.Eventually(t, func() bool {
		return a.budget.load() > limit/8 && r.archived() == 2000
	}, patience, 20*time.Millisecond)
	require.Eventually(t, func() bool { return !a.budget.ahead() }, patience, 10*time.Millisecond)
	close(released)
	r.judge()
	require.Eventually(t, func() bool { return a.budget.load() == 0 && a.budget.queued.Load() == 0 }, patience, 10*time.Millisecond)
}
