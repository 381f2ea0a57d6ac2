package provider

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/http"
)

var asana = &Provider{
	Name:            "asana",
	SecurityHeaders: []string{"X-Hook-Signature", asanaSecret},
	SecretHeaders:   []string{asanaSecret},
	SecretLater:     true,
	credentials:     secretOnly(func() string { return newHexSecret() + newHexSecret()[:24] }),
	open:            openAsana,
	sign:            signAsana,
	sample:          sampleAsana,
	split: func(r *Request) ([]Part, error) {
		events, err := asanaEvents(r)
		if err != nil {
			return nil, err
		}
		return partsOf(events, asanaFields, func(v []value) Identity {
			return Identity{Type: v[0].str(), Time: v[1].isoTime()}
		})
	},
	Doc: Doc{
		Title:     "Asana",
		URL:       "https://developers.asana.com/docs/webhooks-guide",
		Signature: "`X-Hook-Signature: <hex>`",
		Signed:    "body, HMAC-SHA256; the key is the text of the webhook's `X-Hook-Secret`",
		ID:        "none: the events of a delivery are named by a digest of source and body, and their number",
		Type:      "of each event its `action`, such as `changed`",
		Time:      "of each event its `created_at`, RFC 3339",
		Batch:     "`{\"events\":[…]}`; an empty list is a heartbeat: 200, and nothing is stored",
		Handshake: "`POST` with `X-Hook-Secret` while the webhook is being created: 200 with the same header, only as long as the source has no secret",
		Retries:   "for up to 24 hours; waits 10 s",
		Notes: []string{
			"1. Configure the source without `secrets`: it then answers the handshake, and refuses every delivery with 401. 2. Create the webhook: the answer of Asana's API contains `X-Hook-Secret`. 3. Configure it as the secret; Asana sends again what was refused in between.",
			"With a secret in place no handshake is answered, or anybody could make the source confirm a webhook of theirs. Give each webhook its own source, for each has its own secret.",
		},
		Unverified: []string{"That the MAC is in hex, and the heartbeat's form."},
		Config:     "provider: asana\nsecrets: [\"${ASANA_HOOK_SECRET}\"]",
	},
}

const asanaSecret = "X-Hook-Secret" //nolint:gosec // a header's name

var (
	asanaList   = newFields("events")
	asanaFields = newFields("action", "created_at")
)

type asanaScheme struct {
	body bodyMAC // without macs as long as the source has no secret
}

func openAsana(o *opening) opened {
	s := &asanaScheme{}
	if len(o.Secrets) > 0 {
		s.body = bodyMAC{macs: o.macs(sha256.New, plainSecret), decode: appendHex}
	}
	return opened{scheme: s}
}

func (s *asanaScheme) greet(r *Request) (*Response, error) {
	secret := get(r.Header, asanaSecret)
	if secret == "" || s.body.macs != nil {
		return nil, nil
	}
	if len(secret) > maxChallenge || !visible(secret) {
		return nil, errHandshake
	}
	return &Response{Status: http.StatusOK, Header: http.Header{asanaSecret: {secret}}}, nil
}

func (s *asanaScheme) verify(_ context.Context, r *Request) (proof, error) {
	if s.body.macs == nil {
		return proof{}, errNoSecret
	}
	return s.body.verify(r, get(r.Header, "X-Hook-Signature"))
}

// handshake answers a heartbeat.
func (s *asanaScheme) handshake(r *Request) (*Response, error) {
	if len(r.Body) > maxChallenge {
		return nil, nil // spares the events a second reading
	}
	events, err := asanaEvents(r)
	if list := events.elements(); err != nil || list == nil || len(list) > 0 {
		return nil, err
	}
	return &Response{Status: http.StatusOK}, nil
}

func (s *asanaScheme) identify(*Request) (Identity, error) { return Identity{}, nil }

func asanaEvents(r *Request) (value, error) {
	var v [1]value
	err := asanaList.read(r.Body, v[:])
	return v[0], err
}

func signAsana(in *SignInput) (Signed, error) {
	h := signedHeaders(in)
	h.Set("X-Hook-Signature", hexSum(sha256.New, []byte(in.Secret), func(m *mac) { m.bytes(in.Body) }))
	return Signed{Header: h}, nil
}

func sampleAsana(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	task, typ := "12"+s.unique("0123456789", 14), ""
	body := []byte(`{"events":[`)
	for i := range 1 + r.IntN(3) {
		if i > 0 {
			body = append(body, ',')
		}
		typ = pick(s, "changed", "added", "removed")
		body = fmt.Appendf(body, `{"user":{"gid":"%d","resource_type":"user"},"created_at":"%s","action":"%s","resource":{"gid":"%s","resource_type":"task","resource_subtype":"default_task"},`+
			`"parent":null,"change":{"field":"%s","action":"changed"}}`, 1_100_000_000_000_000+r.Int64N(1e12), s.iso(), typ, task, pick(s, "due_on", "name", "assignee"))
	}
	return jsonSample(task, typ, "Asana-Webhooks", append(body, "]}"...))
}
