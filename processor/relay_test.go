package processor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.yaml.in/yaml/v4"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// reads consumes a topic from its start until done says that it is enough.
func (w *world) reads(topic string, done func([]*kgo.Record) bool) []*kgo.Record {
	w.t.Helper()
	cl := w.kc.Client(w.t, kgo.ConsumeTopics(topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	var all []*kgo.Record
	ok := waitFor(func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		all = append(all, cl.PollFetches(ctx).Records()...)
		return done(all)
	})
	require.True(w.t, ok, "found %d records in %s", len(all), topic)
	return all
}

func atLeast(n int) func([]*kgo.Record) bool {
	return func(rs []*kgo.Record) bool { return len(rs) >= n }
}

func header(r *kgo.Record, name string) string {
	for _, h := range r.Headers {
		if h.Key == name {
			return string(h.Value)
		}
	}
	return ""
}

// newPublisher has an operation that tells topic of an order's lines, once SQL has succeeded.
func newPublisher(t *testing.T) (w *world, topic string) {
	w = newWorld(t, 3, `CREATE TABLE paid (id text PRIMARY KEY)`)
	topic = w.kc.Topic(t, 3)
	w.cfg.Kafka.ResultsTopic = w.kc.Topic(t, 3)
	w.cfg.Operations = []settings.Operation{{
		Name: "tell", On: settings.On{Source: "shop"}, Entity: "body.order", Version: "body.v",
		SQL:     config.Strings{`INSERT INTO paid VALUES (@id) RETURNING id`},
		Publish: &settings.Publish{Topic: topic, Key: "body.order", Value: `{"order": body.order, "v": body.v}`},
	}}
	return w, topic
}

func paidOrder(id, order string, v int) *event.Delivery {
	return delivery("shop", id, "order.paid", fmt.Sprintf(`{"order":%q,"v":%d}`, order, v))
}

// What an operation publishes, and every result, reach Kafka after COMMIT, in order for each key, with what a consumer
// needs to tell a repetition.
func TestPublish(t *testing.T) {
	w, topic := newPublisher(t)
	w.exec(`INSERT INTO paid VALUES ('clash')`)
	r := w.start()
	const orders, versions = 5, 40
	for v := range versions {
		var ds []*event.Delivery
		for o := range orders {
			ds = append(ds, paidOrder(fmt.Sprintf("o%d-v%d", o, v), fmt.Sprint("o", o), v))
		}
		w.produce(ds...)
		if v%10 == 0 { // batches of their own
			w.eventually((v+1)*orders, `SELECT count(*) FROM catchment.events`)
		}
	}
	w.produce(paidOrder("clash", "oX", 1)) // 23505: dead, and nothing is published
	w.eventually(orders*versions+1, `SELECT count(*) FROM catchment.results`)
	succeeded := w.count(`SELECT count(*) FROM catchment.results WHERE outcome = 'succeeded'`)
	records := w.reads(topic, atLeast(succeeded))
	require.Len(t, records, succeeded)
	last := map[string]float64{}
	for _, rec := range records {
		var value map[string]any
		require.NoError(t, json.Unmarshal(rec.Value, &value))
		key := string(rec.Key)
		require.Equal(t, key, value["order"])
		if before, ok := last[key]; ok {
			require.Greater(t, value["v"], before, "records of one key keep their order")
		}
		last[key] = value["v"].(float64)
		id := fmt.Sprintf("%s-v%v", key, value["v"])
		require.Equal(t, id+"/tell/1 /webhooks/shop order.paid application/json "+id, strings.Join([]string{
			header(rec, "ce_id"), header(rec, "ce_source"), header(rec, "ce_type"), header(rec, "content-type"), header(rec, "catchment_event_id"),
		}, " "))
	}
	results := w.reads(w.cfg.Kafka.ResultsTopic, atLeast(orders*versions+1))
	require.Len(t, results, orders*versions+1)
	outcomes := map[string]int{}
	documented := resultSchemas(t)
	for _, rec := range results {
		requireResult(t, documented, rec)
		res, err := event.DecodeResult(rec)
		require.NoError(t, err)
		outcomes[res.Outcome]++
		var same bool
		require.NoError(t, w.pool.QueryRow(t.Context(), `SELECT outcome = $5 AND entity IS NOT DISTINCT FROM $6 AND version IS NOT DISTINCT FROM $7 AND rows_affected IS NOT DISTINCT FROM $8
				AND returned IS NOT DISTINCT FROM $9::jsonb AND error IS NOT DISTINCT FROM $10 AND started_at = $11 AND encode(definition_sha256, 'hex') = $12
				AND abs(extract(epoch FROM duration) - $13) < 0.00001
			FROM catchment.results WHERE source = $1 AND event_id = $2 AND operation = $3 AND attempt = $4`,
			res.Source, res.EventID, res.Operation, res.Attempt, res.Outcome, res.Entity, res.Version, res.RowsAffected, nullable(res.Returned), res.Error,
			res.StartedAt, res.Definition, res.Duration).Scan(&same))
		require.True(t, same, "the topic says what the table says: %s", rec.Value)
	}
	require.Equal(t, succeeded, outcomes["succeeded"])
	require.Equal(t, 1, outcomes["dead"])
	w.eventually(0, `SELECT count(*) FROM catchment.outbox`)
	require.InDelta(t, float64(succeeded), r.metric(t, "catchment_processor_outbox_published_total", "topic="+topic), 0)
}

// resultSchemas are those of a result's value and headers in schemas/asyncapi.yaml.
func resultSchemas(t *testing.T) [2]*jsonschema.Schema {
	t.Helper()
	text, err := os.ReadFile("../schemas/asyncapi.yaml")
	require.NoError(t, err)
	var tree any
	require.NoError(t, yaml.Unmarshal(text, &tree))
	text, err = json.Marshal(tree)
	require.NoError(t, err)
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	require.NoError(t, err)
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	require.NoError(t, c.AddResource("asyncapi.json", doc))
	return [2]*jsonschema.Schema{
		c.MustCompile("asyncapi.json#/components/schemas/result"), c.MustCompile("asyncapi.json#/components/schemas/resultHeaders"),
	}
}

func requireResult(t *testing.T, documented [2]*jsonschema.Schema, rec *kgo.Record) {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(rec.Value))
	require.NoError(t, err)
	require.NoError(t, documented[0].Validate(value), "%s", rec.Value)
	headers := map[string]any{}
	for _, h := range rec.Headers {
		headers[h.Key] = string(h.Value)
	}
	require.NoError(t, documented[1].Validate(headers))
}

func nullable(b json.RawMessage) *string {
	if s := string(b); s != "" && s != "null" {
		return &s
	}
	return nil
}

// A topic that is not there holds up nothing else, and gets what waits once it is there.
func TestPublishWaitsForItsTopic(t *testing.T) {
	w, topic := newPublisher(t)
	missing := topic + ".later"
	w.cfg.Operations[0].Publish.Topic = missing
	if w.kc.Real {
		w.cfg.Kafka.ResultsTopic = topic + ".results" // made by the processor
	}
	r := w.start()
	w.produce(paidOrder("a", "o", 1), paidOrder("b", "p", 1))
	require.Len(t, w.reads(w.cfg.Kafka.ResultsTopic, atLeast(2)), 2)
	require.True(t, waitFor(func() bool {
		return r.metric(t, "catchment_processor_outbox_failures_total", "topic="+missing) > 0
	}))
	w.eventually(2, `SELECT sum(records)::int FROM catchment.outbox`)
	require.NoError(t, r.Ready())
	adm := kadm.NewClient(w.kc.Client(t))
	_, err := adm.CreateTopic(t.Context(), 1, 3, nil, missing)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = adm.DeleteTopics(context.Background(), missing, topic+".results") })
	records := w.reads(missing, atLeast(2))
	require.ElementsMatch(t, []string{"a/tell/1", "b/tell/1"}, []string{header(records[0], "ce_id"), header(records[1], "ce_id")})
	w.eventually(0, `SELECT count(*) FROM catchment.outbox`)
}

// A crash between the acknowledgement and the removal publishes again: the same records, none is lost.
func TestPublishAgainAfterCrash(t *testing.T) {
	w, topic := newPublisher(t)
	eng := w.engine()
	wk := w.take(eng, partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, paidOrder("a", "o", 1), paidOrder("b", "p", 1))))
	s, err := New(w.cfg, logger(), prometheus.NewRegistry())
	require.NoError(t, err)
	s.engine = eng
	rel := newRelay(s, w.cl)
	lane, err := eng.store.Lane(t.Context(), topic, time.Minute)
	require.NoError(t, err)
	for _, err := range rel.send(t.Context(), lane.Rows) {
		require.NoError(t, err)
	}
	_, err = eng.store.Lane(t.Context(), topic, time.Minute)
	require.ErrorContains(t, err, "another processor publishes them")
	require.NoError(t, lane.Done(t.Context(), nil)) // as if it had died: nothing is removed
	more, err := rel.once(t.Context(), topic, newWatchdog(time.Minute).watch("the relay"))
	require.NoError(t, err)
	require.True(t, more)
	records := w.reads(topic, atLeast(4))
	ids := map[string]int{}
	for _, r := range records {
		ids[header(r, "ce_id")]++
	}
	require.Equal(t, map[string]int{"a/tell/1": 2, "b/tell/1": 2}, ids)
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.outbox`), "the results' row is left")
}

// Several processors publish beside each other, and nothing twice.
func TestSeveralPublish(t *testing.T) {
	w, topic := newPublisher(t)
	w.cfg.Processor.Batch = 20
	for range 3 {
		w.start()
	}
	const n = 1500
	var ds []*event.Delivery
	for i := range n {
		ds = append(ds, paidOrder(fmt.Sprintf("e%04d", i), fmt.Sprintf("o%04d", i), 1))
	}
	w.produce(ds...)
	w.eventually(n, `SELECT count(*) FROM catchment.results`)
	w.eventually(0, `SELECT count(*) FROM catchment.outbox`)
	seen := map[string]int{}
	for _, r := range w.reads(topic, atLeast(n)) {
		seen[string(r.Key)]++
	}
	require.Len(t, seen, n)
	for key, times := range seen {
		require.Equal(t, 1, times, key)
	}
	require.Len(t, w.reads(w.cfg.Kafka.ResultsTopic, atLeast(n)), n)
}

// Without results_topic nothing of them is written, and an operation needs no SQL to publish.
func TestPublishAlone(t *testing.T) {
	w := newWorld(t, 1)
	topic := w.kc.Topic(t, 1)
	w.cfg.Kafka.ResultsTopic = "off"
	w.cfg.Operations = []settings.Operation{
		{Name: "raw", On: settings.On{Source: "shop"}, Publish: &settings.Publish{Topic: topic, Value: "raw"}},
		{Name: "each", On: settings.On{Source: "shop"}, Each: "body.list", Publish: &settings.Publish{Topic: topic, Key: "null", Value: "body.?nope"}},
		{Name: "large", On: settings.On{Source: "shop"}, Publish: &settings.Publish{Topic: topic, Value: `body.text + body.text`}},
	}
	w.start()
	body := `{"list":[1,2],"text":"` + strings.Repeat("x", MaxPublished/2+1) + `"}`
	w.produce(delivery("shop", "a", "", body))
	records := w.reads(topic, atLeast(3))
	require.Equal(t, "a", string(records[0].Key))
	require.Equal(t, body, string(records[0].Value))
	for i, r := range records[1:] {
		require.Nil(t, r.Key)
		require.Nil(t, r.Value)
		require.Equal(t, fmt.Sprintf("a/each/1/%d", i), header(r, "ce_id"))
	}
	w.eventually(0, `SELECT count(*) FROM catchment.outbox`)
	require.Equal(t, "each:succeeded raw:succeeded large:dead", w.text(`SELECT string_agg(operation || ':' || outcome, ' ' ORDER BY operation = 'large', operation) FROM catchment.results`))
	require.Contains(t, w.text(`SELECT error FROM catchment.results WHERE operation = 'large'`), "expected at most 900000")
}

// Where Kafka takes records and nobody hears its answers, the relay gives them up in time, and publishes them again. It
// must not wait for ever: that would look like a hang, and end the processor.
func TestPublishWithoutAnswers(t *testing.T) {
	t.Parallel()
	w := newDatabase(t)
	w.on(kafkatest.NewFake(t), 1)
	w.cfg.Kafka.ResultsTopic = w.kc.Topic(t, 1)
	w.cfg.Operations = []settings.Operation{{Name: "tell", On: settings.On{Source: "shop"}, Publish: &settings.Publish{Topic: w.kc.Topic(t, 1), Value: "raw"}}}
	r := w.start()
	w.produce(delivery("shop", "a", "t", `{}`))
	w.eventually(1, `SELECT count(*) FROM catchment.results`)
	w.eventually(0, `SELECT count(*) FROM catchment.outbox`)
	w.kc.WireAll(kafkatest.Mute)
	w.store(r.engine, partition(7), delivery("shop", "b", "t", `{}`))
	require.True(t, waitFor(func() bool { return r.metric(t, "catchment_processor_outbox_failures_total") > 0 }), "it waits for ever")
	w.kc.WireAll(kafkatest.Open)
	w.eventually(0, `SELECT count(*) FROM catchment.outbox`)
	ids := map[string]bool{}
	for _, rec := range w.reads(w.cfg.Operations[0].Publish.Topic, atLeast(2)) {
		ids[header(rec, "ce_id")] = true
	}
	require.Equal(t, map[string]bool{"a/tell/1": true, "b/tell/1": true}, ids)
}
