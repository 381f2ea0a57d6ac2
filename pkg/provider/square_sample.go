package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

// sampleSquare makes a payment that was created or updated.
func sampleSquare(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	typ, status := pick(s, "payment.updated", "payment.updated", "payment.created"), "COMPLETED"
	if o.early {
		typ = "payment.created"
	}
	if typ == "payment.created" {
		status = "APPROVED"
	}
	id, at := s.uuid(), in.Now.UTC().Format("2006-01-02T15:04:05.000Z")
	body := fmt.Appendf(nil, `{"merchant_id":"%s","location_id":"%s","type":"%s","event_id":"%s","created_at":"%[5]s","data":{"type":"payment","id":"%[6]s","object":{"payment":{`+
		`"id":"%[6]s","created_at":"%[5]s","updated_at":"%[5]s","amount_money":{"amount":%[7]d,"currency":"%[8]s"},"status":"%[9]s","delay_duration":"PT168H","source_type":"CARD",`+
		`"card_details":{"status":"CAPTURED","card":{"card_brand":"VISA","last_4":"1111","exp_month":3,"exp_year":2030,"card_type":"CREDIT","bin":"411111"},"entry_method":"KEYED",`+
		`"cvv_status":"CVV_ACCEPTED","avs_status":"AVS_ACCEPTED"},"order_id":"%[10]s","reference_id":"%[11]s","buyer_email_address":"%[12]s","total_money":{"amount":%[7]d,"currency":"%[8]s"},`+
		`"receipt_number":"%[13]s","version":1}}}}`,
		s.random(base36, 13), s.random(base36, 13), typ, id, at, s.random(base62, 28), o.amount, strings.ToUpper(o.currency), status, s.random(base62, 27), o.id, o.buyer.mail, s.random(base62, 4))
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Content-Type":                      {"application/json"},
		"User-Agent":                        {"Square Connect v2"},
		"Square-Environment":                {"Sandbox"},
		"Square-Initial-Delivery-Timestamp": {at},
		"Square-Version":                    {"2025-10-16"},
	}}
}
