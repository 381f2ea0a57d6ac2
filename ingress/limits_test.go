package ingress

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
)

func TestPace(t *testing.T) {
	p := newPace(10, 3)
	var full time.Duration
	now := time.Hour
	take := func() time.Duration {
		next, wait := p.take(full, now)
		if wait == 0 {
			full = next
		}
		return wait
	}
	for range 3 {
		require.Zero(t, take())
	}
	require.Equal(t, 100*time.Millisecond, take(), "the burst is used up")
	now += 40 * time.Millisecond
	require.Equal(t, 60*time.Millisecond, take())
	now += 60 * time.Millisecond
	require.Zero(t, take())
	require.NotZero(t, take())
	now += time.Hour
	for range 3 {
		require.Zero(t, take(), "a bucket never holds more than its burst")
	}
	require.NotZero(t, take())
}

func TestClientOf(t *testing.T) {
	of := func(s string) client { return clientOf(netip.MustParseAddr(s)) }
	require.Equal(t, of("2001:db8::1"), of("2001:db8::ffff:2"), "one /64 is one client")
	require.NotEqual(t, of("2001:db8::1"), of("2001:db8:0:1::1"))
	require.NotEqual(t, of("192.0.2.1"), of("192.0.2.2"))
	require.Equal(t, of("192.0.2.1"), of("::ffff:192.0.2.1"), "IPv4 in IPv6 is IPv4")
}

// TestAddressesAreBounded counts more addresses than are remembered.
func TestAddressesAreBounded(t *testing.T) {
	l, err := newLimits(settings.Limits{Requests: 1, Rate: 1, Burst: 1, Addresses: 1000, RequestsPerAddress: 5})
	require.NoError(t, err)
	a := l.perAddr
	for i := range 10_000 {
		c := client{byte(i), byte(i >> 8)}
		open, wait := a.enter(c)
		require.Zero(t, wait)
		a.leave(c, open)
		require.LessOrEqual(t, len(a.young)+len(a.old), 1000)
	}
	require.Empty(t, a.open)
}

// TestRateLimit: behind a trusted proxy each client has a bucket of its own; nobody is exempt unless configured.
func TestRateLimit(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", ", trusted_proxies: [127.0.0.1], limits: {rate: 1, burst: 2, exempt: [198.51.100.0/24]}")
	h.ready()
	from := func(addr string, seq int) (*http.Response, string) {
		req := h.stripe(seq)
		if addr != "" {
			req.Header.Set("X-Forwarded-For", addr)
		}
		return h.call(req)
	}
	seq := 0
	for _, addr := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1", ""} {
		limited := false
		for range 20 { // on a slow machine a token may come back in between
			seq++
			resp, body := from(addr, seq)
			if limited = resp.StatusCode == http.StatusTooManyRequests; limited {
				requireProblem(t, resp, body, http.StatusTooManyRequests, "rate-limited")
				after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
				require.NoError(t, err)
				require.Positive(t, after)
				break
			}
			require.Equal(t, 200, resp.StatusCode, body)
		}
		require.True(t, limited, "address %q", addr)
	}
	resp, _ := from("2001:db8::2", 500)
	require.Equal(t, http.StatusTooManyRequests, resp.StatusCode, "the same /64")
	for i := range 10 {
		resp, body := from("198.51.100.7", 1000+i)
		require.Equal(t, 200, resp.StatusCode, body)
	}
	require.Positive(t, testutil.ToFloat64(h.metrics.requests.WithLabelValues("stripe", "rate_limited")))
	require.Zero(t, h.limits.inFlight.Load())
}

// TestForwardedForOfAStranger: whoever is no trusted proxy cannot choose his address.
func TestForwardedForOfAStranger(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", ", limits: {rate: 1, burst: 1}")
	h.ready()
	limited := 0
	for i := range 10 {
		req := h.stripe(i)
		req.Header.Set("X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i))
		if resp, _ := h.call(req); resp.StatusCode == http.StatusTooManyRequests {
			limited++
		}
	}
	require.Positive(t, limited)
}

// TestRequestsInFlight holds one request's body back: another of the same address is refused, and taken once the
// first one has ended.
func TestRequestsInFlight(t *testing.T) {
	for name, limit := range map[string]string{"per address": "requests_per_address: 1", "in all": "requests: 1"} {
		t.Run(name, func(t *testing.T) {
			h := start(t, kafkatest.New(t), "20s", ", limits: {"+limit+"}")
			h.ready()
			end := hang(t, h.url+"/webhooks/stripe")
			require.Eventually(t, func() bool { return h.limits.inFlight.Load() == 1 }, 30*time.Second, time.Millisecond)
			resp, body := h.call(h.stripe(1))
			requireProblem(t, resp, body, http.StatusTooManyRequests, "rate-limited")
			end()
			require.Eventually(t, func() bool { return h.limits.inFlight.Load() == 0 }, 30*time.Second, time.Millisecond)
			resp, body = h.call(h.stripe(2))
			require.Equal(t, 200, resp.StatusCode, body)
		})
	}
}

// TestQuota counts verified requests only: forgeries and handshakes use nothing up.
func TestQuota(t *testing.T) {
	h := startSources(t, kafkatest.New(t), "", fmt.Sprintf(`
  stripe: {provider: stripe, secrets: [%q], quota: {rate: 1, burst: 3}}
  slack: {provider: slack, secrets: [%q], quota: {rate: 1, burst: 1}}
`, stripeSecret, slackSecret))
	h.ready()
	for i := range 20 {
		resp, _ := h.call(h.signed("stripe", "stripe", "whsec_another_secret", time.Now(), sampleOf("stripe", i)))
		require.Equal(t, 401, resp.StatusCode)
	}
	for i := range 3 {
		resp, body := h.call(h.stripe(i))
		require.Equal(t, 200, resp.StatusCode, body)
	}
	require.Eventually(t, func() bool {
		resp, body := h.call(h.stripe(4))
		if resp.StatusCode != http.StatusTooManyRequests {
			return false
		}
		requireProblem(t, resp, body, http.StatusTooManyRequests, "quota")
		return true
	}, 30*time.Second, time.Millisecond)
	hello := provider.Sample{Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"challenge":"x","type":"url_verification"}`)}
	for range 5 {
		resp, _ := h.call(h.signed("slack", "slack", slackSecret, time.Now(), hello))
		require.Equal(t, 200, resp.StatusCode)
	}
	require.Positive(t, testutil.ToFloat64(h.metrics.requests.WithLabelValues("stripe", "quota")))
}

// TestQuotaIsExactUnderConcurrency: what many take at once is no more than there is.
func TestQuotaIsExactUnderConcurrency(t *testing.T) {
	q := newQuota(&settings.Quota{Rate: 1, Burst: 100})
	var mu sync.Mutex
	taken := 0
	var wg sync.WaitGroup
	began := time.Now()
	for range 16 {
		wg.Go(func() {
			for range 100 {
				if q.take() == 0 {
					mu.Lock()
					taken++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	require.GreaterOrEqual(t, taken, 100)
	require.LessOrEqual(t, taken, 101+int(time.Since(began).Seconds()))
	require.Zero(t, (*quota)(nil).take())
}

func TestTooManyHeaders(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", ", limits: {headers: 20}")
	h.ready()
	req := h.stripe(1)
	for i := range 30 {
		req.Header.Add("X-Flood", strconv.Itoa(i))
	}
	resp, body := h.call(req)
	requireProblem(t, resp, body, 400, "malformed")
}
