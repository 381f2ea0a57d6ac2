package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
)

var dropbox = &Provider{
	Name:             "dropbox",
	HandshakeMethods: []string{http.MethodGet},
	SecurityHeaders:  []string{"X-Dropbox-Signature"},
	credentials:      secretOnly(newHexSecret),
	open:             dropboxRules.open,
	sign:             dropboxRules.sign,
	sample:           sampleDropbox,
	Doc: Doc{
		Title:     "Dropbox",
		URL:       "https://www.dropbox.com/developers/reference/webhooks",
		Signature: "`X-Dropbox-Signature: <hex>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the app secret",
		ID:        "none: the body's digest",
		Handshake: "`GET ?challenge=…`: 200 and the challenge as `text/plain` with `X-Content-Type-Options: nosniff`, if it is up to 1,024 visible ASCII characters; unsigned",
		Notes:     []string{"⚠ The body only lists the accounts whose files have changed, so that every notification of an account has the same body, and by its digest would be the same event. Therefore name deliveries by the time of their arrival, as the example does: a retry is then a second event, which does no harm, for it only says that there is something to ask Dropbox for."},
		Unverified: []string{
			"Waits 10 s.",
		},
		Config: "provider: dropbox\nsecrets: [\"${DROPBOX_APP_SECRET}\"]\nevent_id: string(received_at)",
	},
}

var dropboxRules = &declared{
	HMAC:     HMAC{Header: "X-Dropbox-Signature"},
	greeting: greetDropbox,
}

func greetDropbox(r *Request) (*Response, error) {
	if r.Method != http.MethodGet {
		return nil, nil
	}
	query, err := url.ParseQuery(r.RawQuery)
	challenge := query["challenge"]
	if err != nil || len(challenge) != 1 || challenge[0] == "" || len(challenge[0]) > maxChallenge || !visible(challenge[0]) {
		return nil, errHandshake
	}
	return textResponse(challenge[0]), nil
}

func sampleDropbox(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	account := "dbid:" + s.unique(base62, 35)
	body := fmt.Appendf(nil, `{"list_folder":{"accounts":["%s"]},"delta":{"users":[%d]}}`, account, 100_000_000+r.IntN(900_000_000))
	return jsonSample(account, "", "DropboxWebhooks/1.0", body)
}
