package provider

import (
	"time"
)

// github is the model of a preset that is data. A hook that posts forms signs the form's bytes, as anybody would.
var github = &Provider{
	Name:            "github",
	AckTimeout:      9 * time.Second,
	SecurityHeaders: []string{"X-Hub-Signature-256", "X-Github-Delivery", "X-Github-Event"},
	IDUnsigned:      true,
	credentials:     secretOnly(newHexSecret),
	open:            githubRules.open,
	sign:            githubRules.sign,
	sample:          sampleGitHub,
	Doc: Doc{
		Title:     "GitHub",
		URL:       "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
		Signature: "`X-Hub-Signature-256: sha256=<hex>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the secret",
		ID:        "`X-GitHub-Delivery`, the same when a delivery is sent again; not signed",
		Type:      "`X-GitHub-Event`; not signed (the body's `action` is not joined to it)",
		Retries:   "none by itself: deliveries of the last 3 days can be sent again by hand or through the API; waits 10 s, so the ingress waits up to 9 s for Kafka",
		Notes: []string{
			"A hook may post forms, `payload=<JSON>`; the form's bytes are what is signed.",
			"`X-Hub-Signature` (SHA-1) is ignored.",
			"Bodies are up to 25 MB: set `max_body: 25MB` and the topic's `max.message.bytes` to match.",
		},
		Config: "provider: github\nsecrets: [\"${GITHUB_WEBHOOK_SECRET}\"]\nmax_body: 25MB",
	},
}

var githubRules = &declared{
	HMAC: HMAC{Header: "X-Hub-Signature-256", Prefix: "sha256="},
	id:   "header:X-GitHub-Delivery", typ: "header:X-GitHub-Event",
}
