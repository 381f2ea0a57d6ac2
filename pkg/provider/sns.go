package provider

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // SignatureVersion 1, the default of a topic
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// sns signs named members of the body; the key is in a certificate that the body names.
var sns = &Provider{
	Name:         "sns",
	Authenticity: AuthPartial,
	options:      []string{"topic_arn"},
	credentials:  newSNSCredentials,
	open:         openSNS,
	sign:         signSNS,
	sample:       sampleSNS,
	Doc: Doc{
		Title:     "Amazon SNS",
		URL:       "https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html",
		Signature: "body `Signature` (base64), by the key of the certificate at `SigningCertURL`",
		Signed: "`Name\\nValue\\n` of the body's members `Message MessageId Subject Timestamp TopicArn Type` (`Subject` if there is one), of confirmations `Message MessageId SubscribeURL Timestamp Token TopicArn Type`; " +
			"RSA PKCS #1 v1.5 with SHA-1 (`SignatureVersion` 1, a topic's default) or SHA-256 (2). Other members (`UnsubscribeURL`, `MessageAttributes`) are not signed",
		ID:        "body `MessageId`, the same for every retry",
		Type:      "body `Type`: `Notification`, `SubscriptionConfirmation`, `UnsubscribeConfirmation`",
		Time:      "body `Timestamp`: when it was published",
		Handshake: "none that is answered: a confirmation is an event (see below)",
		Retries:   "for up to an hour and more, by the subscription's delivery policy; waits 15 s",
		Notes: []string{
			"`topic_arn` is a topic's ARN, or a list of them, and required: anybody with an AWS account can make SNS sign messages of a topic of their own.",
			"A `SubscriptionConfirmation` is verified and stored as an event of that type. Nothing ever visits its `SubscribeURL`: look it up (`catchment events list`) and confirm by hand, or let an operation tell you; an automatic visit would let whoever can send requests choose what the ingress calls.",
			"Raw message delivery (`x-amz-sns-rawdelivery: true`) is not signed, and refused: leave it off.",
			"The certificate's URL must be `https://sns.<region>.amazonaws.com/<name>.pem` (or `.com.cn`), without port or query. The certificate must be valid at the time, for `sns.amazonaws.com` or that host, and chain to the system's roots. One that comes without its intermediates, as a chain cannot be built from it, is taken on the strength of the connection that it came over; with roots given in a file of keys it is not.",
			"The body is JSON although its content type is `text/plain`.",
		},
		Unverified: []string{
			"How long SNS waits, and its default delivery policy.",
			"Whether the served file holds the intermediates of its certificate.",
			"AWS's JavaScript validator leaves `Token` out of the text of an `UnsubscribeConfirmation`, its documentation does not: either is accepted.",
		},
		Config: "provider: sns\noptions: {topic_arn: \"arn:aws:sns:eu-central-1:123456789012:orders\"}",
		Signer: "the RSA private key of the certificate, in PEM",
	},
}

type snsScheme struct {
	noHandshake
	source string
	topics []string
	keys   Keys
	last   atomic.Pointer[snsCertificate]
}

// snsCertificate is one that was found good; judging it anew for each message would cost more than the signature.
type snsCertificate struct {
	text        []byte
	host        string
	key         *rsa.PublicKey
	from, until time.Time
}

func openSNS(o *opening) opened {
	o.keyless("the option topic_arn")
	s := &snsScheme{source: o.Source, topics: o.list("topic_arn"), keys: o.Keys}
	if _, ok := o.Options["topic_arn"]; !ok {
		o.errorf("options.topic_arn", "is missing: anybody can make SNS sign messages of another topic")
	}
	for _, arn := range s.topics {
		if !strings.HasPrefix(arn, "arn:") {
			o.errorf("options.topic_arn", "%q is no topic: expected arn:aws:sns:<region>:<account>:<name>", arn)
		}
	}
	return opened{scheme: s}
}

// list is an option that is a text, or several of them.
func (o *opening) list(name string) []string {
	option, ok := o.Options[name]
	if !ok {
		return nil
	}
	var list []string
	switch v := option.(type) {
	case string:
		list = []string{v}
	case []string:
		list = v
	case []any:
		for _, one := range v {
			text, _ := one.(string)
			list = append(list, text)
		}
	}
	if len(list) == 0 || slices.ContainsFunc(list, func(s string) bool { return strings.TrimSpace(s) == "" }) {
		o.errorf("options."+name, "expected a text, or a list of them, none of them empty")
	}
	return list
}

// Places in snsFields, in the order of the signed text.
const (
	snsMessage = iota
	snsMessageID
	snsSubject
	snsSubscribeURL
	snsTimestamp
	snsToken
	snsTopicARN
	snsType
	snsVersion
	snsSignature
	snsCertURL
	snsCount
)

var (
	snsNames  = []string{"Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type", "SignatureVersion", "Signature", "SigningCertURL"}
	snsFields = newFields(snsNames...)

	snsNotification = []int{snsMessage, snsMessageID, snsSubject, snsTimestamp, snsTopicARN, snsType}
	snsConfirmation = []int{snsMessage, snsMessageID, snsSubscribeURL, snsTimestamp, snsToken, snsTopicARN, snsType}
	snsWithoutToken = []int{snsMessage, snsMessageID, snsSubscribeURL, snsTimestamp, snsTopicARN, snsType}

	snsCertForm = regexp.MustCompile(`^https://sns\.[a-z0-9-]{3,32}\.amazonaws\.com(\.cn)?/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}\.pem$`)
)

// snsTexts are the texts that a message of that type may have signed; nil: no such type.
func snsTexts(typ string) [][]int {
	switch typ {
	case "Notification":
		return [][]int{snsNotification}
	case "SubscriptionConfirmation":
		return [][]int{snsConfirmation}
	case "UnsubscribeConfirmation":
		return [][]int{snsConfirmation, snsWithoutToken}
	}
	return nil
}

// snsText is the signed text. All members but Subject must be there. A line break in any but Message would let who
// writes messages move the end of theirs into the members behind it.
func snsText(v []value, members []int) ([]byte, bool) {
	var b bytes.Buffer
	for _, m := range members {
		if m == snsSubject && (len(v[m]) == 0 || string(v[m]) == "null") {
			continue
		}
		if len(v[m]) == 0 || v[m][0] != '"' {
			return nil, false
		}
		text := v[m].str()
		if m != snsMessage && strings.ContainsAny(text, "\r\n") {
			return nil, false
		}
		b.WriteString(snsNames[m] + "\n" + text + "\n")
	}
	return b.Bytes(), true
}

func (s *snsScheme) verify(ctx context.Context, r *Request) (proof, error) {
	var v [snsCount]value
	if err := snsFields.read(r.Body, v[:]); err != nil {
		return proof{}, err
	}
	signature, certURL := v[snsSignature].str(), v[snsCertURL].str()
	if signature == "" || certURL == "" {
		return proof{}, errUnsigned
	}
	sent, err := decodeStrict(strictBase64, signature)
	texts := snsTexts(v[snsType].str())
	if err != nil || texts == nil || len(sent) > 1024 {
		return proof{}, errMalformed
	}
	if !slices.Contains(s.topics, v[snsTopicARN].str()) {
		return proof{}, errTopic
	}
	key, err := s.certificate(ctx, certURL, r.Now)
	if err != nil {
		return proof{}, err
	}
	for _, members := range texts {
		if text, ok := snsText(v[:], members); ok && snsFits(key, v[snsVersion].text(), text, sent) {
			return proof{key: noKey}, nil
		}
	}
	return proof{}, errMismatch
}

func snsFits(key *rsa.PublicKey, version string, text, signature []byte) bool {
	switch version {
	case "1":
		sum := sha1.Sum(text) //nolint:gosec // see above
		return rsa.VerifyPKCS1v15(key, crypto.SHA1, sum[:], signature) == nil
	case "2":
		sum := sha256.Sum256(text)
		return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil
	}
	return false
}

// certificate gets the key. Before the message is verified, its URL is anybody's claim: it is matched as a whole.
func (s *snsScheme) certificate(ctx context.Context, text string, now time.Time) (*rsa.PublicKey, error) {
	if !snsCertForm.MatchString(text) {
		return nil, errCertURL
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errCertURL
	}
	b, err := s.keys.Fetch(ctx, &Fetch{Name: text, Source: s.source, URL: u})
	if err != nil {
		return nil, errNoKey
	}
	last := s.last.Load()
	if last == nil || last.host != u.Host || !bytes.Equal(last.text, b) {
		if last, err = newSNSCertificate(b, u.Host, s.keys.Roots(), now); err != nil {
			return nil, errCertificate
		}
		s.last.Store(last)
	}
	if now.Before(last.from) || now.After(last.until) {
		return nil, errCertificate
	}
	return last.key, nil
}

var errNoCertificate = errors.New("not a certificate of SNS")

func newSNSCertificate(text []byte, host string, roots *x509.CertPool, now time.Time) (*snsCertificate, error) {
	chain, err := parseChain(text)
	if err != nil {
		return nil, err
	}
	leaf := chain[0]
	key, ok := leaf.PublicKey.(*rsa.PublicKey)
	if !ok || (!certifies(leaf, host) && !certifies(leaf, "sns.amazonaws.com") && !certifies(leaf, "sns.amazonaws.com.cn")) {
		return nil, errNoCertificate
	}
	c := &snsCertificate{text: text, host: host, key: key, from: leaf.NotBefore, until: leaf.NotAfter}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, inner := range chain[1:] {
		o.Intermediates.AddCert(inner)
	}
	chains, err := leaf.Verify(o)
	var unknown x509.UnknownAuthorityError
	switch {
	case err == nil:
		for _, one := range chains[0] {
			c.from, c.until = latest(c.from, one.NotBefore), earliest(c.until, one.NotAfter)
		}
	case roots == nil && len(chain) == 1 && errors.As(err, &unknown) && !bytes.Equal(leaf.RawIssuer, leaf.RawSubject):
		// A leaf alone, whose intermediate nobody has: it came from AWS's own host, over TLS.
	default:
		return nil, err
	}
	return c, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// certifies says whether the certificate is for that name. Old ones have it as their common name alone.
func certifies(c *x509.Certificate, host string) bool {
	return c.VerifyHostname(host) == nil || (len(c.DNSNames) == 0 && c.Subject.CommonName == host)
}

func (s *snsScheme) identify(r *Request) (Identity, error) {
	var v [snsCount]value
	err := snsFields.read(r.Body, v[:])
	return Identity{ID: v[snsMessageID].text(), Type: v[snsType].str(), Time: v[snsTimestamp].isoTime()}, err
}
