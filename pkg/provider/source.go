package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// scheme is an opened preset: the provider's rules with one source's keys and options in place. None of its
// methods keeps or changes the request.
type scheme interface {
	// verify checks the request's raw bytes. Only schemes that fetch keys may block, and only as long as ctx lives.
	verify(ctx context.Context, r *Request) (proof, error)
	// handshake answers a verified request that carries no event; nil: it carries one.
	handshake(r *Request) (*Response, error)
	// identify names the event of a verified request.
	identify(r *Request) (Identity, error)
}

// proof is what verify found out.
type proof struct {
	key       int    // index of the secret that fits; noKey for a scheme without secrets
	signedURL string // the URL that the signature covers
}

const noKey = -1

// opened is what opening a preset yields.
type opened struct {
	scheme
	security   []string // security headers that come from the configuration (canonical names)
	secret     []string // likewise headers that hold a secret
	query      []string // query parameters that hold a secret
	idUnsigned bool
	unchecked  bool // the source takes what anybody can send, although its provider could sign
}

// greeter is a scheme whose handshake comes without a signature: it is asked first. A nil answer means that the
// request is no handshake.
type greeter interface {
	greet(r *Request) (*Response, error)
}

// answerer is a scheme whose provider wants an answer of its own to a delivery.
type answerer interface {
	answer(r *Request) *Response
}

// idJudge is a scheme with which it depends on the request whether the signature covers the ID.
type idJudge interface {
	idUnsigned(r *Request) bool
}

// noHandshake is embedded by schemes whose requests all carry events.
type noHandshake struct{}

func (noHandshake) handshake(*Request) (*Response, error) { return nil, nil }

// Source is a preset opened with one source's configuration. It is safe for concurrent use.
type Source struct {
	provider *Provider
	keys     []key
	rules    opened
	security []string
	naming   naming
}

// New opens a source. The error joins a *ConfigError for each wrong key.
func New(cfg Config) (*Source, error) {
	p, ok := ByName(cfg.Provider)
	if !ok {
		return nil, &ConfigError{Key: "provider", Err: fmt.Errorf("unknown provider %q: expected one of %s", cfg.Provider, Names())}
	}
	if cfg.Keys == nil {
		cfg.Keys = networkKeys()
	}
	o := newOpening(p, cfg)
	s := &Source{provider: p, keys: o.keys}
	o.url = o.publicURL()
	s.rules = p.open(o)
	s.naming = o.naming()
	o.unused()
	if len(o.errs) > 0 {
		return nil, errors.Join(o.errs...)
	}
	s.security = slices.Concat(p.SecurityHeaders, s.rules.security, s.naming.headers)
	return s, nil
}

// Provider is the preset that the source was opened with.
func (s *Source) Provider() *Provider { return s.provider }

// Authenticity says how much a request proves that this source accepts.
func (s *Source) Authenticity() Authenticity {
	if s.rules.unchecked {
		return AuthNone
	}
	return s.provider.Authenticity
}

// SecretHeaders are the headers that hold a secret with this source (canonical names).
func (s *Source) SecretHeaders() []string {
	return slices.Concat(s.provider.SecretHeaders, s.rules.secret)
}

// SecretParameters are the query parameters that hold a secret with this source.
func (s *Source) SecretParameters() []string { return s.rules.query }

// SecretIDs are the IDs of the source's secrets, in their order.
func (s *Source) SecretIDs() []string {
	ids := make([]string, len(s.keys))
	for i := range s.keys {
		ids[i] = s.keys[i].id
	}
	return ids
}

// SecretsEnd says until when each of the source's secrets counts, by their IDs; zero: for ever.
func (s *Source) SecretsEnd() map[string]time.Time {
	ends := map[string]time.Time{}
	for i := range s.keys {
		ends[s.keys[i].id] = s.keys[i].notAfter
	}
	return ends
}

// Receive decides on one request. The error is a *Refusal. It neither changes nor keeps the request. It blocks only
// for schemes that fetch keys, and only as long as ctx lives.
func (s *Source) Receive(ctx context.Context, r *Request) (Verified, error) {
	if !s.provider.Accepts(r.Method) {
		return Verified{}, errMethod
	}
	if err := s.checkHeaders(r.Header); err != nil {
		return Verified{}, err
	}
	if g, ok := s.rules.scheme.(greeter); ok {
		if answer, err := g.greet(r); answer != nil || err != nil {
			return Verified{Handshake: answer}, err
		}
	}
	if !s.provider.delivers(r.Method) {
		return Verified{}, errMethod
	}
	p, err := s.rules.verify(ctx, r)
	if err != nil {
		return Verified{}, err
	}
	v := Verified{SignedURL: p.signedURL, IDUnsigned: s.provider.IDUnsigned || s.rules.idUnsigned}
	if j, ok := s.rules.scheme.(idJudge); ok {
		v.IDUnsigned = j.idUnsigned(r)
	}
	if p.key != noKey {
		v.SecretID = s.keys[p.key].id
	}
	if v.Handshake, err = s.rules.handshake(r); err != nil {
		return Verified{}, err
	}
	if v.Handshake != nil {
		return v, nil
	}
	if err := s.identify(r, &v); err != nil { //nolint:contextcheck // expressions are bounded by their cost
		return Verified{}, err
	}
	if a, ok := s.rules.scheme.(answerer); ok {
		v.Answer = a.answer(r)
	}
	return v, nil
}

// checkHeaders refuses a security header that is there twice, also in the writing with underscores, which some
// proxies and frameworks take for the same name.
func (s *Source) checkHeaders(h http.Header) error {
	for _, name := range s.security {
		if len(h[name]) > 1 {
			return errRepeatedHeader
		}
	}
	for name := range h {
		if strings.IndexByte(name, '_') < 0 {
			continue
		}
		if twin := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-")); slices.Contains(s.security, twin) {
			return errTwinHeader
		}
	}
	return nil
}

// identify fills in what the events are called: by the preset's rule, then by the source's own expressions.
func (s *Source) identify(r *Request, v *Verified) error {
	var err error
	if v.Identity, err = s.rules.identify(r); err != nil {
		return err
	}
	if s.provider.split != nil {
		if v.Parts, err = s.provider.split(r); err != nil {
			return err
		}
	}
	if v.Parts == nil {
		unsigned, err := s.naming.apply(r, &v.Identity)
		if err != nil {
			return err
		}
		if unsigned != nil {
			v.IDUnsigned = *unsigned
		}
	}
	if v.ID, err = cleanID(v.ID); err != nil {
		return err
	}
	if err := checkType(v.Type); err != nil {
		return err
	}
	if v.ID == "" {
		v.IDMissing, v.ID = true, digestID(s.naming.source, r.Body, v.Parts != nil)
	}
	if v.Parts == nil {
		return nil
	}
	named, err := s.naming.parts(r, v.ID, v.Parts)
	if err != nil {
		return err
	}
	v.IDMissing = v.IDMissing && !named
	v.Type = commonType(v.Parts)
	return nil
}

// delivers says whether deliveries come with this method.
func (p *Provider) delivers(method string) bool {
	if p.Methods == nil {
		return method == http.MethodPost
	}
	return slices.Contains(p.Methods, method)
}

// get returns a header that Receive has found at most once; name is canonical.
func get(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// mediaType is the request's content type in lower case, without parameters.
func mediaType(h http.Header) string {
	t, _, _ := strings.Cut(get(h, "Content-Type"), ";")
	return strings.ToLower(strings.TrimSpace(t))
}
