package provider

import (
	"fmt"
	"math/rand/v2"
)

var vercel = &Provider{
	Name:            "vercel",
	SecurityHeaders: []string{"X-Vercel-Signature"},
	credentials:     secretOnly(newHexSecret),
	open:            vercelRules.open,
	sign:            vercelRules.sign,
	sample:          sampleVercel,
	Doc: Doc{
		Title:     "Vercel",
		URL:       "https://vercel.com/docs/webhooks/webhooks-api",
		Signature: "`x-vercel-signature: <hex>`",
		Signed:    "body, HMAC-SHA1; the key is the text of the webhook's secret (of an integration: the client secret)",
		ID:        "body `id`",
		Type:      "body `type`, such as `deployment.created`",
		Time:      "body `createdAt`, Unix milliseconds",
		Notes:     []string{"HMAC-SHA1 is not broken by collisions of SHA-1; nothing better is offered."},
		Unverified: []string{
			"Retries up to 24 hours; waits 30 s.",
		},
		Config: "provider: vercel\nsecrets: [\"${VERCEL_WEBHOOK_SECRET}\"]",
	},
}

var vercelRules = &declared{
	HMAC: HMAC{Header: "X-Vercel-Signature", Algorithm: "sha1"},
	id:   "id", typ: "type", at: "createdAt",
}

func sampleVercel(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	id, typ := "uev_"+s.unique(base62, 24), pick(s, "deployment.created", "deployment.succeeded", "deployment.error", "project.created")
	body := fmt.Appendf(nil, `{"id":"%s","type":"%s","createdAt":%d,"region":"%s","payload":{"team":{"id":"team_%s"},"user":{"id":"%s"},"alias":["storefront.example.com"],"target":"%s",`+
		`"deployment":{"id":"dpl_%s","name":"storefront","url":"storefront-%s.example.app","meta":{"githubCommitRef":"main","githubCommitMessage":"%s"}},"project":{"id":"prj_%s"}}}`,
		id, typ, in.Now.UnixMilli(), pick(s, "fra1", "iad1"), s.random(base62, 24), s.random(base62, 24), pick(s, "production", "staging"), s.random(base62, 28), s.hex(9),
		pick(s, "Retry the export", "Add “paid” badge"), s.random(base62, 28))
	return jsonSample(id, typ, "node-fetch", body)
}
