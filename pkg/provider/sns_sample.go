package provider

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net/http"
	"strings"
	"time"
)

const (
	snsSampleTopic = "arn:aws:sns:eu-central-1:123456789012:orders"
	snsSampleCert  = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
)

// newSNSCredentials makes a key with a certificate, and the authority that issued it.
func newSNSCredentials() Credentials {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return Credentials{}
	}
	pool, chain := newChain(key.Public(), "sns.amazonaws.com")
	return Credentials{
		Options: map[string]any{"topic_arn": snsSampleTopic},
		Signer:  string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})),
		Keys:    &OfflineKeys{Content: map[string][]byte{snsSampleCert: chain}, Pool: pool},
	}
}

// newChain certifies a key by a new authority. The times are far apart, because samples may be of any day.
func newChain(key crypto.PublicKey, name string) (roots *x509.CertPool, chain []byte) {
	ca, caKey, err := newAuthority(name + " root")
	if err != nil {
		return x509.NewCertPool(), nil
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	roots = x509.NewCertPool()
	roots.AddCert(ca)
	if der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key, caKey); err == nil {
		chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	return roots, chain
}

func newAuthority(name string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2099, 12, 31, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	ca, err := x509.ParseCertificate(der)
	return ca, key, err
}

var errSNSKey = errors.New("expected a private key in PEM form")

// parseRSAKey reads what newSNSCredentials wrote.
func parseRSAKey(text string) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errSNSKey
	}
	return x509.ParsePKCS1PrivateKey(block.Bytes)
}

// signSNS signs a message, or wraps another text as one.
func signSNS(in *SignInput) (Signed, error) {
	key, err := parseRSAKey(in.Secret)
	if err != nil {
		return Signed{}, err
	}
	var m map[string]any
	if json.Unmarshal(in.Body, &m) != nil || m["Type"] == nil {
		m = map[string]any{"Type": "Notification", "Message": string(in.Body), "MessageId": in.Sample.ID, "Timestamp": in.Now.UTC().Format(isoMillis)}
	}
	if arn, ok := in.Options["topic_arn"].(string); ok {
		m["TopicArn"] = arn
	}
	m["SignatureVersion"], m["SigningCertURL"] = "2", snsSampleCert
	delete(m, "Signature")
	typ, _ := m["Type"].(string)
	texts := snsTexts(typ)
	if texts == nil {
		return Signed{}, fmt.Errorf("sign: SNS has no messages of type %q", typ)
	}
	var text strings.Builder
	for _, member := range texts[0] {
		if v, ok := m[snsNames[member]].(string); ok {
			text.WriteString(snsNames[member] + "\n" + v + "\n")
		}
	}
	sum := sha256.Sum256([]byte(text.String()))
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		return Signed{}, err
	}
	m["Signature"] = base64.StdEncoding.EncodeToString(signature)
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return Signed{}, err
	}
	h := signedHeaders(in)
	h.Set("X-Amz-Sns-Message-Type", typ)
	return Signed{Header: h, Body: body}, nil
}

// sampleSNS makes notifications of orders, and now and then the confirmation of a subscription.
func sampleSNS(r *mathrand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	id, typ := s.uuid(), "Notification"
	m := map[string]string{
		"Subject": "Order " + o.id, "Message": fmt.Sprintf(`{"order":"%s","amount":%d,"currency":"%s","buyer":"%s"}`, o.id, o.amount, o.currency, o.buyer.mail),
		"UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe&SubscriptionArn=" + snsSampleTopic + ":" + s.hex(8),
	}
	if r.IntN(10) == 0 {
		typ = "SubscriptionConfirmation"
		token := s.hex(64)
		m = map[string]string{
			"Token": token, "Message": "You have chosen to subscribe to the topic " + snsSampleTopic + ".\nTo confirm the subscription, visit the SubscribeURL included in this message.",
			"SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=" + snsSampleTopic + "&Token=" + token,
		}
	}
	m["Type"], m["MessageId"], m["TopicArn"], m["Timestamp"] = typ, id, snsSampleTopic, s.millis()
	body, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return Sample{}
	}
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Content-Type": {"text/plain; charset=UTF-8"}, "User-Agent": {"Amazon Simple Notification Service Agent"},
		"X-Amz-Sns-Message-Type": {typ}, "X-Amz-Sns-Message-Id": {id}, "X-Amz-Sns-Topic-Arn": {snsSampleTopic},
	}}
}
