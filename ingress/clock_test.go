package ingress

import (
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

func TestClockVotes(t *testing.T) {
	const tolerance = 2 * time.Minute
	between := func(low, high time.Duration) *bounds { return &bounds{low: low, high: high} }
	fine := between(-time.Second, time.Second)
	ahead, behind := between(10*time.Minute, 11*time.Minute), between(-11*time.Minute, -10*time.Minute)
	atLeast, atMost := between(10*time.Minute, noHigh), between(noLow, -10*time.Minute)
	quiet := between(noLow, time.Hour) // nobody has written for an hour
	for name, c := range map[string]struct {
		brokers int
		leaders []*bounds
		text    string
	}{
		"nothing known":            {3, nil, ""},
		"all fine":                 {3, []*bounds{fine, fine, fine}, ""},
		"one of three":             {3, []*bounds{ahead, fine, fine}, ""},
		"one, nobody denies it":    {3, []*bounds{atMost, quiet, quiet}, ""},
		"the only broker":          {1, []*bounds{atMost}, "clock unsound: it is more than 2m0s behind 1 brokers' clocks"},
		"two of three, behind":     {3, []*bounds{behind, behind, fine}, "clock unsound: it is more than 2m0s behind 2 brokers' clocks"},
		"two of three, ahead":      {3, []*bounds{atLeast, ahead, fine}, "clock unsound: it is more than 2m0s ahead of 2 brokers' clocks"},
		"two, the third is quiet":  {3, []*bounds{atMost, atMost, quiet}, "clock unsound: it is more than 2m0s behind 2 brokers' clocks"},
		"two against two":          {5, []*bounds{behind, behind, fine, fine}, ""},
		"brokers that disagree":    {3, []*bounds{ahead, behind, fine}, ""},
		"on the edge of tolerance": {1, []*bounds{between(tolerance, tolerance)}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cl := &clock{tolerance: tolerance, brokers: c.brokers, leaders: map[int32]*bounds{}, log: slog.New(slog.DiscardHandler)}
			for i, b := range c.leaders {
				cl.leaders[int32(i)] = b
			}
			cl.judge()
			if c.text == "" {
				require.NoError(t, cl.err())
				return
			}
			require.EqualError(t, cl.err(), c.text)
		})
	}
}

// TestClockRemembers: what was found out stays for a while, moves with a step of our clock, and gives way to what
// contradicts it.
func TestClockRemembers(t *testing.T) {
	now, steady := time.Now(), time.Hour
	c := &clock{
		tolerance: time.Minute, leaders: map[int32]*bounds{}, log: slog.New(slog.DiscardHandler),
		now: func() time.Time { return now }, steady: func() time.Duration { return steady }, sleeps: true,
	}
	c.last = c.read()
	pass := func(d, step time.Duration) { steady += d; now = now.Add(d + step); c.noticeStep(); c.judge() }
	c.learn(1, map[int32]*bounds{1: {low: -time.Second, high: time.Second}})
	pass(time.Second, 0)
	require.NoError(t, c.err())
	pass(time.Second, 10*time.Minute)
	require.ErrorContains(t, c.err(), "ahead of 1 brokers")
	pass(time.Minute, 0)
	c.learn(1, map[int32]*bounds{1: {low: noLow, high: 20 * time.Minute}})
	c.judge()
	require.ErrorContains(t, c.err(), "ahead of 1 brokers", "a quiet topic tells nothing new")
	pass(time.Second, -10*time.Minute)
	require.NoError(t, c.err(), "the clock was set right")
	pass(time.Second, -10*time.Minute)
	require.ErrorContains(t, c.err(), "behind 1 brokers")
	c.learn(1, map[int32]*bounds{1: {low: -time.Second, high: time.Second}})
	c.judge()
	require.NoError(t, c.err(), "it was the broker's clock that was set")
	pass(0, 10*time.Minute)
	require.Error(t, c.err())
	pass(clockMemory, 0)
	c.learn(1, nil)
	c.judge()
	require.NoError(t, c.err(), "after a while it is tried again")
	c.learn(1, map[int32]*bounds{1: {low: -time.Second, high: time.Second}})
	c.sleeps = false
	pass(time.Second, 10*time.Minute)
	require.NoError(t, c.err(), "that may have been the machine's sleep")
}

// TestClockUnsound (R45) sets the ingress's clock wrong, both ways and while it runs: not ready and 503, not 401.
func TestClockUnsound(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]time.Duration{"ahead": 10 * time.Minute, "behind": -10 * time.Minute, "a day behind": -24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, kafkatest.New(t), "20s", "")
			h.ready()
			for i := range 40 { // records on each of the partitions
				resp, body := h.call(h.github(i))
				require.Equal(t, 200, resp.StatusCode, body)
			}
			require.Eventually(t, func() bool { return h.clock.knows(2) }, 30*time.Second, 10*time.Millisecond)
			h.skew.Store(int64(step))
			require.Eventually(t, func() bool { return h.Ready() != nil }, 30*time.Second, 10*time.Millisecond)
			require.ErrorContains(t, h.Ready(), "clock unsound")
			for i := range 5 {
				resp, body := h.call(h.stripe(100 + i))
				requireProblem(t, resp, body, http.StatusServiceUnavailable, "clock-unsound")
			}
			h.skew.Store(0)
			require.Eventually(t, func() bool { return h.Ready() == nil }, 30*time.Second, 10*time.Millisecond)
			resp, body := h.call(h.stripe(200))
			require.Equal(t, 200, resp.StatusCode, body)
		})
	}
}

// TestClockWrongFromTheStart: the first acknowledgements tell.
func TestClockWrongFromTheStart(t *testing.T) {
	t.Parallel()
	h := start(t, kafkatest.New(t), "20s", "")
	h.skew.Store(int64(10 * time.Minute))
	h.clock.mu.Lock()
	h.clock.last = h.clock.read() // as if it had always been so
	h.clock.mu.Unlock()
	h.ready()
	seq := 0
	require.Eventually(t, func() bool {
		seq++
		resp, _ := h.call(h.github(seq)) // a scheme without timestamps
		return resp.StatusCode == http.StatusServiceUnavailable
	}, 30*time.Second, 10*time.Millisecond)
	require.ErrorContains(t, h.Ready(), "clock unsound: it is more than 2m0s ahead")
}

// knows says whether the distance to that many leaders is known from below and above.
func (c *clock) knows(leaders int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, b := range c.leaders {
		count(&n, b.low != noLow && b.high < time.Minute)
	}
	return n >= leaders
}
