package provider

import (
	"encoding/base64"
	"encoding/hex"
	"hash"
	"net/http"
	"strings"
)

// bodyMAC is what the schemes that sign the body alone have in common: a MAC in a header, behind a fixed prefix.
type bodyMAC struct {
	macs   *macs
	prefix string
	decode decoding
}

func (b *bodyMAC) verify(r *Request, signature string) (proof, error) {
	if signature == "" {
		return proof{}, errUnsigned
	}
	text, ok := strings.CutPrefix(signature, b.prefix)
	if !ok {
		return proof{}, errMalformed
	}
	var space [64]byte
	sent, ok := b.decode(space[:0], text, b.macs.size)
	if !ok {
		return proof{}, errMalformed
	}
	key, err := b.macs.find(r.Now, sent, func(m *mac) { m.bytes(r.Body) })
	return proof{key: key}, err
}

func hexSum(newHash func() hash.Hash, secret []byte, write func(*mac)) string {
	return hex.EncodeToString(sum(newHash, secret, write))
}

func base64Sum(newHash func() hash.Hash, secret []byte, write func(*mac)) string {
	return base64.StdEncoding.EncodeToString(sum(newHash, secret, write))
}

// signedHeaders begins the headers that Sign returns: a copy of the sample's.
func signedHeaders(in *SignInput) http.Header {
	h := in.Sample.Header.Clone()
	if h == nil {
		h = http.Header{"Content-Type": {"application/json"}}
	}
	return h
}

// setIfAny sets a header unless there is nothing to say.
func setIfAny(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}
