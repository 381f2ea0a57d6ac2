package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

// sampleMeta makes what WhatsApp sends: a message, or the status of one; sometimes several changes at once.
func sampleMeta(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ := pick(s, "messages", "messages", "message_template_status_update")
	changes := make([]string, 1+r.IntN(2))
	for i := range changes {
		changes[i] = metaSampleChange(s, typ)
	}
	body := fmt.Appendf(nil, `{"object":"whatsapp_business_account","entry":[{"id":"%s","time":%d,"changes":[%s]}]}`,
		s.random("0123456789", 15), in.Now.Unix(), strings.Join(changes, ","))
	return Sample{ID: "batch-" + s.unique(base62, 12), Type: typ, Body: body, Header: http.Header{
		"Content-Type": {"application/json"},
		"User-Agent":   {"facebookexternalua"},
	}}
}

func metaSampleChange(s sampler, typ string) string {
	who, id := s.person(), "wamid.HBgL"+s.unique(base62, 40)
	phone := "49151" + s.random("0123456789", 8)
	if typ != "messages" {
		return fmt.Sprintf(`{"field":"%s","value":{"event":"APPROVED","message_template_id":%d,"message_template_name":"order_%s","message_template_language":"de","reason":"NONE"}}`,
			typ, 10_000_000+s.in.Seq, strings.ToLower(s.random(base36, 6)))
	}
	inner := fmt.Sprintf(`"contacts":[{"profile":{"name":"%s %s"},"wa_id":"%s"}],"messages":[{"from":"%[3]s","id":"%[4]s","timestamp":"%[5]d","type":"text","text":{"body":"%[6]s"}}]`,
		who.first, who.last, phone, id, s.in.Now.Unix(), pick(s, "Where is "+s.order().id+"?", "Thank you!", `Gr\u00fc\u00dfe`))
	if s.r.IntN(2) == 0 {
		inner = fmt.Sprintf(`"statuses":[{"id":"%s","status":"%s","timestamp":"%d","recipient_id":"%s","pricing":{"billable":true,"pricing_model":"PMP","category":"utility"}}]`,
			id, pick(s, "sent", "delivered", "read"), s.in.Now.Unix(), phone)
	}
	return fmt.Sprintf(`{"field":"messages","value":{"messaging_product":"whatsapp","metadata":{"display_phone_number":"15550783881","phone_number_id":"106540352242922"},%s}}`, inner)
}
