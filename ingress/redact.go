package ingress

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
)

const redacted = "[redacted]"

// redaction says where the requests to a source hold secrets. What else they hold is stored byte for byte.
type redaction struct {
	headers    map[string]bool // canonical names
	parameters []string        // of the query
}

func newRedaction(rules *provider.Source) redaction {
	r := redaction{
		headers:    map[string]bool{"Authorization": true, "Proxy-Authorization": true, "Cookie": true, "X-Api-Key": true},
		parameters: rules.SecretParameters(),
	}
	for _, h := range rules.SecretHeaders() {
		r.headers[http.CanonicalHeaderKey(h)] = true
	}
	return r
}

// stored appends the request's headers, by name, to an empty list. Go's server moves Host out of the headers; it is
// evidence as well.
func (r *redaction) stored(hs []event.Header, req *http.Request) []event.Header {
	hs = slices.Grow(hs, len(req.Header)+1)
	hs = append(hs, event.Header{Name: "host", Value: req.Host})
	var names strings.Builder // one allocation for all
	names.Grow(namesLen(req.Header))
	for name, values := range req.Header {
		lower := appendLower(&names, name)
		for _, v := range values {
			if r.headers[name] {
				v = redacted
			}
			hs = append(hs, event.Header{Name: lower, Value: r.url(v)}) // proxies repeat the URL in headers
		}
	}
	slices.SortStableFunc(hs, func(a, b event.Header) int { return strings.Compare(a.Name, b.Name) })
	return hs
}

func namesLen(h http.Header) (n int) {
	for name := range h {
		n += len(name)
	}
	return n
}

// appendLower writes a header's name to b in lower case, and returns it. Names of headers are ASCII.
func appendLower(b *strings.Builder, name string) string {
	from := b.Len()
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b.WriteByte(c)
	}
	return b.String()[from:]
}

// url redacts the query of a URL.
func (r *redaction) url(s string) string {
	if len(r.parameters) == 0 {
		return s
	}
	path, query, ok := strings.Cut(s, "?")
	if !ok {
		return s
	}
	return path + "?" + r.query(query)
}

// query redacts the values of secret parameters, however their names are written.
func (r *redaction) query(raw string) string {
	if len(r.parameters) == 0 || raw == "" {
		return raw
	}
	pairs := strings.Split(raw, "&")
	for i, pair := range pairs {
		name, _, _ := strings.Cut(pair, "=")
		plain, err := url.QueryUnescape(name)
		if err != nil {
			plain = name
		}
		if slices.Contains(r.parameters, plain) {
			pairs[i] = name + "=" + redacted
		}
	}
	return strings.Join(pairs, "&")
}
