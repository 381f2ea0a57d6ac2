package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// sampleBraintree makes the XML of a charged or past due subscription, or of a settled transaction.
func sampleBraintree(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	typ := pick(s, "subscription_charged_successfully", "subscription_went_past_due", "transaction_settled")
	transaction := fmt.Sprintf(`<transaction><id>%s</id><status>%s</status><type>sale</type><currency-iso-code>EUR</currency-iso-code><amount>%s</amount><order-id>%s</order-id>`+
		`<created-at type="datetime">%s</created-at></transaction>`, s.unique(base36, 12), pick(s, "submitted_for_settlement", "settled"), price(o.amount), o.id, in.Now.UTC().Format(time.RFC3339))
	subject := transaction
	if typ != "transaction_settled" {
		subject = fmt.Sprintf(`<subscription><id>%s</id><status>Active</status><plan-id>annual</plan-id><price>%s</price><transactions type="array">%s</transactions></subscription>`,
			s.unique(base36, 10), price(o.amount), transaction)
	}
	body := fmt.Sprintf("<notification>\n  <timestamp type=\"datetime\">%s</timestamp>\n  <kind>%s</kind>\n  <source-merchant-id>catchment</source-merchant-id>\n  <subject>%s</subject>\n</notification>\n",
		in.Now.UTC().Format(time.RFC3339), typ, subject)
	return Sample{ID: s.uuid(), Type: typ, Body: []byte(body), Header: http.Header{
		"Accept": {"*/*"}, "Content-Type": {"application/x-www-form-urlencoded"}, "User-Agent": {"Braintree-Webhooks"},
	}}
}
