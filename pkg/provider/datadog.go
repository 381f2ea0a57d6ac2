package provider

import (
	"fmt"
	"math/rand/v2"
)

var datadog = &Provider{
	Name:         "datadog",
	Authenticity: AuthToken,
	options:      []string{"header"},
	credentials:  secretOnly(newToken),
	open:         openDatadog,
	sign:         signDatadog,
	sample:       sampleDatadog,
	Doc: Doc{
		Title:     "Datadog",
		URL:       "https://docs.datadoghq.com/integrations/webhooks/",
		Signature: "a custom header of the webhook, whose whole value is the secret: `options.header`, `Authorization` by default",
		Signed:    "nothing: Datadog does not sign",
		ID:        "none: the body's digest. With a template of your own, name it by `event_id`",
		Type:      "body `event_type`, as in Datadog's own template; with a template of your own, name it by `event_type`",
		Time:      "body `date`, Unix milliseconds, as in Datadog's own template",
		Retries:   "on 5xx, and 5 times when there is no connection; waits 15 s",
		Notes: []string{
			"User and password in the webhook's URL arrive as `Authorization: Basic <base64>`: that whole value is the secret then.",
			"`$ID` alone is no event ID that one can rely on: put `$ALERT_TRANSITION` and `$LAST_UPDATED` beside it, as in `event_id: body.id + \"/\" + body.transition + \"/\" + body.last_updated`.",
		},
		Unverified: []string{"Which of `$ID` and `$AGGREG_KEY` two notifications of one alert share."},
		Config:     "provider: datadog\nsecrets: [{id: 2026-q4, value: \"${DATADOG_TOKEN}\"}]\noptions: {header: X-Datadog-Token}",
	},
}

type datadogScheme struct{ tokenScheme }

func openDatadog(o *opening) opened {
	header := o.headerOption("Authorization")
	return opened{
		scheme:   &datadogScheme{tokenScheme{header: header, tokens: o.tokens()}},
		security: []string{header}, secret: []string{header},
	}
}

var datadogFields = newFields("event_type", "date")

func (s *datadogScheme) identify(r *Request) (Identity, error) {
	var v [2]value
	if err := datadogFields.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	return Identity{Type: v[0].str(), Time: v[1].anyTime()}, nil
}

func signDatadog(in *SignInput) (Signed, error) {
	h := signedHeaders(in)
	h.Set(signHeader(in, "Authorization"), in.Secret)
	return Signed{Header: h}, nil
}

func sampleDatadog(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	id, typ := s.unique("0123456789", 19), pick(s, "query_alert_monitor", "metric_alert_monitor", "service_check")
	body := fmt.Appendf(nil, `{"body":"%%%%%%\n%s\n%%%%%%","last_updated":"%[2]d","event_type":"%[3]s","title":"[%[4]s] %[1]s","date":"%[2]d","org":{"id":"%[5]d","name":"North Goods"},"id":"%[6]s"}`,
		pick(s, "Export queue is growing", "Checkout p99 > 2 s", "Disk 90 % full"), in.Now.UnixMilli(), typ, pick(s, "Triggered", "Recovered", "Warn"), 300_000+r.IntN(9000), id)
	return jsonSample(id, typ, "Datadog/Webhooks", body)
}
