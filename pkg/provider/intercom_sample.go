package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

// sampleIntercom makes a notification about a contact or a conversation.
func sampleIntercom(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	typ := pick(s, "contact.user.created", "conversation.user.created", "conversation.user.replied")
	id := "notif_" + s.uuid()
	item := fmt.Sprintf(`{"type":"contact","id":"%s","role":"user","email":"%s","name":"%s %s","workspace_id":"a1b2c3","created_at":"%s"}`,
		s.hex(24), who.mail, who.first, who.last, in.Now.UTC().Format("2006-01-02T15:04:05.000Z"))
	if typ != "contact.user.created" {
		item = fmt.Sprintf(`{"type":"conversation","id":"%d","created_at":%d,"open":true,"state":"open","source":{"type":"conversation","delivered_as":"customer_initiated",`+
			`"body":"<p>%s</p>","author":{"type":"user","id":"%s","name":"%s","email":"%s"}}}`,
			10_000_000+r.IntN(90_000_000), in.Now.Unix(), pick(s, "Where is order "+s.order().id+"?", "Thank you!", "How do I export?"), s.hex(24), who.first, who.mail)
	}
	body := fmt.Appendf(nil, `{"type":"notification_event","app_id":"a1b2c3","data":{"type":"notification_event_data","item":%s},"links":{},"id":"%s","topic":"%s",`+
		`"delivery_status":"pending","delivery_attempts":1,"delivered_at":0,"first_sent_at":%d,"created_at":%[4]d,"self":null}`, item, id, typ, in.Now.Unix())
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Content-Type": {"application/json; charset=utf-8"},
		"User-Agent":   {"intercom-webhook-processor"},
	}}
}
