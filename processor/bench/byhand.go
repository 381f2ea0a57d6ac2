package main

import (
	"context"
	_ "embed"
	"os"
	"reflect"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
)

//go:embed byhand.sql
var byHand string

var byHandSQL = strings.Split(byHand, ";\n")

// connections and poll of the consumer by hand: records that it takes from Kafka before it commits their offsets.
const (
	connections = 8
	poll        = 500
)

// consumer is what one writes by hand: it polls, and each record's event is one transaction on a connection that is free.
type consumer struct {
	cl  *kgo.Client
	dbs [connections]*pgx.Conn
}

// byHand measures a consumer, which writes the first events of the topic.
func (b *bench) byHand(ctx context.Context, url string) (*row, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.o.brokers, ",")...), kgo.ConsumeTopics(b.topic), kgo.ConsumerGroup("g-"+uuid.NewString()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	c := consumer{cl: cl}
	for i := range c.dbs {
		if c.dbs[i], err = pgx.Connect(ctx, url); err != nil {
			return nil, err
		}
		defer func() { _ = c.dbs[i].Close(context.WithoutCancel(ctx)) }()
	}
	events := min(b.o.few, len(b.deliveries))
	if err := c.take(ctx, events/4); err != nil {
		return nil, err
	}
	m, err := b.begin(os.Getpid())
	if err != nil {
		return nil, err
	}
	if err := c.take(ctx, events-events/4); err != nil {
		return nil, err
	}
	return m.end(perEventName, events-events/4)
}

// take brings the next n events into the database.
func (c *consumer) take(ctx context.Context, n int) error {
	for n > 0 {
		fetches := c.cl.PollRecords(ctx, min(n, poll))
		if err := fetches.Err(); err != nil {
			return err
		}
		n -= fetches.NumRecords()
		if err := c.write(ctx, fetches.Records()); err != nil {
			return err
		}
		if err := c.cl.CommitUncommittedOffsets(ctx); err != nil {
			return err
		}
	}
	return nil
}

// write returns when the event of each record is in the database.
func (c *consumer) write(ctx context.Context, records []*kgo.Record) error {
	next := make(chan *kgo.Record, len(records))
	for _, r := range records {
		next <- r
	}
	close(next)
	var errs [connections]error
	var wg sync.WaitGroup
	for i, db := range c.dbs {
		wg.Go(func() {
			for r := range next {
				if errs[i] = handle(ctx, db, r); errs[i] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// handle decodes a record and writes its event in a transaction, which asks by the identity whether it is new and then writes one
// row after the other.
func handle(ctx context.Context, db *pgx.Conn, r *kgo.Record) error {
	d, err := event.Decode(r)
	if err != nil {
		return err
	}
	var in []any // $1 … of the statement, of one event
	for _, list := range arguments([]*event.Delivery{d}) {
		in = append(in, reflect.ValueOf(list).Index(0).Interface())
	}
	source, id, typ, at, received, headers, body, sha, delivery := in[0], in[1], in[2], in[3], in[4], in[5], in[6], in[7], in[8]
	return pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		for i, args := range [][]any{
			{source, id, sha, delivery},
			{source, id, typ, at, received, headers, body, delivery},
			{source, id},
			{in[9], in[10], in[11], in[12], at},
		} {
			tag, err := tx.Exec(ctx, byHandSQL[i], args...)
			if err != nil || i == 0 && tag.RowsAffected() == 0 {
				return err
			}
		}
		return nil
	})
}
