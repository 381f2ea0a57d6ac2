package provider

import "context"

// none accepts whatever comes: for tests, and for networks that only the sender can reach.
var none = &Provider{
	Name:         "none",
	Authenticity: AuthNone,
	credentials:  func() Credentials { return Credentials{} },
	open: func(o *opening) opened {
		o.keyless("no check")
		return opened{scheme: noScheme{}}
	},
	sign:   func(in *SignInput) (Signed, error) { return Signed{Header: signedHeaders(in)}, nil },
	sample: sampleHMAC,
	Doc: Doc{
		Title:     "No authentication",
		URL:       "https://owasp.org/API-Security/editions/2023/en/0xa2-broken-authentication/",
		Signature: "none",
		Signed:    "nothing: whoever reaches the ingress can send anything. The service warns of such a source when it starts, and its records are flagged `unverified`",
		ID:        "none, unless `event_id` says where it stands",
		Config:    "provider: none\nevent_id: body.id\nevent_type: body.kind",
	},
}

type noScheme struct{ noHandshake }

func (noScheme) verify(context.Context, *Request) (proof, error) { return proof{key: noKey}, nil }

func (noScheme) identify(*Request) (Identity, error) { return Identity{}, nil }
