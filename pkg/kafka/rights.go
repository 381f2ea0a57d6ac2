package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrNotAllowed says that the brokers know who we are, and do not let us do what we must.
var ErrNotAllowed = errors.New("the brokers do not allow it")

// IsNotAllowed says whether an error of Kafka is about our rights. Unlike an outage it does not pass by itself.
func IsNotAllowed(err error) bool {
	for _, e := range []error{ErrNotAllowed, kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// CheckWritable returns ErrNotAllowed when we may not write to the topic. Brokers that do not tell what we may are taken to
// allow it. Other errors are ErrNoTopic, and that the cluster could not be asked.
func CheckWritable(ctx context.Context, cl *kgo.Client, topic string) error {
	req := kmsg.NewPtrMetadataRequest()
	req.IncludeTopicAuthorizedOperations = true
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = &topic
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return fmt.Errorf("ask what we may do with topic %s: %w", topic, err)
	}
	for _, t := range resp.Topics {
		switch err := kerr.ErrorForCode(t.ErrorCode); {
		case errors.Is(err, kerr.TopicAuthorizationFailed):
			return fmt.Errorf("%w: Describe and Write on topic %s are missing", ErrNotAllowed, topic)
		case errors.Is(err, kerr.UnknownTopicOrPartition):
			return fmt.Errorf("%w: %s", ErrNoTopic, topic)
		case err != nil:
			return fmt.Errorf("ask what we may do with topic %s: %w", topic, err)
		}
		if t.AuthorizedOperations == math.MinInt32 { // they do not tell
			continue
		}
		if !slices.Contains(kadm.DecodeACLOperations(t.AuthorizedOperations), kmsg.ACLOperationWrite) {
			return fmt.Errorf("%w: Write on topic %s is missing", ErrNotAllowed, topic)
		}
	}
	return nil
}
