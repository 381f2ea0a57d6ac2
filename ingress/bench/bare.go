package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// serveBare is the least that can be called a webhook intake: net/http, an HMAC, and a record that is acknowledged
// by all replicas. No limits, no dedup, no metrics, no strict reading: what the product's features cost is measured
// against it.
func serveBare(ctx context.Context, address, brokers, topic string) error {
	cl, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(brokers, ",")...), kgo.DefaultProduceTopic(topic), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(5*time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression()),
	)
	if err != nil {
		return fmt.Errorf("bare: %w", err)
	}
	defer cl.Close()
	h := &bare{client: cl}
	h.macs.New = func() any { return hmac.New(sha256.New, []byte(secret)) }
	h.acks.New = func() any { return make(chan error, 1) }
	srv := &http.Server{Addr: address, Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() { <-ctx.Done(); _ = srv.Close() }()
	return srv.ListenAndServe()
}

type bare struct {
	client *kgo.Client
	macs   sync.Pool
	acks   sync.Pool
}

func (b *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(r.Body, body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	stamp, signature, ok := strings.Cut(strings.TrimPrefix(r.Header.Get("Stripe-Signature"), "t="), ",v1=")
	sent, err := hex.DecodeString(signature)
	if !ok || err != nil || !b.genuine(stamp, body, sent) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	id := idOf(body)
	if len(id) == 0 { // a record without a key would go wherever that is cheapest
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	ack := b.acks.Get().(chan error)
	b.client.Produce(context.WithoutCancel(r.Context()), &kgo.Record{
		Key: id, Value: body,
		Headers: []kgo.RecordHeader{{Key: "source", Value: []byte("stripe")}, {Key: "received_at", Value: []byte(time.Now().UTC().Format(time.RFC3339Nano))}},
	}, func(_ *kgo.Record, err error) { ack <- err })
	err = <-ack
	b.acks.Put(ack)
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (b *bare) genuine(stamp string, body, sent []byte) bool {
	m := b.macs.Get().(hash.Hash)
	defer b.macs.Put(m)
	m.Reset()
	_, _ = io.WriteString(m, stamp+".")
	_, _ = m.Write(body)
	return hmac.Equal(m.Sum(nil), sent)
}

// idOf takes the first member called id, without reading the JSON; empty: there is none.
func idOf(body []byte) []byte {
	_, rest, _ := bytes.Cut(body, []byte(`"id"`))
	_, rest, _ = bytes.Cut(rest, []byte(`"`))
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	return id
}
