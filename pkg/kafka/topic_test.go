package kafka_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const maxBody = 1 << 20

func TestEnsuredTopicIsSafe(t *testing.T) {
	cluster := kafkatest.New(t)
	cl := cluster.Client(t)
	topic := "ensure." + uuid.NewString()
	k := cluster.Config(topic)
	_, err := kafka.CheckTopic(t.Context(), cl, k, topic, maxBody)
	require.ErrorIs(t, err, kafka.ErrNoTopic)
	_, err = kafka.TopicID(t.Context(), cl, topic)
	require.ErrorIs(t, err, kafka.ErrNoTopic)

	require.NoError(t, kafka.EnsureTopic(t.Context(), cl, k, topic, maxBody))
	require.NoError(t, kafka.EnsureTopic(t.Context(), cl, k, topic, maxBody), "a topic that is there is left alone")
	var r kafka.Report
	require.Eventually(t, func() bool {
		r, err = kafka.CheckTopic(t.Context(), cl, k, topic, maxBody)
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	require.NoError(t, r.Err())
	require.Empty(t, r.Findings)
	require.Equal(t, k.Partitions, r.Partitions)
	require.NotEmpty(t, r.ClusterID)
	id, err := kafka.TopicID(t.Context(), cl, topic)
	require.NoError(t, err)
	require.Equal(t, id, r.TopicID)
}

// TestEveryFinding breaks one property of a topic at a time.
func TestR12EveryFinding(t *testing.T) {
	cluster := kafkatest.New(t)
	cl := cluster.Client(t)
	for check, bad := range map[string]map[string]string{
		kafka.CheckMinInsync:     {"min.insync.replicas": "1"},
		kafka.CheckUnclean:       {"unclean.leader.election.enable": "true"},
		kafka.CheckCleanup:       {"cleanup.policy": "compact"},
		kafka.CheckTimestampType: {"message.timestamp.type": "CreateTime"},
		kafka.CheckRetention:     {"retention.ms": "3600000"},
		kafka.CheckMaxMessage:    {"max.message.bytes": "100000"},
		kafka.CheckReplication:   nil,
	} {
		t.Run(check, func(t *testing.T) {
			topic := "bad." + uuid.NewString()
			k := cluster.Config(topic)
			if bad == nil {
				k.ReplicationFactor = 2
			}
			require.NoError(t, kafka.EnsureTopic(t.Context(), cl, k, topic, maxBody))
			alter(t, cl, topic, bad)
			found := func() []kafka.Finding {
				r, err := kafka.CheckTopic(t.Context(), cl, k, topic, maxBody)
				if err != nil {
					return nil
				}
				if len(r.Findings) == 1 {
					require.Equal(t, !r.Findings[0].Waived, r.Err() != nil)
				}
				return r.Findings
			}
			require.Eventually(t, func() bool { f := found(); return len(f) == 1 && f[0].Check == check }, 30*time.Second, 50*time.Millisecond)
			k.Accept = []string{check} // the next answer may come from a broker that does not know the change yet
			require.Eventually(t, func() bool { f := found(); return len(f) == 1 && f[0].Waived }, 30*time.Second, 50*time.Millisecond)
		})
	}
}

// TestPublishedFindings breaks one property of a topic that operations publish to at a time; what is up to its readers is
// no finding.
func TestPublishedFindings(t *testing.T) {
	cluster := kafkatest.New(t)
	cl := cluster.Client(t)
	for name, c := range map[string]struct {
		set     map[string]string
		keyless bool
		want    string // check; empty: none
	}{
		"as it is made":          {},
		"its readers' retention": {set: map[string]string{"retention.ms": "3600000", "message.timestamp.type": "CreateTime"}},
		"compacted, with keys":   {set: map[string]string{"cleanup.policy": "compact"}},
		"compacted, without":     {map[string]string{"cleanup.policy": "compact"}, true, kafka.CheckCleanup},
		"acknowledged by one":    {map[string]string{"min.insync.replicas": "1"}, false, kafka.CheckMinInsync},
		"elections cut it off":   {map[string]string{"unclean.leader.election.enable": "true"}, false, kafka.CheckUnclean},
		"too small":              {map[string]string{"max.message.bytes": "900000"}, false, kafka.CheckMaxMessage},
		"two replicas":           {want: kafka.CheckReplication},
	} {
		t.Run(name, func(t *testing.T) {
			topic := "published." + uuid.NewString()
			k := cluster.Config(topic)
			if c.want == kafka.CheckReplication {
				k.ReplicationFactor = 2
			}
			require.NoError(t, kafka.EnsureTopic(t.Context(), cl, k, topic, 0))
			alter(t, cl, topic, c.set)
			require.Eventually(t, func() bool {
				r, err := kafka.CheckPublished(t.Context(), cl, k, topic, 900_000, c.keyless)
				if c.want == "" {
					return err == nil && len(r.Findings) == 0
				}
				return err == nil && len(r.Findings) == 1 && r.Findings[0].Check == c.want
			}, 30*time.Second, 50*time.Millisecond)
		})
	}
}

func alter(t *testing.T, cl *kgo.Client, topic string, values map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var alters []kadm.AlterConfig
	for name, value := range values {
		alters = append(alters, kadm.AlterConfig{Op: kadm.SetConfig, Name: name, Value: &value})
	}
	if len(alters) == 0 {
		return
	}
	responses, err := kadm.NewClient(cl).AlterTopicConfigs(ctx, alters, topic)
	require.NoError(t, err)
	for _, r := range responses {
		require.NoError(t, r.Err, r.ErrMessage)
	}
}

func TestOptionsNameWhatIsWrong(t *testing.T) {
	for want, k := range map[string]settings.Kafka{
		"kafka.tls: open nowhere.pem":                        {TLS: &settings.TLS{CAFile: "nowhere.pem"}},
		"kafka.tls: topic_test.go: expected PEM certificate": {TLS: &settings.TLS{CAFile: "topic_test.go"}},
		"kafka.tls: expected both cert_file and key_file":    {TLS: &settings.TLS{CertFile: "a.pem"}},
		`kafka.sasl: unknown mechanism "gssapi"`:             {SASL: &settings.SASL{Mechanism: "gssapi"}},
	} {
		_, err := kafka.Options(k, "test")
		require.ErrorContains(t, err, want)
	}
	for _, m := range []string{"plain", "scram-sha-256", "scram-sha-512", "aws-msk-iam"} {
		_, err := kafka.Options(settings.Kafka{SASL: &settings.SASL{Mechanism: m, Username: config.NewSecret("u"), Password: config.NewSecret("p")}, TLS: &settings.TLS{}}, "test")
		require.NoError(t, err)
	}
}
