package provider

import (
	"fmt"
	"math/rand/v2"
	"strconv"
)

var docusign = &Provider{
	Name:        "docusign",
	Volatile:    []string{"retryCount"},
	credentials: secretOnly(newHexSecret),
	open:        docusignRules.open,
	sign:        docusignRules.sign,
	sample:      sampleDocusign,
	Doc: Doc{
		Title:     "DocuSign Connect",
		URL:       "https://developers.docusign.com/platform/webhooks/connect/validate/",
		Signature: "`X-DocuSign-Signature-1` … `-100: <base64>`, one for each active key, of which one must fit one of the secrets",
		Signed:    "body, HMAC-SHA256; the key is the text of the Connect key",
		ID:        "JSON: `data.envelopeId`, `event` and `generatedDateTime`, with slashes between them, the same for every retry; XML: the body's digest",
		Type:      "JSON: body `event`, such as `envelope-completed`; XML: none",
		Time:      "JSON: body `generatedDateTime`; XML: none",
		Notes: []string{
			"HMAC must be switched on in the Connect configuration; without it there is no signature, and deliveries are refused.",
			"DocuSign gives a delivery no ID. `retryCount` changes between retries.",
			"Deliveries may contain whole documents: mind `max_body`.",
		},
		Unverified: []string{"Waits 100 s, and sends again for days."},
		Config:     "provider: docusign\nsecrets: [\"${DOCUSIGN_CONNECT_KEY}\"]\nmax_body: 25MB",
	},
}

var docusignRules = &declared{
	HMAC: HMAC{Header: "X-DocuSign-Signature-1", Encoding: "base64"},
	also: docusignHeaders(),
	id:   "data.envelopeId event generatedDateTime", typ: "event", at: "generatedDateTime",
}

// docusignHeaders are the second to the hundredth, canonical.
func docusignHeaders() []string {
	var names []string
	for i := 2; i <= 100; i++ {
		names = append(names, "X-Docusign-Signature-"+strconv.Itoa(i))
	}
	return names
}

func sampleDocusign(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	envelope, typ, at := s.uuid(), pick(s, "envelope-sent", "envelope-completed", "recipient-completed"), in.Now.UTC().Format("2006-01-02T15:04:05.0000000Z")
	body := fmt.Appendf(nil, `{"event":"%s","apiVersion":"v2.1","uri":"/restapi/v2.1/accounts/6afd6321/envelopes/%s","retryCount":0,"configurationId":10429,"generatedDateTime":"%s",`+
		`"data":{"accountId":"4e2ce3a4-1d3c-4a57-8b7c-6afd63210d1e","userId":"%s","envelopeId":"%[2]s","envelopeSummary":{"status":"%[5]s","emailSubject":"%[6]s","sentDateTime":"%[3]s",`+
		`"sender":{"userName":"%[7]s","email":"%[8]s"},"recipients":{"signers":[{"name":"%[7]s","email":"%[8]s","routingOrder":"%[9]d"}]}}}}`,
		typ, envelope, at, s.uuid(), pick(s, "sent", "completed"), pick(s, "Please sign: lease", "Vertrag zur Unterschrift: Größe"), who.first+" "+who.last, who.mail, 1+r.IntN(3))
	return jsonSample(envelope+"/"+typ+"/"+at, typ, "DocuSign-Connect", body, "X-Authorization-Digest", "HMACSHA256")
}
