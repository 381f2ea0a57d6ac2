package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

var trello = &Provider{
	Name:             "trello",
	HandshakeMethods: []string{http.MethodHead},
	SecurityHeaders:  []string{"X-Trello-Webhook"},
	credentials:      secretOnly(func() string { return newHexSecret() + newHexSecret()[:24] }),
	open:             trelloRules.open,
	sign:             trelloRules.sign,
	sample:           sampleTrello,
	Doc: Doc{
		Title:     "Trello",
		URL:       "https://developer.atlassian.com/cloud/trello/guides/rest-api/webhooks/",
		Signature: "`X-Trello-Webhook: <base64>`",
		Signed:    "body, callback URL; HMAC-SHA1; the key is the text of the application's OAuth secret. The callback URL is the one of the webhook's creation, letter for letter: give it as `public_url`",
		ID:        "body `action.id`",
		Type:      "body `action.type`, such as `updateCard`",
		Time:      "body `action.date`, RFC 3339",
		Handshake: "`HEAD` at the webhook's creation: 200",
		Notes:     []string{"The `HEAD` proves nothing and is answered for whoever asks."},
		Unverified: []string{
			"Retries after 30, 60 and 120 s; an answer of 410 deletes the webhook.",
		},
		Config: "provider: trello\nsecrets: [\"${TRELLO_OAUTH_SECRET}\"]\npublic_url: https://hooks.example.com",
	},
}

var trelloRules = &declared{
	HMAC: HMAC{Header: "X-Trello-Webhook", Algorithm: "sha1", Encoding: "base64", Signed: "{body}{url}"},
	id:   "action.id", typ: "action.type", at: "action.date",
	greeting: func(r *Request) (*Response, error) {
		if r.Method != http.MethodHead {
			return nil, nil
		}
		return &Response{Status: http.StatusOK}, nil
	},
	answering: trelloBoundary,
}

// trelloBoundary refuses what may be the end of a body that was cut: nothing stands between the signed body and the
// URL, and a card may name our URL.
func trelloBoundary(r *Request) (*Response, error) {
	if strings.Contains(r.Path, "}") || strings.Contains(r.RawQuery, "}") {
		return nil, errMalformed
	}
	return nil, nil
}

func sampleTrello(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	id, typ := fmt.Sprintf("%s%08x", s.hex(16), uint32(in.Seq)), pick(s, "updateCard", "createCard", "commentCard")
	body := fmt.Appendf(nil, `{"model":{"id":"%s","name":"Storefront","shortUrl":"https://trello.com/b/%s"},"action":{"id":"%s","idMemberCreator":"%s","data":{"card":{"id":"%s","name":"%s","idShort":%d,`+
		`"shortLink":"%s"},"board":{"id":"%[1]s","name":"Storefront"},"list":{"name":"%[9]s"}},"type":"%[10]s","date":"%[11]s","memberCreator":{"fullName":"%[12]s","username":"%[13]s"}}}`,
		s.hex(24), s.random(base62, 8), id, s.hex(24), s.hex(24), pick(s, "Export hangs", "Round half up", "Größe prüfen"), 1+r.IntN(900), s.random(base62, 8),
		pick(s, "To do", "Doing", "Done"), typ, s.iso(), who.first+" "+who.last, s.random("abcdefgh", 8))
	return jsonSample(id, typ, "Trello", body)
}
