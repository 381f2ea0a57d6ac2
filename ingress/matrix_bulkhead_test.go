package ingress

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// R6: one broker takes connections and answers nothing, one way and both ways. The partitions that others lead are
// served as if nothing had happened, although every sender insists on the dead one.
func TestR06OnePartitionBlackHoled(t *testing.T) {
	for name, link := range map[string]kafkatest.Link{"both ways": kafkatest.BlackHole, "answers alone": kafkatest.Mute} {
		t.Run(name, func(t *testing.T) {
			cluster := kafkatest.NewFake(t)
			// Time enough for the others on a busy machine, and room for all requests beside the dead one's share.
			h := start(t, cluster, "4s", ", in_flight_bytes: 384KiB")
			h.ready()
			for p := range int32(3) {
				require.NoError(t, cluster.Fake().MoveTopicPartition(h.topic, p, p))
			}
			dead := newLoad(t, func() string { return h.url }, 0)
			dead.pick = func(s string) bool { return partitionOf(s, 3) == 0 }
			others := newLoad(t, func() string { return h.url }, 1<<20)
			others.pick = func(s string) bool { return partitionOf(s, 3) != 0 }
			dead.run(4)
			others.run(4)
			dead.more(20)
			others.more(20)

			cluster.Wire(0, link)
			more := dead.answers(http.StatusServiceUnavailable)
			for range 32 {
				dead.run(1)
			}
			require.Eventually(t, func() bool { return dead.answers(http.StatusServiceUnavailable) > more+200 }, time.Minute, 10*time.Millisecond)
			good, bad := others.count(), others.refused()
			others.more(300)
			good, bad = others.count()-good, others.refused()-bad
			require.Less(t, float64(bad), 0.01*float64(good+bad), "%d of %d refused: %v", bad, good+bad, others.statuses)

			cluster.Wire(0, kafkatest.Open)
			dead.more(50)
			dead.end()
			others.end()
			for id, digest := range others.sent {
				dead.sent[id] = digest
			}
			dead.requireHonest(h.records())
		})
	}
}

// partitionOf is where the standard partitioner puts an event.
func partitionOf(id string, partitions int) int {
	return kgo.StickyKeyPartitioner(nil).ForTopic("").Partition(&kgo.Record{Key: []byte(id)}, partitions)
}

// refused counts the requests that were not answered 200.
func (l *load) refused() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.broken)
	for status, times := range l.statuses {
		if status != http.StatusOK {
			n += times
		}
	}
	return n
}
