package provider

import (
	"context"
	"crypto/sha256"
	"net/http"
	"net/url"
	"time"
)

// meta is the model of a delivery whose events lie two levels deep.
var meta = &Provider{
	Name:             "meta",
	HandshakeMethods: []string{http.MethodGet},
	SecurityHeaders:  []string{"X-Hub-Signature-256"},
	options:          []string{"verify_token"},
	credentials:      newMetaCredentials,
	open:             openMeta,
	sign:             signMeta,
	sample:           sampleMeta,
	split:            splitMeta,
	Doc: Doc{
		Title:     "Meta: Facebook, Instagram, Messenger, WhatsApp",
		URL:       "https://developers.facebook.com/docs/graph-api/webhooks/getting-started",
		Signature: "`X-Hub-Signature-256: sha256=<hex>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the app secret",
		ID:        "WhatsApp: `messages[].id`, or `statuses[].id`, a slash and `status`; Messenger and Instagram: `message.mid` (a deleted message: with `/deleted` behind it); of what has none, and of a change with several messages, the delivery's key and the event's number",
		Type:      "of `changes[]` the `field`; of `messaging[]` and `standby[]` the name of the member beside sender, recipient and timestamp (`message`, `postback`, `read` …)",
		Time:      "the message's or status's `timestamp`; else the entry's `time`",
		Batch:     "up to 1,000 updates: `entry[]`, and in each `changes[]`, `messaging[]` or `standby[]`, whose elements are the events; an entry without any of them is an event itself",
		Handshake: "`GET ?hub.mode=subscribe&hub.verify_token=…&hub.challenge=…` is answered with the challenge as plain text if the token is `options.verify_token`, else with 403",
		Retries:   "for 36 h (Graph API) or up to 7 days (WhatsApp)",
		Notes: []string{
			"Meta signs its JSON with escaped Unicode: the bytes as sent are what counts.",
			"The sender's account (`entry[].id`) and WhatsApp's `metadata` of other changes do not stand in the event, but in the delivery.",
			"Events without an ID of their own are known again only if Meta sends the whole batch again as it was.",
			"Without `verify_token` every handshake is refused with 403.",
		},
		Unverified: []string{
			"that Messenger stops after about an hour of failures",
			"that a repetition of a batch has the same bytes",
		},
		Config: "provider: meta\nsecrets: [\"${META_APP_SECRET}\"]\noptions: {verify_token: \"${META_VERIFY_TOKEN}\"}",
	},
}

type metaScheme struct {
	noHandshake
	body  bodyMAC
	token tokens // at most one
}

func openMeta(o *opening) opened {
	s := &metaScheme{body: bodyMAC{macs: o.macs(sha256.New, plainSecret), prefix: "sha256=", decode: appendHex}}
	if text := o.text("verify_token", ""); text != "" {
		s.token = tokens{{sum: sha256.Sum256([]byte(text))}}
	}
	return opened{scheme: s, query: []string{"hub.verify_token"}}
}

func (s *metaScheme) greet(r *Request) (*Response, error) {
	if r.Method != http.MethodGet {
		return nil, nil
	}
	query, err := url.ParseQuery(r.RawQuery)
	mode, token, challenge := query["hub.mode"], query["hub.verify_token"], query["hub.challenge"]
	if err != nil || len(mode) > 1 || len(token) > 1 || len(challenge) > 1 {
		return nil, errHandshake
	}
	if len(mode) == 0 || mode[0] != "subscribe" || len(token) == 0 {
		return nil, errForbidden
	}
	if _, err := s.token.find(time.Time{}, token[0]); err != nil {
		return nil, errForbidden
	}
	if len(challenge) == 0 || challenge[0] == "" || len(challenge[0]) > maxChallenge || !visible(challenge[0]) {
		return nil, errHandshake
	}
	return textResponse(challenge[0]), nil
}

func (s *metaScheme) verify(_ context.Context, r *Request) (proof, error) {
	return s.body.verify(r, get(r.Header, "X-Hub-Signature-256"))
}

func (s *metaScheme) identify(*Request) (Identity, error) { return Identity{}, nil }

var (
	metaBody   = newFields("entry")
	metaEntry  = newFields("changes", "messaging", "standby", "time")
	metaChange = newFields("field", "value.messages", "value.statuses")
	metaObject = newFields("id", "status", "timestamp")
	metaUpdate = newFields("timestamp", "message.mid", "message.is_deleted")
)

func splitMeta(r *Request) ([]Part, error) {
	var v [1]value
	if err := metaBody.read(r.Body, v[:]); err != nil {
		return nil, err
	}
	var parts []Part
	for _, entry := range v[0].elements() {
		more, err := metaEntryParts(entry)
		if err != nil {
			return nil, err
		}
		parts = append(parts, more...)
	}
	return orWhole(parts, nil)
}

func metaEntryParts(entry value) ([]Part, error) {
	var v [4]value
	if err := metaEntry.read(entry, v[:]); err != nil {
		return nil, err
	}
	var parts []Part
	for i, name := range []func(value) (Identity, error){metaChangeID, metaUpdateID, metaUpdateID} {
		for _, one := range v[i].elements() {
			id, err := name(one)
			if err != nil {
				return nil, err
			}
			if id.Time.IsZero() {
				id.Time = v[3].anyTime()
			}
			parts = append(parts, Part{Identity: id, Body: one})
		}
	}
	if len(parts) == 0 {
		parts = []Part{{Identity: Identity{Time: v[3].anyTime()}, Body: entry}}
	}
	return parts, nil
}

// metaChangeID names a change: by the only message or the only status that it tells of.
func metaChangeID(change value) (Identity, error) {
	var v [3]value
	if err := metaChange.read(change, v[:]); err != nil {
		return Identity{}, err
	}
	id := Identity{Type: v[0].str()}
	messages, statuses := v[1].elements(), v[2].elements()
	if len(messages)+len(statuses) != 1 {
		return id, nil
	}
	if err := metaObject.read(append(messages, statuses...)[0], v[:]); err != nil {
		return Identity{}, err
	}
	id.ID, id.Time = v[0].text(), v[2].anyTime()
	if status := v[1].str(); len(statuses) == 1 && id.ID != "" {
		id.ID += "/" + status
	}
	return id, nil
}

// metaUpdateID names an element of messaging. The mid of reactions, deletions and the like is that of the message.
func metaUpdateID(update value) (Identity, error) {
	var v [3]value
	if err := metaUpdate.read(update, v[:]); err != nil {
		return Identity{}, err
	}
	id := Identity{ID: v[1].text(), Time: v[0].anyTime()}
	if id.ID != "" && string(v[2]) == "true" {
		id.ID += "/deleted"
	}
	for _, name := range update.names() {
		if name != "sender" && name != "recipient" && name != "timestamp" {
			id.Type = name
			break
		}
	}
	return id, nil
}

func signMeta(in *SignInput) (Signed, error) {
	h := signedHeaders(in)
	h.Set("X-Hub-Signature-256", "sha256="+hexSum(sha256.New, []byte(in.Secret), func(m *mac) { m.bytes(in.Body) }))
	return Signed{Header: h}, nil
}

func newMetaCredentials() Credentials {
	return Credentials{Secret: newHexSecret()[:32], Options: map[string]any{"verify_token": newToken()}}
}
