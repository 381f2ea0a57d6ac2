package sender

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// receiver verifies what it gets and remembers it.
type receiver struct {
	source *provider.Source
	mu     sync.Mutex
	order  []string          // IDs as they came
	bodies map[string]string // by ID
	refuse func(n int) bool  // by number of the request
	n      int
}

func newReceiver(t *testing.T, name string, c provider.Credentials) (*receiver, *httptest.Server) {
	t.Helper()
	cfg := provider.Config{Source: name, Provider: name, Options: c.Options, HMAC: scheme(name)}
	if c.Secret != "" {
		cfg.Secrets = []provider.Secret{{ID: "test", Text: c.Secret}}
	}
	if c.Keys != nil {
		cfg.Keys = c.Keys
	}
	if c.Options["public_url"] == nil {
		cfg.PublicURL = public
	}
	source, err := provider.New(cfg)
	require.NoError(t, err)
	rc := &receiver{source: source, bodies: map[string]string{}}
	srv := httptest.NewServer(rc)
	t.Cleanup(srv.Close)
	return rc, srv
}

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	v, err := rc.source.Receive(r.Context(), &provider.Request{Method: r.Method, Path: r.URL.EscapedPath(), RawQuery: r.URL.RawQuery, Header: r.Header, Body: body, Now: time.Now(), FromProxy: true})
	rc.mu.Lock()
	defer rc.mu.Unlock()
	rc.n++
	switch {
	case err != nil:
		w.WriteHeader(http.StatusUnauthorized)
	case rc.refuse != nil && rc.refuse(rc.n):
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(map[string]string{"title": "Not enqueued", "detail": "no acknowledgement in time"})
	default:
		status := "accepted"
		if _, seen := rc.bodies[v.ID]; seen {
			status = "duplicate"
		}
		rc.order = append(rc.order, v.ID)
		rc.bodies[v.ID] = string(body)
		_ = json.NewEncoder(w).Encode(map[string]string{"status": status, "id": v.ID})
	}
}

// scheme is what provider hmac needs besides.
func scheme(name string) *provider.HMAC {
	if name != "hmac" {
		return nil
	}
	return &provider.HMAC{Header: "X-Signature", IDHeader: "X-Id"}
}

// public is the URL that the provider knows, for schemes that sign it.
const public = "https://hooks.example.com"

func credentials(secret string) provider.Credentials {
	return provider.Credentials{Secret: secret, Signer: secret}
}

func options(t *testing.T, name string, c provider.Credentials, url string) Options {
	t.Helper()
	p, ok := provider.ByName(name)
	require.True(t, ok)
	return Options{
		Provider: p, URL: url + "/webhooks/" + name, SignURL: public + "/webhooks/" + name, Secret: c.Signer, Settings: c.Options, Count: 200, Seed: 7, Start: time.Unix(1_700_000_000, 0),
		Concurrency: 4, HMAC: scheme(name), Client: http.DefaultClient,
	}
}

func TestSend(t *testing.T) {
	timed := []string{"linear", "mailgun"} // whose bodies hold the time of signing
	for _, p := range provider.All {
		t.Run(p.Name, func(t *testing.T) {
			secret := p.NewCredentials()
			rc, srv := newReceiver(t, p.Name, secret)
			o := options(t, p.Name, secret, srv.URL)
			o.Count, o.Resends = 50, 5
			report, err := Send(t.Context(), o)
			require.NoError(t, err)
			require.True(t, report.OK(), "%+v", report.Problems)
			require.Equal(t, 50, report.Accepted)
			require.Equal(t, 5, report.Duplicates)
			require.Equal(t, map[string]int{"200": 55}, report.Statuses)
			require.Len(t, rc.bodies, 50)
			require.LessOrEqual(t, report.Latency.P50, report.Latency.P99)

			// The same seed makes the same events.
			again, srv := newReceiver(t, p.Name, secret)
			o.URL = srv.URL + "/webhooks/" + p.Name
			_, err = Send(t.Context(), o)
			require.NoError(t, err)
			if !slices.Contains(timed, p.Name) {
				require.Empty(t, cmp.Diff(rc.bodies, again.bodies))
			}
			require.Equal(t, slices.Sorted(maps.Keys(rc.bodies)), slices.Sorted(maps.Keys(again.bodies)))
		})
	}
}

func TestRefusalsAreNotAccepted(t *testing.T) {
	rc, srv := newReceiver(t, "stripe", credentials("whsec_right"))
	rc.refuse = func(n int) bool { return n%10 == 0 }
	report, err := Send(t.Context(), options(t, "stripe", credentials("whsec_right"), srv.URL))
	require.NoError(t, err)
	require.False(t, report.OK())
	require.Equal(t, 180, report.Accepted)
	require.Equal(t, 20, report.NotAccepted)
	require.Equal(t, map[string]int{"200": 180, "503": 20}, report.Statuses)
	require.Equal(t, map[string]int{"503 Service Unavailable: Not enqueued: no acknowledgement in time": 20}, report.Problems)

	srv.Close()
	report, err = Send(t.Context(), options(t, "stripe", credentials("whsec_right"), srv.URL))
	require.NoError(t, err)
	require.Equal(t, map[string]int{"no answer": 200}, report.Statuses)
	require.Zero(t, report.Accepted)
}

// Connections that break are one problem, whatever ports they had.
func TestBrokenConnectionsAreOneProblem(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if err := errors.Join(conn.(*net.TCPConn).SetLinger(0), conn.Close()); err != nil { // a reset
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	report, err := Send(t.Context(), options(t, "stripe", credentials("whsec_right"), srv.URL))
	require.NoError(t, err)
	require.Equal(t, map[string]int{"no answer": 200}, report.Statuses)
	for problem := range report.Problems { // a reset may be met while writing, too
		require.NotContains(t, problem, "127.0.0.1")
	}
	require.LessOrEqual(t, len(report.Problems), 4, "%v", report.Problems)
}

func TestOrder(t *testing.T) {
	const n = 200
	inOrder := func(o Options) (moved int) {
		last := -1
		firsts := map[int]bool{}
		for _, p := range o.plan() {
			if p.again {
				require.True(t, firsts[p.seq], "a resend comes before its first")
				continue
			}
			if p.seq < last {
				moved++
			}
			last, firsts[p.seq] = p.seq, true
		}
		require.Len(t, firsts, n)
		return moved
	}
	require.Zero(t, inOrder(Options{Count: n, Resends: 50, Seed: 1}))
	require.Greater(t, inOrder(Options{Count: n, Resends: 50, Seed: 1, OutOfOrder: true}), n/10)
}

func TestChosenEvents(t *testing.T) {
	rc, srv := newReceiver(t, "stripe", credentials("whsec_right"))
	o := options(t, "stripe", credentials("whsec_right"), srv.URL)
	o.Count, o.Type = 30, "payment_intent.succeeded"
	report, err := Send(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, 30, report.Accepted)
	for _, body := range rc.bodies {
		require.Contains(t, body, `"payment_intent.succeeded"`)
	}

	o.Type = "no.such.type"
	_, err = Send(t.Context(), o)
	require.ErrorContains(t, err, "--body FILE")

	o.Body = []byte(`{"id":"evt_mine","type":"no.such.type"}`)
	o.Count = 5
	report, err = Send(t.Context(), o)
	require.NoError(t, err)
	require.True(t, report.OK())
	require.Equal(t, 1, report.Accepted, "one ID is one event, however often it is sent")
	require.True(t, report.OneEvent)
	require.Equal(t, 1, report.Events)
	require.Equal(t, string(o.Body), rc.bodies["evt_mine"])
}

func TestRate(t *testing.T) {
	_, srv := newReceiver(t, "stripe", credentials("whsec_right"))
	o := options(t, "stripe", credentials("whsec_right"), srv.URL)
	o.Count, o.Rate = 20, 100
	report, err := Send(t.Context(), o)
	require.NoError(t, err)
	require.GreaterOrEqual(t, report.Seconds, 0.19)
}
