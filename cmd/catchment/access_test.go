package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
)

const (
	accessFiles    = "../../schemas/access/"
	accessPassword = "a-password"
)

// fortress is a deployment whose Kafka, Postgres and S3 let each program do what schemas/access says, and no more. Names are
// the files' own, with a prefix.
type fortress struct {
	*deployment
	kafka  *kafkatest.Secured
	prefix string
	user   *s3test.Bucket // as the archiver sees it
	owner  *s3test.Bucket
	admin  string // URL of Postgres' superuser
}

const fortressConfig = `
kafka:
  brokers: ["%[1]s"]
  topic: %[2]scatchment.events
  results_topic: %[2]scatchment.results
  create_topic: false
  partitions: 3
  replication_factor: 1
  min_insync_replicas: 1
  accept: [replication-factor, min-insync-replicas]
  tls: {ca_file: "%[3]s"}
  sasl: {mechanism: scram-sha-512, username: "%[2]scatchment-tool", password: %[9]s}
postgres: {url: "%[4]s"}
archive: {url: "%[5]s"}
ingress: {listen: "%[6]s", ops_listen: "%[7]s"}
processor: {ops_listen: "%[8]s", group: "%[2]scatchment-processor", migrate: false}
archiver: {ops_listen: "%[10]s", group: "%[2]scatchment-archiver", segment_age: 1s}
` + orderStatus

func newFortress(t *testing.T) *fortress {
	t.Helper()
	f := &fortress{
		kafka: kafkatest.NewSecured(t), prefix: "p" + strings.ReplaceAll(uuid.NewString(), "-", "")[:12] + "-", admin: pgtest.New(t),
		deployment: &deployment{t: t, bin: t.TempDir(), path: filepath.Join(t.TempDir(), "catchment.yaml"), running: map[string]*exec.Cmd{}},
	}
	policy, err := os.ReadFile(accessFiles + "s3-archiver.json")
	require.NoError(t, err)
	if f.user, f.owner = s3test.Restricted(t, policy); f.user == nil {
		t.Skip("no versitygw")
	}
	t.Setenv("STRIPE_WEBHOOK_SECRET", e2eSecret)
	t.Setenv("AWS_ACCESS_KEY_ID", f.user.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", f.user.SecretKey)
	f.makeRoles()
	f.allow(f.rules())
	f.cluster = f.kafka.Admin
	text := fmt.Sprintf(fortressConfig, f.kafka.SASL, f.prefix, f.kafka.CAFile, f.as("reader"), f.user.URL, proctest.FreeAddress(t), proctest.FreeAddress(t), proctest.FreeAddress(t), accessPassword, proctest.FreeAddress(t))
	require.NoError(t, os.WriteFile(f.path, []byte(text), 0o600))
	f.cfg, err = settings.Load(f.path, settings.Everything...)
	require.NoError(t, err)
	f.env = map[string][]string{}
	for _, s := range []string{"ingress", "processor", "archiver"} {
		f.env[s] = []string{"CATCHMENT_KAFKA__SASL__USERNAME=" + f.prefix + "catchment-" + s}
	}
	f.env["processor"] = append(f.env["processor"], "CATCHMENT_POSTGRES__URL="+f.as("processor"))
	f.setUp()
	f.build()
	return f
}

// setUp makes topics and schema as those who may.
func (f *fortress) setUp() {
	f.t.Helper()
	cl := f.client("setup")
	for _, topic := range []string{f.cfg.Kafka.Topic, f.cfg.Kafka.ResultsTopic} {
		require.NoError(f.t, kafka.EnsureTopic(f.t.Context(), cl, f.cfg.Kafka, topic, 1<<20))
	}
	require.NoError(f.t, processor.Migrate(f.t.Context(), f.as("owner")))
	f.exec(f.admin, "CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL)")
	f.exec(f.admin, "GRANT SELECT, INSERT, UPDATE ON orders TO "+f.role("processor"))
}

func (f *fortress) role(name string) string {
	return strings.TrimSuffix(f.prefix, "-") + "_catchment_" + name
}

// as is the URL of a role.
func (f *fortress) as(role string) string {
	f.t.Helper()
	u, err := url.Parse(f.admin)
	require.NoError(f.t, err)
	u.User = url.UserPassword(f.role(role), accessPassword)
	return u.String()
}

func (f *fortress) exec(at, sql string) {
	f.t.Helper()
	require.NoError(f.t, execAt(at, sql), sql)
}

func execAt(at, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	return err
}

// makeRoles runs postgres-roles.sql, twice, for it may be.
func (f *fortress) makeRoles() {
	f.t.Helper()
	text, err := os.ReadFile(accessFiles + "postgres-roles.sql")
	require.NoError(f.t, err)
	sql := strings.ReplaceAll(string(text), "catchment_", f.role(""))
	f.t.Cleanup(func() {
		for _, role := range []string{"reader", "processor", "owner"} {
			require.NoError(f.t, execAt(f.admin, "DROP OWNED BY "+f.role(role)+" CASCADE; DROP ROLE "+f.role(role)))
		}
	})
	for range 2 {
		f.exec(f.admin, sql)
	}
	for _, role := range []string{"reader", "processor", "owner"} {
		f.exec(f.admin, "ALTER ROLE "+f.role(role)+" PASSWORD '"+accessPassword+"'")
	}
}

// rule is a line of kafka-acls.csv.
type rule struct {
	principal, resource, name string
	operations                []kadm.ACLOperation
}

func readRules(tb testing.TB) (rules []rule) {
	tb.Helper()
	file, err := os.Open(accessFiles + "kafka-acls.csv")
	require.NoError(tb, err)
	defer func() { require.NoError(tb, file.Close()) }()
	lines, err := csv.NewReader(file).ReadAll()
	require.NoError(tb, err)
	require.Equal(tb, []string{"principal", "resource", "name", "operations"}, lines[0])
	for _, l := range lines[1:] {
		r := rule{principal: l[0], resource: l[1], name: l[2]}
		for op := range strings.FieldsSeq(l[3]) {
			parsed, err := kmsg.ParseACLOperation(op)
			require.NoError(tb, err, op)
			r.operations = append(r.operations, parsed)
		}
		rules = append(rules, r)
	}
	return rules
}

func (r rule) builder(prefix string) *kadm.ACLBuilder {
	b := kadm.NewACLs().Operations(r.operations...).Allow("User:" + prefix + r.principal).AllowHosts().ResourcePatternType(kadm.ACLPatternLiteral)
	if r.resource == "group" {
		return b.Groups(prefix + r.name)
	}
	return b.Topics(prefix + r.name)
}

func (f *fortress) rules() []rule {
	f.t.Helper()
	rules := readRules(f.t)
	for _, r := range rules {
		f.kafka.Password(f.prefix+r.principal, accessPassword)
	}
	return rules
}

func (f *fortress) allow(rules []rule) {
	f.t.Helper()
	for _, r := range rules {
		f.kafka.Allow(r.builder(f.prefix))
	}
}

// deny takes a program's rights to one thing away.
func (f *fortress) deny(r rule) {
	f.t.Helper()
	gone, err := kadm.NewClient(f.kafka.Admin.Client(f.t)).DeleteACLs(f.t.Context(), r.builder(f.prefix))
	require.NoError(f.t, err)
	for _, g := range gone {
		require.NoError(f.t, g.Err)
		require.NotEmpty(f.t, g.Deleted)
	}
}

// client is one of a program's rights.
func (f *fortress) client(name string, more ...kgo.Opt) *kgo.Client {
	f.t.Helper()
	k := settings.Kafka{Brokers: []string{f.kafka.SASL}, TLS: &settings.TLS{CAFile: f.kafka.CAFile}, SASL: &settings.SASL{
		Mechanism: "scram-sha-512", Username: config.NewSecret(f.prefix + "catchment-" + name), Password: config.NewSecret(accessPassword),
	}}
	opts, err := kafka.Options(k, "test")
	require.NoError(f.t, err)
	cl, err := kgo.NewClient(append(opts, more...)...)
	require.NoError(f.t, err)
	f.t.Cleanup(cl.Close)
	return cl
}

func (f *fortress) ops(service string) string {
	return map[string]string{"ingress": f.cfg.Ingress.OpsListen, "processor": f.cfg.Processor.OpsListen, "archiver": f.cfg.Archiver.OpsListen}[service]
}

// says waits until a service is not ready and says why.
func (f *fortress) says(service string, why ...string) {
	f.t.Helper()
	unready(f.t, service, f.ops(service), why...)
}

// TestLeastPrivilege runs the three programs with the rights of schemas/access: they work, and nothing else is allowed.
func TestLeastPrivilege(t *testing.T) {
	f := newFortress(t)
	services := []string{"ingress", "processor", "archiver"}
	f.deny(ingressWrites)
	for _, s := range services {
		f.start(s)
	}
	f.says("ingress", "the brokers do not allow it")
	f.allow([]rule{ingressWrites})
	for _, s := range services {
		f.ready(s)
	}
	sent := f.send(0, 20)
	f.requireEverywhere(sent)
	code, out, errs := tool(t, "audit", "--config", f.path)
	require.Equal(t, 0, code, "%s%s", out, errs)
	code, out, errs = tool(t, "status", "--config", f.path)
	require.Contains(t, out, "20 events", "%d %s", code, errs)
	code, out, errs = tool(t, "events", "list", "--config", f.path)
	require.Equal(t, 0, code, "%s%s", out, errs)
	t.Run("Kafka forbids", f.kafkaForbids)
	t.Run("Postgres forbids", f.postgresForbids)
	t.Run("S3 forbids", f.s3Forbids)
	t.Run("missing ACL", func(t *testing.T) { f.missingACL(t, sent) })
	for _, s := range services {
		f.ready(s)
		f.stop(s)
	}
}

var ingressWrites = rule{"catchment-ingress", "topic", "catchment.events", []kadm.ACLOperation{kmsg.ACLOperationWrite}}

// missingACL takes each service's rights away while it works, one after the other: it says so, is not ready, and
// nothing is lost when they are given back.
func (f *fortress) missingACL(t *testing.T, sent map[string][]byte) {
	f.deny(ingressWrites)
	stripe, _ := provider.ByName("stripe")
	l := &load{url: run.BaseURL(f.cfg.Ingress.Listen) + "/webhooks/stripe", secret: e2eSecret, provider: stripe, client: http.DefaultClient, accepted: map[string]bool{}}
	refused := stripe.Sample(rand.New(rand.NewPCG(3, 7)), provider.SampleInput{Seq: 7, Now: time.Now()})
	require.False(t, l.post(t.Context(), refused), "a 200 without a right to write")
	f.says("ingress", "the brokers do not allow it", "Write on topic "+f.cfg.Kafka.Topic+" is missing")
	f.allow([]rule{ingressWrites})
	f.ready("ingress")

	for service, r := range map[string]rule{
		"processor": {"catchment-processor", "topic", "catchment.events", []kadm.ACLOperation{kmsg.ACLOperationRead}},
		"archiver":  {"catchment-archiver", "topic", "catchment.events", []kadm.ACLOperation{kmsg.ACLOperationRead}},
	} {
		f.deny(r)
		f.says(service, "TOPIC_AUTHORIZATION_FAILED")
		f.sendMore(sent)
		f.allow([]rule{r})
		f.ready(service)
	}
	group := rule{"catchment-processor", "group", "catchment-processor", []kadm.ACLOperation{kmsg.ACLOperationRead, kmsg.ACLOperationDescribe}}
	f.deny(group)
	f.says("processor", "GROUP_AUTHORIZATION_FAILED")
	f.sendMore(sent)
	f.allow([]rule{group})
	f.ready("processor")
	f.requireEverywhere(sent)
}

func (f *fortress) sendMore(sent map[string][]byte) {
	f.t.Helper()
	for id, body := range f.send(1000+len(sent), 5) {
		sent[id] = body
	}
}

func (f *fortress) kafkaForbids(t *testing.T) {
	events, results := f.cfg.Kafka.Topic, f.cfg.Kafka.ResultsTopic
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	writes := func(name, topic string) error {
		return f.client(name, kgo.AllowAutoTopicCreation()).ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr()
	}
	reads := func(name, topic string, more ...kgo.Opt) error {
		return f.client(name, append(more, kgo.ConsumeTopics(topic))...).PollFetches(ctx).Err()
	}
	for what, err := range map[string]error{
		"the ingress writes results":          writes("ingress", results),
		"the ingress reads events":            reads("ingress", events),
		"the processor writes events":         writes("processor", events),
		"the processor reads results":         reads("processor", results),
		"the archiver writes events":          writes("archiver", events),
		"the archiver writes results":         writes("archiver", results),
		"the tool writes events":              writes("tool", events),
		"setup writes events":                 writes("setup", events),
		"setup reads events":                  reads("setup", events),
		"the ingress writes to another topic": writes("ingress", f.prefix+"another"),
	} {
		// Who may write to no topic is not even given a producer's ID.
		require.True(t, errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed), "%s: %v", what, err)
	}
	require.ErrorIs(t, reads("archiver", events, kgo.ConsumerGroup(f.cfg.Processor.Group)), kerr.GroupAuthorizationFailed)
	require.ErrorIs(t, reads("tool", events, kgo.ConsumerGroup(f.cfg.Archiver.Group)), kerr.GroupAuthorizationFailed)
	for _, name := range []string{"ingress", "processor", "archiver", "tool", "setup"} {
		adm := kadm.NewClient(f.client(name))
		deleted, err := adm.DeleteTopic(ctx, events)
		require.ErrorIs(t, errOf(err, deleted.Err), kerr.TopicAuthorizationFailed, name)
		altered, err := adm.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kmsg.StringPtr("1")}}, events)
		require.NoError(t, err)
		require.ErrorIs(t, altered[0].Err, kerr.TopicAuthorizationFailed, name)
	}
}

func errOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *fortress) postgresForbids(t *testing.T) {
	day := time.Now().UTC().AddDate(0, 0, 1).Format("20060102")
	for role, statements := range map[string][]string{
		"processor": {
			"CREATE TABLE catchment.mine (a int)", "DROP TABLE catchment.identities", "TRUNCATE catchment.results", "ALTER TABLE catchment.progress ADD a int",
			"DROP TABLE catchment.bodies_" + day, "CREATE SCHEMA other", "CREATE ROLE other", "DELETE FROM orders", "DROP TABLE orders",
			"SET ROLE " + f.role("owner"),
		},
		"reader": {
			"INSERT INTO catchment.actions (at, actor, command) VALUES (now(), 'x', 'x')", "UPDATE catchment.progress SET next_offset = 0", "DELETE FROM catchment.identities",
			"TRUNCATE catchment.results", "SELECT catchment.drop_partition(now() + interval '30 days')", "SELECT catchment.make_partitions(1)", "CREATE TABLE catchment.mine (a int)",
			"SELECT * FROM orders", "SET ROLE " + f.role("processor"),
		},
		"owner": {"SELECT * FROM orders", "CREATE ROLE other", "CREATE SCHEMA other", "SET ROLE " + f.role("processor")},
	} {
		for _, sql := range statements {
			err := execAt(f.as(role), sql)
			var pe *pgconn.PgError
			require.ErrorAs(t, err, &pe, "%s: %s", role, sql)
			require.Contains(t, []string{"42501", "0LP01"}, pe.Code, "%s: %s: %v", role, sql, err)
		}
	}
	// What Postgres gives to everybody is no right here: a role that was given nothing calls no function.
	require.NoError(t, execAt(f.as("processor"), "SELECT catchment.make_partitions(1)"))
	require.NoError(t, execAt(f.as("processor"), "SELECT catchment.drop_partition(now() - interval '30 days')"))
	f.exec(f.admin, `DO $$ BEGIN IF EXISTS (SELECT FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
		WHERE p.pronamespace = 'catchment'::regnamespace AND a.grantee = 0) THEN RAISE 'everybody may call a function'; END IF; END $$`)
	for _, relation := range []string{"events", "identities", "results", "conflicts", "dead_letters", "progress", "definitions", "actions"} {
		f.exec(f.as("reader"), "SELECT * FROM catchment."+relation+" LIMIT 1")
	}
}

func (f *fortress) s3Forbids(t *testing.T) {
	cl, bucket := f.user.Client(), &f.user.Name
	found, err := cl.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: bucket})
	require.NoError(t, err)
	require.NotEmpty(t, found.Contents)
	_, err = cl.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: bucket, Key: found.Contents[0].Key})
	require.ErrorContains(t, err, "AccessDenied")
	_, err = cl.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: bucket})
	require.ErrorContains(t, err, "AccessDenied")
	_, err = cl.DeleteBucketPolicy(t.Context(), &s3.DeleteBucketPolicyInput{Bucket: bucket})
	require.ErrorContains(t, err, "AccessDenied")
}
