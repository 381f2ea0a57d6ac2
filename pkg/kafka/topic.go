package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/settings"
)

// The checks of a topic, by the names under which kafka.accept waives them.
const (
	CheckReplication   = "replication-factor"
	CheckMinInsync     = "min-insync-replicas"
	CheckUnclean       = "unclean-leader-election"
	CheckCleanup       = "cleanup-policy"
	CheckTimestampType = "timestamp-type"
	CheckRetention     = "retention"
	CheckMaxMessage    = "max-message-bytes"
)

// minRetention is the shortest retention that counts as safe unless kafka.retention asks for less: a long weekend.
const minRetention = 72 * time.Hour

// recordOverhead is what a record takes besides its body: headers, key and batch framing.
const recordOverhead = 128 << 10

// ErrNoTopic says that the topic does not exist.
var ErrNoTopic = errors.New("topic does not exist")

// Finding is one thing about a topic that breaks a promise.
type Finding struct {
	Check  string // a Check constant
	Text   string // what was found, what was expected, and what goes wrong otherwise
	Waived bool   // kafka.accept names it
}

// Report is what CheckTopic found.
type Report struct {
	Topic      string
	TopicID    [16]byte
	ClusterID  string
	Partitions int
	Findings   []Finding

	// These say nothing about the topic's safety, but about the brokers now.
	UnderReplicated int // partitions of which not every replica is in sync
	BelowMinInsync  int // partitions that take no records with acks=all, as too few of their replicas are in sync
}

// Err returns an error that names every finding that is not waived, or nil.
func (r Report) Err() error {
	var texts []string
	for _, f := range r.Findings {
		if !f.Waived {
			texts = append(texts, f.Check+": "+f.Text)
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return fmt.Errorf("topic %s is unsafe: %s", r.Topic, strings.Join(texts, "; "))
}

// EnsureTopic creates the topic with the settings' partitions, replicas and retention when it does not exist.
// A topic that is there is left as it is. maxBody is the largest body that any source may send, in bytes.
func EnsureTopic(ctx context.Context, cl *kgo.Client, k settings.Kafka, topic string, maxBody int64) error {
	text := func(s string) *string { return &s }
	configs := map[string]*string{
		"min.insync.replicas":            text(strconv.Itoa(k.MinInsyncReplicas)),
		"unclean.leader.election.enable": text("false"),
		"cleanup.policy":                 text("delete"),
		"message.timestamp.type":         text("LogAppendTime"),
		"retention.ms":                   text(strconv.FormatInt(k.Retention.Milliseconds(), 10)),
		"max.message.bytes":              text(strconv.FormatInt(max(maxBody+recordOverhead, 1<<20+12), 10)),
	}
	_, err := kadm.NewClient(cl).CreateTopic(ctx, int32(k.Partitions), int16(k.ReplicationFactor), configs, topic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("create topic %s (%d partitions, replication factor %d): %w", topic, k.Partitions, k.ReplicationFactor, err)
	}
	return nil
}

// CheckTopic judges the topic. The error is ErrNoTopic, or that the cluster could not be asked.
func CheckTopic(ctx context.Context, cl *kgo.Client, k settings.Kafka, topic string, maxBody int64) (Report, error) {
	return judge(ctx, cl, k, topic, func(d kadm.TopicDetail, value func(string) string, found foundFunc) {
		judgeKept(d, value, maxBody, found)
		retention := minRetention
		if k.Retention > 0 {
			retention = min(retention, k.Retention) // who asks for less has thought of it
		}
		judgeLog(value, retention, found)
	})
}

// CheckPublished judges a topic that operations publish to: only whether it takes and keeps what it acknowledged. How long
// it keeps it, and by whose clock, is up to its readers, and so is compaction, unless records have no key (keyless): then
// it refuses them. maxRecord is the largest key and value, in bytes. Errors are those of CheckTopic.
func CheckPublished(ctx context.Context, cl *kgo.Client, k settings.Kafka, topic string, maxRecord int64, keyless bool) (Report, error) {
	return judge(ctx, cl, k, topic, func(d kadm.TopicDetail, value func(string) string, found foundFunc) {
		judgeKept(d, value, maxRecord, found)
		if keyless && strings.Contains(value("cleanup.policy"), "compact") {
			found(CheckCleanup, "expected cleanup.policy=delete, found %q: the brokers refuse records without a key", value("cleanup.policy"))
		}
	})
}

func judge(ctx context.Context, cl *kgo.Client, k settings.Kafka, topic string, by func(kadm.TopicDetail, func(string) string, foundFunc)) (Report, error) {
	adm := kadm.NewClient(cl)
	r := Report{Topic: topic}
	meta, err := adm.Metadata(ctx, topic)
	if err != nil {
		return r, fmt.Errorf("ask for topic %s: %w", topic, err)
	}
	d, ok := meta.Topics[topic]
	if !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
		return r, fmt.Errorf("%w: %s", ErrNoTopic, topic)
	}
	if d.Err != nil {
		return r, fmt.Errorf("ask for topic %s: %w", topic, d.Err)
	}
	r.TopicID, r.ClusterID, r.Partitions = d.ID, meta.Cluster, len(d.Partitions)
	resources, err := adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return r, fmt.Errorf("ask for the configuration of topic %s: %w", topic, err)
	}
	rc, err := resources.On(topic, nil)
	if err != nil || rc.Err != nil {
		return r, fmt.Errorf("ask for the configuration of topic %s: %w", topic, errors.Join(err, rc.Err))
	}
	value := func(key string) string {
		for _, c := range rc.Configs {
			if c.Key == key {
				return c.MaybeValue()
			}
		}
		return ""
	}
	found := func(check, format string, args ...any) {
		r.Findings = append(r.Findings, Finding{check, fmt.Sprintf(format, args...), slices.Contains(k.Accept, check)})
	}
	by(d, value, found)
	least := number(value, "min.insync.replicas")
	for _, p := range d.Partitions {
		if len(p.ISR) < len(p.Replicas) {
			r.UnderReplicated++
		}
		if p.Leader < 0 || int64(len(p.ISR)) < least {
			r.BelowMinInsync++
		}
	}
	return r, nil
}

type foundFunc func(check, format string, args ...any)

// number reads a value; 0 when it is none.
func number(value func(string) string, key string) int64 {
	n, err := strconv.ParseInt(value(key), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// judgeKept judges whether a topic takes records of a size, and keeps what it acknowledged.
func judgeKept(d kadm.TopicDetail, value func(string) string, maxBody int64, found foundFunc) {
	least := 1 << 30
	for _, p := range d.Partitions {
		least = min(least, len(p.Replicas))
	}
	if least < 3 {
		found(CheckReplication, "expected at least 3 replicas of each partition, found %d: one dead broker may lose acknowledged events", least)
	}
	if n := number(value, "min.insync.replicas"); n < 2 {
		found(CheckMinInsync, "expected min.insync.replicas of at least 2, found %d: an acknowledged event may be on one broker only", n)
	}
	if v := value("unclean.leader.election.enable"); v == "true" {
		found(CheckUnclean, "expected unclean.leader.election.enable=false, found true: an election may cut off acknowledged events")
	}
	if b := number(value, "max.message.bytes"); b < maxBody+recordOverhead {
		found(CheckMaxMessage, "expected max.message.bytes of at least %d (the largest record and its headers), found %d: large events would be refused for ever", maxBody+recordOverhead, b)
	}
}

// judgeLog judges whether a reader that comes late finds all that was appended.
func judgeLog(value func(string) string, retention time.Duration, found foundFunc) {
	if v := value("cleanup.policy"); v != "delete" {
		found(CheckCleanup, "expected cleanup.policy=delete, found %q: compaction erases a delivery when another with its key comes", v)
	}
	if v := value("message.timestamp.type"); v != "LogAppendTime" {
		found(CheckTimestampType, "expected message.timestamp.type=LogAppendTime, found %q: a wrong clock at a producer lets retention delete fresh events", v)
	}
	if ms := number(value, "retention.ms"); ms >= 0 && time.Duration(ms)*time.Millisecond < retention {
		found(CheckRetention, "expected retention.ms of at least %d (%s), found %d: an outage of that length loses events", retention.Milliseconds(), retention, ms)
	}
	if b := number(value, "retention.bytes"); b > 0 {
		found(CheckRetention, "expected retention.bytes=-1, found %d: a burst may push out events that nobody has read", b)
	}
}

// TopicID returns the topic's ID. The error is ErrNoTopic, or that the cluster could not be asked.
func TopicID(ctx context.Context, cl *kgo.Client, topic string) ([16]byte, error) {
	details, err := kadm.NewClient(cl).ListTopics(ctx, topic)
	if err != nil {
		return [16]byte{}, fmt.Errorf("ask for topic %s: %w", topic, err)
	}
	d, ok := details[topic]
	if !ok || errors.Is(d.Err, kerr.UnknownTopicOrPartition) {
		return [16]byte{}, fmt.Errorf("%w: %s", ErrNoTopic, topic)
	}
	if d.Err != nil {
		return [16]byte{}, fmt.Errorf("ask for topic %s: %w", topic, d.Err)
	}
	return d.ID, nil
}

// LogBounds asks for the first offset of each of a topic's partitions, and for the one behind its last. A partition's own
// error stands with its offset.
func LogBounds(ctx context.Context, adm *kadm.Client, topic string) (starts, ends kadm.ListedOffsets, err error) {
	if starts, err = adm.ListStartOffsets(ctx, topic); err == nil {
		ends, err = adm.ListEndOffsets(ctx, topic)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("offsets of topic %s: %w", topic, err)
	}
	return starts, ends, nil
}
