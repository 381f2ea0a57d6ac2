package provider

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"regexp"
	"strings"
)

var woocommerce = &Provider{
	Name:            "woocommerce",
	SecurityHeaders: []string{"X-Wc-Webhook-Signature", "X-Wc-Webhook-Delivery-Id", "X-Wc-Webhook-Topic"},
	IDUnsigned:      true,
	credentials:     secretOnly(newWooSecret),
	open:            openWoo,
	sign:            signWoo,
	sample:          sampleWoo,
	Doc: Doc{
		Title:     "WooCommerce",
		URL:       "https://developer.woocommerce.com/docs/best-practices/urls-and-routing/webhooks/",
		Signature: "`X-WC-Webhook-Signature: <base64>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the secret after `wp_specialchars_decode` (`&amp;` `&lt;` `&gt;` `&quot;` `&#039;` stand for their characters)",
		ID:        "`X-WC-Webhook-Delivery-ID`, a slash, and 16 hex digits of the body's SHA-256; the header is not signed",
		Type:      "`X-WC-Webhook-Topic` (`order.updated`); not signed",
		Handshake: "an unsigned form `webhook_id=<digits>` when the webhook is made: answered 200, never stored",
		Notes: []string{
			"WooCommerce makes the delivery ID from the webhook's number and the second: two deliveries of one second have the same. Therefore the body's digest is part of our name.",
			"`X-WC-Webhook-ID` is the webhook's number, the same for all of its deliveries.",
			"A shop can choose another algorithm (filter `woocommerce_webhook_hash_algorithm`): then use provider `hmac`.",
			"No time is given; of orders and products the body's `date_modified_gmt` says which state is newer. Nothing of the request's time is signed.",
		},
		Unverified: []string{"No retries; the webhook is disabled after 5 failures in a row. Waits 60 s."},
		Config:     "provider: woocommerce\nsecrets: [\"${WOOCOMMERCE_WEBHOOK_SECRET}\"]",
	},
}

var wooRules = &declared{
	HMAC: HMAC{Header: "X-WC-Webhook-Signature", Encoding: "base64"},
	id:   "header:X-WC-Webhook-Delivery-ID", typ: "header:X-WC-Webhook-Topic",
	secret:   wooSecret,
	greeting: answerWooPing,
}

// wooScheme is what is declared, with another ID.
type wooScheme struct{ *declaredScheme }

func openWoo(o *opening) opened {
	opened := wooRules.open(o)
	if inner, ok := opened.scheme.(*declaredScheme); ok {
		opened.scheme = wooScheme{inner}
	}
	return opened
}

func (s wooScheme) identify(r *Request) (Identity, error) {
	id, err := s.declaredScheme.identify(r)
	id.ID = wooID(id.ID, r.Body)
	return id, err
}

func wooID(delivery string, body []byte) string {
	if strings.TrimSpace(delivery) == "" {
		return ""
	}
	sum := sha256.Sum256(body)
	return delivery + "/" + hex.EncodeToString(sum[:8])
}

// signWoo writes WooCommerce's part of our name into the header.
func signWoo(in *SignInput) (Signed, error) {
	c := *in
	c.Sample.ID, _, _ = strings.Cut(in.Sample.ID, "/")
	return wooRules.sign(&c)
}

// answerWooPing answers what WooCommerce posts to see whether anybody is there.
func answerWooPing(r *Request) (*Response, error) {
	number, ok := bytes.CutPrefix(r.Body, []byte("webhook_id="))
	if !ok || len(number) == 0 || len(number) > 20 || len(bytes.Trim(number, "0123456789")) > 0 ||
		r.Method != http.MethodPost || len(r.Header["X-Wc-Webhook-Signature"]) > 0 || mediaType(r.Header) != "application/x-www-form-urlencoded" {
		return nil, nil
	}
	return &Response{Status: http.StatusOK}, nil
}

// wpEntity are the entities that WordPress's wp_specialchars_decode knows with ENT_QUOTES: by name, in decimal and,
// but for < and >, in hex, with any number of leading zeros.
var wpEntity = regexp.MustCompile(`&(?:lt|gt|amp|quot|#0*(?:60|62|38|39|34)|#[xX]0*(?:26|27|22));`)

// wooSecret decodes once, from left to right: &amp;lt; is the text &lt;.
func wooSecret(text string) ([]byte, error) {
	return []byte(wpEntity.ReplaceAllStringFunc(text, wpCharacter)), nil
}

func wpCharacter(entity string) string {
	switch name := strings.Trim(entity, "&;"); name {
	case "lt":
		return "<"
	case "gt":
		return ">"
	case "amp":
		return "&"
	case "quot":
		return `"`
	default:
		switch strings.TrimLeft(name, "#xX0") {
		case "60":
			return "<"
		case "62":
			return ">"
		case "38", "26":
			return "&"
		case "39", "27":
			return "'"
		}
		return `"`
	}
}
