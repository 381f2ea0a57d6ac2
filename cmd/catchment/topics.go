package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
)

// kafkaTimeout is how long a command waits for the cluster.
const kafkaTimeout = 20 * time.Second

// topicReport is what `topics` answers: about the deliveries' topic, and within it about those that are published to.
type topicReport struct {
	Topic      string         `json:"topic"`
	TopicID    string         `json:"topic_id"`
	ClusterID  string         `json:"cluster_id"`
	Partitions int            `json:"partitions"`
	Safe       bool           `json:"safe"`
	Findings   []topicFinding `json:"findings"`
	For        string         `json:"for,omitempty"` // whose topic it is; empty: the deliveries'
	Published  []topicReport  `json:"published,omitempty"`
}

type topicFinding struct {
	Check  string `json:"check"`
	Text   string `json:"text"`
	Waived bool   `json:"waived"`
}

func newTopics(a *app) *cobra.Command {
	return group("topics", "Create or judge the topics",
		&cobra.Command{
			Use:   "ensure",
			Short: "Create the topics of the deliveries and of the results when they do not exist, and judge all topics",
			Args:  exactly(0),
			RunE:  func(cmd *cobra.Command, _ []string) error { return a.topics(cmd.Context(), true) },
		},
		&cobra.Command{
			Use:   "check",
			Short: "Say whether the topics of the deliveries, of the results and of what operations publish keep what is acknowledged; exit code 1 when one does not",
			Args:  exactly(0),
			RunE:  func(cmd *cobra.Command, _ []string) error { return a.topics(cmd.Context(), false) },
		},
	)
}

func (a *app) topics(ctx context.Context, create bool) error {
	cfg, err := a.load(settings.NeedKafka)
	if err != nil {
		return err
	}
	cl, err := kafkaClient(cfg)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	if create {
		if err := ensureTopics(ctx, cl, cfg); err != nil {
			return err
		}
	}
	r, err := judgeTopics(ctx, cl, cfg)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for create && unknownTopic(err) && ctx.Err() == nil { // a broker may hear of a new topic later than another
		select {
		case <-ctx.Done():
		case <-tick.C:
			r, err = judgeTopics(ctx, cl, cfg)
		}
	}
	if err != nil {
		return err
	}
	if err := a.answer(r, func(w io.Writer) { r.print(w) }); err != nil {
		return err
	}
	for _, one := range append([]topicReport{r}, r.Published...) {
		if !one.Safe {
			return fmt.Errorf("topic %s may lose what was acknowledged: change it (kafka-configs.sh), or waive a check by its name in kafka.accept", one.Topic)
		}
	}
	return nil
}

// ensureTopics makes the topic of all deliveries and, unless it is off, that of the results.
func ensureTopics(ctx context.Context, cl *kgo.Client, cfg *settings.File) error {
	if err := kafka.EnsureTopic(ctx, cl, cfg.Kafka, cfg.Kafka.Topic, largestBody(cfg)); err != nil {
		return err
	}
	if results := cfg.Kafka.Results(); results != "" {
		return kafka.EnsureTopic(ctx, cl, cfg.Kafka, results, 0)
	}
	return nil
}

// unknownTopic says whether a broker does not know the topic.
func unknownTopic(err error) bool {
	return errors.Is(err, kafka.ErrNoTopic) || errors.Is(err, kerr.UnknownTopicOrPartition)
}

func kafkaClient(cfg *settings.File) (*kgo.Client, error) {
	opts, err := kafka.Options(cfg.Kafka, "catchment")
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	return cl, nil
}

// largestBody is the largest body, in bytes, that any source may send.
func largestBody(cfg *settings.File) int64 {
	n := int64(cfg.Ingress.MaxBody)
	for _, s := range cfg.Sources {
		n = max(n, int64(s.MaxBody))
	}
	return n
}

func judgeTopic(ctx context.Context, cl *kgo.Client, cfg *settings.File) (topicReport, error) {
	r, err := kafka.CheckTopic(ctx, cl, cfg.Kafka, cfg.Kafka.Topic, largestBody(cfg))
	if err != nil {
		return topicReport{}, notJudged(err, cfg)
	}
	return reportOf(r), nil
}

func notJudged(err error, cfg *settings.File) error {
	return fmt.Errorf("%w; are the brokers %v reachable, and was the topic made (`catchment topics ensure`)?", err, cfg.Kafka.Brokers)
}

// judgeTopics judges all topics of the configuration. That of the results must keep them as that of the deliveries does;
// one that operations publish to, and that is not there, is not safe.
func judgeTopics(ctx context.Context, cl *kgo.Client, cfg *settings.File) (topicReport, error) {
	out, err := judgeTopic(ctx, cl, cfg)
	if err != nil {
		return out, err
	}
	if topic := cfg.Kafka.Results(); topic != "" {
		r, err := kafka.CheckTopic(ctx, cl, cfg.Kafka, topic, 0)
		if err != nil {
			return out, notJudged(err, cfg)
		}
		one := reportOf(r)
		one.For = "results"
		out.Published = append(out.Published, one)
	}
	names, keyless := map[string][]string{}, map[string]bool{}
	for _, op := range cfg.Operations {
		if op.Publish != nil {
			names[op.Publish.Topic] = append(names[op.Publish.Topic], op.Name)
			keyless[op.Publish.Topic] = keyless[op.Publish.Topic] || op.Publish.Key == "null"
		}
	}
	for _, topic := range slices.Sorted(maps.Keys(names)) {
		r, err := kafka.CheckPublished(ctx, cl, cfg.Kafka, topic, processor.MaxPublished, keyless[topic])
		one := reportOf(r)
		if errors.Is(err, kafka.ErrNoTopic) {
			one = topicReport{Topic: topic, Findings: []topicFinding{{"missing", "it does not exist: create it, and what waits in the outbox is published", false}}}
		} else if err != nil {
			return out, notJudged(err, cfg)
		}
		one.For = "operations " + strings.Join(names[topic], ", ")
		out.Published = append(out.Published, one)
	}
	return out, nil
}

func reportOf(r kafka.Report) topicReport {
	out := topicReport{
		Topic: r.Topic, TopicID: hex.EncodeToString(r.TopicID[:]), ClusterID: r.ClusterID, Partitions: r.Partitions,
		Safe: r.Err() == nil, Findings: []topicFinding{},
	}
	for _, f := range r.Findings {
		out.Findings = append(out.Findings, topicFinding{f.Check, f.Text, f.Waived})
	}
	return out
}

func (r topicReport) print(w io.Writer) {
	line(w, "topic", r.Topic)
	if r.For == "" {
		line(w, "id", r.TopicID)
		line(w, "cluster", r.ClusterID)
	} else {
		line(w, "for", r.For)
	}
	line(w, "partitions", r.Partitions)
	for _, f := range r.Findings {
		state := "unsafe"
		if f.Waived {
			state = "waived"
		}
		line(w, state, f.Check+": "+f.Text)
	}
	if len(r.Findings) == 0 {
		line(w, "safe", "every check passed")
	}
	for _, one := range r.Published {
		fmt.Fprintln(w)
		one.print(w)
	}
}
