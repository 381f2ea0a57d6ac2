package provider

import (
	"context"
	"crypto/sha256"
	"strconv"
	"strings"
	"time"
)

var stripe = &Provider{
	Name:            "stripe",
	SecurityHeaders: []string{"Stripe-Signature"},
	Volatile:        []string{"pending_webhooks"},
	credentials:     secretOnly(newWhsec),
	open:            openStripe,
	sign:            signStripe,
	sample:          sampleStripe,
	Doc: Doc{
		Title:     "Stripe",
		URL:       "https://docs.stripe.com/webhooks#verify-official-libraries",
		Signature: "`Stripe-Signature: t=<Unix seconds>,v1=<hex>[,v1=…][,v0=…]`",
		Signed:    "`t`, `.`, body; HMAC-SHA256; the key is the whole text of the secret, `whsec_` included",
		Tolerance: "5 minutes, both ways (Stripe's own libraries look at the age alone)",
		ID:        "body `id`, the same for every retry and every endpoint",
		Type:      "body `type`",
		Time:      "body `created`, Unix seconds; of thin events (`v2.core.event`) RFC 3339",
		Retries:   "up to 3 days with back-off, each with a new time and signature; in a sandbox 3 within some hours",
		Notes: []string{
			"While a secret is rolled, there is one `v1` for each secret. Other schemes than `v1` are skipped, for they would be a way down to a weaker one.",
			"A header with a part that is not `name=value` is refused as a whole, as stripe-go does; so is one with two `t`, of which Stripe's libraries take now the first, now the last.",
			"`pending_webhooks` changes between retries.",
		},
		Unverified: []string{"How often and how long Stripe sends again; how long it waits for an answer is not published."},
		Config:     "provider: stripe\nsecrets: [\"${STRIPE_WEBHOOK_SECRET}\"]",
	},
}

type stripeScheme struct {
	noHandshake
	header string
	macs   *macs
	window window
}

func openStripe(o *opening) opened {
	return opened{scheme: &stripeScheme{header: "Stripe-Signature", macs: o.macs(sha256.New, plainSecret), window: o.tolerance(5 * time.Minute)}}
}

func (s *stripeScheme) verify(_ context.Context, r *Request) (proof, error) {
	header := get(r.Header, s.header)
	if header == "" {
		return proof{}, errUnsigned
	}
	var space [4 * sha256.Size]byte
	stamp, sent, err := parseStripe(header, space[:0])
	if err != nil {
		return proof{}, err
	}
	at, ok := unixSeconds(stamp)
	if !ok {
		return proof{}, errStampForm
	}
	key, err := s.macs.find(r.Now, sent, func(m *mac) {
		m.string(stamp)
		m.string(".")
		m.bytes(r.Body)
	})
	if err != nil {
		return proof{}, err
	}
	return proof{key: key}, s.window.check(at, r.Now)
}

// parseStripe takes the header apart and appends the MACs of scheme v1 to sent.
func parseStripe(header string, sent []byte) (stamp string, macs []byte, err error) {
	for part := range strings.SplitSeq(header, ",") {
		name, value, ok := strings.Cut(part, "=")
		if !ok || strings.Contains(value, "=") {
			return "", nil, errMalformed
		}
		switch name {
		case "t":
			if stamp != "" {
				return "", nil, errMalformed
			}
			stamp = value
		case "v1":
			sent, _ = appendHex(sent, value, sha256.Size) // what is no MAC cannot fit
		}
	}
	switch {
	case stamp == "":
		return "", nil, errNoStamp
	case len(sent) == 0:
		return "", nil, errMalformed
	}
	return stamp, sent, nil
}

var stripeFields = newFields("id", "type", "created")

func (s *stripeScheme) identify(r *Request) (Identity, error) {
	var v [3]value
	if err := stripeFields.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	return Identity{ID: v[0].text(), Type: v[1].str(), Time: v[2].anyTime()}, nil
}

func signStripe(in *SignInput) (Signed, error) { return signStamped(in, "Stripe-Signature") }

// signStamped signs as Stripe does, into the header of that name.
func signStamped(in *SignInput, header string) (Signed, error) {
	stamp := strconv.FormatInt(in.Now.Unix(), 10)
	h := signedHeaders(in)
	h.Set(header, "t="+stamp+",v1="+hexSum(sha256.New, []byte(in.Secret), func(m *mac) {
		m.string(stamp + ".")
		m.bytes(in.Body)
	}))
	return Signed{Header: h}, nil
}
