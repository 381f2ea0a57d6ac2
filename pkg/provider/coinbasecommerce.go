package provider

var coinbaseCommerce = &Provider{
	Name:            "coinbase-commerce",
	SecurityHeaders: []string{"X-Cc-Webhook-Signature"},
	credentials:     secretOnly(newUUID),
	open:            coinbaseCommerceRules.open,
	sign:            coinbaseCommerceRules.sign,
	sample:          sampleCoinbaseCommerce,
	Doc: Doc{
		Title:     "Coinbase Commerce",
		URL:       "https://docs.cdp.coinbase.com/commerce-onchain/docs/webhooks-security",
		Signature: "`X-CC-Webhook-Signature: <hex>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the shared secret",
		ID:        "body `event.id`, the same for every retry (the outer `id` names the delivery)",
		Type:      "body `event.type`",
		Time:      "body `event.created_at`, RFC 3339",
		Notes:     []string{"`attempt_number`, the outer `id` and `scheduled_for` change between retries.", "No time is signed."},
		Unverified: []string{
			"Retries hourly for up to 3 days.",
			"Whether Coinbase still offers the product to new merchants.",
		},
		Config: "provider: coinbase-commerce\nsecrets: [\"${COINBASE_COMMERCE_SHARED_SECRET}\"]",
	},
	Volatile: []string{"id", "scheduled_for", "attempt_number"},
}

var coinbaseCommerceRules = &declared{
	HMAC: HMAC{Header: "X-CC-Webhook-Signature"},
	id:   "event.id", typ: "event.type", at: "event.created_at",
}
