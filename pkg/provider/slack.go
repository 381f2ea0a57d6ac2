package provider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net/url"
	"strconv"
	"time"
)

var slack = &Provider{
	Name:            "slack",
	AckTimeout:      2500 * time.Millisecond,
	SecurityHeaders: []string{"X-Slack-Signature", "X-Slack-Request-Timestamp"},
	credentials:     secretOnly(newSlackSecret),
	open:            openSlack,
	sign:            signSlack,
	sample:          sampleSlack,
	Doc: Doc{
		Title:     "Slack",
		URL:       "https://docs.slack.dev/authentication/verifying-requests-from-slack/",
		Signature: "`X-Slack-Signature: v0=<hex>`, `X-Slack-Request-Timestamp`",
		Signed:    "`v0:` timestamp `:` body, HMAC-SHA256; the key is the text of the signing secret",
		Tolerance: "5 minutes, both ways; Unix seconds",
		ID:        "body `event_id`, the same for every retry",
		Type:      "body `event.type`; of what has no event (`app_rate_limited`), body `type`",
		Time:      "body `event_time`, Unix seconds",
		Handshake: "a signed JSON body of type `url_verification`: its `challenge` is the answer, as `text/plain` with `nosniff`; only visible ASCII up to 1,024 characters is echoed",
		Retries:   "3: at once, after 1 and after 5 minutes; waits 3 s, so the ingress waits up to 2.5 s for Kafka",
		Notes: []string{
			"Slash commands and interactive messages are forms, whose bytes are signed; they have no event ID. The type of an interactive message is that of its `payload`.",
		},
		Config: "provider: slack\nsecrets: [\"${SLACK_SIGNING_SECRET}\"]",
	},
}

type slackScheme struct {
	macs   *macs
	window window
}

func openSlack(o *opening) opened {
	return opened{scheme: &slackScheme{macs: o.macs(sha256.New, plainSecret), window: o.tolerance(5 * time.Minute)}}
}

func (s *slackScheme) verify(_ context.Context, r *Request) (proof, error) {
	signature, stamp := get(r.Header, "X-Slack-Signature"), get(r.Header, "X-Slack-Request-Timestamp")
	if signature == "" {
		return proof{}, errUnsigned
	}
	if stamp == "" {
		return proof{}, errNoStamp
	}
	at, ok := unixSeconds(stamp)
	if !ok {
		return proof{}, errStampForm
	}
	if len(signature) < 3 || signature[:3] != "v0=" {
		return proof{}, errMalformed
	}
	var space [sha256.Size]byte
	sent, ok := appendHex(space[:0], signature[3:], sha256.Size)
	if !ok {
		return proof{}, errMalformed
	}
	key, err := s.macs.find(r.Now, sent, func(m *mac) {
		m.string("v0:")
		m.string(stamp)
		m.string(":")
		m.bytes(r.Body)
	})
	if err != nil {
		return proof{}, err
	}
	return proof{key: key}, s.window.check(at, r.Now)
}

var (
	slackEvent     = newFields("event_id", "event.type", "event_time", "type")
	slackHandshake = newFields("type", "challenge")
	slackPayload   = newFields("type")
)

// maxChallenge is far above Slack's own 52 characters.
const maxChallenge = 1024

func (s *slackScheme) handshake(r *Request) (*Response, error) {
	if !bytes.Contains(r.Body, []byte("url_verification")) {
		return nil, nil // spares the events a second reading
	}
	var v [2]value
	if err := slackHandshake.read(r.Body, v[:]); err != nil {
		return nil, err
	}
	if v[0].str() != "url_verification" {
		return nil, nil
	}
	challenge := v[1].str()
	if challenge == "" || len(challenge) > maxChallenge || !visible(challenge) {
		return nil, errHandshake
	}
	return textResponse(challenge), nil
}

func (s *slackScheme) identify(r *Request) (Identity, error) {
	if mediaType(r.Header) == "application/x-www-form-urlencoded" {
		typ, err := slackFormType(r.Body)
		return Identity{Type: typ}, err
	}
	var v [4]value
	if err := slackEvent.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	id := Identity{ID: v[0].text(), Type: v[1].str(), Time: v[2].unixTime()}
	if id.Type == "" {
		id.Type = v[3].str()
	}
	return id, nil
}

func slackFormType(body []byte) (string, error) {
	form, _ := url.ParseQuery(string(body)) // of what is no form, the part that is one
	if len(form["payload"]) != 1 {
		return "", nil // a slash command: it has no type
	}
	var v [1]value
	err := slackPayload.read([]byte(form["payload"][0]), v[:])
	return v[0].str(), err
}

func signSlack(in *SignInput) (Signed, error) {
	stamp := strconv.FormatInt(in.Now.Unix(), 10)
	h := signedHeaders(in)
	h.Set("X-Slack-Request-Timestamp", stamp)
	h.Set("X-Slack-Signature", "v0="+hexSum(sha256.New, []byte(in.Secret), func(m *mac) {
		m.string("v0:" + stamp + ":")
		m.bytes(in.Body)
	}))
	return Signed{Header: h}, nil
}

func newSlackSecret() string { return newHexSecret()[:32] }
