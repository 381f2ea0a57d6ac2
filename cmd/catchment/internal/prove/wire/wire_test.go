package wire

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/s3relay"
)

// echo answers each line with the same line, and counts what it got.
func echo(t *testing.T) (address string, got chan string) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	got = make(chan string, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				for r := bufio.NewReader(c); ; {
					line, err := r.ReadString('\n')
					if err != nil {
						_ = c.Close()
						return
					}
					got <- line
					_, _ = io.WriteString(c, line)
				}
			}()
		}
	}()
	return l.Addr().String(), got
}

func connect(t *testing.T, k *Link) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", k.Address())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c, bufio.NewReader(c)
}

func newLink(t *testing.T) (*Link, chan string) {
	t.Helper()
	address, got := echo(t)
	k, err := New(t.Context(), "client→echo", address)
	require.NoError(t, err)
	t.Cleanup(k.Close)
	return k, got
}

func say(t *testing.T, c net.Conn, line string) {
	t.Helper()
	_, err := io.WriteString(c, line)
	require.NoError(t, err)
}

func TestLinkHoldsEachWay(t *testing.T) {
	k, got := newLink(t)
	c, r := connect(t, k)
	say(t, c, "one\n")
	line, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "one\n", line)
	require.Equal(t, "one\n", <-got)

	k.Set(Mode{HoldDown: true}) // the server hears, the client does not
	say(t, c, "two\n")
	require.Equal(t, "two\n", <-got)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
	_, err = r.ReadString('\n')
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)

	k.Set(Mode{HoldUp: true}) // the answer comes; the next question does not arrive
	require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	line, err = r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "two\n", line)
	say(t, c, "three\n")
	select {
	case line := <-got:
		require.Fail(t, "it got through", line)
	case <-time.After(50 * time.Millisecond):
	}
	k.Set(Mode{Latency: 20 * time.Millisecond, Rate: 1000}) // what was held comes, in order
	require.Equal(t, "three\n", <-got)
	line, err = r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "three\n", line)
}

func TestLinkCutsAndRefuses(t *testing.T) {
	k, _ := newLink(t)
	c, r := connect(t, k)
	say(t, c, "one\n")
	_, err := r.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, 1, k.Cut())
	_, err = r.ReadString('\n')
	require.Error(t, err)

	k.Set(Mode{Refuse: true})
	refused, err := new(net.Dialer).DialContext(t.Context(), "tcp", k.Address())
	if err == nil {
		_, err = refused.Read(make([]byte, 1))
		require.NoError(t, refused.Close())
	}
	require.Error(t, err)

	k.Set(Mode{})
	other, _ := echo(t)
	k.Lead(other)
	c, r = connect(t, k)
	say(t, c, "two\n")
	_, err = r.ReadString('\n')
	require.NoError(t, err)
}

func TestLinkTraps(t *testing.T) {
	k, got := newLink(t)
	k.Trap("commit", true, 1)
	c, r := connect(t, k)
	say(t, c, "commit 1\n")
	_, err := r.ReadString('\n')
	require.Error(t, err, "nobody tells the client")
	require.Equal(t, "commit 1\n", <-got, "the server has it")

	require.Equal(t, 1, k.Sprung())
	require.Equal(t, 1, k.Trap("commit", false, 1))
	require.Zero(t, k.Sprung())
	c, r = connect(t, k)
	say(t, c, "commit 2\n")
	_, err = r.ReadString('\n')
	require.Error(t, err)
	require.Empty(t, got, "the server never saw it")
	require.Equal(t, 1, k.Trap("", false, 0))
}

func TestStoreFaults(t *testing.T) {
	var mu sync.Mutex
	objects := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if _, there := objects[r.URL.Path]; there && r.Method == http.MethodPut {
			w.WriteHeader(http.StatusPreconditionFailed)
			return
		}
		if r.Method == http.MethodPut {
			objects[r.URL.Path] = string(body)
		}
		_, _ = io.WriteString(w, objects[r.URL.Path])
	}))
	t.Cleanup(server.Close)
	s, err := NewStore(t.Context(), strings.TrimPrefix(server.URL, "http://"))
	require.NoError(t, err)
	t.Cleanup(s.Close)
	ask := func(method, key, body, sum string) (int, error) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Address()+"/bucket/"+key, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set(s3relay.HeaderChecksum, sum)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // a client that reuses one tries again by itself
		resp, err := client.Do(r)
		if err != nil {
			return 0, err
		}
		defer func() { _ = resp.Body.Close() }()
		_, err = io.ReadAll(resp.Body)
		return resp.StatusCode, err
	}

	s.Set(Error503, "events/")
	status, err := ask(http.MethodPut, "events/a", "A", "1")
	require.NoError(t, err)
	require.Equal(t, 503, status)
	status, err = ask(http.MethodPut, "checkpoints/a", "A", "1")
	require.NoError(t, err)
	require.Equal(t, 200, status, "the fault is for other keys")

	s.Set(Lost, "events/")
	_, err = ask(http.MethodPut, "events/a", "A", "1")
	require.Error(t, err)
	mu.Lock()
	require.Equal(t, "A", objects["/bucket/events/a"], "it succeeded")
	mu.Unlock()
	_, err = ask(http.MethodPut, "events/a", "A", "1")
	require.Error(t, err)
	s.Set(None, "")
	_, err = ask(http.MethodPut, "events/a", "B", "2")
	require.NoError(t, err)
	same, other := s.Refused()
	require.Equal(t, [2]int{1, 1}, [2]int{same, other})

	hooked := make(chan struct{})
	s.Hook("events/", func(key string) (<-chan struct{}, bool) {
		require.Equal(t, "events/c", key)
		close(hooked)
		return hooked, false
	})
	_, err = ask(http.MethodGet, "events/a", "", "")
	require.NoError(t, err)
	select {
	case <-hooked:
		require.Fail(t, "a read is no write")
	default:
	}
	_, err = ask(http.MethodPut, "events/c", "C", "3")
	require.NoError(t, err)
	<-hooked
	require.True(t, s.Has("bucket", "events/c"))
	s.Hook("events/", func(string) (<-chan struct{}, bool) { return hooked, true })
	_, err = ask(http.MethodPut, "events/d", "D", "4")
	require.Error(t, err)
	require.False(t, s.Has("bucket", "events/d"))

	s.Set(Truncate, "events/")
	_, err = ask(http.MethodGet, "events/c", "", "")
	require.Error(t, err)
	require.Equal(t, 1, s.Faults()[Truncate])
}
