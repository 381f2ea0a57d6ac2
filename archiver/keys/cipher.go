package keys

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// What stands before the bytes that are encrypted.
const (
	asIs       = 0
	compressed = 1
)

const (
	keySize   = 32
	nonceSize = 12
	// largestPlain bounds what is unpacked: no body or set of headers is larger.
	largestPlain = 64 << 20
)

// dataKey is the key of one source and day. It implements row.Cipher.
//
// A nonce is a digest, under a key of its own, of the place and of the bytes that are encrypted there. So a record that is
// archived twice has the same bytes both times, whoever archives it; and should other bytes ever stand at the same place,
// after a log that was cut or another release that compresses otherwise, they have another nonce.
type dataKey struct {
	aead cipher.AEAD
	mac  []byte
	*packer
}

func newDataKey(secret []byte, p *packer) (*dataKey, error) {
	encrypt, err := hkdf.Key(sha256.New, secret, nil, "catchment archive v1 encrypt", keySize)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	mac, err := hkdf.Key(sha256.New, secret, nil, "catchment archive v1 nonce", keySize)
	if err != nil {
		return nil, fmt.Errorf("derive a key: %w", err)
	}
	aead, err := newAEAD(encrypt)
	if err != nil {
		return nil, err
	}
	return &dataKey{aead, mac, p}, nil
}

// newAEAD is AES-256-GCM.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("AES: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("AES: %w", err)
	}
	return aead, nil
}

// Seal returns the nonce, and the compressed and encrypted bytes.
func (k *dataKey) Seal(place, plain []byte) []byte {
	packed := k.pack(plain)
	h := hmac.New(sha256.New, k.mac)
	_, _ = h.Write(place) // a hash takes everything
	_, _ = h.Write(packed)
	nonce := h.Sum(make([]byte, 0, sha256.Size))[:nonceSize]
	out := make([]byte, nonceSize, nonceSize+len(packed)+k.aead.Overhead())
	copy(out, nonce)
	return k.aead.Seal(out, nonce, packed, place)
}

// Open is the inverse of Seal.
func (k *dataKey) Open(place, sealed []byte) ([]byte, error) {
	if len(sealed) < nonceSize {
		return nil, fmt.Errorf("%d bytes are too few to be encrypted", len(sealed))
	}
	packed, err := k.aead.Open(nil, sealed[:nonceSize], sealed[nonceSize:], place)
	if err != nil {
		return nil, errors.New("it was not encrypted with this key at this place, or was altered")
	}
	return k.unpack(packed)
}

// packer compresses; it is safe for concurrent use, and holds little without streams.
type packer struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

func newPacker() (*packer, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(largestPlain))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &packer{e, d}, nil
}

func (p *packer) pack(plain []byte) []byte {
	out := p.encoder.EncodeAll(plain, append(make([]byte, 0, len(plain)+1), compressed))
	if len(out) > len(plain) {
		return append(append(out[:0], asIs), plain...)
	}
	return out
}

func (p *packer) unpack(packed []byte) ([]byte, error) {
	switch {
	case len(packed) > 0 && packed[0] == asIs:
		return packed[1:], nil
	case len(packed) > 0 && packed[0] == compressed:
		plain, err := p.decoder.DecodeAll(packed[1:], nil)
		if err != nil {
			return nil, fmt.Errorf("unpack: %w", err)
		}
		return plain, nil
	}
	return nil, errors.New("unpack: the form is not known: it was written by a later release")
}
