package provider

import (
	"bytes"
	"strings"
)

var square = &Provider{
	Name:            "square",
	SecurityHeaders: []string{"X-Square-Hmacsha256-Signature"},
	credentials:     secretOnly(newSquareSecret),
	open:            squareRules.open,
	sign:            squareRules.sign,
	sample:          sampleSquare,
	Doc: Doc{
		Title:     "Square",
		URL:       "https://developer.squareup.com/docs/webhooks/step3validate",
		Signature: "`X-Square-HmacSha256-Signature: <base64>`",
		Signed:    "the subscription's notification URL, directly followed by the body, HMAC-SHA256; the key is the text of the signature key",
		ID:        "body `event_id`, the same for every retry",
		Type:      "body `type`",
		Time:      "body `created_at`, RFC 3339",
		Retries:   "11 times over 24 h (an older page says 72 h); waits 10 s",
		Notes: []string{
			"`public_url` is what the subscription calls, byte for byte, query included.",
			"No text separates the URL from the body. So that the signed bytes cannot be split elsewhere, a URL with a brace is refused, and so is a body that does not begin with one.",
			"No time is signed. `X-Square-Signature` (SHA-1) is ignored.",
		},
		Config: "provider: square\nsecrets: [\"${SQUARE_SIGNATURE_KEY}\"]\noptions: {public_url: https://hooks.example.com}",
	},
}

var squareRules = &declared{
	HMAC: HMAC{Header: "X-Square-HmacSha256-Signature", Encoding: "base64", Signed: "{url}{body}"},
	id:   "event_id", typ: "type", at: "created_at",
	answering: squareBoundary,
}

// squareBoundary refuses a verified request whose URL and body could have been cut at another place: the signed
// bytes are the same when the query takes in the body's beginning, or the body the query.
func squareBoundary(r *Request) (*Response, error) {
	if strings.Contains(r.Path, "{") || strings.Contains(r.RawQuery, "{") || len(r.Body) > 0 && !bytes.HasPrefix(r.Body, []byte("{")) {
		return nil, errMalformed
	}
	return nil, nil
}
