package provider

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

var typeform = &Provider{
	Name:            "typeform",
	SecurityHeaders: []string{"Typeform-Signature"},
	credentials:     secretOnly(newHexSecret),
	open:            typeformRules.open,
	sign:            typeformRules.sign,
	sample:          sampleTypeform,
	Doc: Doc{
		Title:     "Typeform",
		URL:       "https://www.typeform.com/developers/webhooks/secure-your-webhooks/",
		Signature: "`Typeform-Signature: sha256=<base64>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the secret",
		ID:        "body `event_id`",
		Type:      "body `event_type`: `form_response` or `form_response_partial`",
		Time:      "body `form_response.submitted_at`, RFC 3339",
		Unverified: []string{
			"Waits 30 s; on 429, 408, 503 and 423 Typeform sends again every 2 to 3 minutes for 10 hours; 404 and 410 disable the webhook at once.",
		},
		Config: "provider: typeform\nsecrets: [\"${TYPEFORM_SECRET}\"]",
	},
}

var typeformRules = &declared{
	HMAC: HMAC{Header: "Typeform-Signature", Encoding: "base64", Prefix: "sha256="},
	id:   "event_id", typ: "event_type", at: "form_response.submitted_at",
}

func sampleTypeform(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	id, typ := "01"+s.unique(base36, 24), pick(s, "form_response", "form_response", "form_response_partial")
	body := fmt.Appendf(nil, `{"event_id":"%s","event_type":"%s","form_response":{"form_id":"lT4Z3j","token":"%s","landed_at":"%s","submitted_at":"%[4]s","hidden":{"order":"%[5]s"},`+
		`"definition":{"id":"lT4Z3j","title":"How was it?","fields":[{"id":"DlXFaesGBpoF","title":"Your name?","type":"short_text"},{"id":"SMEUb7VJz92Q","title":"How likely …?","type":"opinion_scale"}]},`+
		`"answers":[{"type":"text","text":"%[6]s","field":{"id":"DlXFaesGBpoF","type":"short_text"}},{"type":"number","number":%[7]d,"field":{"id":"SMEUb7VJz92Q","type":"opinion_scale"}}]}}`,
		id, typ, s.random(strings.ToLower(base36), 32), in.Now.UTC().Format("2006-01-02T15:04:05Z"), s.order().id, who.first+" "+who.last, r.IntN(11))
	return jsonSample(id, typ, "Typeform Webhooks", body)
}
