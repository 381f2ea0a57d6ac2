package provider

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestRFC9421Vectors are those of appendix B.2, which leave the body's digest out.
func TestRFC9421Vectors(t *testing.T) {
	for name, c := range map[string]struct{ algorithm, key, input, signature string }{
		"B.2.5": {
			"hmac-sha256", "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==",
			`sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"`, "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
		},
		"B.2.6": {
			"ed25519", "MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=",
			`sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"`,
			"sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
		},
	} {
		o := newOpening(rfc9421, Config{Provider: "rfc9421", Secrets: []Secret{{Text: c.key}}, Options: map[string]any{"algorithm": c.algorithm}})
		s, ok := openRFC9421(o).scheme.(*rfc9421Scheme)
		require.True(t, ok)
		require.Empty(t, o.errs)
		r := &Request{
			Method: "POST", Host: "example.com", Path: "/foo", RawQuery: "param=Value&Pet=dog", Body: []byte(`{"hello": "world"}`), Now: time.Unix(1618884473, 0),
			Header: http.Header{
				"Date": {"Tue, 20 Apr 2021 02:07:55 GMT"}, "Content-Type": {"application/json"}, "Content-Length": {"18"},
				"Content-Digest":  {"sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"},
				"Signature-Input": {c.input}, "Signature": {c.signature},
			},
		}
		_, err := s.verify(t.Context(), r)
		require.Equal(t, errMalformed, err, "%s: the digest must be signed", name)
		s.components = nil
		_, err = s.verify(t.Context(), r)
		require.NoError(t, err, name)
		r.Body = []byte(`{"hello": "World"}`)
		_, err = s.verify(t.Context(), r)
		require.Equal(t, errDigest, err, name)
		r.Header.Set("Date", "Tue, 20 Apr 2021 02:07:56 GMT")
		_, err = s.verify(t.Context(), r)
		require.Equal(t, errMismatch, err, name)
	}
}
