package provider

var razorpay = &Provider{
	Name:            "razorpay",
	SecurityHeaders: []string{"X-Razorpay-Signature", "X-Razorpay-Event-Id"},
	IDUnsigned:      true,
	credentials:     secretOnly(newHexSecret),
	open:            razorpayRules.open,
	sign:            razorpayRules.sign,
	sample:          sampleRazorpay,
	Doc: Doc{
		Title:     "Razorpay",
		URL:       "https://razorpay.com/docs/webhooks/validate-test/",
		Signature: "`X-Razorpay-Signature: <hex>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the secret",
		ID:        "`X-Razorpay-Event-Id`, one per event; not signed",
		Type:      "body `event`",
		Time:      "body `created_at`, Unix seconds",
		Retries:   "with growing pauses for 24 h, then the webhook is disabled; waits 5 s",
		Notes: []string{
			"After the secret was changed, older events still come signed with the old one: keep both for a day.",
			"No time is signed.",
		},
		Config: "provider: razorpay\nsecrets: [\"${RAZORPAY_WEBHOOK_SECRET}\"]",
	},
}

var razorpayRules = &declared{
	HMAC: HMAC{Header: "X-Razorpay-Signature"},
	id:   "header:X-Razorpay-Event-Id", typ: "event", at: "created_at",
}
