package provider

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
)

var sentry = &Provider{
	Name:            "sentry",
	AckTimeout:      800 * time.Millisecond,
	SecurityHeaders: []string{"Sentry-Hook-Signature", "Sentry-Hook-Resource", "Sentry-Hook-Timestamp", "Request-Id"},
	IDUnsigned:      true,
	credentials:     secretOnly(func() string { return newHexSecret() + newHexSecret()[:24] }),
	open:            sentryRules.open,
	sign:            sentryRules.sign,
	sample:          sampleSentry,
	Doc: Doc{
		Title:     "Sentry (integration platform)",
		URL:       "https://docs.sentry.io/integrations/integration-platform/webhooks/",
		Signature: "`Sentry-Hook-Signature: <hex>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the integration's client secret",
		ID:        "`Request-ID`, a random UUID that Sentry makes for each request; not signed",
		Type:      "`Sentry-Hook-Resource`, such as `issue`; not signed (the body's `action` is not joined to it)",
		Time:      "`Sentry-Hook-Timestamp`; not signed, so it does not limit how old a request may be",
		Retries:   "waits 1 s, so the ingress waits up to 0.8 s for Kafka; 1,000 timeouts within 24 hours end the subscription",
		Notes:     []string{"Sentry's examples sign the parsed and re-written JSON. Sentry itself signs the text that it sends, so the raw body is verified."},
		Unverified: []string{
			"Whether Sentry ever sends again: Sentry's code makes `Request-ID` anew with the headers, so that a second attempt would be a second event. The same body under another ID within the window is flagged.",
		},
		Config: "provider: sentry\nsecrets: [\"${SENTRY_CLIENT_SECRET}\"]",
	},
}

var sentryRules = &declared{
	HMAC: HMAC{Header: "Sentry-Hook-Signature"},
	id:   "header:Request-ID", typ: "header:Sentry-Hook-Resource", at: "header:Sentry-Hook-Timestamp",
}

func sampleSentry(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	id, typ := s.uuid(), pick(s, "issue", "issue", "comment", "error")
	body := fmt.Appendf(nil, `{"action":"%s","actor":{"id":"%d","name":"%s","type":"user"},"data":{"%s":{"id":"%d","title":"%s","culprit":"export.run","level":"error","platform":"go",`+
		`"firstSeen":"%s","project":{"id":"1","slug":"storefront"},"count":"%d"}},"installation":{"uuid":"a8e5d37a-696c-4c54-adb5-b3f28d64c7de"}}`,
		pick(s, "created", "resolved", "assigned"), 1+r.IntN(900), s.person().first, typ, 1_170_820_000+in.Seq, pick(s, "context deadline exceeded", "nil pointer dereference", "Größe: ungültig"), s.iso(), 1+r.IntN(90))
	return jsonSample(id, typ, "sentry-webhooks", body, "Request-ID", id, "Sentry-Hook-Resource", typ, "Sentry-Hook-Timestamp", strconv.FormatInt(in.Now.Unix(), 10))
}
