package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
)

// sampleWoo makes an order that was created or updated.
func sampleWoo(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	typ, status := "order.updated", pick(s, "processing", "completed", "on-hold")
	if o.early || r.IntN(3) == 0 {
		typ, status = "order.created", "pending"
	}
	at := in.Now.UTC().Format("2006-01-02T15:04:05")
	body := fmt.Appendf(nil, `{"id":%[1]d,"parent_id":0,"status":"%[2]s","currency":"%[3]s","version":"10.3.5","prices_include_tax":false,"date_created":"%[4]s","date_modified":"%[4]s",`+
		`"discount_total":"0.00","shipping_total":"0.00","total":"%[5]s","total_tax":"0.00","customer_id":%[6]d,"order_key":"wc_order_%[7]s","billing":{"first_name":"%[8]s","last_name":"%[9]s",`+
		`"city":"%[10]s","postcode":"%[11]s","country":"%[12]s","email":"%[13]s"},"payment_method":"bacs","transaction_id":"","date_created_gmt":"%[4]s","date_modified_gmt":"%[4]s",`+
		`"meta_data":[{"id":1,"key":"order_id","value":"%[14]s"}],"line_items":[{"id":%[6]d,"name":"%[15]s","product_id":93,"quantity":1,"subtotal":"%[5]s","total":"%[5]s"}]}`,
		o.number+1000, status, strings.ToUpper(o.currency), at, price(o.amount), 1+r.IntN(900), s.unique(base62, 13), o.buyer.first, o.buyer.last, o.buyer.city, o.buyer.zip, o.buyer.country, o.buyer.mail, o.id, o.item)
	delivery := s.hex(32)
	resource, event, _ := strings.Cut(typ, ".")
	return Sample{ID: wooID(delivery, body), Type: typ, Body: body, Header: http.Header{
		"Content-Type":             {"application/json"},
		"User-Agent":               {"WooCommerce/10.3.5 Hookshot (WordPress/6.8.3)"},
		"X-Wc-Webhook-Delivery-Id": {delivery},
		"X-Wc-Webhook-Event":       {event},
		"X-Wc-Webhook-Id":          {strconv.Itoa(7)},
		"X-Wc-Webhook-Resource":    {resource},
		"X-Wc-Webhook-Source":      {"https://shop.example.com/"},
		"X-Wc-Webhook-Topic":       {typ},
	}}
}
