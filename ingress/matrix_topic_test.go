package ingress

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// R13: the topic is deleted and made anew in traffic. Events that come later are safe, and what the old topic
// acknowledged is no duplicate in the new one.
func TestR13TopicMadeAnew(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.New(t)
	h := start(t, cluster, "9s", "")
	h.ready()
	old := newLoad(t, func() string { return h.url }, 0)
	old.run(8)
	old.more(100)
	scope := h.Service.topic.scope()

	admin := kadm.NewClient(cluster.Client(t))
	_, err := admin.DeleteTopic(t.Context(), h.topic)
	require.NoError(t, err)
	value := func(s string) *string { return &s }
	require.Eventually(t, func() bool { // brokers take their time to delete
		_, err := admin.CreateTopic(t.Context(), 3, 3, map[string]*string{
			"min.insync.replicas": value("2"), "message.timestamp.type": value("LogAppendTime"),
			"retention.ms": value("604800000"), "max.message.bytes": value("26214400"),
		}, h.topic)
		return err == nil || errors.Is(err, kerr.TopicAlreadyExists)
	}, 30*time.Second, 50*time.Millisecond)
	require.Eventually(t, func() bool {
		n := 0
		for p := range int32(3) {
			replicas, _ := cluster.InSync(h.topic, p)
			n += replicas
		}
		return n == 9
	}, 30*time.Second, 50*time.Millisecond)

	later := newLoad(t, func() string { return h.url }, 1<<20)
	later.run(8)
	later.more(100)
	old.end()
	require.Eventually(t, func() bool { return h.Service.topic.scope() != scope }, 30*time.Second, 10*time.Millisecond, "the topic's new ID is not seen")
	again := sampleOf("stripe", 1)
	resp, body := h.call(h.stripe(1))
	requireAccepted(t, resp, body, "accepted", again.ID, "stripe")
	later.more(100)
	later.end()
	maps.Copy(later.sent, old.sent)
	later.requireHonest(h.records())
	require.Contains(t, h.deliveries(), "stripe "+again.ID)
}
