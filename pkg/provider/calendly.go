package provider

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"time"
)

var calendly = &Provider{
	Name:            "calendly",
	SecurityHeaders: []string{calendlyHeader},
	credentials:     secretOnly(newHexSecret),
	open:            openCalendly,
	sign:            func(in *SignInput) (Signed, error) { return signStamped(in, calendlyHeader) },
	sample:          sampleCalendly,
	Doc: Doc{
		Title:     "Calendly",
		URL:       "https://developer.calendly.com/api-docs/ZG9jOjM2MzE2MDM4-webhook-signatures",
		Signature: "`Calendly-Webhook-Signature: t=<Unix seconds>,v1=<hex>`",
		Signed:    "`t`, `.`, body; HMAC-SHA256; the key is the text of the webhook subscription's signing key",
		Tolerance: "3 minutes, both ways",
		ID:        "none: the body's digest (`payload.uri` names the invitee, whose later events have it as well)",
		Type:      "body `event`, such as `invitee.created`",
		Time:      "body `created_at`, RFC 3339",
		Retries:   "for 24 hours with back-off, then the subscription is disabled; 10 s to connect, 15 s to answer",
		Notes:     []string{"The header is read as Stripe's is: several `v1` are allowed, other versions are skipped, two `t` are refused."},
		Unverified: []string{
			"The 3 minutes come from examples, not from a rule.",
			"Whether the body stays the same over retries, on which its digest rests.",
		},
		Config: "provider: calendly\nsecrets: [\"${CALENDLY_SIGNING_KEY}\"]",
	},
}

const calendlyHeader = "Calendly-Webhook-Signature"

// calendlyScheme is Stripe's, but for the names.
type calendlyScheme struct{ stripeScheme }

func openCalendly(o *opening) opened {
	return opened{scheme: &calendlyScheme{stripeScheme{header: calendlyHeader, macs: o.macs(sha256.New, plainSecret), window: o.tolerance(3 * time.Minute)}}}
}

var calendlyFields = newFields("event", "created_at")

func (s *calendlyScheme) identify(r *Request) (Identity, error) {
	var v [2]value
	if err := calendlyFields.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	return Identity{Type: v[0].str(), Time: v[1].isoTime()}, nil
}

func sampleCalendly(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	invitee, typ := s.uuid(), pick(s, "invitee.created", "invitee.canceled")
	body := fmt.Appendf(nil, `{"created_at":"%s","created_by":"https://api.calendly.com/users/AAAAAAAAAAAAAAAA","event":"%s","payload":{"uri":"https://api.calendly.com/scheduled_events/%s/invitees/%s",`+
		`"name":"%s","email":"%s","status":"%s","timezone":"Europe/Berlin","rescheduled":false,"created_at":"%[1]s","questions_and_answers":[{"question":"Order?","answer":"%[8]s","position":0}],`+
		`"scheduled_event":{"name":"%[9]s","start_time":"%[1]s"}}}`,
		s.iso(), typ, s.uuid(), invitee, who.first+" "+who.last, who.mail, pick(s, "active", "canceled"), s.order().id, pick(s, "15 Minute Meeting", "Demo"))
	return jsonSample(invitee, typ, "Calendly", body)
}
