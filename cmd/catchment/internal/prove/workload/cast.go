// Package workload plays the providers. A seed, the addresses of ingresses and a journal come in; signed requests go out, as
// real providers send them and as forgers do, each written down before it is sent. It must never take an event for acknowledged
// that nobody answered with a whole 2xx, nor look into the system that it sends to.
package workload

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// splitSource is the source whose deliveries carry several events.
const splitSource = "prove-meta"

// The types of the events.
const (
	typeChange = "prove.changed"
	typePoison = "prove.poison"
)

// Cast is the simulated providers of a run, with their secrets.
type Cast struct {
	dir     string
	sources []*source

	mu    sync.Mutex
	known []string // every secret that there was
}

// source is one provider and its endpoint.
type source struct {
	name    string
	preset  *provider.Provider
	hmac    *provider.HMAC
	body    string   // where the fields stand, for CEL
	stamped bool     // the signature holds a time
	extra   []string // lines of the configuration

	mu    sync.RWMutex
	slots [2]string // the secrets in the source's two files
	using int       // the slot that signs
	old   string    // a secret that is no longer valid; empty: none yet
}

// partnerHMAC is a scheme that no preset has.
var partnerHMAC = &provider.HMAC{
	Header: "X-Partner-Signature", Algorithm: "sha256", Encoding: "base64", Prefix: "v1=", Signed: "{timestamp}.{body}",
	TimestampHeader: "X-Partner-Time",
}

// NewCast makes the providers of a run, and writes their secrets into files in the folder dir, two for each source.
func NewCast(seed uint64, dir string) (*Cast, error) {
	c := &Cast{dir: dir, sources: []*source{
		{name: "prove-stripe", body: "body", stamped: true},
		{name: "prove-github", body: "body"},
		{name: "prove-shopify", body: "body"},
		{name: "prove-standard-webhooks", body: "body", stamped: true},
		{name: "prove-hmac", body: "body", stamped: true, hmac: partnerHMAC, extra: []string{
			"hmac:",
			"  header: X-Partner-Signature",
			"  algorithm: sha256",
			"  encoding: base64",
			`  prefix: "v1="`,
			`  signed: "{timestamp}.{body}"`,
			"  timestamp_header: X-Partner-Time",
			"event_id: body.id",
			"event_type: body.type",
		}},
		{name: splitSource, body: "body.value"},
	}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for i, s := range c.sources {
		preset, ok := provider.ByName(strings.TrimPrefix(s.name, "prove-"))
		if !ok {
			return nil, fmt.Errorf("source %s: there is no such provider", s.name)
		}
		s.preset = preset
		r := rand.New(rand.NewPCG(seed, 1<<62+uint64(i)))
		for slot := range s.slots {
			if err := c.put(s, slot, newSecret(s.preset.Name, r)); err != nil {
				return nil, err
			}
		}
	}
	return c, nil
}

// newSecret is a secret in the provider's own form. It comes from the seed, so that a run is repeated with the same.
func newSecret(preset string, r *rand.Rand) string {
	b := make([]byte, 24)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	switch preset {
	case "stripe":
		return "whsec_" + hex.EncodeToString(b)
	case "standard-webhooks":
		return "whsec_" + base64.StdEncoding.EncodeToString(b)
	case "shopify":
		return "shpss_" + hex.EncodeToString(b)
	}
	return hex.EncodeToString(b)
}

// put makes a secret that of a slot, for the ingress as well.
func (c *Cast) put(s *source, slot int, secret string) error {
	c.mu.Lock()
	c.known = append(c.known, secret)
	c.mu.Unlock()
	path := c.file(s, slot)
	if err := os.WriteFile(path+".new", []byte(secret+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	s.mu.Lock()
	s.slots[slot] = secret
	s.mu.Unlock()
	return nil
}

func (c *Cast) file(s *source, slot int) string {
	return filepath.Join(c.dir, fmt.Sprintf("%s.%d", s.name, slot))
}

// secret is what signs now.
func (s *source) secret() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.slots[s.using]
}

// Configuration is the text of catchment.yaml's sections sources and operations, which stands in for nothing else there.
func (c *Cast) Configuration() string {
	var b strings.Builder
	b.WriteString("sources:\n")
	for _, s := range c.sources {
		fmt.Fprintf(&b, "  %s:\n    provider: %s\n    secrets: [{file: %q}, {file: %q}]\n", s.name, s.preset.Name, c.file(s, 0), c.file(s, 1))
		for _, line := range s.extra {
			b.WriteString("    " + line + "\n")
		}
	}
	b.WriteString("operations:\n")
	for _, s := range c.sources {
		b.WriteString(strings.NewReplacer("SOURCE", s.name, "BODY", s.body, "CHANGE", typeChange, "POISON", typePoison).Replace(operations))
	}
	return b.String()
}

// Secrets are all secrets that there were so far: none of them may stand in a log.
func (c *Cast) Secrets() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.known)
}

// WriteSecrets writes the file of the run's folder by which the judge looks for secrets in logs; more are those of the estate,
// such as the database's password.
func (c *Cast) WriteSecrets(dir string, more ...string) error {
	return folder.Write(dir, folder.SecretsFile, append(c.Secrets(), more...))
}

// Names are the sources' names, in order.
func (c *Cast) Names() []string {
	var names []string
	for _, s := range c.sources {
		names = append(names, s.name)
	}
	return names
}

// Describe fills in what a run's folder must say of the workload.
func Describe(run *folder.Run, seed uint64) {
	run.Seed, run.Split, run.Canary = seed, []string{splitSource}, canary(seed)
}

func canary(seed uint64) string { return fmt.Sprintf("canary%016x", seed*0x9e3779b97f4a7c15+1) }
