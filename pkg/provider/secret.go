package provider

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
)

// newWhsec makes a secret as Stripe, Svix and Standard Webhooks write it.
func newWhsec() string {
	return "whsec_" + base64.StdEncoding.EncodeToString(randomBytes(24))
}

// newHexSecret makes a secret that is nothing but random text.
func newHexSecret() string { return hex.EncodeToString(randomBytes(20)) }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails: it ends the program instead
	return b
}

// newUUID makes a random UUID.
func newUUID() string {
	h := hex.EncodeToString(randomBytes(16))
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// The forms in which payment providers show their secrets.

func newSquareSecret() string { return base64.RawURLEncoding.EncodeToString(randomBytes(16)) }

func newPaddleSecret() string {
	return "pdl_ntfset_01" + newHexSecret()[:24] + "_" + base64.RawURLEncoding.EncodeToString(randomBytes(24))
}

func newXeroKey() string { return base64.StdEncoding.EncodeToString(randomBytes(66)) }

// newWooSecret has characters of which WordPress makes entities.
func newWooSecret() string { return newHexSecret() + "&amp;<>" }
