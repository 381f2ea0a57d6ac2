package provider

import "context"

// apiKey is a key in a header of any name, or in the query.
var apiKey = &Provider{
	Name:         "api-key",
	Authenticity: AuthToken,
	options:      []string{"header", "query"},
	credentials:  secretOnly(newToken),
	open:         openAPIKey,
	sign: func(in *SignInput) (Signed, error) {
		h := signedHeaders(in)
		if name, ok := in.Options["query"].(string); ok {
			return Signed{Header: h, URL: withParameter(in.URL, name, in.Secret)}, nil
		}
		h.Set(signHeader(in, defaultAPIKey), in.Secret)
		return Signed{Header: h}, nil
	},
	sample: sampleHMAC,
	Doc: Doc{
		Title:     "API key",
		URL:       "https://spec.openapis.org/oas/v3.1.0#security-scheme-object",
		Signature: "`X-Api-Key: <key>`, another header (option `header`), or a query parameter (option `query`)",
		Signed:    "nothing: the key is compared",
		ID:        "none, unless `event_id` says where it stands",
		Notes:     []string{"The header or the parameter is stored redacted. A key in a URL ends up in the logs of every proxy on its way: prefer the header."},
		Config:    "provider: api-key\noptions: {header: X-Partner-Key}\nsecrets: [{id: \"2026-q4\", value: \"${PARTNER_KEY}\"}]\nevent_id: body.id\nevent_type: body.kind",
	},
}

const defaultAPIKey = "X-Api-Key"

func openAPIKey(o *opening) opened {
	if query := o.text("query", ""); query != "" {
		if _, ok := o.Options["header"]; ok {
			o.errorf("options.query", "stands beside header: the key is in one of them")
		}
		return opened{scheme: &queryKey{tokenScheme: tokenScheme{tokens: o.tokens()}, name: query}, query: []string{query}}
	}
	header := o.headerOption(defaultAPIKey)
	return opened{
		scheme:   &tokenScheme{header: header, tokens: o.tokens()},
		security: []string{header}, secret: []string{header},
	}
}

// queryKey is a key in a query parameter.
type queryKey struct {
	tokenScheme
	name string
}

func (s *queryKey) verify(_ context.Context, r *Request) (proof, error) {
	text, err := parameter(r.RawQuery, s.name)
	if err != nil {
		return proof{}, err
	}
	key, err := s.tokens.find(r.Now, text)
	return proof{key: key}, err
}
