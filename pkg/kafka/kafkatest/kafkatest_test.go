package kafkatest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

func TestTopicTakesRecords(t *testing.T) {
	c := kafkatest.New(t)
	topic := c.Topic(t, 2)
	cl := c.Client(t, kgo.ConsumeTopics(topic))
	sent := cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("hello")})
	require.NoError(t, sent.FirstErr())
	records := cl.PollFetches(t.Context()).Records()
	require.Len(t, records, 1)
	require.Equal(t, "hello", string(records[0].Value))

	configs, err := kadm.NewClient(cl).DescribeTopicConfigs(t.Context(), topic)
	require.NoError(t, err)
	got := map[string]string{}
	for _, v := range configs[0].Configs {
		got[v.Key] = v.MaybeValue()
	}
	require.Equal(t, "2", got["min.insync.replicas"])
	require.Equal(t, "LogAppendTime", got["message.timestamp.type"])
	details, err := kadm.NewClient(cl).ListTopics(t.Context(), topic)
	require.NoError(t, err)
	require.Equal(t, 3, details[topic].Partitions.NumReplicas())
}

// TestBreakable shows on either kind of cluster what the services' fault tests rest on.
func TestBreakable(t *testing.T) {
	c := kafkatest.Breakable(t)
	topic := c.Topic(t, 1)
	cl := c.Client(t, kgo.RecordDeliveryTimeout(2*time.Second), kgo.ProducerBatchMaxBytes(1<<20), kgo.DefaultProduceTopic(topic))
	produce := func() error {
		// Not ProduceSync: the client may not give up a record that a broker may have taken, however short its time.
		acked := make(chan error, 1)
		cl.Produce(t.Context(), &kgo.Record{Value: []byte("x")}, func(_ *kgo.Record, err error) { acked <- err })
		select {
		case err := <-acked:
			return err
		case <-time.After(4 * time.Second):
			return context.DeadlineExceeded
		}
	}
	eventually := func() {
		require.Eventually(t, func() bool { return produce() == nil }, 60*time.Second, 100*time.Millisecond)
	}
	eventually()

	leader := c.Leader(topic, 0)
	c.Stop(leader)
	eventually()
	require.NotEqual(t, leader, c.Leader(topic, 0), "another broker leads")

	next := c.Leader(topic, 0)
	c.Kill(next)
	require.Error(t, produce(), "one broker is not enough")

	c.Start(leader)
	eventually()
	c.Start(next)
	eventually()
}
