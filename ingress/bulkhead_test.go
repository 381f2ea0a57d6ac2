package ingress

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

func TestBulkheadShares(t *testing.T) {
	b := newBulkhead("t", 1<<20)
	r := &kgo.Record{Key: []byte("k"), Value: make([]byte, 100<<10)}
	require.NotNil(t, b.take(r), "before the topic is known")
	b.resize(12)
	share := b.share(12)
	require.EqualValues(t, 2<<20/12, share)
	first := b.take(r)
	require.NotNil(t, first)
	require.Nil(t, b.take(r), "the share is used up")
	b.resize(24)
	require.NotNil(t, b.take(&kgo.Record{Key: []byte("another"), Value: make([]byte, 10)}))
	first.answered(r, time.Second, nil)
	require.Zero(t, first.held.Load())
	require.EqualValues(t, time.Second, first.acked.Load())
	require.Same(t, first, b.take(r))
	first.answered(r, time.Hour, errors.New("not written"))
	require.EqualValues(t, time.Second, first.acked.Load())
	big := &kgo.Record{Key: []byte("k"), Value: make([]byte, 900<<10)}
	b.resize(12)
	s := b.take(big)
	require.NotNil(t, s, "what is larger than the share passes alone")
	require.Nil(t, b.take(r))
}

// TestDeadPartition (R6): one partition's leader answers nothing. The others go on, and what is for the dead one is
// refused at once when its share is full.
func TestDeadPartition(t *testing.T) {
	cluster := kafkatest.NewFake(t)
	topic := cluster.Topic(t, 12)
	h := startOn(t, cluster, topic, "4s", ", in_flight_bytes: 1MiB, linger: 1ms, drain_timeout: 3s", "")
	h.ready()
	n := len(*h.pub.bulkhead.slots.Load())
	require.Equal(t, 12, n)
	fault := cluster.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Partitions: []int32{0}, Err: kerr.NotEnoughReplicas, Count: -1})
	var mu sync.Mutex
	var good, others, atOnce int
	var wg sync.WaitGroup
	work := make(chan int)
	for range 64 {
		wg.Go(func() {
			for seq := range work {
				s := sampleOf("stripe", seq)
				dead := h.pub.bulkhead.partition.Partition(&kgo.Record{Key: []byte(s.ID)}, n) == 0
				began := time.Now()
				resp, err := http.DefaultClient.Do(h.signed("stripe", "stripe", stripeSecret, time.Now(), s))
				if err != nil {
					t.Error(err)
					continue
				}
				_ = resp.Body.Close()
				mu.Lock()
				switch {
				case dead && resp.StatusCode != 503:
					t.Errorf("answered %d for the dead partition", resp.StatusCode)
				case dead && time.Since(began) < 2*time.Second:
					atOnce++
				case !dead:
					others++
					count(&good, resp.StatusCode == 200)
				}
				mu.Unlock()
			}
		})
	}
	for seq := range 1500 {
		work <- seq
	}
	close(work)
	wg.Wait()
	require.Greater(t, others, 1000)
	require.GreaterOrEqual(t, float64(good), .99*float64(others), "%d of %d on the other partitions", good, others)
	require.Positive(t, atOnce)
	require.Contains(t, h.log.String(), errShare.Error())
	require.LessOrEqual(t, h.budget.used.Load(), int64(1<<20)/2, "the dead partition's share")
	fault.Remove()
}
