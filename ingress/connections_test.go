package ingress

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// TestLookout sends requests of every framing one after the other over one connection: pipelined, with a body of one
// byte, in chunks of one byte, without a body. Each is answered, whatever the one before has turned off.
func TestLookout(t *testing.T) {
	h := start(t, kafkatest.NewFake(t), "9s", "")
	h.ready()
	c, err := net.Dial("tcp", h.Addr())
	require.NoError(t, err)
	defer func() { _ = c.Close() }()
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	answers := bufio.NewReader(c)
	want := func(status int) {
		t.Helper()
		resp, err := http.ReadResponse(answers, nil)
		require.NoError(t, err)
		_, err = io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		require.Equal(t, status, resp.StatusCode)
	}
	wire := func(req *http.Request) []byte {
		var b bytes.Buffer
		require.NoError(t, req.Write(&b))
		return b.Bytes()
	}
	short := h.stripe(5)
	short.Body, short.ContentLength = io.NopCloser(bytes.NewReader([]byte("1"))), 1
	get, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/webhooks/stripe", nil)
	require.NoError(t, err)

	for range 2 {
		_, err = c.Write(append(append(wire(h.stripe(1)), wire(h.stripe(2))...), wire(h.stripe(3))...))
		require.NoError(t, err)
		want(http.StatusOK)
		want(http.StatusOK)
		want(http.StatusOK)
		_, err = c.Write(wire(get))
		require.NoError(t, err)
		want(http.StatusMethodNotAllowed)
		_, err = c.Write(wire(h.stripe(1)))
		require.NoError(t, err)
		want(http.StatusOK)
		chunked := h.stripe(4)
		chunked.ContentLength = -1
		for _, b := range wire(chunked) {
			_, err = c.Write([]byte{b})
			require.NoError(t, err)
		}
		want(http.StatusOK)
	}
	_, err = c.Write(wire(short))
	require.NoError(t, err)
	want(http.StatusUnauthorized)
}
