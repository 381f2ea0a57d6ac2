package ingress

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// R3: the leader is killed five times, each partition's in turn, and bounced cleanly in between.
func TestR03LeaderKilledFiveTimes(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Breakable(t)
	h := start(t, cluster, "9s", "")
	h.ready()
	l := newLoad(t, func() string { return h.url }, 0)
	l.run(16)
	l.more(100)
	epochs := func() (sum int32) {
		for p := range int32(3) {
			_, epoch := cluster.InSync(h.topic, p)
			sum += epoch
		}
		return sum
	}
	before := epochs()
	for round := range int32(5) {
		leader := cluster.Leader(h.topic, round%3)
		killed := time.Now()
		cluster.Kill(leader)
		l.more(200)
		require.NotEqual(t, leader, cluster.Leader(h.topic, round%3))
		l.more(100)
		require.Less(t, time.Since(killed), 60*time.Second)
		cluster.Start(leader)

		if round%2 == 0 {
			continue
		}
		leader = cluster.Leader(h.topic, (round+1)%3)
		cluster.Stop(leader)
		l.more(100)
		cluster.Start(leader)
	}
	require.GreaterOrEqual(t, epochs()-before, int32(7))
	l.end()
	twice := l.requireHonest(h.records())
	t.Logf("%d events, answers %v, %d events twice in the log, slowest answer %s", l.count(), l.statuses, twice, l.slowest)
}

// R5: all brokers are gone at full load. The program's memory and goroutines stay where they are, every answer is an
// honest 503, and when the brokers are back, so is the service, by itself.
func TestR05AllBrokersDown(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Breakable(t)
	topic := cluster.Topic(t, 3)
	p := newProcess(t, build(t), cluster, topic, "2s", ", in_flight_bytes: 512KiB")
	p.start()
	l := newLoad(t, p.url, 0)
	l.run(128)
	l.more(500)
	for i := range 3 {
		cluster.Kill(i)
	}
	full := l.answers(http.StatusServiceUnavailable) + 500 // nobody is served any more
	require.Eventually(t, func() bool { return l.answers(http.StatusServiceUnavailable) > full }, 30*time.Second, 10*time.Millisecond)
	taken := l.count()
	var rss, goroutines [2]float64
	for half := range 2 {
		for range 12 {
			pause(250 * time.Millisecond)
			rss[half] = max(rss[half], float64(p.rss())/(1<<20))
			goroutines[half] = max(goroutines[half], p.Metric("go_goroutines"))
		}
	}
	t.Logf("RSS %.0f MiB, then %.0f MiB; goroutines %.0f, then %.0f; answers %s", rss[0], rss[1], goroutines[0], goroutines[1], l.summary())
	require.Equal(t, taken, l.count(), "taken without a broker")
	require.Less(t, rss[1], rss[0]+16)
	require.Less(t, rss[1], 256.0)
	require.Less(t, goroutines[1], goroutines[0]+64)
	require.True(t, p.Ready(), "an outage of Kafka is no reason to leave the load balancer")

	cluster.StartAll(0, 1, 2)
	l.more(200)
	l.end()
	h := &harness{t: t, kafka: cluster, topic: topic}
	l.requireHonest(h.records())
	// TestR04WithoutQuorum holds the deadline more closely; here 128 senders and a starting cluster share the machine.
	require.LessOrEqual(t, l.slowest, 20*time.Second)
}

// R9: the leader stands still until another leads, and goes on as one that still believes in its office.
func TestR09LeaderPaused(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Breakable(t)
	h := start(t, cluster, "9s", "")
	h.ready()
	l := newLoad(t, func() string { return h.url }, 0)
	l.run(16)
	l.more(100)
	leader := cluster.Leader(h.topic, 0)
	cluster.Pause(leader)
	require.Eventually(t, func() bool { return cluster.Leader(h.topic, 0) != leader }, 40*time.Second, 100*time.Millisecond)
	l.more(300)
	if cluster.Real {
		replicas, _ := cluster.InSync(h.topic, 0)
		require.Less(t, replicas, 3, "the replicas in sync did not shrink")
	}
	cluster.Resume(leader)
	l.more(300)
	require.Eventually(t, func() bool { n, _ := cluster.InSync(h.topic, 0); return n == 3 }, 40*time.Second, 100*time.Millisecond)
	l.end()
	twice := l.requireHonest(h.records())
	t.Logf("%d events, answers %v, %d events twice in the log", l.count(), l.statuses, twice)
}

// R10: the leader's disk takes no more. The others go on, and it comes back when there is room.
func TestR10BrokerDiskFull(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Breakable(t)
	h := start(t, cluster, "9s", "")
	h.ready()
	l := newLoad(t, func() string { return h.url }, 0)
	l.run(16)
	l.more(100)
	full := cluster.Leader(h.topic, 0)
	cluster.Fill(full)
	require.Eventually(t, func() bool { return cluster.Leader(h.topic, 0) != full }, 40*time.Second, 100*time.Millisecond)
	l.more(300)
	cluster.Start(full)
	require.Eventually(t, func() bool { n, _ := cluster.InSync(h.topic, 0); return n == 3 }, 40*time.Second, 100*time.Millisecond)
	l.more(100)
	l.end()
	for status := range l.statuses {
		require.Contains(t, []int{200, 503}, status)
	}
	l.requireHonest(h.records())
	t.Logf("%d events, answers %v", l.count(), l.statuses)
}

// R11: a topic that allows it has an unclean election, which cuts off what only the dead leader had. The producer
// finds out, raises the alarm, and what was acknowledged is no longer taken for safe: a retry of it is enqueued.
// (kfake cuts nothing off; there the producer is told so.)
func TestR11UncleanElection(t *testing.T) {
	t.Parallel()
	cluster := kafkatest.Breakable(t)
	topic := fmt.Sprintf("unclean.%d", time.Now().UnixNano())
	value := func(s string) *string { return &s }
	admin := kadm.NewClient(cluster.Client(t))
	_, err := admin.CreateTopic(t.Context(), 1, 2, map[string]*string{
		"min.insync.replicas": value("1"), "unclean.leader.election.enable": value("true"), "message.timestamp.type": value("LogAppendTime"),
		"retention.ms": value("604800000"), "max.message.bytes": value("26214400"),
	}, topic)
	require.NoError(t, err)
	h := startOn(t, cluster, topic, "9s", "", ", accept: [replication-factor, min-insync-replicas, unclean-leader-election]")
	h.ready()
	take := func(from, to int) {
		for seq := from; seq <= to; seq++ {
			require.Eventually(t, func() bool { resp, _ := h.call(h.stripe(seq)); return resp.StatusCode == 200 }, 60*time.Second, 50*time.Millisecond)
		}
	}
	take(1, 5)
	if cluster.Real {
		first := cluster.Leader(topic, 0)
		second := follower(t, cluster, admin, topic, first)
		cluster.Stop(second)
		take(6, 10) // only on the leader
		cluster.Kill(first)
		cluster.Start(second)
		defer cluster.Start(first)
		require.Eventually(t, func() bool { return cluster.Leader(topic, 0) == second }, 60*time.Second, 100*time.Millisecond)
	} else {
		take(6, 10)
		cluster.Fake().Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.OutOfOrderSequenceNumber})
	}
	resp, body := h.call(h.stripe(7))
	requireAccepted(t, resp, body, "duplicate", sampleOf("stripe", 7).ID, "stripe") // nobody can know yet
	take(11, 11)
	require.Positive(t, testutil.ToFloat64(h.metrics.dataLoss))
	require.Contains(t, h.log.String(), "Kafka may have lost acknowledged records")
	resp, body = h.call(h.stripe(7))
	requireAccepted(t, resp, body, "accepted", sampleOf("stripe", 7).ID, "stripe")
	got := h.deliveries()
	require.Contains(t, got, "stripe "+sampleOf("stripe", 7).ID)
	require.Equal(t, cluster.Real, len(got["stripe "+sampleOf("stripe", 8).ID]) == 0, "the election cut off what only the dead leader had")
}

// follower is the other broker that has the topic's only partition.
func follower(t *testing.T, cluster *kafkatest.Cluster, admin *kadm.Client, topic string, leader int) int {
	t.Helper()
	meta, err := admin.Metadata(t.Context(), topic)
	require.NoError(t, err)
	p := meta.Topics[topic].Partitions[0]
	for _, b := range meta.Brokers {
		for _, r := range p.Replicas {
			for i, address := range cluster.Brokers {
				if r == b.NodeID && i != leader && strings.HasSuffix(address, fmt.Sprintf(":%d", b.Port)) {
					return i
				}
			}
		}
	}
	require.Fail(t, "no follower")
	return -1
}
