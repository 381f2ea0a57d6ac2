package provider

// bearer is a token in the Authorization header.
var bearer = &Provider{
	Name:            "bearer",
	SecurityHeaders: []string{"Authorization"},
	SecretHeaders:   []string{"Authorization"},
	Authenticity:    AuthToken,
	credentials:     secretOnly(newToken),
	open: func(o *opening) opened {
		return opened{scheme: &tokenScheme{header: "Authorization", tokens: o.tokens(), read: bearerToken}}
	},
	sign: func(in *SignInput) (Signed, error) {
		h := signedHeaders(in)
		h.Set("Authorization", "Bearer "+in.Secret)
		return Signed{Header: h}, nil
	},
	sample: sampleHMAC,
	Doc: Doc{
		Title:     "Bearer token",
		URL:       "https://datatracker.ietf.org/doc/html/rfc6750",
		Signature: "`Authorization: Bearer <token>`",
		Signed:    "nothing: the token is compared",
		ID:        "none, unless `event_id` says where it stands",
		Notes:     []string{"Tokens in the body or in the query are not looked at: see `api-key` for the query."},
		Config:    "provider: bearer\nsecrets: [{id: \"2026-q4\", value: \"${PARTNER_TOKEN}\"}]\nevent_id: body.id\nevent_type: body.kind",
	},
}

func bearerToken(header string) (string, bool) { return authorization(header, "Bearer") }
