package provider

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"time"
)

// tokens are the secrets of a source whose provider shows one of them with each request.
type tokens []token

// token is one of them, as its digest: comparing digests says nothing of the length.
type token struct {
	key
	sum [sha256.Size]byte
}

// tokens makes them from the secrets.
func (o *opening) tokens() tokens {
	if len(o.Secrets) == 0 {
		o.errorf("secrets", "is empty: provider %s needs at least one secret", o.provider.Name)
	}
	var t tokens
	for i, s := range o.Secrets {
		b, err := decodeSecret(s.Text, plainSecret)
		if err != nil {
			o.secretError(i, err)
			continue
		}
		t = append(t, token{key: o.keys[i], sum: sha256.Sum256(b)})
	}
	return t
}

// find returns the index of the first valid token that text is.
func (t tokens) find(now time.Time, text string) (int, error) {
	if text == "" {
		return noKey, errNoToken
	}
	sum := sha256.Sum256([]byte(text))
	usable := false
	for i := range t {
		if !t[i].validAt(now) {
			continue
		}
		usable = true
		if subtle.ConstantTimeCompare(sum[:], t[i].sum[:]) == 1 {
			return i, nil
		}
	}
	if !usable {
		return noKey, errNoSecret
	}
	return noKey, errWrongToken
}

// newToken makes a token that is nothing but random text.
func newToken() string { return "tok-" + rand.Text() }
