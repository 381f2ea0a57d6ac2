package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

// sampleRazorpay makes a payment that was captured or has failed.
func sampleRazorpay(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	typ, status := pick(s, "payment.captured", "payment.captured", "payment.authorized"), "captured"
	switch {
	case o.early:
		typ, status = "payment.failed", "failed"
	case typ == "payment.authorized":
		status = "authorized"
	}
	id := s.unique(base62, 14)
	body := fmt.Appendf(nil, `{"entity":"event","account_id":"acc_%s","event":"%s","contains":["payment"],"payload":{"payment":{"entity":{"id":"pay_%s","entity":"payment","amount":%d,"currency":"%s",`+
		`"status":"%s","order_id":"order_%s","invoice_id":null,"international":false,"method":"upi","amount_refunded":0,"refund_status":null,"captured":%t,"description":"%s","card_id":null,"bank":null,`+
		`"wallet":null,"vpa":"buyer@upi","email":"%s","contact":"+919000090000","notes":{"order_id":"%s"},"fee":2,"tax":0,"error_code":null,"error_description":null,"created_at":%d}}},"created_at":%d}`,
		s.random(base62, 14), typ, s.random(base62, 14), o.amount, strings.ToUpper(o.currency), status, s.random(base62, 14), status == "captured", o.item, o.buyer.mail, o.id, in.Now.Unix()-3, in.Now.Unix())
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Accept": {"*/*"}, "Content-Type": {"application/json"}, "User-Agent": {"Razorpay-Webhook/v1"}, "X-Razorpay-Event-Id": {id},
	}}
}
