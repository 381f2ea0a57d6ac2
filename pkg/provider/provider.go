// Package provider decides whether a request really comes from whom it claims. It reads bytes and headers and
// returns what was verified, or a refusal. It never writes, never logs a body, and knows nothing of Kafka.
package provider

//go:generate go test . -run TestReference -update

import (
	"crypto/x509"
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
	Doc        Doc           // what docs/providers.md says of it
	AckTimeout time.Duration // how long the ingress may wait for Kafka; 0: the default of 4 s
	Methods    []string      // request methods of deliveries; nil: POST

	// HandshakeMethods are those with which the provider probes an endpoint, besides Methods.
	HandshakeMethods []string
	// SecretHeaders hold a secret themselves and are stored redacted (canonical names).
	SecretHeaders []string
	// SecurityHeaders take part in the decision: more than one value of any is refused with 400 (canonical names).
	SecurityHeaders []string
	// IDUnsigned says that the event ID stands where the signature does not cover it.
	IDUnsigned bool
	// Authenticity says how much a verified request proves.
	Authenticity Authenticity
	// SecretLater says that a source may begin without a secret, because the provider brings it in a handshake.
	SecretLater bool
	// Volatile names body members (paths with dots) that the provider changes between retries of one event.
	Volatile []string

	// digestIDs says that the secrets are no tokens themselves: their digests may be shown.
	digestIDs bool
	// options are the keys of Config.Options that the preset knows besides tolerance and public_url.
	options []string
	// credentials makes what a source and its sender need, in the form in which the provider shows its own.
	credentials func() Credentials
	open        func(o *opening) opened
	sign        func(in *SignInput) (Signed, error)
	sample      func(r *rand.Rand, in SampleInput) Sample
	// split takes a delivery apart that carries several events; nil: a delivery is one event. It looks at the
	// request's headers and body alone.
	split func(r *Request) ([]Part, error)
}

// Authenticity is how much a verified request proves.
type Authenticity string

// The kinds of Authenticity.
const (
	AuthSigned     Authenticity = ""           // a signature covers the whole body
	AuthPartial    Authenticity = "partial"    // a signature covers a part of the body, or a weak digest of it
	AuthToken      Authenticity = "token"      // a shared value is compared, and nothing covers the body
	AuthConnection Authenticity = "connection" // the connection is authenticated, and nothing stays that could be checked later
	AuthNone       Authenticity = "none"       // nothing is checked
)

// Doc is what docs/providers.md says of a preset. Texts are Markdown without line breaks; empty ones are left out.
type Doc struct {
	Title     string // the provider's name
	URL       string // its page on signatures
	Signature string // headers (or members) and form of the signature
	Signed    string // the signed text, algorithm and key
	Tolerance string
	ID        string // which event ID, and whether a retry keeps it
	Type      string
	Time      string
	Batch     string // what a delivery with several events looks like
	Handshake string
	Retries   string   // when the provider sends again, and how long it waits for an answer
	Notes     []string // oddities, and what we do about them
	// Unverified are facts that no official page or code confirmed.
	Unverified []string
	// Config is an example, the lines below the source's name.
	Config string
	// Signer is what `catchment send --secret` takes, where neither a secret of the source nor an option signs.
	Signer string
}

// All is the table of presets, sorted by name.
var All = []*Provider{
	adyen,
	apiKey,
	asana,
	auth0,
	basic,
	bearer,
	bitbucket,
	box,
	braintree,
	calendly,
	cloudevents,
	coinbaseCommerce,
	datadog,
	discord,
	docusign,
	dropbox,
	gitea,
	github,
	gitlab,
	gitlabSigned,
	hmacAny,
	hubspot,
	intercom,
	jira,
	jwt,
	linear,
	mailgun,
	meta,
	mollie,
	msgraph,
	mtls,
	none,
	okta,
	paddle,
	pagerduty,
	paypal,
	plaid,
	razorpay,
	rfc9421,
	sendgrid,
	sentry,
	shopify,
	slack,
	sns,
	square,
	standardWebhooks,
	stripe,
	svix,
	telegram,
	trello,
	twilio,
	typeform,
	vercel,
	woocommerce,
	xDotCom,
	xero,
	zendesk,
	zoom,
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

// Sign makes the request with which the provider would send in.Body: the headers of in.Sample, its ID and type where
// the scheme has headers for them, and the signature; for schemes that sign inside the body or the URL, those as
// well. It fails when the secret has not the provider's form.
func (p *Provider) Sign(in *SignInput) (Signed, error) {
	if p.sign == nil {
		return Signed{}, errNoSign
	}
	if in.Secret == "" && p.Authenticity != AuthNone && p.Authenticity != AuthConnection {
		return Signed{}, errEmptySecret
	}
	c := *in
	if c.Method == "" {
		c.Method = http.MethodPost
	}
	s, err := p.sign(&c)
	if err != nil {
		return Signed{}, err
	}
	if s.Method == "" {
		s.Method = c.Method
	}
	if s.URL == "" {
		s.URL = c.URL
	}
	if s.Body == nil {
		s.Body = c.Body
	}
	return s, nil
}

// Sample makes one realistic event. The same state of r and the same input make the same event, and another
// in.Seq makes another ID even then.
func (p *Provider) Sample(r *rand.Rand, in SampleInput) Sample { return p.sample(r, in) }

// NewCredentials makes random credentials in the provider's own form, for development and tests.
func (p *Provider) NewCredentials() Credentials {
	c := p.credentials()
	if c.Signer == "" {
		c.Signer = c.Secret
	}
	return c
}

// NeedsSecretID says that a source's secrets are passwords or tokens, of which not even a digest may be shown: each
// needs an ID of its own.
func (p *Provider) NeedsSecretID() bool { return p.Authenticity == AuthToken && !p.digestIDs }

// Splits says whether a delivery may carry several events.
func (p *Provider) Splits() bool { return p.split != nil }

// Credentials are what a source is configured with, and what signs for it.
type Credentials struct {
	Secret  string         // an entry of Config.Secrets; empty: the preset takes none
	Options map[string]any // Config.Options
	Signer  string         // SignInput.Secret: another than Secret where the scheme has key pairs
	Keys    *OfflineKeys   // Config.Keys for schemes that fetch keys; nil: it fetches none
}

// secretOnly makes credentials of nothing but a secret.
func secretOnly(newSecret func() string) func() Credentials {
	return func() Credentials { return Credentials{Secret: newSecret()} }
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
	Dir       string         // where relative paths in Options start
	Keys      Keys           // where keys and certificates come from that a scheme must fetch; nil: the network
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
	Host     string // the header Host, which Go's server keeps apart from the others; may be empty
	Header   http.Header
	Body     []byte
	Now      time.Time
	// Peer is the client's certificate chain, leaf first, when the connection to us is TLS with one.
	Peer []*x509.Certificate
	// FromProxy says that the request came through a proxy of ingress.trusted_proxies.
	FromProxy bool
}

// Identity is what an event is called.
type Identity struct {
	ID   string // empty: the delivery names none
	Type string
	Time time.Time
}

// Verified is an accepted request.
type Verified struct {
	Identity        // of a delivery with several events: its key, and the type that all of them have
	Parts    []Part // the events of a delivery that may carry several, in order; nil: it is one event itself
	SecretID string // empty for schemes without a secret
	// IDUnsigned says that the ID stands where the signature does not cover it: whoever saw one delivery can send
	// it again under another ID.
	IDUnsigned bool
	IDMissing  bool      // the delivery names no event: the ID is a digest
	SignedURL  string    // for schemes that sign it
	Handshake  *Response // not nil: answer this and enqueue nothing
	Answer     *Response // not nil: what the provider demands as the answer once the delivery is safe
}

// Part is one event of a delivery that may carry several.
type Part struct {
	Identity        // an empty ID stands for the delivery's key, a slash, and the part's index
	Body     []byte // the element's exact bytes, inside the delivery's body
}

// Response is an answer that a provider demands word for word.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Refusal says why a request was not accepted. Reason is for our log and never for the sender.
type Refusal struct {
	Status int    // 400, 401, 403, 405, or 503 when a key could not be fetched
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

// SignInput is what Sign needs to make a genuine request.
type SignInput struct {
	Secret  string // Credentials.Signer
	Options map[string]any
	Method  string // empty: POST
	URL     string
	Body    []byte
	Now     time.Time
	Sample  Sample // ID and type, for schemes that carry them in headers
	HMAC    *HMAC
}

// Signed is a genuine request. An empty Method or URL, or a nil Body, is that of the SignInput.
type Signed struct {
	Method, URL string
	Header      http.Header
	Body        []byte
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
