package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

func topicConfig(t *testing.T, cluster *kafkatest.Cluster, more string) string {
	t.Helper()
	return writeConfig(t, fmt.Sprintf("kafka: {brokers: [%s], topic: made, partitions: 3%s}\n", `"`+strings.Join(cluster.Brokers, `", "`)+`"`, more))
}

// TestTopicsEnsureWaitsForTheBrokers: a broker that has not heard of the new topic yet is no reason to fail.
func TestTopicsEnsureWaitsForTheBrokers(t *testing.T) {
	cluster := kafkatest.NewFake(t)
	var late atomic.Int32
	late.Store(3)
	cluster.Fake().ControlKey(int16(kmsg.DescribeConfigs), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.Fake().KeepControl()
		if late.Add(-1) < 0 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, r := range req.(*kmsg.DescribeConfigsRequest).Resources {
			one := kmsg.NewDescribeConfigsResponseResource()
			one.ResourceType, one.ResourceName, one.ErrorCode = r.ResourceType, r.ResourceName, kerr.UnknownTopicOrPartition.Code
			resp.Resources = append(resp.Resources, one)
		}
		return resp, nil, true
	})
	path := topicConfig(t, cluster, "")
	code, stdout, stderr := tool(t, "topics", "ensure", "--config", path)
	require.Equal(t, 0, code, stdout+stderr)
	require.Contains(t, stdout, "every check passed")
	require.Negative(t, late.Load())
}

func TestTopicsCheck(t *testing.T) {
	cluster := kafkatest.NewFake(t)
	path := topicConfig(t, cluster, ", replication_factor: 1, min_insync_replicas: 1")
	code, _, stderr := tool(t, "topics", "check", "--config", path)
	require.Equal(t, 1, code, "it is not there")
	require.Contains(t, stderr, "catchment topics ensure")

	code, stdout, stderr := tool(t, "topics", "ensure", "--config", path)
	require.Equal(t, 1, code, stdout)
	require.Contains(t, stdout, "replication-factor: expected at least 3")
	require.Contains(t, stdout, "min-insync-replicas: expected")
	require.Contains(t, stderr, "may lose what was acknowledged")

	path = topicConfig(t, cluster, ", accept: [replication-factor, min-insync-replicas]")
	code, stdout, stderr = tool(t, "topics", "check", "--config", path, "--output", "json")
	require.Equal(t, 0, code, stderr)
	require.Contains(t, stdout, `"waived": true`)
	require.Contains(t, stdout, `"safe": true`)
}
