package main

import (
	"context"
	_ "embed"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
)

const (
	entities = 20_000 // orders that the events are about
	opsAddr  = "127.0.0.1:39191"
)

// ordersTable is what the measured operation writes.
//
//go:embed orders.sql
var ordersTable string

// fill writes the events, as the ingress would.
func fill(ctx context.Context, cl *kgo.Client, events, size int) error {
	var once sync.Once
	var failure error
	random := rand.NewChaCha8([32]byte{1})
	at := time.Now().UTC().Truncate(time.Second)
	for i := range events {
		cl.Produce(ctx, event.Encode(delivery(random, i, size, at)), func(_ *kgo.Record, err error) {
			if err != nil {
				once.Do(func() { failure = err })
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	if failure != nil {
		return fmt.Errorf("write events: %w", failure)
	}
	return nil
}

// delivery is a payment of which half the bytes are words that repeat, as in a provider's JSON, and half are its own.
func delivery(random *rand.ChaCha8, n, size int, at time.Time) *event.Delivery {
	id := fmt.Sprintf("evt_%024x", n)
	head := fmt.Sprintf(`{"id":"%s","object":"event","type":"payment_intent.succeeded","created":%d,"data":{"object":{"object":"payment_intent","amount":%d,"currency":"eur",`+
		`"metadata":{"order_id":"ord_%d"},"automatic_payment_methods":null,"payment_method_types":["card","sepa_debit"],"charges":[`, id, at.Unix()+int64(n), 100+n%9000, n%entities)
	var b strings.Builder
	b.WriteString(head)
	own := make([]byte, 24)
	for i := 0; b.Len() < size-140; i++ {
		_, _ = random.Read(own) // it never fails
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"ch_%s","object":"charge","captured":true,"description":null,"receipt":null}`, hex.EncodeToString(own))
	}
	b.WriteString("]}}}")
	return &event.Delivery{
		Source: "stripe", Provider: "stripe", ID: id, Type: "payment_intent.succeeded", Time: at.Add(time.Duration(n) * time.Second), ReceivedAt: at,
		DeliveryID: uuid.Must(uuid.NewV7()).String(), SecretID: "k_0123456789ab", Method: "POST", Path: "/webhooks/stripe", ContentType: "application/json",
		Verdict: event.NewVerdict(event.FlagVerified),
		Headers: []event.Header{
			{Name: "content-type", Value: "application/json; charset=utf-8"},
			{Name: "user-agent", Value: "Stripe/1.0 (+https://stripe.com/docs/webhooks)"},
			{Name: "stripe-signature", Value: fmt.Sprintf("t=%d,v1=%064x", at.Unix(), n)},
			{Name: "accept", Value: "*/*; q=0.5, application/xml"},
		},
		Body: []byte(b.String()),
	}
}

// configuration is the order-status job.
func configuration(o *options, topic, database string) string {
	return fmt.Sprintf(`kafka: {brokers: [%[1]s], topic: %[2]s, results_topic: %[2]s.results}
postgres: {url: %[3]q}
processor: {ops_listen: %[4]q, group: %[2]s}
telemetry: {log_level: warn}
sources:
  stripe: {provider: stripe, secrets: [whsec_0123456789abcdef0123456789abcdef]}
operations:
  - name: order-status
    on: {source: stripe, types: [payment_intent.succeeded]}
    entity: body.data.object.metadata.order_id
    version: time
    sql: |
      INSERT INTO orders (id, status, amount, currency, updated_at) VALUES (@entity, 'paid', @amount, @currency, @time)
      ON CONFLICT (id) DO UPDATE SET status = excluded.status, amount = excluded.amount, updated_at = excluded.updated_at
    params: {amount: body.data.object.amount, currency: body.data.object.currency}
`, o.brokers, topic, database, opsAddr)
}

func withDatabase(address, name string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("database: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}
