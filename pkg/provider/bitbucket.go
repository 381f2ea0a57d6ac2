package provider

import (
	"fmt"
	"math/rand/v2"
	"time"
)

var bitbucket = &Provider{
	Name:            "bitbucket",
	AckTimeout:      9 * time.Second,
	SecurityHeaders: []string{"X-Hub-Signature", "X-Request-Uuid", "X-Request-Id", "X-Event-Key"},
	IDUnsigned:      true,
	credentials:     secretOnly(newHexSecret),
	open:            bitbucketRules.open,
	sign:            bitbucketRules.sign,
	sample:          sampleBitbucket,
	Doc: Doc{
		Title:     "Bitbucket",
		URL:       "https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/",
		Signature: "`X-Hub-Signature: sha256=<hex>` (SHA-256, under the name that elsewhere means SHA-1)",
		Signed:    "body, HMAC-SHA256; the key is the text of the secret",
		ID:        "`X-Request-UUID` (Cloud), else `X-Request-Id` (Data Center); not signed",
		Type:      "`X-Event-Key`, such as `repo:push`; not signed",
		Retries:   "Cloud: up to 2, on 5xx alone and almost at once; waits 10 s, so the ingress waits up to 9 s for Kafka",
		Notes: []string{
			"A hook without a secret is not signed: set one, or its deliveries are refused.",
			"`X-Hook-UUID` names the hook, not the event; `X-Attempt-Number` counts the attempts.",
			"Bodies of Bitbucket Cloud are up to 256 KB.",
		},
		Unverified: []string{
			"Whether `X-Request-UUID` stays the same over retries. If it changes, a retry is a second event; the same body under another ID within the window is flagged.",
			"When Data Center sends again.",
		},
		Config: "provider: bitbucket\nsecrets: [\"${BITBUCKET_SECRET}\"]",
	},
}

var bitbucketRules = &declared{
	HMAC: HMAC{Header: "X-Hub-Signature", Prefix: "sha256="},
	id:   "header:X-Request-UUID header:X-Request-Id", typ: "header:X-Event-Key",
}

func sampleBitbucket(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	id, typ := s.uuid(), pick(s, "repo:push", "pullrequest:created", "issue:created")
	tail := fmt.Sprintf(`"actor":{"display_name":"%s","type":"user","uuid":"{%s}"},"repository":{"name":"storefront","full_name":"north/storefront","uuid":"{b3b4a8d2-1f52-4d4a-9c1e-5d4b0f6f0a11}","is_private":true}}`,
		who.first+" "+who.last, s.uuid())
	body := fmt.Sprintf(`{"push":{"changes":[{"forced":false,"old":{"type":"branch","name":"main","target":{"hash":"%s"}},"new":{"type":"branch","name":"main","target":{"hash":"%s","date":"%s"}}}]},`,
		s.hex(40), s.hex(40), s.iso())
	if typ != "repo:push" {
		body = fmt.Sprintf(`{"%s":{"id":%d,"title":"%s","state":"OPEN","created_on":"%s","source":{"branch":{"name":"fix"}},"destination":{"branch":{"name":"main"}}},`,
			map[string]string{"pullrequest:created": "pullrequest", "issue:created": "issue"}[typ], 1+r.IntN(900), pick(s, "Export: retry", "Docs: typo", "Größe prüfen"), s.iso())
	}
	return jsonSample(id, typ, "Bitbucket-Webhooks/2.0", []byte(body+tail),
		"X-Request-UUID", id, "X-Event-Key", typ, "X-Hook-UUID", "b9a1e6b2-4f0d-4f3f-8e6b-6a3c3a1f7a10", "X-Attempt-Number", "1")
}
