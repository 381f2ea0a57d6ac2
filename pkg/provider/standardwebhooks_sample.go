package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// sampleStandard makes an event of an invoice.
func sampleStandard(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	typ, status := pick(s, "invoice.paid", "invoice.paid", "invoice.overdue"), "paid"
	if o.early {
		typ = "invoice.created"
	}
	switch typ {
	case "invoice.created":
		status = "open"
	case "invoice.overdue":
		status = "overdue"
	}
	id := "msg_" + s.unique(base62, 27)
	return Sample{
		ID: id, Type: typ, Body: businessEvent(s, `"type":"`+typ+`","timestamp":"`+in.Now.UTC().Format("2006-01-02T15:04:05.000000Z")+`"`, o, status),
		Header: http.Header{"Content-Type": {"application/json"}, "User-Agent": {"Svix-Webhooks/1.62.0"}},
	}
}

// sampleHMAC makes what a partner's own scheme might carry.
func sampleHMAC(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	typ, status := pick(s, "order.paid", "order.paid", "order.shipped"), "paid"
	if o.early {
		typ = "order.placed"
	}
	switch typ {
	case "order.placed":
		status = "open"
	case "order.shipped":
		status = "shipped"
	}
	id := "pe-" + s.unique(base36, 20)
	return Sample{
		ID: id, Type: typ, Body: businessEvent(s, `"id":"`+id+`","kind":"`+typ+`","created_at":"`+in.Now.UTC().Format(time.RFC3339)+`"`, o, status),
		Header: http.Header{"Content-Type": {"application/json"}, "User-Agent": {"partner-hooks/2.3"}},
	}
}

// businessEvent writes an order as the data of an event that begins with head.
func businessEvent(s sampler, head string, o order, status string) []byte {
	return fmt.Appendf(
		nil, businessBody, head, o.id, status, o.amount, o.currency, o.item, o.buyer.first, o.buyer.last, o.buyer.mail, o.buyer.city, o.buyer.country, o.buyer.zip,
		s.in.Now.UTC().Format(time.DateOnly), s.in.Now.UTC().AddDate(0, 0, 14).Format(time.DateOnly), o.amount*4/5, o.amount-o.amount*4/5, s.hex(24), s.hex(12),
	)
}

const businessBody = `{%s,"data":{"object":"invoice","number":"INV-%[18]s","order_id":"%[2]s","status":"%[3]s","amount":%[4]d,"currency":"%[5]s",` +
	`"lines":[{"description":"%[6]s","quantity":1,"unit_amount":%[15]d,"tax_rate":"0.25","period":{"start":"%[13]s","end":"%[14]s"}},` +
	`{"description":"Delivery","quantity":1,"unit_amount":0,"tax_rate":"0.25","period":null}],"subtotal":%[15]d,"tax":%[16]d,` +
	`"issued_on":"%[13]s","due_on":"%[14]s","customer":{"id":"cus_%[17]s","name":"%[7]s %[8]s","email":"%[9]s","address":{"line1":"12 Harbour Street","line2":null,` +
	`"city":"%[10]s","postal_code":"%[12]s","country":"%[11]s"},"locale":"en","tax_exempt":false},"payment":{"method":"card","brand":"visa","last4":"4242","captured":true,` +
	`"attempts":1},"links":{"self":"https://api.partner.example/v2/invoices/%[17]s","pdf":"https://files.partner.example/invoices/%[17]s.pdf"},` +
	`"metadata":{"campaign":"autumn","channel":"web","note":"leave with the neighbour, please"}}}`
