package provider

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// cloudevents is the HTTP webhook of CloudEvents, whatever of its three modes the sender uses.
var cloudevents = &Provider{
	Name:             "cloudevents",
	HandshakeMethods: []string{http.MethodOptions},
	SecurityHeaders: []string{
		"Authorization", "Webhook-Request-Origin", "Webhook-Request-Rate", "Content-Type", "Ce-Id", "Ce-Source", "Ce-Type", "Ce-Time",
	},
	SecretHeaders: []string{"Authorization"},
	Authenticity:  AuthToken,
	options:       []string{"allowed_origins", "allowed_rate"},
	credentials:   secretOnly(newToken),
	open:          openCloudEvents,
	sign: func(in *SignInput) (Signed, error) {
		h := signedHeaders(in)
		h.Set("Authorization", "Bearer "+in.Secret)
		return Signed{Header: h}, nil
	},
	sample: sampleCloudEvents,
	split:  splitCloudEvents,
	Doc: Doc{
		Title:     "CloudEvents HTTP webhook",
		URL:       "https://github.com/cloudevents/spec/blob/main/cloudevents/http-webhook.md",
		Signature: "`Authorization: Bearer <token>`, or the query parameter `access_token`, never both",
		Signed:    "nothing: the token is compared",
		ID:        "`source`, `#` and `id`: CloudEvents are identified by both, and several sources may count alike. A source with a `#` of its own gets another in front. `event_id: body.id` takes the ID alone in structured mode, `headers[\"ce-id\"][0]` in binary mode",
		Type:      "`type`",
		Time:      "`time`",
		Batch:     "`application/cloudevents-batch+json`: a JSON array; structured (`application/cloudevents+json`) and binary mode (`ce-` headers) carry one event",
		Handshake: "`OPTIONS` with `WebHook-Request-Origin` → 200 with `WebHook-Allowed-Origin`, `WebHook-Allowed-Rate` and `Allow`; not signed. `allowed_origins` bounds who is answered so, others get 403; `allowed_rate` is a number per minute, `*` by default",
		Retries:   "the sender's; 410 and 415 end them, 429 asks for later",
		Notes: []string{
			"`WebHook-Request-Callback` is never called: the sender chooses it.",
			"Header and parameter of the token are stored redacted.",
			"Header values of binary mode are percent-encoded, and decoded for ID and type.",
			"A body that is no CloudEvent in any mode has no ID.",
		},
		Config: "provider: cloudevents\nsecrets: [{id: \"2026-q4\", value: \"${EVENTS_TOKEN}\"}]\noptions: {allowed_origins: [eventemitter.example.com], allowed_rate: \"600\"}",
	},
}

type cloudEventsScheme struct {
	noHandshake
	tokens  tokens
	origins []string
	rate    string
}

const accessToken = "access_token"

func openCloudEvents(o *opening) opened {
	s := &cloudEventsScheme{tokens: o.tokens(), origins: o.list("allowed_origins"), rate: o.text("allowed_rate", "*")}
	if n, ok := digits(s.rate); s.rate != "*" && (!ok || n == 0) {
		o.errorf("options.allowed_rate", "expected requests per minute as a text such as \"600\", or *")
	}
	return opened{scheme: s, query: []string{accessToken}}
}

func (s *cloudEventsScheme) greet(r *Request) (*Response, error) {
	if r.Method != http.MethodOptions {
		return nil, nil
	}
	origin := get(r.Header, "Webhook-Request-Origin")
	switch {
	case origin == "":
		return nil, errMethod
	case len(origin) > 253 || !visible(origin):
		return nil, errHandshake
	case s.origins != nil && !slices.ContainsFunc(s.origins, func(o string) bool { return o == "*" || strings.EqualFold(o, origin) }):
		return nil, errForbidden
	}
	return &Response{Status: http.StatusOK, Header: http.Header{
		"Webhook-Allowed-Origin": {origin}, "Webhook-Allowed-Rate": {s.rate}, "Allow": {"POST"},
	}}, nil
}

func (s *cloudEventsScheme) verify(_ context.Context, r *Request) (proof, error) {
	text, err := parameter(r.RawQuery, accessToken)
	if err != nil {
		return proof{}, err
	}
	if header := get(r.Header, "Authorization"); header != "" {
		if text != "" {
			return proof{}, errTokenForm
		}
		var ok bool
		if text, ok = bearerToken(header); !ok {
			return proof{}, errTokenForm
		}
	}
	key, err := s.tokens.find(r.Now, text)
	return proof{key: key}, err
}

var cloudEventFields = newFields("id", "source", "type", "time")

func cloudEventName(v []value) Identity {
	return Identity{ID: cloudEventID(v[1].str(), v[0].str()), Type: v[2].str(), Time: v[3].isoTime()}
}

// cloudEventID joins what identifies an event: neither part does so alone. A source may have one # itself, which it
// begins with then, so that no other source and ID come out as the same.
func cloudEventID(source, id string) string {
	if source == "" || id == "" {
		return id
	}
	if strings.Contains(source, "#") {
		source = "#" + source
	}
	return source + "#" + id
}

func (s *cloudEventsScheme) identify(r *Request) (Identity, error) {
	switch mode := mediaType(r.Header); {
	case strings.HasPrefix(mode, "application/cloudevents-batch"):
		return Identity{}, nil
	case strings.HasPrefix(mode, "application/cloudevents"):
		var v [4]value
		err := cloudEventFields.read(r.Body, v[:])
		return cloudEventName(v[:]), err
	}
	attribute := func(name string) string {
		text := get(r.Header, name)
		if plain, err := url.PathUnescape(text); err == nil {
			return plain
		}
		return text
	}
	id := Identity{ID: cloudEventID(attribute("Ce-Source"), attribute("Ce-Id")), Type: attribute("Ce-Type")}
	id.Time, _ = rfc3339(attribute("Ce-Time"))
	return id, nil
}

func splitCloudEvents(r *Request) ([]Part, error) {
	if !strings.HasPrefix(mediaType(r.Header), "application/cloudevents-batch") {
		return nil, nil
	}
	return partsOf(r.Body, cloudEventFields, cloudEventName)
}
