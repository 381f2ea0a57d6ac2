package provider

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
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
	Name string
	// Source is the source's name: each has a budget of look-ups.
	Source string
	Method string   // empty: GET
	URL    *url.URL // nil: it can only be given
	Header http.Header
	Body   []byte
	// Fresh asks for it again even if it is remembered, as far as the limits allow: a key set may have new keys.
	Fresh bool
}

// OfflineKeys are contents in place of the network.
type OfflineKeys struct {
	// Content is by Fetch.Name; "jwks:*" stands for the key set of every source that has none of its own.
	Content map[string][]byte
	Pool    *x509.CertPool // nil: the system's roots
}

// offlineFile is how OfflineKeys are written down.
type offlineFile struct {
	Fetch map[string]json.RawMessage `json:"fetch"`
	Roots []string                   `json:"roots"`
}

// ParseOfflineKeys reads {"fetch": {name: content}, "roots": [PEM]}. A content is a text, or JSON as it stands (a key
// set). Without roots, certificates must chain to the system's.
func ParseOfflineKeys(data []byte) (*OfflineKeys, error) {
	var f offlineFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("expected {\"fetch\": {URL: content}, \"roots\": [PEM]}: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errKeysTrailing
	}
	k := &OfflineKeys{Content: make(map[string][]byte, len(f.Fetch))}
	for name, raw := range f.Fetch {
		k.Content[name] = raw
		var text string
		if json.Unmarshal(raw, &text) == nil {
			k.Content[name] = []byte(text)
		}
	}
	for i, text := range f.Roots {
		if k.Pool == nil {
			k.Pool = x509.NewCertPool()
		}
		if !k.Pool.AppendCertsFromPEM([]byte(text)) {
			return nil, fmt.Errorf("roots[%d]: expected certificates in PEM", i)
		}
	}
	return k, nil
}

const anyKeySet = "jwks:*"

var (
	errNotGiven     = errors.New("is not among the given keys")
	errKeysTrailing = errors.New("text after the JSON value")
)

// given says whether there is a content of that name.
func (k *OfflineKeys) given(name string) bool {
	_, ok := k.Content[name]
	return ok
}

// Fetch returns the content of that name, else of that URL.
func (k *OfflineKeys) Fetch(_ context.Context, f *Fetch) ([]byte, error) {
	b, ok := k.Content[f.Name]
	if !ok && f.URL != nil {
		b, ok = k.Content[f.URL.String()]
	}
	if !ok && strings.HasPrefix(f.Name, "jwks:") {
		b, ok = k.Content[anyKeySet]
	}
	if !ok {
		return nil, fmt.Errorf("%s %w", f.Name, errNotGiven)
	}
	return b, nil
}

// Roots returns the pool.
func (k *OfflineKeys) Roots() *x509.CertPool { return k.Pool }
