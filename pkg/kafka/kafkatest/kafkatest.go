// Package kafkatest gives a test a Kafka cluster. Nothing comes in but the test; three brokers go out, real ones where
// an environment variable names them or containers are asked for, and otherwise kfake's in this process.
// It must never be imported by a service: a fake that acknowledges records has no place in one.
package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// Environment variables that name real brokers.
const (
	Env    = "CATCHMENT_TEST_KAFKA"     // host:port of brokers, separated by commas; shared by all tests
	EnvDir = "CATCHMENT_TEST_KAFKA_DIR" // folder in which scripts/kafka-cluster.sh may run a cluster for Breakable
)

// Cluster is three brokers.
type Cluster struct {
	Brokers []string // host:port; Stop, Kill, Start and Leader count them from 0
	Real    bool     // false: kfake, which replicates nothing
	t       testing.TB
	fake    *kfake.Cluster
	wire    *wire
	power   power
}

// power switches brokers off and on.
type power interface {
	stop(broker int) error  // cleanly
	kill(broker int) error  // at once
	start(broker int) error // and wait until it takes records
	pause(broker int) error // it stands still, its connections stay
	resume(broker int) error
	fill(broker int) error // its disk takes no more
}

var (
	shared = sync.OnceValues(findShared)
	serial atomic.Int64
)

// New returns a cluster: with Env the brokers that it names, with CATCHMENT_TEST_CONTAINERS=1 containers (both shared
// with other tests, so that a test takes topics and groups of its own), and otherwise a kfake for this test alone.
func New(t testing.TB) *Cluster {
	t.Helper()
	brokers, err := shared()
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	if brokers == nil {
		return newFake(t)
	}
	return &Cluster{Brokers: brokers, Real: true, t: t}
}

// NewFake returns a kfake for this test alone, also where the brokers of New are real: for tests that inject errors.
func NewFake(t testing.TB, more ...kfake.Opt) *Cluster {
	t.Helper()
	return newFake(t, more...)
}

// Breakable returns a cluster that this test has alone, so that it may stop, kill and start brokers. All brokers run
// when it gets it. Real ones take 10 to 30 s to start, once, and other tests that break brokers are waited for.
// On kfake it is an imitation: a stopped broker loses its partitions to the others, and with less than two left
// records are refused with NOT_ENOUGH_REPLICAS; what a test shows there, it shows of our program only.
func Breakable(t testing.TB) *Cluster {
	t.Helper()
	dir := os.Getenv(EnvDir)
	switch {
	case dir != "":
		return newScripted(t, dir)
	case parts.Containers():
		return newContained(t)
	case parts.Required():
		t.Fatalf("kafkatest: %s=1, but neither %s nor %s is set", parts.EnvReal, EnvDir, parts.EnvContainers)
	}
	return newFake(t)
}

func findShared() ([]string, error) {
	switch {
	case os.Getenv(Env) != "":
		parts.Report("kafka", "given")
		return strings.Split(os.Getenv(Env), ","), nil
	case parts.Containers():
		list, err := parts.Container("kafka")
		parts.Report("kafka", "container apache/kafka")
		return strings.Split(list, ","), err
	case parts.Required():
		return nil, fmt.Errorf("%s=1, but neither %s nor %s is set", parts.EnvReal, Env, parts.EnvContainers)
	}
	return nil, nil
}

// Config returns the settings with which a program uses the cluster and that topic.
func (c *Cluster) Config(topic string) settings.Kafka {
	return settings.Kafka{
		Brokers: c.Brokers, Topic: topic, CreateTopic: true,
		Partitions: 3, ReplicationFactor: 3, MinInsyncReplicas: 2, Retention: 7 * 24 * time.Hour,
	}
}

// Topic makes a topic as Catchment wants it (three replicas, min.insync.replicas 2, LogAppendTime), on a secured broker with
// the one replica that there is, and returns its name. It is deleted when the test ends.
func (c *Cluster) Topic(t testing.TB, partitions int) string {
	t.Helper()
	value := func(s string) *string { return &s }
	name := fmt.Sprintf("test.%d.%d.%d", os.Getpid(), time.Now().UnixMilli(), serial.Add(1))
	admin := kadm.NewClient(c.Client(t))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	replicas := min(3, len(c.Brokers))
	_, err := admin.CreateTopic(ctx, int32(partitions), int16(replicas), map[string]*string{
		"min.insync.replicas":            value(strconv.Itoa(max(1, replicas-1))),
		"message.timestamp.type":         value("LogAppendTime"),
		"cleanup.policy":                 value("delete"),
		"retention.ms":                   value("604800000"),
		"max.message.bytes":              value("26214400"),
		"unclean.leader.election.enable": value("false"),
	}, name)
	// The name is new: when it exists, a try whose answer was lost has made it.
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		t.Fatalf("kafkatest: create topic: %v", err)
	}
	if c.Real {
		if err := c.spread(ctx, name, partitions); err != nil {
			t.Fatalf("kafkatest: topic %s: %v", name, err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, _ = admin.DeleteTopic(ctx, name) // brokers may be down now; the folder goes with the cluster
		})
	}
	return name
}

// spread waits until every broker that answers knows the topic and a leader of each partition.
func (c *Cluster) spread(ctx context.Context, name string, partitions int) error {
	for _, address := range c.Brokers {
		cl, err := kgo.NewClient(kgo.SeedBrokers(address))
		if err != nil {
			return err
		}
		err = knows(ctx, cl.SeedBrokers()[0], name, partitions)
		cl.Close()
		if err != nil {
			return fmt.Errorf("broker %s does not know it: %w", address, err)
		}
	}
	return nil
}

func knows(ctx context.Context, b *kgo.Broker, name string, partitions int) error {
	req := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = kmsg.StringPtr(name)
	req.Topics = append(req.Topics, topic)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		led := 0
		resp, err := b.Request(ctx, req)
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil // it is down, and learns of the topic when it is back
		}
		if err == nil {
			for _, t := range resp.(*kmsg.MetadataResponse).Topics {
				for _, p := range t.Partitions {
					if p.ErrorCode == 0 && p.Leader >= 0 {
						led++
					}
				}
			}
		}
		if led == partitions {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Client returns a client, closed when the test ends.
func (c *Cluster) Client(t testing.TB, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.Brokers...)}, opts...)...)
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// Fake returns the kfake cluster, for tests that inject errors, and nil when the brokers are real.
func (c *Cluster) Fake() *kfake.Cluster { return c.fake }

// Leader returns which broker leads the partition, as an index of Brokers. It waits for an election.
func (c *Cluster) Leader(topic string, partition int32) int {
	c.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if p, brokers, err := c.partition(topic, partition); err == nil {
			if i := slices.Index(brokers, p.Leader); i >= 0 {
				return i
			}
		}
	}
	c.t.Fatalf("kafkatest: %s/%d has no leader among %v", topic, partition, c.Brokers)
	return -1
}

// InSync returns how many replicas of the partition are in sync, and its leader epoch; 0 when nobody tells.
func (c *Cluster) InSync(topic string, partition int32) (replicas int, epoch int32) {
	c.t.Helper()
	p, _, err := c.partition(topic, partition)
	if err != nil {
		return 0, 0
	}
	return len(p.ISR), p.LeaderEpoch
}

// partition asks for one partition; brokers are the node IDs in the order of Brokers. A broker that hangs is not
// waited for.
func (c *Cluster) partition(topic string, partition int32) (p kadm.PartitionDetail, brokers []int32, err error) {
	cl := c.Client(c.t, kgo.RequestTimeoutOverhead(time.Second), kgo.DialTimeout(time.Second))
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	meta, err := kadm.NewClient(cl).Metadata(ctx, topic)
	if err != nil {
		return p, nil, err
	}
	for _, address := range c.Brokers {
		id := int32(-2) // is down
		for _, b := range meta.Brokers {
			if address == net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port))) {
				id = b.NodeID
			}
		}
		brokers = append(brokers, id)
	}
	return meta.Topics[topic].Partitions[partition], brokers, nil
}

// Stop ends broker i cleanly. The cluster must be a Breakable one.
func (c *Cluster) Stop(i int) { c.t.Helper(); c.switched("stop", i, power.stop) }

// Kill ends broker i at once. The cluster must be a Breakable one.
func (c *Cluster) Kill(i int) { c.t.Helper(); c.switched("kill", i, power.kill) }

// Start starts broker i again and waits until it takes records. The cluster must be a Breakable one.
func (c *Cluster) Start(i int) { c.t.Helper(); c.switched("start", i, power.start) }

// StartAll starts these brokers again at once, and waits until they take records: without a quorum, none of them does
// before the others are there. The cluster must be a Breakable one, and these of its brokers ended.
func (c *Cluster) StartAll(brokers ...int) {
	c.t.Helper()
	errs := make([]error, len(brokers))
	var started sync.WaitGroup
	for n, i := range brokers {
		started.Go(func() { errs[n] = c.power.start(i) })
	}
	started.Wait()
	if err := errors.Join(errs...); err != nil {
		c.t.Fatalf("kafkatest: start brokers %v: %v", brokers, err)
	}
}

// Pause makes broker i stand still, as a machine that hangs does, until Resume, Kill or the test's end. The cluster
// must be a Breakable one.
func (c *Cluster) Pause(i int) {
	c.t.Helper()
	c.t.Cleanup(func() { _ = c.power.resume(i) })
	c.switched("pause", i, power.pause)
}

// Resume lets broker i go on. The cluster must be a Breakable one.
func (c *Cluster) Resume(i int) { c.t.Helper(); c.switched("resume", i, power.resume) }

// Fill makes every write of broker i to its disk fail, until it is started again. The cluster must be a Breakable one.
func (c *Cluster) Fill(i int) { c.t.Helper(); c.switched("fill", i, power.fill) }

// Wire sets what the connections of broker i do. The cluster must be kfake.
func (c *Cluster) Wire(i int, l Link) {
	c.t.Helper()
	if c.wire == nil {
		c.t.Fatal("kafkatest: only kfake's connections can be broken: take NewFake")
	}
	c.wire.set(c.Brokers[i], l)
}

// WireAll sets what the connections of all brokers do. The cluster must be kfake.
func (c *Cluster) WireAll(l Link) {
	c.t.Helper()
	for i := range c.Brokers {
		c.Wire(i, l)
	}
}

func (c *Cluster) switched(what string, i int, do func(power, int) error) {
	c.t.Helper()
	if c.power == nil {
		c.t.Fatalf("kafkatest: other tests use these brokers too: take Breakable to %s one", what)
	}
	if err := do(c.power, i); err != nil {
		c.t.Fatalf("kafkatest: %s broker %d: %v", what, i, err)
	}
}
