package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// sampleZendesk makes an event of a ticket or a user.
func sampleZendesk(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ := pick(s, "zen:event-type:ticket.status_changed", "zen:event-type:ticket.created", "zen:event-type:user.created")
	id, who, n := s.uuid(), s.person(), 1000+r.IntN(90000)
	subject, event := fmt.Sprintf("zen:ticket:%d", n), `{"current":"SOLVED","previous":"OPEN"}`
	switch typ {
	case "zen:event-type:ticket.created":
		event = `{}`
	case "zen:event-type:user.created":
		subject, event = fmt.Sprintf("zen:user:%d", n), `{}`
	}
	at := in.Now.UTC().Format(time.RFC3339Nano)
	body := fmt.Appendf(nil, `{"account_id":22129848,"detail":{"id":"%d","subject":"%s","status":"SOLVED","priority":"NORMAL","requester_id":"8447388090494","created_at":"%[3]s",`+
		`"updated_at":"%[3]s","via":{"channel":"web_service"},"email":"%[4]s"},"event":%[5]s,"id":"%[6]s","subject":"%[7]s","time":"%[3]s","type":"%[8]s","zendesk_event_version":"2022-11-06"}`,
		n, pick(s, "Where is my parcel?", "Refund", "Invoice "+s.order().id), at, who.mail, event, id, subject, typ)
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Content-Type":            {"application/json; charset=utf-8"},
		"User-Agent":              {"Zendesk Webhook"},
		"X-Zendesk-Account-Id":    {"22129848"},
		"X-Zendesk-Webhook-Id":    {"01K2Z0Q3YB9V6W7X8Y9Z0A1B2C"},
		zendeskID:                 {"01" + s.unique(base36, 24)},
		"X-Zendesk-Webhook-Topic": {typ},
	}}
}
