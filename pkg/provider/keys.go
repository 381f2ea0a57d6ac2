package provider

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
)

// Keys gets what some schemes must fetch before they can verify: certificates and key sets.
type Keys interface {
	// Fetch returns what the provider serves. It is safe for concurrent use, bounded in time and size, and
	// remembers what it got.
	Fetch(ctx context.Context, f *Fetch) ([]byte, error)
	// Roots are the certificate authorities that fetched certificates must chain to; nil: the system's.
	Roots() *x509.CertPool
}

// Fetch is one thing to get.
type Fetch struct {
	// Name stands for the content in OfflineKeys: the URL, or jwks: and the source's name.
	Name   string
	Method string // empty: GET
	URL    *url.URL
	Header http.Header
	Body   []byte
	// Fresh asks for it again even if it is remembered, as far as the limits allow: a key set may have new keys.
	Fresh bool
}

// OfflineKeys are contents in place of the network.
type OfflineKeys struct {
	Content map[string][]byte // by Fetch.Name
	Pool    *x509.CertPool    // nil: the system's roots
}

var errNotGiven = errors.New("is not among the given keys")

// Fetch returns the content of that name.
func (k *OfflineKeys) Fetch(_ context.Context, f *Fetch) ([]byte, error) {
	b, ok := k.Content[f.Name]
	if !ok {
		return nil, fmt.Errorf("%s %w", f.Name, errNotGiven)
	}
	return b, nil
}

// Roots returns the pool.
func (k *OfflineKeys) Roots() *x509.CertPool { return k.Pool }
