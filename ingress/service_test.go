package ingress

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const (
	stripeSecret = "whsec_test_of_the_ingress"
	githubSecret = "It's a Secret to Everybody"
	slackSecret  = "8f742231b10e8888abcd99yyyzzz85a5"
	hmacSecret   = "a shared secret of some length"
)

const testSources = `
sources:
  stripe: {provider: stripe, secrets: ["whsec_test_of_the_ingress"], ack_timeout: %s}
  github: {provider: github, secrets: ["It's a Secret to Everybody"], max_body: 25MB}
  slack: {provider: slack, secrets: ["8f742231b10e8888abcd99yyyzzz85a5"]}
  partner:
    provider: hmac
    secrets: [{id: p1, value: "a shared secret of some length"}]
    hmac: {header: X-Signature, prefix: "sha256="}
    event_id: body.?id.orValue("")
    on_missing_id: reject
  partner2:
    provider: hmac
    secrets: [{id: p2, value: "a shared secret of some length"}]
    hmac: {header: X-Signature}
    linger: 0s
`

// harness is an ingress that serves on a port of its own.
type harness struct {
	*Service
	t     testing.TB
	url   string
	log   *syncBuffer
	reg   *prometheus.Registry
	stop  func() error
	topic string
	kafka *kafkatest.Cluster
	skew  atomic.Int64 // of the service's clock

	options []kgo.Opt // that a client of the brokers needs besides their addresses
}

// start runs an ingress on the cluster with a fresh topic; more is YAML of the section ingress.
func start(t testing.TB, cluster *kafkatest.Cluster, ackTimeout, more string) *harness {
	t.Helper()
	return startOn(t, cluster, cluster.Topic(t, 3), ackTimeout, more, "")
}

func startOn(t testing.TB, cluster *kafkatest.Cluster, topic, ackTimeout, more, kafka string) *harness {
	t.Helper()
	return startText(t, cluster, topic, fmt.Sprintf("kafka: {brokers: [%s], topic: %s, create_topic: %t%s}\ningress: {listen: \"127.0.0.1:0\"%s}\n",
		`"`+strings.Join(cluster.Brokers, `", "`)+`"`, topic, kafka != "", kafka, patient(more))+fmt.Sprintf(testSources, ackTimeout))
}

// startSources is start with other sources, in YAML.
func startSources(t testing.TB, cluster *kafkatest.Cluster, more, sources string) *harness {
	t.Helper()
	topic := cluster.Topic(t, 3)
	return startText(t, cluster, topic, fmt.Sprintf("kafka: {brokers: [%s], topic: %s}\ningress: {listen: \"127.0.0.1:0\"%s}\nsources:%s",
		`"`+strings.Join(cluster.Brokers, `", "`)+`"`, topic, patient(more), sources))
}

func startText(t testing.TB, cluster *kafkatest.Cluster, topic, text string) *harness {
	t.Helper()
	cfg, err := settings.Parse("catchment.yaml", []byte(text), settings.NeedKafka, settings.NeedIngress, settings.NeedSources)
	require.NoError(t, err)
	h := &harness{t: t, log: &syncBuffer{}, reg: prometheus.NewRegistry(), topic: topic, kafka: cluster}
	h.Service, err = New(cfg, slog.New(slog.NewJSONHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})), h.reg)
	require.NoError(t, err)
	h.run()
	return h
}

// run serves until the test ends, or stop is called.
func (h *harness) run() {
	h.t.Helper()
	h.now = func() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) }
	h.url = "http://" + h.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	stopped := false
	h.stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-done
	}
	h.t.Cleanup(func() { require.NoError(h.t, h.stop()) })
}

func (h *harness) ready() {
	h.t.Helper()
	if !assert.Eventually(h.t, func() bool { return h.Ready() == nil }, 30*time.Second, 10*time.Millisecond) { //nolint:forbidigo // the log says why
		h.t.Fatalf("not ready: %v\n%s", h.Ready(), h.log)
	}
}

// call sends one request as it is.
func (h *harness) call(req *http.Request) (*http.Response, string) {
	h.t.Helper()
	resp, err := http.DefaultClient.Do(req)
	require.NoError(h.t, err)
	defer func() { require.NoError(h.t, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(h.t, err)
	requireDocumented(h.t, req, resp, string(body))
	return resp, string(body)
}

// hang sends a request whose body does not end before the returned function is called.
func hang(t testing.TB, url string) (end func()) {
	t.Helper()
	r, w := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, url, r)
	require.NoError(t, err)
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	return func() { _ = w.Close(); <-answered }
}

func post(url string, header http.Header, body []byte) *http.Request {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return req
}

// signed makes a genuine request of a preset.
func (h *harness) signed(source, preset, secret string, at time.Time, s provider.Sample) *http.Request {
	h.t.Helper()
	p, ok := provider.ByName(preset)
	require.True(h.t, ok)
	url := h.url + "/webhooks/" + source
	signed, err := p.Sign(&provider.SignInput{Secret: secret, Method: http.MethodPost, URL: url, Body: s.Body, Now: at, Sample: s})
	require.NoError(h.t, err)
	return post(url, signed.Header, s.Body)
}

var sampledAt = time.Now() // one moment for all, so that a number always gives the same bytes

func sampleOf(preset string, seq int) provider.Sample {
	p, _ := provider.ByName(preset)
	return p.Sample(rand.New(rand.NewPCG(1, uint64(seq))), provider.SampleInput{Seq: seq, Now: sampledAt})
}

func (h *harness) stripe(seq int) *http.Request {
	return h.signed("stripe", "stripe", stripeSecret, time.Now(), sampleOf("stripe", seq))
}

func (h *harness) github(seq int) *http.Request {
	return h.signed("github", "github", githubSecret, time.Now(), sampleOf("github", seq))
}

// records returns all that is in the topic.
func (h *harness) records() []*kgo.Record {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cl := h.kafka.Client(h.t, append([]kgo.Opt{kgo.ConsumeTopics(h.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())}, h.options...)...)
	var ends kadm.ListedOffsets
	require.Eventually(h.t, func() bool { // a new topic's partitions may have no leader yet
		var err error
		ends, err = kadm.NewClient(cl).ListEndOffsets(ctx, h.topic)
		return err == nil && ends.Error() == nil
	}, 30*time.Second, 100*time.Millisecond)
	want := int64(0)
	ends.Each(func(o kadm.ListedOffset) { want += o.Offset })
	var rs []*kgo.Record
	for int64(len(rs)) < want {
		f := cl.PollFetches(ctx)
		require.NoError(h.t, ctx.Err(), "%d of %d records", len(rs), want)
		f.EachRecord(func(r *kgo.Record) { rs = append(rs, r) })
	}
	for _, r := range rs {
		requireRecord(h.t, r)
	}
	return rs
}

func (h *harness) deliveries() map[string][]*event.Delivery {
	h.t.Helper()
	m := map[string][]*event.Delivery{}
	for _, r := range h.records() {
		d, err := event.Decode(r)
		require.NoError(h.t, err)
		m[d.Source+" "+d.ID] = append(m[d.Source+" "+d.ID], d)
	}
	return m
}

// acknowledged returns what the log says of every acknowledgement: by "partition/offset", the delivery's ID.
func (h *harness) acknowledged() map[string]string {
	h.t.Helper()
	acks := map[string]string{}
	for line := range strings.Lines(h.log.String()) {
		var l struct {
			Msg               string
			DeliveryID        string `json:"delivery_id"`
			Partition, Offset int64
		}
		require.NoError(h.t, json.Unmarshal([]byte(line), &l))
		if l.Msg == "acknowledged" {
			acks[fmt.Sprintf("%d/%d", l.Partition, l.Offset)] = l.DeliveryID
		}
	}
	return acks
}

func requireProblem(t *testing.T, resp *http.Response, body string, status int, slug string) {
	t.Helper()
	require.Equal(t, status, resp.StatusCode, body)
	require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
	var p problem
	require.NoError(t, json.Unmarshal([]byte(body), &p))
	require.Equal(t, problemType+slug, p.Type)
	require.Equal(t, status, p.Status)
	require.Equal(t, resp.Header.Get(headerDeliveryID), p.Instance)
	require.Len(t, p.Instance, 36)
	require.NotEmpty(t, p.Title)
	require.Equal(t, status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests, resp.Header.Get("Retry-After") != "")
}

func requireAccepted(t *testing.T, resp *http.Response, body, status, id, source string) {
	t.Helper()
	require.Equal(t, http.StatusOK, resp.StatusCode, body)
	require.JSONEq(t, fmt.Sprintf(`{"status":%q,"id":%q,"source":%q}`, status, id, source), body)
	require.Len(t, resp.Header.Get(headerDeliveryID), 36)
}
