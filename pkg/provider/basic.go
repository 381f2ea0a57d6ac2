package provider

import (
	"encoding/base64"
	"errors"
	"strings"
)

// basic is HTTP's own: user and password.
var basic = &Provider{
	Name:            "basic",
	SecurityHeaders: []string{"Authorization"},
	SecretHeaders:   []string{"Authorization"},
	Authenticity:    AuthToken,
	credentials:     secretOnly(func() string { return "catchment:" + newToken() }),
	open: func(o *opening) opened {
		for i, s := range o.Secrets {
			if user, password, ok := strings.Cut(s.Text, ":"); strings.TrimSpace(s.Text) != "" && (!ok || user == "" || password == "") {
				o.secretError(i, errNoPassword)
			}
		}
		return opened{scheme: &tokenScheme{header: "Authorization", tokens: o.tokens(), read: basicCredentials}}
	},
	sign: func(in *SignInput) (Signed, error) {
		h := signedHeaders(in)
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(in.Secret)))
		return Signed{Header: h}, nil
	},
	sample: sampleHMAC,
	Doc: Doc{
		Title:     "HTTP Basic authentication",
		URL:       "https://datatracker.ietf.org/doc/html/rfc7617",
		Signature: "`Authorization: Basic <base64 of user:password>`",
		Signed:    "nothing: user and password are compared",
		ID:        "none, unless `event_id` says where it stands",
		Notes:     []string{"Secrets are `user:password`, in UTF-8."},
		Config:    "provider: basic\nsecrets: [{id: \"2026-q4\", value: \"${PARTNER_USER_PASSWORD}\"}]\nevent_id: body.id\nevent_type: body.kind",
	},
}

var errNoPassword = errors.New("expected user:password, neither of them empty")

func basicCredentials(header string) (string, bool) {
	text, ok := authorization(header, "Basic")
	if !ok {
		return "", false
	}
	b, err := decodeStrict(strictBase64, text)
	return string(b), err == nil && len(b) > 0
}
