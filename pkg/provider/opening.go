package provider

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"time"
)

// opening is one source's configuration while its preset is being opened; it collects what is wrong with it.
type opening struct {
	Config
	provider      *Provider
	keys          []key
	url           *publicURL // nil: not configured
	errs          []error
	usesTolerance bool
}

// key is what all schemes know of a secret.
type key struct {
	id        string
	notBefore time.Time
	notAfter  time.Time
}

// validAt says whether the key counts at t: from notBefore on, and before notAfter.
func (k *key) validAt(t time.Time) bool {
	return !t.Before(k.notBefore) && (k.notAfter.IsZero() || t.Before(k.notAfter))
}

func newOpening(p *Provider, cfg Config) *opening {
	o := &opening{Config: cfg, provider: p}
	for name := range cfg.Options {
		if known := append([]string{"public_url", "tolerance"}, p.options...); !slices.Contains(known, name) {
			slices.Sort(known)
			o.errorf("options."+name, "unknown option: %s knows %s", p.Name, strings.Join(known, ", "))
		}
	}
	if cfg.HMAC != nil && p.Name != "hmac" {
		o.errorf("hmac", "is for provider hmac only: provider %s has a scheme of its own", p.Name)
	}
	seen := map[string]int{}
	for i, s := range cfg.Secrets {
		k := key{id: s.ID, notBefore: s.NotBefore, notAfter: s.NotAfter}
		if k.id == "" && p.NeedsSecretID() {
			o.errorf(fmt.Sprintf("secrets[%d]", i), "needs an id: the secrets of provider %s are passwords or tokens, which are not named by their digests: write {id: 2026-q4, value: …}", p.Name)
			k.id = fmt.Sprintf("secret-%d", i)
		}
		if k.id == "" {
			k.id = secretID(s.Text)
		}
		if first, ok := seen[k.id]; ok {
			o.errorf(fmt.Sprintf("secrets[%d]", i), "has the ID %s, which is that of secrets[%d]", k.id, first)
		}
		seen[k.id] = i
		if !k.notAfter.IsZero() && !k.notBefore.Before(k.notAfter) {
			o.errorf(fmt.Sprintf("secrets[%d]", i), "is never valid: not_after is not later than not_before")
		}
		o.keys = append(o.keys, k)
	}
	return o
}

// secretID names a secret that has no ID: the same text has the same ID wherever it is configured.
func secretID(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "k_" + hex.EncodeToString(sum[:6])
}

func (o *opening) errorf(key, format string, args ...any) {
	o.errs = append(o.errs, &ConfigError{Key: key, Err: fmt.Errorf(format, args...)})
}

func (o *opening) secretError(i int, err error) {
	o.errs = append(o.errs, &ConfigError{Key: fmt.Sprintf("secrets[%d]", i), Err: err})
}

// text is an option that is a string; fallback where it is not given.
func (o *opening) text(name, fallback string) string {
	option, ok := o.Options[name]
	if !ok {
		return fallback
	}
	text, ok := option.(string)
	if !ok || text == "" {
		o.errorf("options."+name, "expected a text")
	}
	return text
}

// macs makes the HMAC keys from the secrets; decode turns a secret's text into the key's bytes.
func (o *opening) macs(newHash func() hash.Hash, decode func(text string) ([]byte, error)) *macs {
	if len(o.Secrets) == 0 {
		o.errorf("secrets", "is empty: provider %s needs at least one secret", o.provider.Name)
	}
	m := &macs{size: newHash().Size()}
	for i, s := range o.Secrets {
		b, err := decodeSecret(s.Text, decode)
		if err != nil {
			o.secretError(i, err)
			continue
		}
		m.add(o.keys[i], i, newHash, b)
	}
	return m
}

// decodeSecret refuses what several official libraries take: the empty key, with which anybody can sign.
func decodeSecret(text string, decode func(string) ([]byte, error)) ([]byte, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errEmptySecret
	}
	for _, c := range text {
		if c < ' ' || c == 0x7f {
			return nil, errors.New("the secret contains a line break or another control character")
		}
	}
	b, err := decode(text)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, errEmptySecret
	}
	return b, nil
}

// plainSecret takes a secret's text as the key.
func plainSecret(text string) ([]byte, error) { return []byte(text), nil }

// option reads an option that is a text; "" when it is not there.
func (o *opening) option(name string) string {
	v, ok := o.Options[name]
	if !ok {
		return ""
	}
	text, ok := v.(string)
	if !ok || strings.TrimSpace(text) == "" {
		o.errorf("options."+name, "expected a text that is not empty")
	}
	return text
}

// flag reads an option that is true or false; false when it is not there.
func (o *opening) flag(name string) bool {
	v, ok := o.Options[name]
	if !ok {
		return false
	}
	on, ok := v.(bool)
	if !ok {
		o.errorf("options."+name, "expected true or false")
	}
	return on
}

// keyless reports secrets of a scheme that has none; instead says what it has.
func (o *opening) keyless(instead string) {
	if len(o.Secrets) > 0 {
		o.errorf("secrets", "have no effect: provider %s has %s instead", o.provider.Name, instead)
	}
}

// tolerance is how far a timestamp may lie from now: what the source says, else the preset's.
func (o *opening) tolerance(preset time.Duration) window {
	o.usesTolerance = true
	if o.Tolerance != nil {
		preset = *o.Tolerance
	}
	option, ok := o.Options["tolerance"]
	if !ok {
		return window(preset)
	}
	if o.Tolerance != nil {
		o.errorf("options.tolerance", "is given twice")
	}
	d, err := parseTolerance(option)
	if err != nil {
		o.errs = append(o.errs, &ConfigError{Key: "options.tolerance", Err: err})
	}
	return window(d)
}

var errTolerance = errors.New("expected a duration such as 5m, or off")

func parseTolerance(option any) (time.Duration, error) {
	switch v := option.(type) {
	case time.Duration:
		if v > 0 {
			return v, nil
		}
	case string:
		if v == "off" {
			return -1, nil
		}
		if d, err := time.ParseDuration(v); err == nil && d > 0 {
			return d, nil
		}
	case bool: // YAML 1.1 reads off as false
		if !v {
			return -1, nil
		}
	}
	return 0, errTolerance
}

// unused reports options that the opened scheme has no use for.
func (o *opening) unused() {
	if o.usesTolerance {
		return
	}
	const msg = "has no effect: this scheme signs no timestamp"
	if o.Tolerance != nil {
		o.errorf("tolerance", msg)
	}
	if option, ok := o.Options["tolerance"]; ok {
		if d, err := parseTolerance(option); err != nil || d > 0 { // off is what it is without a timestamp
			o.errorf("options.tolerance", msg)
		}
	}
}
