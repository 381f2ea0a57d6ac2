package provider

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/crc32"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

var paypal = &Provider{
	Name:            "paypal",
	SecurityHeaders: []string{"Paypal-Auth-Algo", "Paypal-Cert-Url", "Paypal-Transmission-Id", "Paypal-Transmission-Sig", "Paypal-Transmission-Time"},
	Authenticity:    AuthPartial,
	options:         []string{"webhook_id"},
	credentials:     newPayPalCertificate,
	open:            openPayPal,
	sign:            signPayPal,
	sample:          samplePayPal,
	Doc: Doc{
		Title:     "PayPal",
		URL:       "https://developer.paypal.com/api/rest/webhooks/rest/",
		Signature: "`PAYPAL-TRANSMISSION-SIG` (base64), with `-ID`, `-TIME`, `PAYPAL-CERT-URL` and `PAYPAL-AUTH-ALGO: SHA256withRSA`",
		Signed:    "`<transmission ID>|<transmission time>|<webhook ID>|<CRC-32 of the body, decimal>`, RSA PKCS #1 v1.5 with SHA-256; the key is that of the certificate at the URL",
		ID:        "body `id` (`WH-…`), the same for every retry",
		Type:      "body `event_type`",
		Time:      "body `create_time`, RFC 3339",
		Retries:   "25 times over 3 days",
		Notes: []string{
			"`webhook_id` is the ID of the webhook in PayPal's developer portal; there are no `secrets`.",
			"The body is bound by its CRC-32 alone, which anybody can make fit: whoever saw one delivery can send another body, with another ID, under its signature. Treat a delivery as a hint, and before money moves ask PayPal's API for the event or its resource.",
			"The certificate is fetched from `https://api.paypal.com` or `https://api.sandbox.paypal.com` and from nowhere else. It must be valid when the request comes in, chain to a public authority, and carry a name that ends in `.paypal.com`. While it cannot be fetched, the answer is 503.",
			"The transmission time is signed, but it is not judged: PayPal does not say whether a retry has a new one.",
		},
		Unverified: []string{
			"That these two hosts are all that serve certificates, and that the URL serves the intermediate certificates as well.",
			"No order is guaranteed.",
		},
		Signer: "the private key of the certificate, in PEM",
		Config: "provider: paypal\noptions: {webhook_id: \"${PAYPAL_WEBHOOK_ID}\"}",
	},
}

// paypalHosts are what certificates are fetched from. PayPal's own library fetches any URL that the request names.
var paypalHosts = [...]string{"api.paypal.com", "api.sandbox.paypal.com"}

type paypalScheme struct {
	noHandshake
	source  string
	webhook string
	keys    Keys
	last    atomic.Pointer[paypalCertificate] // that with which a request was verified last
}

// paypalCertificate is a chain that was verified.
type paypalCertificate struct {
	name      string // its URL
	key       *rsa.PublicKey
	from, to  time.Time // when all of its certificates are valid
	fetchedAt time.Time
}

// paypalKeepFor is how long a certificate is not asked for again that has verified a request: others, with URLs that
// they make up, cannot use up what may be fetched for this one.
const paypalKeepFor = 24 * time.Hour

func openPayPal(o *opening) opened {
	o.keyless("the option webhook_id")
	s := &paypalScheme{source: o.Source, webhook: o.option("webhook_id"), keys: o.Keys}
	if s.webhook == "" || !visible(s.webhook) || strings.Contains(s.webhook, "|") {
		o.errorf("options.webhook_id", "expected the webhook's ID, such as 8PT597110X687430LKGECATA")
	}
	return opened{scheme: s}
}

// paypalHeaders are what the request says of its signature.
type paypalHeaders struct {
	id, time, name string // name is the certificate's URL as it stands
	url            *url.URL
	signature      []byte
}

// parsePayPal reads the headers. What is not signed with the one algorithm, or names a certificate of somebody else,
// is refused here: nothing is fetched for it.
func parsePayPal(h http.Header) (p paypalHeaders, err error) {
	p.id, p.time, p.name = get(h, "Paypal-Transmission-Id"), get(h, "Paypal-Transmission-Time"), get(h, "Paypal-Cert-Url")
	signature, algorithm := get(h, "Paypal-Transmission-Sig"), get(h, "Paypal-Auth-Algo")
	if p.id == "" || p.name == "" || signature == "" || algorithm == "" {
		return p, errUnsigned
	}
	if p.time == "" {
		return p, errNoStamp
	}
	if _, ok := rfc3339(p.time); !ok {
		return p, errStampForm
	}
	if algorithm != "SHA256withRSA" || !visible(p.id) || strings.Contains(p.id, "|") || !visible(signature) || len(signature) > 1024 {
		return p, errMalformed
	}
	if p.signature, err = decodeStrict(strictBase64, signature); err != nil {
		return p, errMalformed
	}
	p.url, err = paypalURL(p.name)
	return p, err
}

// paypalURL takes an address of PayPal's in the one way to write it.
func paypalURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || len(text) > 512 || u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.String() != text {
		return nil, errCertURL
	}
	if !slices.Contains(paypalHosts[:], u.Host) || !strings.HasPrefix(u.Path, "/") || strings.ContainsFunc(u.Path, notInCertPath) {
		return nil, errCertURL
	}
	return u, nil
}

// notInCertPath says whether PayPal's certificates have no such rune in their paths.
func notInCertPath(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._-", r))
}

func (s *paypalScheme) verify(ctx context.Context, r *Request) (proof, error) {
	h, err := parsePayPal(r.Header)
	if err != nil {
		return proof{}, err
	}
	c, err := s.certificate(ctx, &h, r.Now)
	if err != nil {
		return proof{}, err
	}
	digest := sha256.Sum256(paypalSigned(h.id, h.time, s.webhook, r.Body))
	if rsa.VerifyPKCS1v15(c.key, crypto.SHA256, digest[:], h.signature) != nil {
		return proof{}, errMismatch
	}
	s.last.Store(c)
	return proof{key: noKey}, nil
}

func paypalSigned(id, at, webhook string, body []byte) []byte {
	return []byte(id + "|" + at + "|" + webhook + "|" + strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10))
}

// certificate returns the certificate that the request names, if it is PayPal's at that time.
func (s *paypalScheme) certificate(ctx context.Context, h *paypalHeaders, now time.Time) (*paypalCertificate, error) {
	c := s.last.Load()
	if c == nil || c.name != h.name || now.Sub(c.fetchedAt).Abs() > paypalKeepFor {
		content, err := s.keys.Fetch(ctx, &Fetch{Name: h.name, Source: s.source, URL: h.url})
		if err != nil {
			return nil, errNoKey
		}
		if c, err = checkPayPal(content, s.keys.Roots(), now); err != nil {
			return nil, err
		}
		c.name, c.fetchedAt = h.name, now
	}
	if now.Before(c.from) || now.After(c.to) {
		return nil, errCertificate
	}
	return c, nil
}

// maxChain is how many certificates a chain may have.
const maxChain = 8

func checkPayPal(content []byte, roots *x509.CertPool, now time.Time) (*paypalCertificate, error) {
	chain, err := parseChain(content)
	if err != nil {
		return nil, errCertificate
	}
	leaf, others := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		others.AddCert(c)
	}
	key, ok := leaf.PublicKey.(*rsa.PublicKey)
	if !ok || key.N.BitLen() < 2048 || !paypalName(leaf) {
		return nil, errCertificate
	}
	chains, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: others, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return nil, errCertificate
	}
	c := &paypalCertificate{key: key, from: leaf.NotBefore, to: leaf.NotAfter}
	for _, one := range chains[0] {
		if one.NotBefore.After(c.from) {
			c.from = one.NotBefore
		}
		if one.NotAfter.Before(c.to) {
			c.to = one.NotAfter
		}
	}
	return c, nil
}

// paypalName says whether the certificate is made out to PayPal. The common name counts, as in PayPal's library.
func paypalName(c *x509.Certificate) bool {
	for _, name := range append([]string{c.Subject.CommonName}, c.DNSNames...) {
		if strings.HasSuffix(strings.ToLower(name), ".paypal.com") {
			return true
		}
	}
	return false
}

// parseChain reads certificates in PEM, the leaf first.
func parseChain(content []byte) ([]*x509.Certificate, error) {
	var chain []*x509.Certificate
	for len(chain) <= maxChain {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		chain = append(chain, c)
	}
	if len(chain) == 0 || len(chain) > maxChain {
		return nil, errors.New("no certificates, or too many")
	}
	return chain, nil
}

var paypalFields = newFields("id", "event_type", "create_time")

func (s *paypalScheme) identify(r *Request) (Identity, error) {
	var v [3]value
	if err := paypalFields.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	return Identity{ID: v[0].text(), Type: v[1].str(), Time: v[2].isoTime()}, nil
}

// signPayPal takes the transmission's ID and time from the sample, and the private key in PEM as the secret.
func signPayPal(in *SignInput) (Signed, error) {
	block, _ := pem.Decode([]byte(in.Secret))
	if block == nil {
		return Signed{}, errors.New("expected a private key in PEM")
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return Signed{}, fmt.Errorf("expected a private key: %w", err)
	}
	key, ok := private.(*rsa.PrivateKey)
	webhook, _ := in.Options["webhook_id"].(string)
	if !ok || webhook == "" {
		return Signed{}, errors.New("expected an RSA key, and the option webhook_id")
	}
	h := signedHeaders(in)
	setDefault(h, "Paypal-Transmission-Id", "b2f5a6c0-1b7e-11ef-8a3c-5d0c7c4a0f11")
	setDefault(h, "Paypal-Transmission-Time", in.Now.UTC().Format(time.RFC3339))
	setDefault(h, "Paypal-Cert-Url", paypalCertURL)
	h.Set("Paypal-Auth-Algo", "SHA256withRSA")
	digest := sha256.Sum256(paypalSigned(h.Get("Paypal-Transmission-Id"), h.Get("Paypal-Transmission-Time"), webhook, in.Body))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
	if err != nil {
		return Signed{}, fmt.Errorf("sign: %w", err)
	}
	h.Set("Paypal-Transmission-Sig", base64.StdEncoding.EncodeToString(signature))
	return Signed{Header: h}, nil
}

func setDefault(h http.Header, name, value string) {
	if h.Get(name) == "" {
		h.Set(name, value)
	}
}

const paypalCertURL = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-1d93a270"

// newPayPalCertificate makes an authority of our own and a certificate of PayPal's form. They are valid from 2000 to
// 2099, for tests choose their own time.
func newPayPalCertificate() Credentials {
	from, to := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Catchment test authority"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "messageverificationcerts.paypal.com"}, NotBefore: from, NotAfter: to,
		DNSNames: []string{"messageverificationcerts.paypal.com"}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	must(err)
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
	must(err)
	rootCert, err := x509.ParseCertificate(rootDER)
	must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	keys := &OfflineKeys{Pool: x509.NewCertPool(), Content: map[string][]byte{paypalCertURL: encodePEM("CERTIFICATE", leafDER)}}
	keys.Pool.AddCert(rootCert)
	return Credentials{
		Options: map[string]any{"webhook_id": strings.ToUpper(hex.EncodeToString(randomBytes(9)))[:17]},
		Signer:  string(encodePEM("PRIVATE KEY", private)), Keys: keys,
	}
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// must is for making credentials, which fails only where there is no randomness.
func must(err error) {
	if err != nil {
		panic(err) //nolint:forbidigo // there is no randomness
	}
}
