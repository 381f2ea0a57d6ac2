package provider

import (
	"fmt"
	"math/rand/v2"
	"time"
)

var linear = &Provider{
	Name:            "linear",
	SecurityHeaders: []string{"Linear-Signature", "Linear-Delivery"},
	IDUnsigned:      true,
	Volatile:        []string{"webhookTimestamp"},
	credentials:     secretOnly(func() string { return "lin_wh_" + newHexSecret() }),
	open:            linearRules.open,
	sign:            linearRules.sign,
	sample:          sampleLinear,
	Doc: Doc{
		Title:     "Linear",
		URL:       "https://linear.app/developers/webhooks",
		Signature: "`Linear-Signature: <hex>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the signing secret. The time of sending is the body's `webhookTimestamp`, Unix milliseconds",
		Tolerance: "1 minute, both ways",
		ID:        "`Linear-Delivery`; not signed",
		Type:      "body `type`, such as `Issue` (the body's `action` is not joined to it)",
		Time:      "body `createdAt`, RFC 3339",
		Retries:   "up to 3, after a minute, an hour and 6 hours; waits 5 s",
		Notes:     []string{"The header `Linear-Timestamp` is not signed, and is not looked at. A body without `webhookTimestamp` is refused, as Linear's own library does."},
		Unverified: []string{
			"Whether `Linear-Delivery` stays the same over retries.",
			"Whether `webhookTimestamp` is that of the attempt: if it were that of the first, retries would be too old. Set `options.tolerance` then.",
		},
		Config: "provider: linear\nsecrets: [\"${LINEAR_WEBHOOK_SECRET}\"]",
	},
}

var linearRules = &declared{
	HMAC:        HMAC{Header: "Linear-Signature", Tolerance: time.Minute},
	stampMember: "webhookTimestamp",
	id:          "header:Linear-Delivery", typ: "type", at: "createdAt",
}

func sampleLinear(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	id, typ := s.uuid(), pick(s, "Issue", "Issue", "Comment", "Project")
	action := pick(s, "create", "update", "remove")
	body := fmt.Appendf(nil, `{"action":"%s","type":"%s","actor":{"id":"%s","type":"user","name":"%s","email":"%s"},"createdAt":"%s","data":{"id":"%s","createdAt":"%[6]s","updatedAt":"%[6]s",`+
		`"number":%[8]d,"title":"%[9]s","priority":%[10]d,"teamId":"72b2a2dc-6f4f-4423-9d34-24b5bd10634a","state":{"name":"%[11]s","type":"started"}},"url":"https://linear.app/north/issue/SHO-%[8]d",`+
		`"organizationId":"3e8d1b2a-6b0c-4f3a-a1c1-0d4b1a0e7a55","webhookTimestamp":%[12]d,"webhookId":"790ce3f6-ea44-473d-bbd9-f3c73dc745a9"}`,
		action, typ, s.uuid(), who.first+" "+who.last, who.mail, s.iso(), s.uuid(), 1+r.IntN(4000), pick(s, "Export hangs", "Refunds: round half up", "大きさを確認"),
		r.IntN(5), pick(s, "Todo", "In Progress", "Done"), in.Now.UnixMilli())
	return jsonSample(id, typ, "Linear-Webhook", body, "Linear-Delivery", id, "Linear-Event", typ)
}
