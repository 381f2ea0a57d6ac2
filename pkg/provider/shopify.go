package provider

import (
	"context"
	"crypto/sha256"
	"net/http"
)

// shopify reads two sets of header names: those of webhooks, and those of the preview of Shopify's "events".
var shopify = &Provider{
	Name:            "shopify",
	SecurityHeaders: shopifySecurity,
	IDUnsigned:      true,
	credentials:     secretOnly(newShopifySecret),
	open:            openShopify,
	sign:            signShopify,
	sample:          sampleShopify,
	Doc: Doc{
		Title:     "Shopify",
		URL:       "https://shopify.dev/docs/apps/build/webhooks/verify-deliveries",
		Signature: "`X-Shopify-Hmac-Sha256: <base64>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the app's client secret",
		ID:        "`X-Shopify-Webhook-Id`, the same for every retry; not signed",
		Type:      "`X-Shopify-Topic`; not signed",
		Time:      "`X-Shopify-Triggered-At`, RFC 3339; not signed",
		Retries:   "8 over 4 h; waits 5 s in all, 1 s of it to connect",
		Notes: []string{
			"`X-Shopify-Event-Id` is shared by all subscriptions that one event triggers, so it does not name a delivery; it stays with the headers.",
			"The preview of Shopify's events uses the same scheme under names without `X-`. They are read where `X-Shopify-Hmac-Sha256` is not there, and never mixed with the others.",
		},
		Unverified: []string{"A subscription that was made through the API is removed after 8 failures in a row."},
		Config:     "provider: shopify\nsecrets: [\"${SHOPIFY_CLIENT_SECRET}\"]",
	},
}

// shopifyNames are the headers, canonical.
type shopifyNames struct{ mac, id, topic, time string }

var (
	shopifyX     = shopifyNames{"X-Shopify-Hmac-Sha256", "X-Shopify-Webhook-Id", "X-Shopify-Topic", "X-Shopify-Triggered-At"}
	shopifyPlain = shopifyNames{"Shopify-Hmac-Sha256", "Shopify-Webhook-Id", "Shopify-Topic", "Shopify-Triggered-At"}

	shopifySecurity = []string{
		shopifyX.mac, shopifyX.id, shopifyX.topic, shopifyX.time,
		shopifyPlain.mac, shopifyPlain.id, shopifyPlain.topic, shopifyPlain.time,
	}
)

func namesOfShopify(h http.Header) shopifyNames {
	if get(h, shopifyX.mac) == "" && get(h, shopifyPlain.mac) != "" {
		return shopifyPlain
	}
	return shopifyX
}

type shopifyScheme struct {
	noHandshake
	body bodyMAC
}

func openShopify(o *opening) opened {
	return opened{scheme: &shopifyScheme{body: bodyMAC{macs: o.macs(sha256.New, plainSecret), decode: appendBase64}}}
}

func (s *shopifyScheme) verify(_ context.Context, r *Request) (proof, error) {
	return s.body.verify(r, get(r.Header, namesOfShopify(r.Header).mac))
}

func (s *shopifyScheme) identify(r *Request) (Identity, error) {
	n := namesOfShopify(r.Header)
	at, _ := rfc3339(get(r.Header, n.time))
	return Identity{ID: get(r.Header, n.id), Type: get(r.Header, n.topic), Time: at}, nil
}

func signShopify(in *SignInput) (Signed, error) {
	h := signedHeaders(in)
	setIfAny(h, shopifyX.id, in.Sample.ID)
	setIfAny(h, shopifyX.topic, in.Sample.Type)
	h.Set(shopifyX.mac, base64Sum(sha256.New, []byte(in.Secret), func(m *mac) { m.bytes(in.Body) }))
	return Signed{Header: h}, nil
}

func newShopifySecret() string { return "shpss_" + newHexSecret()[:32] }
