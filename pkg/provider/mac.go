package provider

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"strings"
	"sync"
	"time"
)

// macs holds the HMAC keys of a source, in the order of its secrets.
type macs struct {
	size int // bytes of a MAC
	keys []*macKey
}

// macKey is one key with its idle states: a state keeps the padded key's digest, so that reusing it saves two of
// the four blocks that a small body needs.
type macKey struct {
	key
	index int // place among the source's secrets
	idle  sync.Pool
}

func newMACKey(k key, newHash func() hash.Hash, secret []byte) *macKey {
	return &macKey{key: k, idle: sync.Pool{New: func() any { return &mac{h: hmac.New(newHash, secret)} }}}
}

// add takes the key of the secret with that index.
func (m *macs) add(k key, index int, newHash func() hash.Hash, secret []byte) {
	one := newMACKey(k, newHash, secret)
	one.index = index
	m.keys = append(m.keys, one)
}

// mac is the state of one computation.
type mac struct {
	h    hash.Hash
	text []byte
	sum  []byte
}

func (m *mac) bytes(b []byte) { m.h.Write(b) }

// text goes through a buffer of the state's own, because converting a string would allocate.
func (m *mac) string(s string) {
	m.text = append(m.text[:0], s...)
	m.h.Write(m.text)
}

// find returns the index of the first valid key under which one of the MACs in sent (decoded, size bytes each,
// one after the other) fits what write feeds to the state.
func (m *macs) find(now time.Time, sent []byte, write func(*mac)) (int, error) {
	usable := false
	for _, k := range m.keys {
		if !k.validAt(now) {
			continue
		}
		usable = true
		if k.fits(sent, m.size, write) {
			return k.index, nil
		}
	}
	if !usable {
		return noKey, errNoSecret
	}
	return noKey, errMismatch
}

func (k *macKey) fits(sent []byte, size int, write func(*mac)) bool {
	m := k.idle.Get().(*mac)
	defer k.idle.Put(m)
	m.h.Reset()
	write(m)
	m.sum = m.h.Sum(m.sum[:0])
	for ; len(sent) >= size; sent = sent[size:] {
		if hmac.Equal(m.sum, sent[:size]) {
			return true
		}
	}
	return false
}

// of computes the MAC of what write feeds to the state, for answers.
func (k *macKey) of(write func(*mac)) []byte {
	m := k.idle.Get().(*mac)
	defer k.idle.Put(m)
	m.h.Reset()
	write(m)
	return m.h.Sum(nil)
}

// sum computes a MAC under the secret of that index, for answers that are signed; nil: there is no such key.
func (m *macs) sum(index int, write func(*mac)) []byte {
	for _, k := range m.keys {
		if k.index == index {
			return k.of(write)
		}
	}
	return nil
}

// current is the index of the first secret that is valid now; noKey: none is.
func (m *macs) current(now time.Time) int {
	for _, k := range m.keys {
		if k.validAt(now) {
			return k.index
		}
	}
	return noKey
}

// sum computes a MAC, for Sign.
func sum(newHash func() hash.Hash, secret []byte, write func(*mac)) []byte {
	m := &mac{h: hmac.New(newHash, secret)}
	write(m)
	return m.h.Sum(nil)
}

// maxMAC is the length of the longest text form of a MAC: SHA-512 in hex.
const maxMAC = 128

// decoding appends the MAC of size bytes that text stands for, or reports that it stands for none.
type decoding func(dst []byte, text string, size int) ([]byte, bool)

// appendHex takes lower and upper case, as the providers' own libraries do.
func appendHex(dst []byte, text string, size int) ([]byte, bool) {
	if len(text) != 2*size || len(text) > maxMAC {
		return dst, false
	}
	var space [maxMAC]byte
	n := copy(space[:], text)
	out, err := hex.AppendDecode(dst, space[:n])
	if err != nil {
		return dst, false
	}
	return out, true
}

var (
	strictBase64    = base64.StdEncoding.Strict()
	strictBase64URL = base64.RawURLEncoding.Strict()
	paddedBase64URL = base64.URLEncoding.Strict()
)

// decodeStrict takes the one form that bytes have in a strict encoding. Go's decoder alone skips line breaks.
func decodeStrict(enc *base64.Encoding, text string) ([]byte, error) {
	if i := strings.IndexAny(text, "\r\n"); i >= 0 {
		return nil, base64.CorruptInputError(i)
	}
	return enc.DecodeString(text)
}

// appendBase64 takes the standard alphabet with padding.
func appendBase64(dst []byte, text string, size int) ([]byte, bool) {
	return appendEncoded(dst, text, size, strictBase64)
}

// appendBase64URL takes the URL alphabet, with or without padding.
func appendBase64URL(dst []byte, text string, size int) ([]byte, bool) {
	if strings.HasSuffix(text, "=") {
		return appendEncoded(dst, text, size, paddedBase64URL)
	}
	return appendEncoded(dst, text, size, strictBase64URL)
}

func appendEncoded(dst []byte, text string, size int, enc *base64.Encoding) ([]byte, bool) {
	if len(text) != enc.EncodedLen(size) || len(text) > maxMAC {
		return dst, false
	}
	var space [maxMAC]byte
	n := copy(space[:], text)
	out, err := enc.AppendDecode(dst, space[:n])
	if err != nil || len(out) != len(dst)+size {
		return dst, false
	}
	return out, true
}
