package redistest

import (
	"bufio"
	"net"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

// ping speaks to the server by hand: this package needs no client.
func ping(address string) (string, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return "", err
	}
	return bufio.NewReader(c).ReadString('\n')
}

func TestKillAndRestart(t *testing.T) {
	s := Start(t)
	if s == nil {
		return // said, and a failure where real parts are required
	}
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	got, err := ping(u.Host)
	require.NoError(t, err)
	require.Equal(t, "+PONG\r\n", got)
	s.Kill()
	_, err = ping(u.Host)
	require.Error(t, err)
	s.Restart()
	_, err = ping(u.Host)
	require.NoError(t, err)
	require.NotEmpty(t, New(t))
}
