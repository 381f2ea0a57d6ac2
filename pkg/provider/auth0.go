package provider

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// auth0 posts log streams as JSON lines, as an array, or one by one.
var auth0 = &Provider{
	Name:            "auth0",
	SecurityHeaders: []string{"Authorization"},
	SecretHeaders:   []string{"Authorization"},
	Authenticity:    AuthToken,
	credentials:     secretOnly(newToken),
	open: func(o *opening) opened {
		return opened{scheme: &auth0Scheme{tokenScheme{header: "Authorization", tokens: o.tokens()}}}
	},
	sign: func(in *SignInput) (Signed, error) {
		h := signedHeaders(in)
		h.Set("Authorization", in.Secret)
		return Signed{Header: h}, nil
	},
	sample: sampleAuth0,
	split:  splitAuth0,
	Doc: Doc{
		Title:     "Auth0 log streams",
		URL:       "https://auth0.com/docs/customize/log-streams/custom-log-streams",
		Signature: "`Authorization: <token>`, the whole value",
		Signed:    "nothing: the value is compared",
		ID:        "`log_id` of each record",
		Type:      "`data.type` of each record: Auth0's codes, such as `s`, `fp`",
		Time:      "`data.date` of each record",
		Batch:     "JSON lines or a JSON array of records; a JSON object is one record",
		Notes: []string{
			"The secret is the stream's Authorization Token as it was entered there: with `Bearer ` before it, if it is there.",
			"A line that is no JSON is an event without an ID: it is kept, and named by its delivery and its place.",
		},
		Unverified: []string{"How often and how long Auth0 tries again."},
		Config:     "provider: auth0\nsecrets: [{id: \"2026-q4\", value: \"${AUTH0_STREAM_TOKEN}\"}]",
	},
}

type auth0Scheme struct{ tokenScheme }

var auth0Record = newFields("log_id", "data.type", "data.date")

func auth0Name(v []value) Identity {
	return Identity{ID: v[0].text(), Type: v[1].text(), Time: v[2].isoTime()}
}

// identify names the one record of an object: lines and arrays are no JSON object.
func (s *auth0Scheme) identify(r *Request) (Identity, error) {
	var v [3]value
	err := auth0Record.read(r.Body, v[:])
	return auth0Name(v[:]), err
}

func splitAuth0(r *Request) ([]Part, error) {
	switch text := bytes.TrimLeft(r.Body, " \t\r\n"); {
	case len(text) > 0 && text[0] == '[':
		return partsOf(r.Body, auth0Record, auth0Name)
	case jsontext.Value(r.Body).IsValid(readOptions...):
		return nil, nil
	}
	var parts []Part
	var v [3]value
	for line := range bytes.SplitSeq(r.Body, []byte("\n")) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if err := auth0Record.read(line, v[:]); err != nil {
			return nil, err
		}
		parts = append(parts, Part{Identity: auth0Name(v[:]), Body: line[:len(line):len(line)]})
	}
	if len(parts) < 2 {
		return nil, nil // no lines: nothing that could be taken apart
	}
	return parts, nil
}
