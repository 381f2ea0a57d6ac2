// Package provider decides whether a request really comes from whom it claims. It reads bytes and headers and
// returns what was verified, or a refusal. It never writes, never logs a body, and knows nothing of Kafka.
package provider

import (
	"errors"
	"math/rand/v2"
	"net/http"
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

	open   func(cfg Config) (scheme, error)
	sign   func(s *SignInput) http.Header
	sample func(r *rand.Rand, in SampleInput) Sample
}

// scheme is an opened preset: the provider's rules with one source's keys and options in place.
type scheme interface {
	// verify checks the request's raw bytes and returns the index of the secret that fits.
	verify(r *Request) (keyIndex int, err error)
	// identify names the event of a verified request.
	identify(r *Request) (Identity, error)
	// handshake answers a verified request that carries no event; nil: it carries one.
	handshake(r *Request) *Response
}

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
	Header          string `yaml:"header" doc:"header that carries the signature" required:"true"`
	Algorithm       string `yaml:"algorithm" default:"sha256" enum:"sha1,sha256,sha384,sha512" doc:"hash"`
	Encoding        string `yaml:"encoding" default:"hex" enum:"hex,base64,base64url" doc:"encoding of the signature"`
	Prefix          string `yaml:"prefix" doc:"text before the signature, such as sha256="`
	Separator       string `yaml:"separator" doc:"text between several signatures in the header; empty: one signature"`
	Signed          string `yaml:"signed" default:"{body}" doc:"signed text: {body} {timestamp} {id} {url} {method} {path} {query} {header:Name}"`
	TimestampHeader string `yaml:"timestamp_header" doc:"header with the time of signing (Unix seconds or milliseconds, or RFC 3339)"`
	IDHeader        string `yaml:"id_header" doc:"header with the event ID"`
	TypeHeader      string `yaml:"type_header" doc:"header with the event type"`
	SecretEncoding  string `yaml:"secret_encoding" default:"text" enum:"text,hex,base64" doc:"how the secret's text becomes the key"`
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
	SecretID  string    // empty for schemes without a secret
	SignedURL string    // for schemes that sign it
	Handshake *Response // not nil: answer this and enqueue nothing
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
}

// Sample is one realistic event: a body of 1 to 3 KiB and the headers that go with it, but for the signature.
type Sample struct {
	ID, Type string
	Header   http.Header
	Body     []byte
}

var errNoSign = errors.New("this provider's requests cannot be signed here")
