// Package workload plays the providers. A seed, the addresses of ingresses and a journal come in; signed requests go out, as
// real providers send them and as forgers do, each written down before it is sent. It must never take an event for acknowledged
// that nobody answered with a whole 2xx, nor look into the system that it sends to.
package workload

import (
	crand "crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
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

// The types of the events.
const (
	typeChange = "prove.changed"
	typePoison = "prove.poison"
)

// Cast is the simulated providers of a run, with their secrets.
type Cast struct {
	dir     string // of the secrets' files
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
	several bool     // its deliveries carry several events
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
	c, err := newCast(dir, "")
	if err != nil {
		return nil, err
	}
	for i, s := range c.sources {
		if err := c.newSecrets(s, rand.New(rand.NewPCG(seed, 1<<62+uint64(i)))); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// The files of a cast that was made for somebody's own system.
const (
	castFile    = "cast.json"
	secretsIn   = "secrets"
	SourcesFile = "sources.yaml" // Configuration, for the system's own
	TablesFile  = "tables.sql"   // Tables, for its database
)

// MakeCast makes the providers of one run against somebody's own system, with names and secrets that no other cast has, and
// writes them into the folder dir, which must not hold one yet. secretsAt is the folder in which that system will find the
// files of dir/secrets; empty: there.
func MakeCast(dir, secretsAt string) (*Cast, error) {
	if folder.Exists(dir, castFile) {
		return nil, fmt.Errorf("%s has a cast already", dir)
	}
	tag := make([]byte, 4)
	var seed [32]byte
	_, _ = crand.Read(tag) // never fails
	_, _ = crand.Read(seed[:])
	c, err := newCast(filepath.Join(dir, secretsIn), hex.EncodeToString(tag))
	if err != nil {
		return nil, err
	}
	r := rand.New(rand.NewChaCha8(seed))
	for _, s := range c.sources {
		if err := c.newSecrets(s, r); err != nil {
			return nil, err
		}
	}
	if secretsAt == "" {
		secretsAt = c.dir
	}
	return c, errors.Join(
		os.WriteFile(filepath.Join(dir, SourcesFile), []byte(c.configuration(secretsAt)), 0o644),
		os.WriteFile(filepath.Join(dir, TablesFile), []byte(Tables), 0o644),
		folder.Write(dir, castFile, castTag{hex.EncodeToString(tag)}),
	)
}

// castTag is what a cast's sources have in their names.
type castTag struct {
	Tag string `json:"tag"`
}

// LoadCast reads what MakeCast wrote.
func LoadCast(dir string) (*Cast, error) {
	var t castTag
	if err := folder.Read(dir, castFile, &t); err != nil {
		return nil, err
	}
	c, err := newCast(filepath.Join(dir, secretsIn), t.Tag)
	if err != nil {
		return nil, err
	}
	for _, s := range c.sources {
		for slot := range s.slots {
			text, err := os.ReadFile(c.file(s, slot))
			if err != nil {
				return nil, err
			}
			s.slots[slot] = strings.TrimSpace(string(text))
			c.known = append(c.known, s.slots[slot])
		}
	}
	return c, nil
}

// newCast has no secrets yet.
func newCast(dir, tag string) (*Cast, error) {
	c := &Cast{dir: dir, sources: []*source{
		{name: "stripe", body: "body", stamped: true},
		{name: "github", body: "body"},
		{name: "shopify", body: "body"},
		{name: "standard-webhooks", body: "body", stamped: true},
		{name: "hmac", body: "body", stamped: true, hmac: partnerHMAC, extra: []string{
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
		{name: "meta", body: "body.value", several: true},
	}}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if tag != "" {
		tag += "-"
	}
	for _, s := range c.sources {
		preset, ok := provider.ByName(s.name)
		if !ok {
			return nil, fmt.Errorf("source %s: there is no such provider", s.name)
		}
		s.preset, s.name = preset, "prove-"+tag+s.name
	}
	return c, nil
}

func (c *Cast) newSecrets(s *source, r *rand.Rand) error {
	for slot := range s.slots {
		if err := c.put(s, slot, newSecret(s.preset.Name, r)); err != nil {
			return err
		}
	}
	return nil
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

func (c *Cast) file(s *source, slot int) string { return s.file(c.dir, slot) }

func (s *source) file(dir string, slot int) string {
	return filepath.Join(dir, fmt.Sprintf("%s.%d", s.name, slot))
}

// secret is what signs now.
func (s *source) secret() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.slots[s.using]
}

// Configuration is the text of catchment.yaml's sections sources and operations, which stands in for nothing else there.
func (c *Cast) Configuration() string { return c.configuration(c.dir) }

func (c *Cast) configuration(secretsAt string) string {
	var b strings.Builder
	b.WriteString("sources:\n")
	for _, s := range c.sources {
		fmt.Fprintf(&b, "  %s:\n    provider: %s\n    secrets: [{file: %q}, {file: %q}]\n", s.name, s.preset.Name, s.file(secretsAt, 0), s.file(secretsAt, 1))
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
func (c *Cast) Describe(run *folder.Run, seed uint64) {
	run.Seed, run.Canary = seed, canary(seed)
	for _, s := range c.sources {
		if s.several {
			run.Split = append(run.Split, s.name)
		}
	}
}

func canary(seed uint64) string { return fmt.Sprintf("canary%016x", seed*0x9e3779b97f4a7c15+1) }
