package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

// sampleStripe makes a payment intent that has succeeded or failed; of two events of one order the first has
// failed.
func sampleStripe(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	o := s.order()
	created := in.Now.Unix()
	typ, status, failure, received := "payment_intent.succeeded", "succeeded", "null", o.amount
	if o.early {
		created -= 90
	}
	if o.early || in.Seq%4 != 3 && r.IntN(5) == 0 {
		typ, status, failure, received = "payment_intent.payment_failed", "requires_payment_method", stripeFailure(s), 0
	}
	id := "evt_3" + s.unique(base62, 23)
	body := fmt.Appendf(
		nil, stripeEvent, id, created, "pi_3"+s.unique(base62, 23), o.amount, received, s.random(base62, 24), created-4,
		o.currency, "cus_"+s.random(base62, 14), o.item, failure, "ch_3"+s.random(base62, 23), o.id, o.buyer.country,
		"pm_1"+s.random(base62, 23), o.buyer.mail, o.buyer.city, o.buyer.country, o.buyer.first+" "+o.buyer.last, status,
		1+r.IntN(3), "req_"+s.random(base62, 14), s.uuid(), typ,
	)
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Content-Type":  {"application/json; charset=utf-8"},
		"User-Agent":    {"Stripe/1.0 (+https://stripe.com/docs/webhooks)"},
		"Accept":        {"*/*; q=0.5, application/xml"},
		"Cache-Control": {"no-cache"},
	}}
}

func stripeFailure(s sampler) string {
	code := pick(s, "insufficient_funds", "generic_decline", "lost_card", "expired_card")
	return fmt.Sprintf(`{
        "charge": "ch_3%s",
        "code": "card_declined",
        "decline_code": "%s",
        "doc_url": "https://stripe.com/docs/error-codes/card-declined",
        "message": "Your card was declined.",
        "type": "card_error"
      }`, s.random(base62, 23), code)
}

// stripeEvent has the members and the layout of a real event of API version 2025-09-30.
const stripeEvent = `{
  "id": "%s",
  "object": "event",
  "api_version": "2025-09-30.clover",
  "created": %d,
  "data": {
    "object": {
      "id": "%s",
      "object": "payment_intent",
      "amount": %d,
      "amount_capturable": 0,
      "amount_details": {
        "tip": {}
      },
      "amount_received": %d,
      "application": null,
      "application_fee_amount": null,
      "automatic_payment_methods": {
        "allow_redirects": "always",
        "enabled": true
      },
      "canceled_at": null,
      "cancellation_reason": null,
      "capture_method": "automatic_async",
      "client_secret": "pi_secret_%s",
      "confirmation_method": "automatic",
      "created": %d,
      "currency": "%s",
      "customer": "%s",
      "description": "%s",
      "last_payment_error": %s,
      "latest_charge": "%s",
      "livemode": false,
      "metadata": {
        "order_id": "%s",
        "market": "%s"
      },
      "next_action": null,
      "on_behalf_of": null,
      "payment_method": "%s",
      "payment_method_options": {
        "card": {
          "installments": null,
          "mandate_options": null,
          "network": null,
          "request_three_d_secure": "automatic"
        }
      },
      "payment_method_types": [
        "card",
        "link"
      ],
      "processing": null,
      "receipt_email": "%s",
      "review": null,
      "setup_future_usage": null,
      "shipping": {
        "address": {
          "city": "%s",
          "country": "%s"
        },
        "name": "%s"
      },
      "source": null,
      "statement_descriptor": null,
      "statement_descriptor_suffix": null,
      "status": "%s",
      "transfer_data": null,
      "transfer_group": null
    }
  },
  "livemode": false,
  "pending_webhooks": %d,
  "request": {
    "id": "%s",
    "idempotency_key": "%s"
  },
  "type": "%s"
}
`
