package provider

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// sampleTwilio makes a status callback of a message or a call.
func sampleTwilio(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ := pick(s, "delivered", "sent", "completed", "ringing")
	form := url.Values{
		"AccountSid": {"AC" + s.hex(32)}, "ApiVersion": {"2010-04-01"},
		"From": {"+1415" + s.random("0123456789", 7)}, "To": {"+1510" + s.random("0123456789", 7)},
	}
	if typ == "delivered" || typ == "sent" {
		sid := "SM" + s.unique("0123456789abcdef", 32)
		form["MessageSid"], form["SmsSid"], form["MessageStatus"], form["SmsStatus"] = []string{sid}, []string{sid}, []string{typ}, []string{typ}
	} else {
		form["CallSid"], form["CallStatus"] = []string{"CA" + s.unique("0123456789abcdef", 32)}, []string{typ}
		form["CallbackSource"], form["Direction"] = []string{"call-progress-events"}, []string{"outbound-api"}
		form["SequenceNumber"], form["CallDuration"] = []string{strconv.Itoa(r.IntN(4))}, []string{strconv.Itoa(r.IntN(600))}
		form["Timestamp"] = []string{in.Now.UTC().Format(time.RFC1123Z)}
	}
	id := s.uuid()
	return Sample{ID: id, Type: typ, Body: []byte(form.Encode()), Header: http.Header{
		"Content-Type": {"application/x-www-form-urlencoded; charset=UTF-8"},
		"User-Agent":   {"TwilioProxy/1.1"},
		twilioToken:    {id},
	}}
}
