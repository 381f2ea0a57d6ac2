package provider

import (
	"fmt"
	"math/rand/v2"
)

var pagerduty = &Provider{
	Name:            "pagerduty",
	SecurityHeaders: []string{"X-Pagerduty-Signature"},
	credentials:     secretOnly(newHexSecret),
	open:            pagerdutyRules.open,
	sign:            pagerdutyRules.sign,
	sample:          samplePagerDuty,
	Doc: Doc{
		Title:     "PagerDuty, version 3",
		URL:       "https://developer.pagerduty.com/docs/verifying-webhook-signatures",
		Signature: "`X-PagerDuty-Signature: v1=<hex>[,v1=…]`, spaces around the commas allowed",
		Signed:    "body, HMAC-SHA256; the key is the text of the secret",
		ID:        "body `event.id`",
		Type:      "body `event.event_type`, such as `incident.triggered`",
		Time:      "body `event.occurred_at`, RFC 3339",
		Retries:   "on 5xx, 429 and no answer within 5 s (16 s for custom incident actions). Any other 4xx drops the event, and after three dropped ones in a row PagerDuty sends nothing for 24 hours",
		Notes: []string{
			"While secrets are rotated, there is one `v1` for each. Other versions are skipped.",
			"`X-Webhook-Id` is the same for every attempt of one subscription; it is kept with the headers. `event.id` is signed, and the same for all subscriptions.",
			"Events of one incident come in order.",
		},
		Unverified: []string{"For how long PagerDuty sends again: one page says 20 minutes, another 48 hours."},
		Config:     "provider: pagerduty\nsecrets: [\"${PAGERDUTY_SECRET}\"]",
	},
}

var pagerdutyRules = &declared{
	HMAC: HMAC{Header: "X-PagerDuty-Signature", Prefix: "v1=", Separator: ","},
	id:   "event.id", typ: "event.event_type", at: "event.occurred_at",
}

func samplePagerDuty(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	id, typ := "01"+s.unique(base36, 24), pick(s, "incident.triggered", "incident.acknowledged", "incident.resolved")
	body := fmt.Appendf(nil, `{"event":{"id":"%s","event_type":"%s","resource_type":"incident","occurred_at":"%s","agent":{"html_url":"https://north.pagerduty.com/users/PLH1HKV","id":"PLH1HKV",`+
		`"summary":"%s","type":"user_reference"},"client":null,"data":{"id":"P%s","type":"incident","html_url":"https://north.pagerduty.com/incidents/PGR0VU2","number":%d,"status":"%s",`+
		`"incident_key":"%s","created_at":"%[3]s","title":"%[9]s","service":{"id":"PF9KMXH","summary":"Checkout","type":"service_reference"},"urgency":"%[10]s"}}}`,
		id, typ, s.iso(), s.person().first, s.random(base36, 6), 1+r.IntN(9000), typ[len("incident."):], s.hex(32), pick(s, "Export queue is growing", "Checkout p99 > 2 s", "Disk 90 % full"), pick(s, "high", "low"))
	return jsonSample(id, typ, "PagerDuty-Webhook/V3.0", body, "X-Webhook-Id", s.uuid(), "X-Webhook-Subscription", "PSR63JF")
}
