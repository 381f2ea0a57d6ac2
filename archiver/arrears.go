package archiver

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/kafka"
)

// firstLook is how long a start may take before Kafka is asked what waits.
const firstLook = 2 * time.Second

// arrears is what of a topic waits in Kafka while no consumer of this process can tell: it has not found the archive's end,
// or a partition is halted. Kafka's committed offsets are then the best that is known of how far the archive is.
type arrears struct {
	oldest map[int32]waiting // by partition
}

// waiting is the first record of a partition that is not archived.
type waiting struct {
	offset int64
	since  time.Time
}

// watchArrears keeps st.waits up to date until ctx ends. While the consumer itself can tell, it asks nothing.
func (st *stream) watchArrears(ctx context.Context) {
	a := arrears{oldest: map[int32]waiting{}}
	for wait := firstLook; ; wait = watchInterval {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if !st.unsure() {
			st.waits.Store(nil)
			continue
		}
		if since, err := a.look(ctx, st); err == nil { // else what was known before stands
			st.waits.Store(&since)
		}
	}
}

// unsure says whether the consumer does not know of all that waits.
func (st *stream) unsure() bool {
	st.mu.Lock()
	c := st.current
	st.mu.Unlock()
	return c == nil || len(c.partitions()) == 0 || c.haltedCount() > 0 || st.failingFor(time.Now()) > 0
}

// look returns the broker's time of the oldest record that waits, zero when none does, and notes the topic's retention.
func (a *arrears) look(ctx context.Context, st *stream) (oldest time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	cl, err := kgo.NewClient(append(st.options[:len(st.options):len(st.options)],
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxPartitionBytes(1), kgo.FetchMinBytes(1))...) // a broker sends one batch at least
	if err != nil {
		return oldest, err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	retention, err := topicRetention(ctx, adm, st.topic)
	if err != nil {
		return oldest, err
	}
	st.retention.Store(int64(retention))
	from, err := st.waitFrom(ctx, adm)
	if err != nil {
		return oldest, err
	}
	ask := map[int32]kgo.Offset{}
	for number, offset := range from {
		if known, ok := a.oldest[number]; !ok || known.offset != offset {
			ask[number] = kgo.NewOffset().At(offset)
		}
	}
	if err := a.read(ctx, cl, st.topic, ask); err != nil {
		return oldest, err
	}
	for number := range from {
		if since := a.oldest[number].since; oldest.IsZero() || since.Before(oldest) {
			oldest = since
		}
	}
	return oldest, nil
}

// waitFrom returns the first offset that is not archived, of each partition that has one.
func (st *stream) waitFrom(ctx context.Context, adm *kadm.Client) (map[int32]int64, error) {
	starts, ends, err := kafka.LogBounds(ctx, adm, st.topic)
	if err == nil {
		err = errors.Join(starts.Error(), ends.Error())
	}
	if err != nil {
		return nil, err
	}
	committed, err := adm.FetchOffsets(ctx, st.group)
	if err != nil {
		return nil, err
	}
	from := map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(st.topic, end.Partition)
		first := start.Offset
		if at, ok := committed.Lookup(st.topic, end.Partition); ok {
			first = max(first, at.At)
		}
		if first < end.Offset {
			from[end.Partition] = first
		}
	})
	return from, nil
}

// read finds the times of the records at offsets.
func (a *arrears) read(ctx context.Context, cl *kgo.Client, topic string, ask map[int32]kgo.Offset) error {
	if len(ask) == 0 {
		return nil
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: ask})
	for len(ask) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return err
		}
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			if at, ok := ask[f.Partition]; ok && len(f.Records) > 0 {
				a.oldest[f.Partition] = waiting{at.EpochOffset().Offset, f.Records[0].Timestamp}
				cl.PauseFetchPartitions(map[string][]int32{topic: {f.Partition}})
				delete(ask, f.Partition)
			}
		})
	}
	return nil
}

// arrearsAge is the age of the oldest record that waits in Kafka; known: it was asked for and found.
func (st *stream) arrearsAge(now time.Time) (age time.Duration, known bool) {
	since := st.waits.Load()
	if since == nil || since.IsZero() {
		return 0, since != nil
	}
	return max(now.Sub(*since), 0), true
}

// topicRetention is how long the topic keeps its records; negative: for ever.
func topicRetention(ctx context.Context, adm *kadm.Client, name string) (time.Duration, error) {
	configs, err := adm.DescribeTopicConfigs(ctx, name)
	if err != nil {
		return 0, err
	}
	topic, err := configs.On(name, nil)
	if err != nil {
		return 0, err
	}
	if topic.Err != nil {
		return 0, topic.Err
	}
	for _, entry := range topic.Configs {
		if entry.Key == "retention.ms" {
			ms, err := strconv.ParseInt(entry.MaybeValue(), 10, 64)
			return time.Duration(ms) * time.Millisecond, err
		}
	}
	return 0, errors.New("no retention.ms")
}
