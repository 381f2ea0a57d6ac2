// Package provider decides whether a request really comes from whom it claims. It reads bytes and headers and
// returns what was verified, or a refusal. It never writes, never logs a body, and knows nothing of Kafka.
package provider

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Provider is one scheme: a row of All. Its functions are pure; what they need besides the request is in the
// Source that New made.
type Provider struct {
	Name       string
	Docs       string        // the provider's page on its signatures
	AckTimeout time.Duration // how long the ingress may wait for Kafka; 0: the default of 4 s
	Methods    []string      // accepted request methods; nil: POST

	// SecretHeaders hold a secret themselves and are stored redacted (canonical names).
	SecretHeaders []string
	// SecurityHeaders take part in the decision: more than one value of any is refused with 400 (canonical names).
	SecurityHeaders []string
	// IDUnsigned says that the event ID stands where the signature does not cover it.
	IDUnsigned bool

	// options are the keys of Config.Options that the preset knows besides tolerance and public_url.
	options []string
	// newSecret makes a secret in the form in which the provider shows its own.
	newSecret func() string
	open      func(o *opening) opened
	sign      func(in *SignInput) (http.Header, error)
	sample    func(r *rand.Rand, in SampleInput) Sample
}

// All is the table of presets, sorted by name.
var All = []*Provider{
	github,
	hmacAny,
	shopify,
	slack,
	standardWebhooks,
	stripe,
	svix,
}

// ByName finds a preset.
func ByName(name string) (*Provider, bool) {
	i, ok := slices.BinarySearchFunc(All, name, func(p *Provider, name string) int { return strings.Compare(p.Name, name) })
	if !ok {
		return nil, false
	}
	return All[i], true
}

// Names lists the presets, separated by a comma and a space.
func Names() string {
	names := make([]string, len(All))
	for i, p := range All {
		names[i] = p.Name
	}
	return strings.Join(names, ", ")
}

// Sign makes the headers with which the provider would send in.Body: those of in.Sample, its ID and type where the
// scheme has headers for them, and the signature. It fails when the secret has not the provider's form.
func (p *Provider) Sign(in *SignInput) (http.Header, error) {
	if p.sign == nil {
		return nil, errNoSign
	}
	if in.Secret == "" {
		return nil, errEmptySecret
	}
	return p.sign(in)
}

// Sample makes one realistic event. The same state of r and the same input make the same event, and another
// in.Seq makes another ID even then.
func (p *Provider) Sample(r *rand.Rand, in SampleInput) Sample { return p.sample(r, in) }

// NewSecret makes a random secret in the provider's own form, for development.
func (p *Provider) NewSecret() string { return p.newSecret() }

// Config is what one source says of its scheme.
type Config struct {
	Source    string         // the source's name, for expressions
	Provider  string         // a name of All
	Secrets   []Secret       // in the provider's own text form
	Options   map[string]any // what a preset needs besides
	HMAC      *HMAC          // for provider hmac
	EventID   string         // CEL; empty: the preset's rule
	EventType string         // CEL; empty: the preset's rule
	PublicURL string         // what the provider calls us, for schemes that sign the URL
	Tolerance *time.Duration // nil: the preset's; negative: off
}

// Secret is one of a source's secrets. An empty ID becomes k_ and 12 hex digits of the text's SHA-256.
type Secret struct {
	ID        string
	Text      string
	NotBefore time.Time // zero: no bound
	NotAfter  time.Time // zero: no bound
}

// HMAC describes any HMAC scheme as data.
type HMAC struct {
	Header          string        `yaml:"header" doc:"header that carries the signature" required:"true"`
	Algorithm       string        `yaml:"algorithm" default:"sha256" enum:"sha1,sha256,sha384,sha512" doc:"hash"`
	Encoding        string        `yaml:"encoding" default:"hex" enum:"hex,base64,base64url" doc:"encoding of the signature"`
	Prefix          string        `yaml:"prefix" doc:"text before the signature, such as sha256="`
	Separator       string        `yaml:"separator" doc:"text between several signatures in the header; empty: one signature"`
	Signed          string        `yaml:"signed" default:"{body}" doc:"signed text: {body} {timestamp} {id} {url} {method} {path} {query} {header:Name}"`
	TimestampHeader string        `yaml:"timestamp_header" doc:"header with the time of signing (Unix seconds or milliseconds, or RFC 3339)"`
	IDHeader        string        `yaml:"id_header" doc:"header with the event ID"`
	TypeHeader      string        `yaml:"type_header" doc:"header with the event type"`
	SecretEncoding  string        `yaml:"secret_encoding" default:"text" enum:"text,hex,base64" doc:"how the secret's text becomes the key"`
	Tolerance       time.Duration `yaml:"tolerance" default:"5m" doc:"how far the timestamp may lie from now, both ways"`
}

// Request is what a scheme may look at.
type Request struct {
	Method   string
	Path     string // still escaped
	RawQuery string
	Header   http.Header
	Body     []byte
	Now      time.Time
}

// Identity is what an event is called.
type Identity struct {
	ID   string // empty: the delivery names none
	Type string
	Time time.Time
}

// Verified is an accepted request.
type Verified struct {
	Identity
	SecretID string // empty for schemes without a secret
	// IDUnsigned says that the ID stands where the signature does not cover it: whoever saw one delivery can send
	// it again under another ID.
	IDUnsigned bool
	SignedURL  string    // for schemes that sign it
	Handshake  *Response // not nil: answer this and enqueue nothing
}

// Response is an answer that a provider demands word for word.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Refusal says why a request was not accepted. Reason is for our log and never for the sender.
type Refusal struct {
	Status int    // 400, 401 or 405
	Reason string // a short constant text, such as "signature mismatch"
}

// Error returns the reason.
func (r *Refusal) Error() string { return r.Reason }

// ConfigError says which key of a source's configuration is wrong.
type ConfigError struct {
	Key string // path below the source, such as "secrets[0]", "hmac.signed" or "event_id"
	Err error
}

// Error returns key and cause.
func (e *ConfigError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// SignInput is what Sign needs to make the headers of a genuine request.
type SignInput struct {
	Secret string
	Method string
	URL    string
	Body   []byte
	Now    time.Time
	Sample Sample // ID and type, for schemes that carry them in headers
	HMAC   *HMAC
}

// SampleInput is what a realistic event is made from.
type SampleInput struct {
	Seq int       // number of the event in its run
	Now time.Time // when it happens
	Run uint32    // goes into the names of business objects (orders), which several events of a run share
}

// Sample is one realistic event: a body of 1 to 3 KiB and the headers that go with it, but for the signature.
type Sample struct {
	ID, Type string
	Header   http.Header
	Body     []byte
}

var (
	errNoSign      = errors.New("this provider's requests cannot be signed here")
	errEmptySecret = errors.New("the secret is empty")
	errNeedsID     = errors.New("this scheme signs the event ID: the sample has none")
)
