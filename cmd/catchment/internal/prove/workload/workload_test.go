package workload_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/workload"
)

// run sends happenings to the URLs and returns what the journal says of the genuine ones.
func run(t *testing.T, events int, urls ...string) (*workload.Report, []journal.Line) {
	t.Helper()
	dir := t.TempDir()
	cast, err := workload.NewCast(3, filepath.Join(dir, "cast"))
	require.NoError(t, err)
	j, err := journal.Open(filepath.Join(dir, folder.JournalFile))
	require.NoError(t, err)
	r, err := workload.Run(t.Context(), workload.Options{
		Seed: 3, Cast: cast, URLs: urls, Journal: j, Events: events, Mix: &workload.Mix{},
		Timeout: 5 * time.Second, Retry: workload.Schedule{Initial: time.Millisecond, Max: 5 * time.Millisecond},
	})
	require.NoError(t, err)
	require.NoError(t, j.Close())
	var lines []journal.Line
	for l, err := range journal.Read(dir, nil) {
		require.NoError(t, err)
		lines = append(lines, l)
	}
	return r, lines
}

// TestWhatASenderCanKnow has each kind of trouble once, behind it a server that takes everything.
func TestWhatASenderCanKnow(t *testing.T) {
	good := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(good.Close)
	hijacked := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body) // what is left unread would be a reset
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte(text))
			_ = conn.Close()
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	for name, tc := range map[string]struct {
		handler http.HandlerFunc // nil: nobody listens
		want    journal.Outcome
	}{
		"nobody listens":       {nil, journal.Fail},
		"unauthorized":         {status(401), journal.Fail},
		"too large":            {status(413), journal.Fail},
		"too many":             {status(429), journal.Fail},
		"the server gave up":   {status(408), journal.Info},
		"unavailable":          {status(503), journal.Info},
		"a redirect":           {status(307), journal.Info},
		"reset":                {hijacked(""), journal.Info},
		"the answer was cut":   {hijacked("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), journal.Info},
		"half of the headers":  {hijacked("HTTP/1.1 200 OK\r\nConte"), journal.Info},
		"all of the answer":    {hijacked("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"), journal.OK},
		"accepted, in a hurry": {status(202), journal.OK},
	} {
		t.Run(name, func(t *testing.T) {
			bad := httptest.NewServer(tc.handler)
			if tc.handler == nil {
				bad.Close()
			} else {
				t.Cleanup(bad.Close)
			}
			_, lines := run(t, 8, bad.URL, good.URL)
			to, seen := map[uint64]string{}, 0
			for _, l := range lines {
				if !l.IsAnswer() {
					to[l.Number] = l.To
				} else if to[l.Number] == bad.URL {
					seen++
					require.Equal(t, tc.want, l.Outcome, l.Why)
				}
			}
			require.NotZero(t, seen)
		})
	}
}

// TestNoAttemptIsForgotten wants every request that arrives to be in the journal before.
func TestNoAttemptIsForgotten(t *testing.T) {
	arrived := make(chan string, 10_000)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.Header.Get(folder.AttemptHeader)
		if len(arrived)%3 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(srv.Close)
	r, lines := run(t, 2000, srv.URL)
	require.EqualValues(t, 2000, r.Acked)
	attempts := 0
	for _, l := range lines {
		if !l.IsAnswer() {
			attempts++
		}
	}
	require.Equal(t, len(arrived), attempts)
	require.EqualValues(t, attempts, r.Attempts)
	t.Logf("%.0f attempts a second", float64(attempts)/r.Took.Seconds())
}

// TestGivesUp where nothing is ever taken.
func TestGivesUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	r, _ := run(t, 5, "http://"+l.Addr().String())
	require.EqualValues(t, 5, r.Rejected)
	require.Zero(t, r.Acked)
}
