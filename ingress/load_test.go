package ingress

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// load sends Stripe's events until it is ended, as a provider does: an event that was not answered 200 is sent again.
// It keeps what was sent and what came of it.
type load struct {
	t      testing.TB
	base   func() string // scheme and authority of the ingress that takes the next request
	client *http.Client
	once   bool                 // every event is sent a single time
	pick   func(id string) bool // nil: all

	next    atomic.Int64
	ctx     context.Context
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu       sync.Mutex
	sent     map[string][32]byte // by event ID: the body's digest
	acked    map[string]int      // by event ID: how many 200s
	broken   map[string]error    // by event ID: the last request that got no answer although it may have been read
	statuses map[int]int
	slowest  time.Duration // until an answer
}

// newLoad makes a load whose events begin at from.
func newLoad(t testing.TB, base func() string, from int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{
		t: t, base: base, client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 256}},
		ctx: ctx, cancel: cancel,
		sent: map[string][32]byte{}, acked: map[string]int{}, broken: map[string]error{}, statuses: map[int]int{},
	}
	l.next.Store(int64(from))
	t.Cleanup(l.end)
	return l
}

// run starts senders that work until end.
func (l *load) run(workers int) {
	for range workers {
		l.workers.Go(func() {
			for l.ctx.Err() == nil {
				l.deliver(int(l.next.Add(1)))
			}
		})
	}
}

// deliver sends one event, again and again until it is taken, unless the load ends.
func (l *load) deliver(seq int) {
	s := sampleOf("stripe", seq)
	if l.pick != nil && !l.pick(s.ID) {
		return
	}
	for {
		if l.send(s) || l.once || l.ctx.Err() != nil {
			return
		}
		select {
		case <-l.ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// send sends once and says whether the answer was a whole 200.
func (l *load) send(s provider.Sample) bool {
	id := "stripe " + s.ID
	l.mu.Lock()
	l.sent[id] = sha256.Sum256(s.Body)
	l.mu.Unlock()
	req, err := stripeRequest(l.base(), s)
	if err != nil {
		l.t.Error(err)
		return false
	}
	began := time.Now()
	resp, err := l.client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	took := time.Since(began)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if !refusedAtOnce(err) {
			l.broken[id] = err
		}
		return false
	}
	l.statuses[resp.StatusCode]++
	l.slowest = max(l.slowest, took)
	if resp.StatusCode != http.StatusOK {
		return false
	}
	l.acked[id]++
	return true
}

// refusedAtOnce says that there was no listener: nobody has read a byte.
func refusedAtOnce(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" && errors.Is(err, syscall.ECONNREFUSED)
}

func stripeRequest(base string, s provider.Sample) (*http.Request, error) {
	p, _ := provider.ByName("stripe")
	url := base + "/webhooks/stripe"
	signed, err := p.Sign(&provider.SignInput{Secret: stripeSecret, Method: http.MethodPost, URL: url, Body: s.Body, Now: time.Now(), Sample: s})
	if err != nil {
		return nil, err
	}
	return post(url, signed.Header, s.Body), nil
}

// end stops the senders; what they wait for is waited for.
func (l *load) end() {
	l.cancel()
	l.workers.Wait()
	l.client.CloseIdleConnections()
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

func (l *load) answers(status int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.statuses[status]
}

// summary tells the answers by their status.
func (l *load) summary() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprint(l.statuses)
}

// more waits until as many more events have been taken.
func (l *load) more(n int) {
	l.t.Helper()
	target := l.count() + n
	if !assert.Eventually(l.t, func() bool { return l.count() >= target }, 90*time.Second, 5*time.Millisecond) { //nolint:forbidigo // what was answered says why
		l.t.Fatalf("%d of %d taken: %s", l.count(), target, l.summary())
	}
}

// requireHonest holds the log against what was sent and answered: every event that got a 200 is there with its bytes,
// and nothing that was not sent is. It returns how many events are there more than once.
func (l *load) requireHonest(records []*kgo.Record) (twice int) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	times := map[string]int{}
	for _, r := range records {
		d, err := event.Decode(r)
		require.NoError(l.t, err)
		id := d.Source + " " + d.ID
		digest, known := l.sent[id]
		require.True(l.t, known, "%s was never sent", id)
		require.Equal(l.t, digest, sha256.Sum256(d.Body), "the body of %s", id)
		times[id]++
	}
	require.NotEmpty(l.t, l.acked)
	for id := range l.acked {
		require.Positive(l.t, times[id], "%s was answered 200 and is not in the log", id)
	}
	for _, n := range times {
		if n > 1 {
			twice++
		}
	}
	return twice
}
