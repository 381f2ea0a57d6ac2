package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/catchment-dev/catchment/pkg/event"
)

//go:embed tables.sql
var tablesSQL string

//go:embed statement.sql
var statementSQL string

const (
	catchmentName = "catchment"
	publishedName = "catchment, publishing results"
	statementName = "one statement"
	lz4Name       = "one statement, LZ4"
	perEventName  = "one event a transaction"
	oneByOneName  = "one statement an event"
	bentoName     = "bento"
)

// contestant does the job on an empty database.
type contestant struct {
	name string
	run  func(ctx context.Context, db *pgx.Conn, url string) (*row, error)
}

func (b *bench) contestants() []contestant {
	all := []contestant{
		{catchmentName, func(ctx context.Context, db *pgx.Conn, url string) (*row, error) {
			return b.catchment(ctx, db, url, catchmentName, "off")
		}},
		{publishedName, func(ctx context.Context, db *pgx.Conn, url string) (*row, error) {
			return b.catchment(ctx, db, url, publishedName, "catchment.results")
		}},
		{statementName, func(ctx context.Context, _ *pgx.Conn, url string) (*row, error) {
			return b.statement(ctx, url, statementName, len(b.deliveries), 1000, partitions)
		}},
		{lz4Name, func(ctx context.Context, db *pgx.Conn, url string) (*row, error) {
			if _, err := db.Exec(ctx, `ALTER TABLE bare.bodies ALTER body SET COMPRESSION lz4, ALTER headers SET COMPRESSION lz4`); err != nil {
				return nil, err
			}
			return b.statement(ctx, url, lz4Name, len(b.deliveries), 1000, partitions)
		}},
		{oneByOneName, func(ctx context.Context, _ *pgx.Conn, url string) (*row, error) {
			return b.statement(ctx, url, oneByOneName, min(b.o.few, len(b.deliveries)), 1, 8)
		}},
		{perEventName, func(ctx context.Context, _ *pgx.Conn, url string) (*row, error) {
			return b.byHand(ctx, url)
		}},
	}
	if b.o.bento != "" {
		all = append(all, contestant{bentoName, b.bento})
	}
	if b.o.only == "" {
		return all
	}
	var some []contestant
	for _, c := range all {
		if strings.Contains(","+b.o.only+",", ","+c.name+",") {
			some = append(some, c)
		}
	}
	return some
}

// delivery is a Stripe event of about 2 KiB about one of 20,000 orders, with the headers that Stripe sends.
func delivery(r *rand.Rand) *event.Delivery {
	at := time.Date(2026, 11, 1, 0, 0, r.IntN(86400), 0, time.UTC)
	typ := []string{"payment_intent.succeeded", "payment_intent.payment_failed"}[r.IntN(2)]
	id := fmt.Sprintf("evt_%016x%08x", r.Uint64(), r.Uint32())
	var b strings.Builder
	fmt.Fprintf(&b, `{"id":%q,"object":"event","api_version":"2025-03-31","created":%d,"type":%q,"livemode":true,"data":{"object":{"id":"pi_%016x","amount":%d,"currency":"eur","customer":"cus_%012x","metadata":{"order_id":"order_%05d"},"lines":[`,
		id, at.Unix(), typ, r.Uint64(), r.IntN(1e6), r.Uint64()>>16, r.IntN(20000))
	for b.Len() < 1920 {
		fmt.Fprintf(&b, `{"id":"li_%016x","description":"Subscription %d","amount":%d,"quantity":%d},`, r.Uint64(), r.IntN(1e6), r.IntN(1e5), r.IntN(9))
	}
	body := strings.TrimSuffix(b.String(), ",") + `]}}}`
	return &event.Delivery{
		Source: "stripe", Provider: "stripe", ID: id, Type: typ, Time: at, ReceivedAt: at.Add(time.Second), DeliveryID: uuid.Must(uuid.NewV7()).String(),
		SecretID: "k_0123456789ab", Method: "POST", Path: "/webhooks/stripe", ContentType: "application/json", RemoteAddr: "203.0.113.9",
		Verdict: event.NewVerdict(event.FlagVerified), Body: []byte(body),
		Headers: []event.Header{
			{Name: "accept", Value: "*/*; q=0.5, application/xml"},
			{Name: "cache-control", Value: "no-cache"},
			{Name: "content-type", Value: "application/json; charset=utf-8"},
			{Name: "user-agent", Value: "Stripe/1.0 (+https://stripe.com/docs/webhooks)"},
			{Name: "accept-encoding", Value: "gzip"},
			{Name: "stripe-signature", Value: fmt.Sprintf("t=%d,v1=%064x", at.Unix(), r.Uint64())},
		},
	}
}

func (b *bench) catchment(ctx context.Context, db *pgx.Conn, url, name, results string) (*row, error) {
	config := filepath.Join(b.dir, "catchment.yaml")
	text := fmt.Sprintf(`kafka: {brokers: [%s], topic: %s, results_topic: %q}
postgres: {url: %q}
processor: {ops_listen: "127.0.0.1:0", group: %q, migrate: true}
sources: {stripe: {provider: stripe, secrets: [whsec_0123456789abcdef0123456789abcdef]}}
operations:
  - name: order-status
    on: {source: stripe, types: [payment_intent.succeeded, payment_intent.payment_failed]}
    when: has(body.data.object.metadata.order_id)
    entity: body.data.object.metadata.order_id
    version: time
    sql: |
      INSERT INTO orders (id, status, amount, currency, updated_at)
      VALUES (@entity, @status, @amount, @currency, @time)
      ON CONFLICT (id) DO UPDATE SET status = excluded.status, amount = excluded.amount,
        currency = excluded.currency, updated_at = excluded.updated_at
    params:
      status: '{"payment_intent.succeeded": "paid", "payment_intent.payment_failed": "failed"}[type]'
      amount: body.data.object.amount
      currency: body.data.object.currency
`, strings.ReplaceAll(b.o.brokers, ",", ", "), b.topic, results, url, "g-"+uuid.NewString())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return b.program(ctx, name, nil, func() (int, error) {
		var n int
		err := db.QueryRow(ctx, positionSQL).Scan(&n)
		if err != nil {
			return 0, nil //nolint:nilerr // the schema is still to be made
		}
		return n, nil
	}, b.o.processor, "--config", config)
}

//go:embed position.sql
var positionSQL string

//go:embed bento.sql
var bentoSQL string

func (b *bench) bento(ctx context.Context, db *pgx.Conn, url string) (*row, error) {
	env := []string{"BROKERS=" + b.o.brokers, "TOPIC=" + b.topic, "GROUP=g-" + uuid.NewString(), "DATABASE_URL=" + url}
	return b.program(ctx, bentoName, env, func() (n int, err error) {
		err = db.QueryRow(ctx, bentoSQL).Scan(&n)
		return n, err
	}, b.o.bento, "-c", filepath.Join(b.o.root, "processor", "bench", "bento", "bento.yaml"))
}

// program starts a program and measures it from the end of the warm-up to the last event.
func (b *bench) program(ctx context.Context, name string, env []string, done func() (int, error), path string, args ...string) (*row, error) {
	log, err := os.Create(filepath.Join(b.dir, name+".log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	until := func(n int) (int, error) {
		for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); <-time.After(5 * time.Millisecond) {
			if have, err := done(); err != nil || have >= n {
				return have, err
			}
		}
		said, _ := os.ReadFile(log.Name())
		return 0, fmt.Errorf("did not come to event %d: %s", n, said)
	}
	from, err := until(len(b.deliveries) / 4)
	if err != nil {
		return nil, err
	}
	m, err := b.begin(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	to, err := until(len(b.deliveries))
	if err != nil {
		return nil, err
	}
	return m.end(name, to-from)
}

// statement writes the events in batches, each batch a transaction, without Kafka.
func (b *bench) statement(ctx context.Context, url, name string, events, batch, connections int) (*row, error) {
	inputs := make([][]any, 0, events/batch)
	for i := 0; i < events; i += batch {
		inputs = append(inputs, arguments(b.deliveries[i:min(i+batch, events)]))
	}
	warm := len(inputs) / 4
	var next atomic.Int64
	work := func(to int) error {
		errs := make([]error, connections)
		var wg sync.WaitGroup
		for c := range connections {
			wg.Go(func() { errs[c] = drain(ctx, url, inputs, &next, int64(to)) })
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		next.Store(int64(to))
		return nil
	}
	if err := work(warm); err != nil {
		return nil, err
	}
	m, err := b.begin(os.Getpid())
	if err != nil {
		return nil, err
	}
	if err := work(len(inputs)); err != nil {
		return nil, err
	}
	return m.end(name, events-warm*batch)
}

// drain takes inputs up to one, in turn with others, and writes each.
func drain(ctx context.Context, url string, inputs [][]any, next *atomic.Int64, to int64) error {
	db, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	for i := next.Add(1) - 1; i < to; i = next.Add(1) - 1 {
		if _, err := db.Exec(ctx, statementSQL, inputs[i]...); err != nil {
			return err
		}
	}
	return nil
}

func arguments(ds []*event.Delivery) []any {
	n := len(ds)
	source, id, typ, headers, delivery, order, status, currency := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	at, received, body, sha, amount := make([]time.Time, n), make([]time.Time, n), make([][]byte, n), make([][]byte, n), make([]int64, n)
	for i, d := range ds {
		var e struct {
			Data struct {
				Object struct {
					Amount   int64             `json:"amount"`
					Currency string            `json:"currency"`
					Metadata map[string]string `json:"metadata"`
				} `json:"object"`
			} `json:"data"`
		}
		_ = json.Unmarshal(d.Body, &e) // delivery made it
		all := map[string][]string{}
		for _, h := range d.Headers {
			all[h.Name] = append(all[h.Name], h.Value)
		}
		text, _ := json.Marshal(all) // texts always have a JSON form
		sum := sha256.Sum256(d.Body)
		source[i], id[i], typ[i], headers[i], delivery[i] = d.Source, d.ID, d.Type, string(text), d.DeliveryID
		order[i], status[i], currency[i], amount[i] = e.Data.Object.Metadata["order_id"], "paid", e.Data.Object.Currency, e.Data.Object.Amount
		at[i], received[i], body[i], sha[i] = d.Time, d.ReceivedAt, d.Body, sum[:]
	}
	return []any{source, id, typ, at, received, headers, body, sha, delivery, order, status, amount, currency}
}
