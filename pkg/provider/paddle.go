package provider

import (
	"context"
	"crypto/sha256"
	"strconv"
	"strings"
	"time"
)

var paddle = &Provider{
	Name:            "paddle",
	SecurityHeaders: []string{"Paddle-Signature"},
	credentials:     secretOnly(newPaddleSecret),
	open:            openPaddle,
	sign:            signPaddle,
	sample:          samplePaddle,
	Doc: Doc{
		Title:     "Paddle Billing",
		URL:       "https://developer.paddle.com/webhooks/signature-verification",
		Signature: "`Paddle-Signature: ts=<Unix seconds>;h1=<hex>[;h1=…]`",
		Signed:    "timestamp, colon, body, HMAC-SHA256; the key is the whole text of the secret, `pdl_ntfset_` included",
		Tolerance: "5 minutes, both ways (Paddle's own libraries: 5 s in Python, 5 s of age in Node, off in Go)",
		ID:        "body `event_id`, the same for every retry (`notification_id` names the delivery to one destination)",
		Type:      "body `event_type`",
		Time:      "body `occurred_at`, RFC 3339",
		Notes: []string{
			"While a secret is rotated there is one `h1` per secret; any may fit. Other members than `ts` and `h1` are skipped; two `ts` are refused.",
		},
		Unverified: []string{"Retries for about 3 days; waits 5 s."},
		Config:     "provider: paddle\nsecrets: [\"${PADDLE_WEBHOOK_SECRET}\"]",
	},
}

type paddleScheme struct {
	noHandshake
	macs   *macs
	window window
}

func openPaddle(o *opening) opened {
	return opened{scheme: &paddleScheme{macs: o.macs(sha256.New, plainSecret), window: o.tolerance(5 * time.Minute)}}
}

func (s *paddleScheme) verify(_ context.Context, r *Request) (proof, error) {
	header := get(r.Header, "Paddle-Signature")
	if header == "" {
		return proof{}, errUnsigned
	}
	var space [4 * sha256.Size]byte
	stamp, sent, err := parsePaddle(header, space[:0])
	if err != nil {
		return proof{}, err
	}
	at, ok := unixSeconds(stamp)
	if !ok {
		return proof{}, errStampForm
	}
	key, err := s.macs.find(r.Now, sent, func(m *mac) {
		m.string(stamp)
		m.string(":")
		m.bytes(r.Body)
	})
	if err != nil {
		return proof{}, err
	}
	return proof{key: key}, s.window.check(at, r.Now)
}

// parsePaddle takes the header apart and appends the MACs of scheme h1 to sent.
func parsePaddle(header string, sent []byte) (stamp string, macs []byte, err error) {
	for part := range strings.SplitSeq(header, ";") {
		name, value, _ := strings.Cut(part, "=")
		switch name {
		case "ts":
			if stamp != "" {
				return "", nil, errMalformed
			}
			stamp = value
		case "h1":
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

var paddleFields = newFields("event_id", "event_type", "occurred_at")

func (s *paddleScheme) identify(r *Request) (Identity, error) {
	var v [3]value
	if err := paddleFields.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	return Identity{ID: v[0].text(), Type: v[1].str(), Time: v[2].isoTime()}, nil
}

func signPaddle(in *SignInput) (Signed, error) {
	stamp := strconv.FormatInt(in.Now.Unix(), 10)
	h := signedHeaders(in)
	h.Set("Paddle-Signature", "ts="+stamp+";h1="+hexSum(sha256.New, []byte(in.Secret), func(m *mac) {
		m.string(stamp + ":")
		m.bytes(in.Body)
	}))
	return Signed{Header: h}, nil
}
