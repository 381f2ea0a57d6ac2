package ingress

import (
	"math/rand/v2"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/catchment-dev/catchment/pkg/settings"
)

// pace is a token bucket in the form of the generic cell rate algorithm: a bucket is the one time at which it will
// be full again, so that a million of them cost a million numbers.
type pace struct {
	every time.Duration // one token
	depth time.Duration // a full bucket
}

// newPace makes a bucket of burst tokens that gets rate of them a second.
func newPace(rate, burst int) pace {
	every := max(time.Second/time.Duration(rate), 1)
	return pace{every: every, depth: every * time.Duration(burst)}
}

// take returns the bucket's new state, or how long to wait for a token. Times are those since some start.
func (p pace) take(full, now time.Duration) (next, wait time.Duration) {
	next = max(full, now) + p.every
	return next, max(0, next-now-p.depth)
}

// quota is a bucket that many requests share.
type quota struct {
	pace
	full  atomic.Int64
	start time.Time
}

// newQuota returns nil for no quota.
func newQuota(q *settings.Quota) *quota {
	if q == nil {
		return nil
	}
	burst := q.Burst
	if burst == 0 {
		burst = q.Rate
	}
	return &quota{pace: newPace(q.Rate, burst), start: time.Now()}
}

// take returns 0 when the request may go on, and else how long to wait.
func (q *quota) take() time.Duration {
	if q == nil {
		return 0
	}
	now := time.Since(q.start) // the steady clock: a step of the other one must not empty a bucket
	for {
		full := q.full.Load()
		next, wait := q.pace.take(time.Duration(full), now)
		if wait > 0 {
			return wait
		}
		if q.full.CompareAndSwap(full, int64(next)) {
			return 0
		}
	}
}

// client is an address as the limits count it: IPv4 whole, IPv6 by its /64, which is what one customer gets.
type client [16]byte

func clientOf(a netip.Addr) client {
	a = a.Unmap()
	c := client(a.As16())
	if a.Is6() {
		clear(c[8:])
	}
	return c
}

// limits are what strangers are held to before their requests are read.
type limits struct {
	requests int64 // in flight in all
	inFlight atomic.Int64
	perAddr  *addresses // nil: addresses are not counted
	exempt   []netip.Prefix
}

// addresses counts requests by client address, in bounded memory: what has been seen moves to the young generation;
// when that is full it becomes the old one, and the old one is forgotten.
type addresses struct {
	pace
	rated bool
	most  int32 // in flight; 0: any number
	half  int
	start time.Time

	mu         sync.Mutex
	young, old map[client]*time.Duration // pointers: what is there already is changed without another look-up
	open       map[client]*int32         // bounded by limits.requests
}

func newLimits(c settings.Limits) (*limits, error) {
	l := &limits{requests: int64(c.Requests)}
	for _, text := range c.Exempt {
		p, err := settings.ParsePrefix(text)
		if err != nil {
			return nil, err
		}
		l.exempt = append(l.exempt, p)
	}
	if c.Rate == 0 && c.RequestsPerAddress == 0 {
		return l, nil
	}
	l.perAddr = &addresses{
		most: int32(c.RequestsPerAddress), half: max(c.Addresses/2, 1), start: time.Now(),
		young: map[client]*time.Duration{}, open: map[client]*int32{},
	}
	if c.Rate > 0 {
		burst := c.Burst
		if burst == 0 {
			burst = 2 * c.Rate
		}
		l.perAddr.pace, l.perAddr.rated = newPace(c.Rate, burst), true
	}
	return l, nil
}

// ticket is what enter gave and leave takes back.
type ticket struct {
	addr    client
	counted bool // by address
	open    *int32
}

// busyWait is what a sender is told to wait for others' requests to end.
const busyWait = time.Second

// enter lets a request in, or says how long its sender should wait. It must be left when wait is 0.
func (l *limits) enter(from netip.Addr) (t ticket, wait time.Duration) {
	if l.inFlight.Add(1) > l.requests {
		l.inFlight.Add(-1)
		return t, busyWait
	}
	if l.perAddr == nil {
		return t, 0
	}
	for _, p := range l.exempt {
		if p.Contains(from) {
			return t, 0
		}
	}
	t.addr = clientOf(from) // what has no address is counted as one client
	if t.open, wait = l.perAddr.enter(t.addr); wait > 0 {
		l.inFlight.Add(-1)
		return ticket{}, wait
	}
	t.counted = true
	return t, 0
}

func (l *limits) leave(t ticket) {
	l.inFlight.Add(-1)
	if t.counted {
		l.perAddr.leave(t.addr, t.open)
	}
}

// enter lets a request in, or says how long to wait. open is for leave.
func (a *addresses) enter(c client) (open *int32, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.most > 0 {
		if open = a.open[c]; open != nil && *open >= a.most {
			return nil, busyWait
		}
	}
	if a.rated {
		if wait = a.pay(c); wait > 0 {
			return nil, wait
		}
	}
	if a.most > 0 {
		if open == nil {
			open = new(int32)
			a.open[c] = open
		}
		*open++
	}
	return open, 0
}

// pay takes a token out of the client's bucket.
func (a *addresses) pay(c client) time.Duration {
	full := a.young[c]
	known := full != nil
	if !known {
		if full = a.old[c]; full == nil {
			full = new(time.Duration)
		}
	}
	next, wait := a.take(*full, time.Since(a.start))
	if wait > 0 {
		return wait
	}
	*full = next
	if known {
		return 0
	}
	if len(a.young) >= a.half {
		a.old, a.young = a.young, make(map[client]*time.Duration, len(a.young))
	}
	a.young[c] = full
	return 0
}

func (a *addresses) leave(c client, open *int32) {
	if open == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if *open--; *open == 0 {
		delete(a.open, c)
	}
}

// retryAfter is the header's value for a wait: whole seconds, rounded up, and some more, so that senders who were
// refused together do not come back together.
func retryAfter(wait time.Duration) int {
	seconds := int((wait + time.Second - 1) / time.Second)
	return max(1, seconds) + rand.IntN(2)
}

// refuseLimited tells the sender when to come back.
func (s *Service) refuseLimited(r *request, o outcome, wait time.Duration, reason string) {
	r.Header("Retry-After", strconv.Itoa(retryAfter(wait)))
	s.refuse(r, o, reason)
}

// tooManyLines counts header lines: each becomes a header of the record.
func tooManyLines(h http.Header, most int) bool {
	n := len(h)
	if n > most {
		return true
	}
	for _, values := range h {
		n += len(values) - 1
	}
	return n > most
}
