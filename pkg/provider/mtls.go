package provider

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mtls looks at the certificate of the client, which a proxy in front of us may have checked and passed on.
var mtls = &Provider{
	Name:         "mtls",
	Authenticity: AuthConnection,
	options:      []string{"ca_file", "ca", "names", "header"},
	credentials:  newMTLSCredentials,
	open:         openMTLS,
	sign:         signMTLS,
	sample:       sampleHMAC,
	Doc: Doc{
		Title:     "Client certificates (mutual TLS)",
		URL:       "https://www.rfc-editor.org/rfc/rfc9440",
		Signature: "the certificate of the TLS connection, or the one that a proxy of `ingress.trusted_proxies` passes on in option `header`",
		Signed:    "nothing that stays: the connection is authenticated",
		ID:        "none, unless `event_id` says where it stands",
		Notes: []string{
			"`ca_file` is a file with the authorities in PEM form (relative to the configuration's folder), or `ca` the PEM itself. The certificate must chain to them, be for client authentication, and be valid at the time.",
			"`names` are those that are let in, each as the subject's common name or as a DNS name, an e-mail address or a URI of the certificate; without it, whoever the authorities certify.",
			"`header` is read on requests of trusted proxies alone, in the forms of nginx (`$ssl_client_escaped_cert`: URL-encoded PEM; `X-Amzn-Mtls-Clientcert` too), Envoy (`X-Forwarded-Client-Cert`, one element) and RFC 9440 (`Client-Cert`). The proxy must remove the header from what clients send. Where it is set, the proxy's own certificate does not count.",
		},
		Config: "provider: mtls\noptions: {ca: \"${PARTNER_CA}\", names: [hooks.partner.example], header: Client-Cert}\nevent_id: body.id\nevent_type: body.kind",
		Signer: "base64 of the client certificate's DER form, which stands in the proxy's header",
	},
}

type mtlsScheme struct {
	noHandshake
	roots  *x509.CertPool
	names  []string
	header string
}

func openMTLS(o *opening) opened {
	o.keyless("authorities")
	s := &mtlsScheme{roots: o.authorities(), names: o.list("names"), header: o.headerOption("")}
	opened := opened{scheme: s}
	if s.header != "" {
		opened.security = []string{s.header}
	}
	return opened
}

// authorities reads the options ca_file and ca.
func (o *opening) authorities() *x509.CertPool {
	file, text, name := o.text("ca_file", ""), o.text("ca", ""), "options.ca"
	switch {
	case file != "" && text != "":
		o.errorf("options.ca", "stands beside ca_file")
	case file != "":
		name = "options.ca_file"
		if !filepath.IsAbs(file) {
			file = filepath.Join(o.Dir, file)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			o.errs = append(o.errs, &ConfigError{Key: name, Err: err})
			return nil
		}
		text = string(b)
	case text == "":
		o.errorf("options.ca_file", "is missing: a file with the certificates of those who certify the sender")
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(text)) {
		o.errorf(name, "has no certificate in PEM form")
	}
	return pool
}

func (s *mtlsScheme) verify(_ context.Context, r *Request) (proof, error) {
	chain := r.Peer
	if s.header != "" && r.FromProxy {
		text := get(r.Header, s.header)
		if text == "" {
			return proof{}, errNoClientCert
		}
		var ok bool
		if chain, ok = passedCertificates(text); !ok {
			return proof{}, errClientCertForm
		}
	}
	if len(chain) == 0 {
		return proof{}, errNoClientCert
	}
	o := x509.VerifyOptions{Roots: s.roots, Intermediates: x509.NewCertPool(), CurrentTime: r.Now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(o); err != nil || !s.allows(chain[0]) {
		return proof{}, errClientCert
	}
	return proof{key: noKey}, nil
}

func (s *mtlsScheme) allows(c *x509.Certificate) bool {
	if s.names == nil {
		return true
	}
	names := slices.Concat([]string{c.Subject.CommonName}, c.DNSNames, c.EmailAddresses)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return slices.ContainsFunc(names, func(n string) bool { return n != "" && slices.Contains(s.names, n) })
}

func (s *mtlsScheme) identify(*Request) (Identity, error) { return Identity{}, nil }

// passedCertificates reads what a proxy wrote, in one of the three forms.
func passedCertificates(header string) ([]*x509.Certificate, bool) {
	if der, ok := strings.CutPrefix(header, ":"); ok {
		der, ok = strings.CutSuffix(der, ":")
		b, err := decodeStrict(strictBase64, der)
		c, parseErr := x509.ParseCertificate(b)
		return []*x509.Certificate{c}, ok && err == nil && parseErr == nil
	}
	if i := strings.Index(header, `Cert="`); i >= 0 {
		text, rest, ok := strings.Cut(header[i+len(`Cert="`):], `"`)
		if !ok || strings.ContainsAny(rest, ",") || (i > 0 && header[i-1] != ';') || strings.Contains(header[:i], ",") {
			return nil, false // of several elements, nobody knows which to believe
		}
		header = text
	}
	text, err := url.PathUnescape(header)
	if err != nil {
		return nil, false
	}
	chain, err := parseChain([]byte(text))
	if err != nil {
		return nil, false
	}
	// What was read must be all there is: other readers could find another certificate.
	var again []byte
	for _, c := range chain {
		again = append(again, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	squeeze := strings.NewReplacer("\n", "", "\r", "")
	return chain, squeeze.Replace(text) == squeeze.Replace(string(again))
}

// newMTLSCredentials makes an authority, and a certificate of it.
func newMTLSCredentials() Credentials {
	ca, caKey, err := newAuthority("partner")
	if err != nil {
		return Credentials{}
	}
	leaf, err := certifyClient(ca, caKey, "hooks.partner.example")
	if err != nil {
		return Credentials{}
	}
	return Credentials{
		Options: map[string]any{"ca": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})), "header": "Client-Cert"},
		Signer:  base64.StdEncoding.EncodeToString(leaf),
	}
}

// signMTLS passes the certificate on, as a trusted proxy would.
func signMTLS(in *SignInput) (Signed, error) {
	h := signedHeaders(in)
	h.Set(signHeader(in, "Client-Cert"), ":"+in.Secret+":")
	return Signed{Header: h}, nil
}

func certifyClient(ca *x509.Certificate, caKey *ecdsa.PrivateKey, name string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, ca, key.Public(), caKey)
}

var (
	errNoClientCert   = &Refusal{Status: http.StatusUnauthorized, Reason: "client certificate missing"}
	errClientCertForm = &Refusal{Status: http.StatusUnauthorized, Reason: "client certificate malformed, or several"}
	errClientCert     = &Refusal{Status: http.StatusUnauthorized, Reason: "client certificate not accepted"}
)
