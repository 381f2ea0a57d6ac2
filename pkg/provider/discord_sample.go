package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

// sampleDiscord makes a webhook event: an entitlement that was bought, or an application that was authorized.
func sampleDiscord(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	typ := pick(s, "ENTITLEMENT_CREATE", "ENTITLEMENT_CREATE", "APPLICATION_AUTHORIZED")
	app, user, id := s.snowflake(), s.snowflake(), s.snowflake()
	at := in.Now.UTC().Format("2006-01-02T15:04:05.000000")
	data := fmt.Sprintf(`{"application_id":"%s","consumed":false,"deleted":false,"gift_code_flags":0,"id":"%s","promotion_id":null,"sku_id":"%s","type":4,"user_id":"%s"}`,
		app, id, s.snowflake(), user)
	if typ == "APPLICATION_AUTHORIZED" {
		data = fmt.Sprintf(`{"integration_type":1,"scopes":["applications.commands"],"user":{"id":"%s","username":"%s","discriminator":"0","global_name":"%s","avatar":"%s","public_flags":0}}`,
			user, pick(s, "ada.berg", "jlindqvist", "mira"), id, s.hex(32))
	}
	body := fmt.Appendf(nil, `{"version":1,"application_id":"%s","type":1,"event":{"type":"%s","timestamp":"%s","data":%s}}`, app, typ, at, data)
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Content-Type": {"application/json"},
		"User-Agent":   {"Discord-Webhook/1.0 (+https://discord.com)"},
	}}
}

// snowflake is an ID of 19 digits, of which the last 8 stand for Seq.
func (s sampler) snowflake() string { return "12" + s.unique("0123456789", 17) }
