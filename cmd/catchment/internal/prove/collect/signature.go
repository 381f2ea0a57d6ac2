package collect

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// What follows is https://c2sp.org/signed-note for Ed25519, written again: the archiver uses golang.org/x/mod for it.

const (
	ofEd25519   = 1 // a key's first byte
	privateMark = "PRIVATE+KEY+"
	hashSize    = 4
)

// NewKey makes a signer key, as archive.checkpoint_key has it, and its verifier key.
func NewKey(name string) (signer, verifier string, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	seed := append([]byte{ofEd25519}, private.Seed()...)
	signer = privateMark + name + "+" + hex.EncodeToString(keyHash(name, public)) + "+" + base64.StdEncoding.EncodeToString(seed)
	return signer, verifierKey(name, public), nil
}

// VerifierOf is the verifier key of a signer key.
func VerifierOf(signer string) (string, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(signer), privateMark)
	if !ok {
		return "", fmt.Errorf("a signer key begins with %s", privateMark)
	}
	name, hash, seed, err := splitKey(rest)
	if err != nil {
		return "", err
	}
	public := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	if !bytes.Equal(hash, keyHash(name, public)) {
		return "", errors.New("the signer key's hash is not that of its key")
	}
	return verifierKey(name, public), nil
}

func verifierKey(name string, public ed25519.PublicKey) string {
	return name + "+" + hex.EncodeToString(keyHash(name, public)) + "+" + base64.StdEncoding.EncodeToString(append([]byte{ofEd25519}, public...))
}

func keyHash(name string, public ed25519.PublicKey) []byte {
	sum := sha256.Sum256(append([]byte(name+"\n\x01"), public...))
	return sum[:hashSize]
}

// splitKey takes name+hash+key apart; both halves of an Ed25519 key have 32 bytes.
func splitKey(text string) (name string, hash, key []byte, err error) {
	parts := strings.SplitN(text, "+", 3) // base64 has + as well
	if len(parts) != 3 || parts[0] == "" {
		return "", nil, nil, errors.New("a key is name+hash+key")
	}
	if hash, err = hex.DecodeString(parts[1]); err != nil || len(hash) != hashSize {
		return "", nil, nil, errors.New("a key's hash is 8 hexadecimal digits")
	}
	key, err = base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != ofEd25519 {
		return "", nil, nil, errors.New("the key is not one of Ed25519")
	}
	return parts[0], hash, key[1:], nil
}

// unsigned says why an object is not signed by the key; "": it is.
func unsigned(object []byte, verifier string) string {
	name, hash, public, err := splitKey(verifier)
	if err != nil {
		return err.Error()
	}
	if !bytes.Equal(hash, keyHash(name, public)) {
		return "the verifier key's hash is not that of its key"
	}
	at := bytes.LastIndex(object, []byte("\n\n"))
	if at < 0 {
		return "it is not signed"
	}
	text, lines := object[:at+1], object[at+2:]
	if !bytes.HasSuffix(lines, []byte("\n")) {
		return "its last signature has no end"
	}
	for line := range strings.Lines(string(lines)) {
		signature, ours := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "\u2014 "+name+" ")
		if !ours {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(signature)
		if err != nil || len(raw) != hashSize+ed25519.SignatureSize || !bytes.Equal(raw[:hashSize], hash) {
			continue // of another key with this name
		}
		if !ed25519.Verify(public, text, raw[hashSize:]) {
			return "its signature is not one of its text"
		}
		return ""
	}
	return "it has no signature by " + name
}
