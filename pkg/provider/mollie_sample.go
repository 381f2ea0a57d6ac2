package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// sampleMollie makes a paid payment link, or a sales invoice that was issued or paid.
func sampleMollie(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	typ := pick(s, "payment-link.paid", "sales-invoice.paid", "sales-invoice.issued")
	id, at, entity := "event_"+s.unique(base62, 22), in.Now.UTC().Format(time.RFC3339), "pl_"+s.random(base62, 16)
	if typ != "payment-link.paid" {
		entity = "invoice_" + s.random(base62, 16)
	}
	body := fmt.Appendf(nil, `{"resource":"event","id":"%[1]s","type":"%[2]s","entityId":"%[3]s","createdAt":"%[4]s","_embedded":{"entity":{"id":"%[3]s","mode":"test","description":"%[5]s",`+
		`"amount":{"currency":"%[6]s","value":"%[7]s"},"profileId":"pfl_%[8]s","metadata":{"order_id":"%[9]s"},"createdAt":"%[4]s"}},`+
		`"_links":{"self":{"href":"https://api.mollie.com/v2/events/%[1]s","type":"application/hal+json"}}}`,
		id, typ, entity, at, o.item, strings.ToUpper(o.currency), price(o.amount), s.random(base62, 10), o.id)
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{"Accept": {"*/*"}, "Content-Type": {"application/json"}, "User-Agent": {"Mollie HTTP client/1.0"}}}
}
