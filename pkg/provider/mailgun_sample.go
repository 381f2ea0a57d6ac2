package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

// sampleMailgun makes an event of a mail; Sign adds the signature.
func sampleMailgun(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ := pick(s, "delivered", "delivered", "opened", "failed")
	id, who := s.unique(base62, 22), s.person()
	more := `"delivery-status":{"code":250,"message":"OK","tls":true,"mx-host":"mx.example.com","attempt-no":1,"session-seconds":0.43}`
	switch typ {
	case "opened":
		more = `"client-info":{"client-type":"mobile browser","client-os":"iOS","device-type":"mobile","client-name":"Mobile Safari"},"ip":"203.0.113.9"`
	case "failed":
		more = `"severity":"permanent","reason":"bounce","delivery-status":{"code":550,"message":"No such user","attempt-no":1}`
	}
	body := fmt.Appendf(nil, `{"event-data":{"id":"%s","event":"%s","timestamp":%d.%06d,"log-level":"info","recipient":"%s","recipient-domain":"example.com",`+
		`"message":{"headers":{"to":"%[5]s","message-id":"%[6]s@mg.example.com","from":"shop@mg.example.com","subject":"%[7]s"},"attachments":[],"size":%[8]d},`+
		`"tags":["orders"],"user-variables":{"order_id":"%[9]s"},%[10]s}}`,
		id, typ, in.Now.Unix(), r.IntN(1e6), who.mail, s.hex(24), pick(s, "Your order", "Receipt", "On its way ✈"), 900+r.IntN(9000), s.order().id, more)
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Content-Type": {"application/json"},
		"User-Agent":   {"mailgun/treq-20.9.0"},
	}}
}
