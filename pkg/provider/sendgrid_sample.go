package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

// sampleSendGrid makes a batch of one to three events of one mail.
func sampleSendGrid(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	typ := pick(s, "delivered", "delivered", "open", "bounce")
	events := make([]string, 1+r.IntN(3))
	for i := range events {
		more := `"response":"250 OK","smtp-id":"<` + s.hex(16) + `@geopod-ismtpd-0>"`
		switch typ {
		case "open":
			more = `"useragent":"Mozilla/5.0","ip":"203.0.113.9","sg_machine_open":false`
		case "bounce":
			more = `"reason":"550 5.1.1 The email account does not exist","status":"5.1.1","type":"bounce","bounce_classification":"Invalid Address"`
		}
		events[i] = fmt.Sprintf(`{"email":"%s","event":"%s","sg_event_id":"%s","sg_message_id":"%s.filterdrecv-5645d9c87f-78xnw-1-5F5FCB6D-%X.0","timestamp":%d,"category":["orders"],"order_id":"%s",%s}`,
			who.mail, typ, s.unique(base62, 48), s.random(base62, 22), i, in.Now.Unix()+int64(i), s.order().id, more)
	}
	return Sample{ID: "batch-" + s.unique(base62, 12), Type: typ, Body: []byte("[" + strings.Join(events, ",\r\n") + "]\r\n"), Header: http.Header{
		"Content-Type": {"application/json"},
		"User-Agent":   {"SendGrid Event API"},
	}}
}
