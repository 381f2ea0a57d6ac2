package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// sampleShopify makes an event of an order.
func sampleShopify(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	topic, financial := "orders/create", "pending"
	if in.Seq%4 == 3 || in.Seq%4 != 2 && r.IntN(2) == 0 {
		topic, financial = "orders/paid", "paid"
	}
	at := in.Now.UTC()
	id := s.uuid()
	orderID := 5_200_000_000_000 + int64(o.number)
	body := fmt.Appendf(
		nil, shopifyOrder, orderID, at.Format(time.RFC3339), strings.ToUpper(o.currency), price(o.amount), price(o.amount*4/5),
		price(o.amount-o.amount*4/5), financial, 1000+o.number, o.buyer.mail, o.buyer.first, o.buyer.last, o.buyer.city, o.buyer.country, o.buyer.zip,
		o.id, s.hex(32), 1+r.IntN(3), o.item, 7_000_000_000_000+r.Int64N(1e12), 100_000_000+r.IntN(900_000_000), s.random(base36, 8),
	)
	return Sample{ID: id, Type: topic, Body: body, Header: http.Header{
		"Content-Type":           {"application/json"},
		"User-Agent":             {"Shopify-Captain-Hook"},
		"X-Shopify-Api-Version":  {"2026-10"},
		"X-Shopify-Event-Id":     {s.uuid()},
		"X-Shopify-Order-Id":     {strconv.FormatInt(orderID, 10)},
		"X-Shopify-Shop-Domain":  {"north-goods.myshopify.com"},
		"X-Shopify-Topic":        {topic},
		"X-Shopify-Triggered-At": {at.Format("2006-01-02T15:04:05.000000000Z07:00")},
		"X-Shopify-Webhook-Id":   {id},
	}}
}

const shopifyOrder = `{"id":%[1]d,"admin_graphql_api_id":"gid://shopify/Order/%[1]d","app_id":580111,"browser_ip":"203.0.113.7","buyer_accepts_marketing":false,` +
	`"cancel_reason":null,"cancelled_at":null,"cart_token":null,"checkout_token":"%[16]s","confirmed":true,"created_at":"%[2]s","currency":"%[3]s",` +
	`"current_subtotal_price":"%[5]s","current_total_price":"%[4]s","current_total_tax":"%[6]s","customer_locale":"en","discount_codes":[],"email":"%[9]s",` +
	`"financial_status":"%[7]s","fulfillment_status":null,"landing_site":"/","name":"#%[8]d","note":null,"note_attributes":[{"name":"order_id","value":"%[15]s"}],` +
	`"number":%[8]d,"order_number":%[8]d,"order_status_url":"https://north-goods.example/orders/%[16]s/authenticate","presentment_currency":"%[3]s",` +
	`"processed_at":"%[2]s","source_name":"web","subtotal_price":"%[5]s","tags":"","tax_lines":[{"price":"%[6]s","rate":0.25,"title":"VAT"}],"taxes_included":true,` +
	`"test":false,"total_price":"%[4]s","total_tax":"%[6]s","total_weight":1250,"updated_at":"%[2]s","customer":{"id":%[19]d,"email":"%[9]s","first_name":"%[10]s",` +
	`"last_name":"%[11]s","state":"disabled","verified_email":true,"currency":"%[3]s"},"line_items":[{"id":%[20]d,"name":"%[18]s","title":"%[18]s","price":"%[5]s",` +
	`"quantity":%[17]d,"sku":"%[21]s","requires_shipping":true,"taxable":true,"vendor":"North Goods"}],"shipping_address":{"first_name":"%[10]s","last_name":"%[11]s",` +
	`"address1":"12 Harbour Street","phone":null,"city":"%[12]s","zip":"%[14]s","country_code":"%[13]s"},"shipping_lines":[{"code":"Standard","price":"0.00","title":"Standard"}]` +
	`,"refunds":[],"payment_gateway_names":["visa"],"phone":null}`
