package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// sampleCoinbaseCommerce makes a charge that was created, confirmed or has failed.
func sampleCoinbaseCommerce(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	typ := pick(s, "charge:confirmed", "charge:confirmed", "charge:failed")
	if o.early {
		typ = "charge:created"
	}
	id, at := s.uuid(), in.Now.UTC().Format(time.RFC3339)
	body := fmt.Appendf(nil, `{"attempt_number":1,"event":{"api_version":"2018-03-22","created_at":"%[1]s","data":{"id":"%[2]s","code":"%[3]s","name":"%[4]s","description":"%[4]s",`+
		`"hosted_url":"https://commerce.coinbase.com/charges/%[3]s","created_at":"%[1]s","expires_at":"%[1]s","metadata":{"order_id":"%[5]s"},"pricing_type":"fixed_price",`+
		`"pricing":{"local":{"amount":"%[6]s","currency":"%[7]s"}},"payments":[],"timeline":[{"time":"%[1]s","status":"NEW"}]},"id":"%[8]s","resource":"event","type":"%[9]s"},"id":"%[10]s","scheduled_for":"%[1]s"}`,
		at, s.uuid(), s.random(base36, 8), o.item, o.id, price(o.amount), strings.ToUpper(o.currency), id, typ, s.uuid())
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{"Content-Type": {"application/json"}, "User-Agent": {"weipay-webhooks"}}}
}
