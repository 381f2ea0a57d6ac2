package provider

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"time"
)

// publicKeys are those of a source, for schemes in which the provider signs with a private key of its own.
type publicKeys struct{ keys []publicKey }

type publicKey struct {
	key
	index int // place among the source's secrets
	fits  func(text, signature []byte) bool
}

// publicKeys reads the secrets as public keys; decode turns the text of one into its check.
func (o *opening) publicKeys(decode func(text string) (func(text, signature []byte) bool, error)) *publicKeys {
	if len(o.Secrets) == 0 {
		o.errorf("secrets", "is empty: provider %s needs at least one public key", o.provider.Name)
	}
	p := &publicKeys{}
	for i := range o.Secrets {
		p.add(o, i, decode)
	}
	return p
}

func (p *publicKeys) add(o *opening, i int, decode func(text string) (func(text, signature []byte) bool, error)) {
	text := o.Secrets[i].Text
	_, err := decodeSecret(text, plainSecret)
	var fits func(text, signature []byte) bool
	if err == nil {
		fits, err = decode(text)
	}
	if err != nil {
		o.secretError(i, err)
		return
	}
	p.keys = append(p.keys, publicKey{key: o.keys[i], index: i, fits: fits})
}

// find returns the index of the first valid key under which the signature fits the text.
func (p *publicKeys) find(now time.Time, text, signature []byte) (int, error) {
	usable := false
	for i := range p.keys {
		k := &p.keys[i]
		if !k.validAt(now) {
			continue
		}
		usable = true
		if k.fits(text, signature) {
			return k.index, nil
		}
	}
	if !usable {
		return noKey, errNoSecret
	}
	return noKey, errMismatch
}

// keyBytes reads a public key's text: hex, or base64 with padding.
func keyBytes(text string) ([]byte, bool) {
	if b, err := hex.DecodeString(text); err == nil {
		return b, true
	}
	b, err := base64.StdEncoding.DecodeString(text)
	return b, err == nil
}

var (
	errEd25519 = errors.New("the secret is not an Ed25519 public key: expected 64 hex digits, or base64 of its DER form")
	errP256    = errors.New("the secret is not a P-256 public key: expected base64 of its DER form, as the provider shows it")
	errWeakKey = errors.New("the secret is a public key under which anybody can sign")
)

// ed25519Key takes the 32 bytes of a key, or its DER form.
func ed25519Key(text string) (func(text, signature []byte) bool, error) {
	b, ok := keyBytes(text)
	if !ok {
		return nil, errEd25519
	}
	if len(b) != ed25519.PublicKeySize {
		parsed, err := x509.ParsePKIXPublicKey(b)
		if err != nil {
			return nil, errEd25519
		}
		if b, ok = parsed.(ed25519.PublicKey); !ok {
			return nil, errEd25519
		}
	}
	return ed25519Check(b)
}

func ed25519Check(k ed25519.PublicKey) (func(text, signature []byte) bool, error) {
	if weakEd25519(k) {
		return nil, errWeakKey
	}
	return func(text, signature []byte) bool {
		return len(signature) == ed25519.SignatureSize && ed25519.Verify(k, text, signature)
	}, nil
}

// weakEd25519 finds the keys of small order, such as 32 zero bytes in the place of a key: with them, one and the same
// signature fits every eighth text at least.
func weakEd25519(k ed25519.PublicKey) bool {
	signature := make([]byte, ed25519.SignatureSize)
	signature[0] = 1 // the neutral point, and the scalar 0
	for i := range 128 {
		if ed25519.Verify(k, []byte{byte(i)}, signature) {
			return true
		}
	}
	return false
}

// p256Key takes a key's DER form; its signatures are those of ECDSA with SHA-256, in DER.
func p256Key(text string) (func(text, signature []byte) bool, error) {
	b, ok := keyBytes(text)
	if !ok {
		return nil, errP256
	}
	parsed, err := x509.ParsePKIXPublicKey(b)
	if err != nil {
		return nil, errP256
	}
	k, ok := parsed.(*ecdsa.PublicKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, errP256
	}
	return func(text, signature []byte) bool {
		sum := sha256.Sum256(text)
		return ecdsa.VerifyASN1(k, sum[:], signature)
	}, nil
}

// signedStamp is what Discord and SendGrid have in common: a signature over the timestamp, directly followed by the
// body.
type signedStamp struct {
	signature, stamp string // headers, canonical
	decode           func(text string) ([]byte, bool)
	keys             *publicKeys
	window           window
}

func (s *signedStamp) verify(r *Request) (proof, error) {
	text, stamp := get(r.Header, s.signature), get(r.Header, s.stamp)
	if text == "" {
		return proof{}, errUnsigned
	}
	if stamp == "" {
		return proof{}, errNoStamp
	}
	at, ok := fixedSeconds(stamp)
	if !ok {
		return proof{}, errStampForm
	}
	signature, ok := s.decode(text)
	if !ok {
		return proof{}, errMalformed
	}
	key, err := s.keys.find(r.Now, append([]byte(stamp), r.Body...), signature)
	if err != nil {
		return proof{}, err
	}
	return proof{key: key}, s.window.check(at, r.Now)
}
