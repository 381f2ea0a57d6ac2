package provider

import (
	"net/http"
	"strings"
	"time"
)

var zendesk = &Provider{
	Name:            "zendesk",
	Methods:         []string{http.MethodPost, http.MethodGet, http.MethodPut, http.MethodPatch, http.MethodDelete},
	SecurityHeaders: []string{"X-Zendesk-Webhook-Signature", "X-Zendesk-Webhook-Signature-Timestamp", zendeskID},
	credentials:     secretOnly(newHexSecret),
	open:            openZendesk,
	sign:            zendeskRules.sign,
	sample:          sampleZendesk,
	Doc: Doc{
		Title:     "Zendesk",
		URL:       "https://developer.zendesk.com/documentation/webhooks/verifying/",
		Signature: "`X-Zendesk-Webhook-Signature: <base64>`, `X-Zendesk-Webhook-Signature-Timestamp` (ISO 8601)",
		Signed:    "timestamp, directly followed by the body, which may be empty; HMAC-SHA256; the key is the text of the webhook's signing secret",
		Tolerance: "5 min both ways: Zendesk states none",
		ID:        "of event webhooks (`type` begins with `zen:event-type:`) body `id`, signed; else the header `X-Zendesk-Webhook-Invocation-Id`, not signed",
		Type:      "body `type`",
		Time:      "body `time`, RFC 3339",
		Retries:   "on some statuses, with a circuit breaker: an endpoint that fails often is left alone for a while",
		Notes: []string{
			"POST, GET, PUT, PATCH and DELETE are taken. Neither method nor URL is signed.",
			"What triggers and automations send is made up in Zendesk's settings: an `id` there may be a ticket's, so it names no event.",
			"Before a webhook is created, Zendesk's tests are signed with a secret that is the same for everybody: do not configure that one.",
		},
		Unverified: []string{
			"that `X-Zendesk-Webhook-Invocation-Id` stays the same over retries: integrations use it as the ID",
			"that a retry is signed anew",
		},
		Config: "provider: zendesk\nsecrets: [\"${ZENDESK_WEBHOOK_SECRET}\"]",
	},
}

const zendeskID = "X-Zendesk-Webhook-Invocation-Id"

var zendeskRules = &declared{
	HMAC: HMAC{
		Header: "X-Zendesk-Webhook-Signature", Encoding: "base64",
		Signed: "{timestamp}{body}", TimestampHeader: "X-Zendesk-Webhook-Signature-Timestamp",
	},
	id: "id", typ: "type", at: "time",
	readStamp:  rfc3339,
	writeStamp: func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
}

type zendeskScheme struct{ *declaredScheme }

func openZendesk(o *opening) opened {
	opened := zendeskRules.open(o)
	if inner, ok := opened.scheme.(*declaredScheme); ok {
		opened.scheme = &zendeskScheme{inner}
	}
	return opened
}

func (s *zendeskScheme) identify(r *Request) (Identity, error) {
	id, err := s.declaredScheme.identify(r)
	if !zendeskEvent(id) {
		id.ID = get(r.Header, zendeskID)
	}
	return id, err
}

// zendeskEvent says whether Zendesk itself has given the event its ID.
func zendeskEvent(id Identity) bool {
	return id.ID != "" && strings.HasPrefix(id.Type, "zen:event-type:")
}

func (s *zendeskScheme) idUnsigned(r *Request) bool {
	id, err := s.declaredScheme.identify(r)
	return err == nil && !zendeskEvent(id) && get(r.Header, zendeskID) != ""
}
