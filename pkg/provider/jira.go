package provider

import (
	"fmt"
	"math/rand/v2"
)

var jira = &Provider{
	Name:            "jira",
	SecurityHeaders: []string{"X-Hub-Signature", "X-Atlassian-Webhook-Identifier"},
	IDUnsigned:      true,
	credentials:     secretOnly(newHexSecret),
	open:            jiraRules.open,
	sign:            jiraRules.sign,
	sample:          sampleJira,
	Doc: Doc{
		Title:     "Jira Cloud",
		URL:       "https://developer.atlassian.com/cloud/jira/platform/webhooks/",
		Signature: "`X-Hub-Signature: sha256=<hex>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the secret",
		ID:        "`X-Atlassian-Webhook-Identifier`, the same for every retry; not signed",
		Type:      "body `webhookEvent`, such as `jira:issue_updated`",
		Time:      "body `timestamp`, Unix milliseconds",
		Notes: []string{
			"For webhooks that have a secret. Connect apps send a JWT in `Authorization` instead, which this preset does not read.",
			"`X-Atlassian-Webhook-Retry` counts the retries.",
		},
		Unverified: []string{"Up to 5 retries, 5 to 15 minutes apart, on 408, 409, 425, 429 and 5xx."},
		Config:     "provider: jira\nsecrets: [\"${JIRA_WEBHOOK_SECRET}\"]",
	},
}

var jiraRules = &declared{
	HMAC: HMAC{Header: "X-Hub-Signature", Prefix: "sha256="},
	id:   "header:X-Atlassian-Webhook-Identifier", typ: "webhookEvent", at: "timestamp",
}

func sampleJira(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	id, typ := s.uuid(), pick(s, "jira:issue_created", "jira:issue_updated", "jira:issue_updated", "comment_created")
	body := fmt.Appendf(nil, `{"timestamp":%d,"webhookEvent":"%s","user":{"accountId":"%s","displayName":"%s","accountType":"atlassian"},"issue":{"id":"%d","key":"SHOP-%d",`+
		`"fields":{"summary":"%s","issuetype":{"name":"Bug"},"priority":{"name":"%s"},"status":{"name":"%s"},"project":{"key":"SHOP","name":"Storefront"},"created":"%s","labels":["export"]}}}`,
		in.Now.UnixMilli(), typ, "5b10a2844c20165700ede21g", who.first+" "+who.last, 10_000+r.IntN(90_000), 1+r.IntN(4000),
		pick(s, "Export hangs", "Wrong total after a partial refund", "Größe „Ø 20“ fehlt"), pick(s, "High", "Medium", "Low"), pick(s, "To Do", "In Progress", "Done"), s.iso())
	return jsonSample(id, typ, "Atlassian Webhook HTTP Client", body, "X-Atlassian-Webhook-Identifier", id, "X-Atlassian-Webhook-Flow", "Primary")
}
