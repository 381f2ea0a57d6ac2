package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// bodySize is that of every request: the mean of what Stripe sends for a payment.
const bodySize = 2048

// load posts signed Stripe events, each with an ID of its own, over keep-alive connections.
type load struct {
	address string
	paths   []string
	conns   int
	rate    float64 // requests a second over all connections; 0: each connection sends when it has its answer
	run     uint32  // makes IDs that no other run has
	seq     atomic.Int64
}

// loaded is what one window of load measured.
type loaded struct {
	accepted, refused int
	seconds           float64
	latencies         []time.Duration
	firstRefusal      string
}

func (l *loaded) percentile(p float64) time.Duration {
	if len(l.latencies) == 0 {
		return 0
	}
	slices.Sort(l.latencies)
	return l.latencies[min(len(l.latencies)-1, int(p*float64(len(l.latencies))))]
}

// window sends for d and waits for the answers.
func (l *load) window(ctx context.Context, d time.Duration) (*loaded, error) {
	start := time.Now()
	end := start.Add(d)
	var slot atomic.Int64
	results := make([]*loaded, l.conns)
	errs := make([]error, l.conns)
	var wg sync.WaitGroup
	for i := range l.conns {
		wg.Go(func() { results[i], errs[i] = l.connection(ctx, i, start, end, &slot) })
	}
	wg.Wait()
	sum := &loaded{seconds: time.Since(start).Seconds()}
	for _, r := range results {
		if r == nil {
			continue
		}
		sum.accepted += r.accepted
		sum.refused += r.refused
		sum.latencies = append(sum.latencies, r.latencies...)
		if sum.firstRefusal == "" {
			sum.firstRefusal = r.firstRefusal
		}
	}
	return sum, errors.Join(errs...)
}

func (l *load) connection(ctx context.Context, n int, start, end time.Time, slot *atomic.Int64) (*loaded, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close() }()
	reader := bufio.NewReaderSize(conn, 8<<10)
	s := newSigner(l.run, l.address)
	res := &loaded{}
	for {
		due := time.Now()
		if l.rate > 0 {
			due = start.Add(time.Duration(float64(slot.Add(1)-1) / l.rate * float64(time.Second)))
			if due.Before(end) {
				<-time.After(time.Until(due))
			}
		}
		if !due.Before(end) {
			return res, nil
		}
		if _, err := conn.Write(s.request(l.paths[n%len(l.paths)], l.seq.Add(1))); err != nil {
			return res, fmt.Errorf("send: %w", err)
		}
		status, body, err := answer(reader)
		if err != nil {
			return res, fmt.Errorf("answer: %w", err)
		}
		res.latencies = append(res.latencies, time.Since(due))
		if status == http.StatusOK {
			res.accepted++
			continue
		}
		res.refused++
		res.firstRefusal = fmt.Sprintf("%d %s", status, body)
	}
}

// answer reads one response.
func answer(r *bufio.Reader) (status int, body string, err error) {
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	return resp.StatusCode, string(b), err
}

// signer makes requests in one buffer, so that the client costs little beside what it measures.
type signer struct {
	mac  hash.Hash
	body []byte
	id   []byte // the place of the ID's number in body
	host string
	buf  bytes.Buffer
	sum  []byte
	hex  []byte
}

func newSigner(run uint32, host string) *signer {
	p, _ := provider.ByName("stripe")
	sample := p.Sample(rand.New(rand.NewPCG(1, 4)), provider.SampleInput{Now: time.Now()})
	s := &signer{mac: hmac.New(sha256.New, []byte(secret)), host: host, hex: make([]byte, 2*sha256.Size)}
	s.body = append(s.body, sample.Body...)
	if n := bodySize - len(s.body); n > 0 {
		s.body = append(s.body, bytes.Repeat([]byte(" "), n)...)
	}
	at := bytes.Index(s.body, []byte(sample.ID))
	copy(s.body[at:], fmt.Sprintf("evt_%08x", run))
	s.id = s.body[at+12 : at+len(sample.ID)]
	return s
}

func (s *signer) request(path string, seq int64) []byte {
	for i, n := len(s.id)-1, seq; i >= 0; i, n = i-1, n/10 {
		s.id[i] = byte('0' + n%10)
	}
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	s.mac.Reset()
	_, _ = s.mac.Write([]byte(stamp + "."))
	_, _ = s.mac.Write(s.body)
	s.sum = s.mac.Sum(s.sum[:0])
	hex.Encode(s.hex, s.sum)
	s.buf.Reset()
	fmt.Fprintf(&s.buf, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\nAccept: */*; q=0.5, application/xml\r\n"+
		"Cache-Control: no-cache\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\nStripe-Signature: t=%s,v1=%s\r\n\r\n",
		path, s.host, len(s.body), stamp, s.hex)
	s.buf.Write(s.body)
	return s.buf.Bytes()
}
