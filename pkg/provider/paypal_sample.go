package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// samplePayPal makes a capture that was completed, denied or refunded.
func samplePayPal(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	typ, status := pick(s, "PAYMENT.CAPTURE.COMPLETED", "PAYMENT.CAPTURE.COMPLETED", "PAYMENT.CAPTURE.REFUNDED"), "COMPLETED"
	switch {
	case o.early:
		typ, status = "PAYMENT.CAPTURE.PENDING", "PENDING"
	case typ == "PAYMENT.CAPTURE.REFUNDED":
		status = "REFUNDED"
	}
	id := "WH-" + s.unique(base36, 17) + "-" + s.random(base36, 17)
	at := in.Now.UTC().Format("2006-01-02T15:04:05.000Z")
	body := fmt.Appendf(nil, paypalEvent, id, at, typ, status, "CAP"+s.random(base36, 14), strings.ToUpper(o.currency), price(o.amount), o.id, price(o.amount/30+30),
		price(o.amount-o.amount/30-30), s.random(base36, 17), s.random(base36, 13), in.Now.UTC().Format(time.RFC3339))
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Accept":                   {"*/*"},
		"Content-Type":             {"application/json"},
		"User-Agent":               {"PayPal/AUHR-214.0-58799484"},
		"Correlation-Id":           {s.hex(13)},
		"Paypal-Transmission-Id":   {s.uuid()},
		"Paypal-Transmission-Time": {in.Now.UTC().Format(time.RFC3339)},
		"Paypal-Cert-Url":          {paypalCertURL},
		"Paypal-Auth-Version":      {"v2"},
	}}
}

const paypalEvent = `{"id":"%[1]s","event_version":"1.0","create_time":"%[2]s","resource_type":"capture","resource_version":"2.0","event_type":"%[3]s",` +
	`"summary":"A payment of %[7]s %[6]s","resource":{"id":"%[5]s","amount":{"currency_code":"%[6]s","value":"%[7]s"},"final_capture":true,"custom_id":"%[8]s",` +
	`"invoice_id":"%[8]s","seller_protection":{"status":"ELIGIBLE","dispute_categories":["ITEM_NOT_RECEIVED","UNAUTHORIZED_TRANSACTION"]},` +
	`"seller_receivable_breakdown":{"gross_amount":{"currency_code":"%[6]s","value":"%[7]s"},"paypal_fee":{"currency_code":"%[6]s","value":"%[9]s"},` +
	`"net_amount":{"currency_code":"%[6]s","value":"%[10]s"}},"supplementary_data":{"related_ids":{"order_id":"%[11]s"}},"payee":{"merchant_id":"%[12]s"},` +
	`"status":"%[4]s","create_time":"%[13]s","update_time":"%[13]s","links":[{"href":"https://api.sandbox.paypal.com/v2/payments/captures/%[5]s","rel":"self","method":"GET"}]},` +
	`"links":[{"href":"https://api.sandbox.paypal.com/v1/notifications/webhooks-events/%[1]s","rel":"self","method":"GET"},` +
	`{"href":"https://api.sandbox.paypal.com/v1/notifications/webhooks-events/%[1]s/resend","rel":"resend","method":"POST"}]}`
