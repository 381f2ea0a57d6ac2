package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

const base32Lower = "0123456789abcdefghjkmnpqrstvwxyz"

// samplePaddle makes a transaction that was completed or paid, or has failed.
func samplePaddle(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	typ, status := pick(s, "transaction.completed", "transaction.completed", "transaction.paid"), "completed"
	switch {
	case o.early:
		typ, status = "transaction.payment_failed", "ready"
	case typ == "transaction.paid":
		status = "paid"
	}
	id, at := "evt_01"+s.unique(base32Lower, 24), in.Now.UTC().Format("2006-01-02T15:04:05.000000Z")
	body := fmt.Appendf(nil, `{"event_id":"%s","event_type":"%s","occurred_at":"%[3]s","notification_id":"ntf_01%[4]s","data":{"id":"txn_01%[5]s","status":"%[6]s","customer_id":"ctm_01%[7]s",`+
		`"address_id":"add_01%[7]s","business_id":null,"custom_data":{"order_id":"%[8]s"},"origin":"web","collection_mode":"automatic","currency_code":"%[9]s","created_at":"%[3]s","updated_at":"%[3]s",`+
		`"billed_at":"%[3]s","discount_id":null,"items":[{"price":{"id":"pri_01%[7]s","description":"%[10]s","unit_price":{"amount":"%[11]d","currency_code":"%[9]s"}},"quantity":1}],`+
		`"details":{"totals":{"subtotal":"%[11]d","discount":"0","tax":"0","total":"%[11]d","grand_total":"%[11]d","balance":"0","currency_code":"%[9]s"}},"payments":[{"amount":"%[11]d","status":"captured",`+
		`"method_details":{"type":"card","card":{"type":"visa","last4":"4242","expiry_month":3,"expiry_year":2030}}}]}}`,
		id, typ, at, s.random(base32Lower, 24), s.random(base32Lower, 24), status, s.random(base32Lower, 24), o.id, strings.ToUpper(o.currency), o.item, o.amount)
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Accept": {"*/*"}, "Content-Type": {"application/json"}, "User-Agent": {"Paddle"}, "Paddle-Version": {"1"},
	}}
}
