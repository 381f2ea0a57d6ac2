package ingress

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

// spoiling is what a connection's Read does.
type spoiling struct {
	r io.Reader
	f *framing
}

func (s spoiling) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.f.pass(p[:n])
	return n, err
}

// readAll reads requests as the server does, and returns their bodies.
func readAll(r io.Reader) (bodies []string, err error) {
	br := bufio.NewReader(r)
	for {
		if _, err := br.Peek(1); err != nil {
			return bodies, nil
		}
		req, err := http.ReadRequest(br)
		if err != nil {
			return bodies, err
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return bodies, err
		}
		bodies = append(bodies, string(body))
	}
}

func TestFraming(t *testing.T) {
	const (
		sized   = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
		chunked = "POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
		without = "GET /c HTTP/1.1\r\nHost: h\r\n\r\n"
		lf      = "POST /d HTTP/1.1\nHost: h\nContent-Length: 2\n\n\r\n"
	)
	for name, c := range map[string]struct {
		text   string
		bodies int
		spoilt bool
	}{
		"pipelined":              {sized + chunked + without + lf + sized, 5, false},
		"a head in a body":       {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 48\r\n\r\nA: b\r\nContent-Length: 1\r\nContent-Length: 1\r\n x\r\n" + sized, 2, false},
		"folded":                 {sized + "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", 1, true},
		"folded by a tab":        {"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\tc\r\n\r\n", 0, true},
		"length, then encoding":  {chunked + "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1, true},
		"encoding, then length":  {"POST / HTTP/1.1\r\nHost: h\r\ntransfer-ENCODING: chunked\r\nX: y\r\nconTENT-length: 5\r\n\r\n0\r\n\r\n", 0, true},
		"length twice":           {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 0, true},
		"encoding in HTTP/1.0":   {"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, true},
		"only after a long head": {"GET / HTTP/1.1\r\nHost: h\r\nA: " + strings.Repeat("a", 9000) + "\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			for what, r := range map[string]io.Reader{"whole": strings.NewReader(c.text), "byte by byte": iotest.OneByteReader(strings.NewReader(c.text))} {
				bodies, err := readAll(spoiling{r, newFraming()})
				require.Len(t, bodies, c.bodies, what)
				if c.spoilt {
					require.ErrorContains(t, err, "malformed MIME header", what)
					continue
				}
				require.NoError(t, err, what)
			}
		})
	}
}

// FuzzFraming: what passes is what came, but for spoilt bytes; how it is cut into reads makes no difference; and
// net/http never sees another body than it would have without us.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n"), uint8(3))
	f.Add([]byte("POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nT: x\r\n\r\nGET / HTTP/1.0\r\n\r\n"), uint8(1))
	f.Add([]byte("\r\n\nPOST /b HTTP/1.1\nHost: h\nContent-Length: 1\nTransfer-Encoding: chunked\n\n0\r\n\r\n"), uint8(7))
	f.Add([]byte("x"), uint8(0))
	f.Fuzz(func(t *testing.T, text []byte, cut uint8) {
		whole := bytes.Clone(text)
		newFraming().pass(whole)
		parts, fr := bytes.Clone(text), newFraming()
		for p := parts; len(p) > 0; {
			n := min(len(p), 1+int(cut))
			fr.pass(p[:n])
			p = p[n:]
		}
		require.Equal(t, whole, parts)
		with, errWith := readAll(bytes.NewReader(whole))
		without, errWithout := readAll(bytes.NewReader(text))
		require.LessOrEqual(t, len(with), len(without))
		require.True(t, slices.Equal(without[:len(with)], with), "%q is not the beginning of %q", with, without)
		if bytes.Equal(whole, text) {
			require.Equal(t, errWithout == nil, errWith == nil)
		}
	})
}

func BenchmarkFraming(b *testing.B) {
	text := []byte("POST /webhooks/stripe HTTP/1.1\r\nHost: hooks.example.com\r\nUser-Agent: Stripe/1.0 (+https://stripe.com/docs/webhooks)\r\n" +
		"Content-Length: 2048\r\nAccept: */*; q=0.5, application/xml\r\nCache-Control: no-cache\r\nContent-Type: application/json; charset=utf-8\r\n" +
		"Stripe-Signature: t=1700000000,v1=5257a869e7ecebeda32affa62cdca3fa51cad7e77a0e56ff536d0ce8e108d8bd\r\n\r\n" + strings.Repeat("a", 2048))
	f := newFraming()
	b.ReportAllocs()
	for b.Loop() {
		f.pass(text)
	}
}
