package provider

import "net/http"

var intercom = &Provider{
	Name:             "intercom",
	HandshakeMethods: []string{http.MethodHead},
	SecurityHeaders:  []string{"X-Hub-Signature"},
	Volatile:         []string{"delivery_attempts"},
	credentials:      secretOnly(newHexSecret),
	open:             intercomRules.open,
	sign:             intercomRules.sign,
	sample:           sampleIntercom,
	Doc: Doc{
		Title:     "Intercom",
		URL:       "https://developers.intercom.com/docs/webhooks/webhook-notifications",
		Signature: "`X-Hub-Signature: sha1=<hex>`",
		Signed:    "body, HMAC-SHA1; the key is the text of the app's client secret",
		ID:        "body `id` (`notif_…`), the same when a notification is sent again",
		Type:      "body `topic`",
		Time:      "body `created_at`, Unix seconds",
		Handshake: "a HEAD request when the URL is set is answered with 200",
		Retries:   "once after a minute; waits 5 s",
		Notes:     []string{"`delivery_attempts` changes between the attempts."},
		Unverified: []string{
			"the HEAD request, and that `id` stays the same",
			"5 s, and one retry after a minute",
		},
		Config: "provider: intercom\nsecrets: [\"${INTERCOM_CLIENT_SECRET}\"]",
	},
}

var intercomRules = &declared{
	HMAC: HMAC{Header: "X-Hub-Signature", Algorithm: "sha1", Prefix: "sha1="},
	id:   "id", typ: "topic", at: "created_at",
	greeting: answerHead,
}

// answerHead answers a probe that asks for nothing but a 200.
func answerHead(r *Request) (*Response, error) {
	if r.Method != http.MethodHead {
		return nil, nil
	}
	return &Response{Status: http.StatusOK}, nil
}
