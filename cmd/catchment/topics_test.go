package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
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

// The topic of the results, and those that operations publish to, are judged too.
func TestTopicsCheckWhatIsPublished(t *testing.T) {
	cluster := kafkatest.NewFake(t)
	admin := kadm.NewClient(cluster.Client(t))
	path := writeConfig(t, fmt.Sprintf(`
kafka: {brokers: ["%s"], topic: made, results_topic: outcomes, partitions: 3}
sources: {shop: {provider: none}}
operations:
  - {name: tell, on: {source: shop}, publish: {topic: told, value: raw}}
  - {name: tell-more, on: {source: shop}, publish: {topic: told, key: "null", value: raw}}
  - {name: other, on: {source: shop}, publish: {topic: missing, value: raw}}
`, strings.Join(cluster.Brokers, `", "`)))
	set := func(topic, name, value string) {
		t.Helper()
		responses, err := admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic)
		require.NoError(t, err)
		require.NoError(t, responses[0].Err)
	}
	create := func(topic string) {
		t.Helper()
		_, err := admin.CreateTopic(t.Context(), 3, 3, map[string]*string{"min.insync.replicas": new("2")}, topic)
		require.NoError(t, err)
	}
	judged := func(want int) (r topicReport) {
		t.Helper()
		code, stdout, stderr := tool(t, "topics", "check", "--config", path, "--output", "json")
		require.Equal(t, want, code, stdout+stderr)
		require.NoError(t, json.Unmarshal([]byte(stdout), &r))
		return r
	}
	create("told")
	code, stdout, stderr := tool(t, "topics", "ensure", "--config", path)
	require.Equal(t, 1, code, stdout)
	require.Contains(t, stdout, "missing: it does not exist: create it")
	require.Contains(t, stderr, "topic missing may lose what was acknowledged")

	create("missing")
	r := judged(0)
	require.Empty(t, r.For)
	require.Equal(t, []string{"outcomes results", "missing operations other", "told operations tell, tell-more"}, []string{
		r.Published[0].Topic + " " + r.Published[0].For, r.Published[1].Topic + " " + r.Published[1].For, r.Published[2].Topic + " " + r.Published[2].For,
	})
	for i, c := range []struct{ topic, key, bad, good, check string }{
		{"outcomes", "cleanup.policy", "compact", "delete", "cleanup-policy"},
		{"missing", "min.insync.replicas", "1", "2", "min-insync-replicas"},
		{"told", "cleanup.policy", "compact", "delete", "cleanup-policy"}, // records without a key
	} {
		set(c.topic, c.key, c.bad)
		r := judged(1)
		require.True(t, r.Safe)
		require.Equal(t, c.check, r.Published[i].Findings[0].Check)
		set(c.topic, c.key, c.good)
	}
	set("missing", "cleanup.policy", "compact") // its records have keys
	judged(0)
	_, err := admin.DeleteTopic(t.Context(), "outcomes")
	require.NoError(t, err)
	code, _, stderr = tool(t, "topics", "check", "--config", path)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "topic does not exist: outcomes")
	require.Contains(t, stderr, "catchment topics ensure")
}
