package provider

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

var hubspot = &Provider{
	Name:            "hubspot",
	SecurityHeaders: []string{hubspotV3, hubspotStamp, hubspotOlder, hubspotVersion},
	Volatile:        []string{"attemptNumber"},
	options:         []string{"signature_version"},
	credentials:     secretOnly(newUUID),
	open:            openHubSpot,
	sign:            signHubSpot,
	sample:          sampleHubSpot,
	split: func(r *Request) ([]Part, error) {
		return partsOf(r.Body, hubspotFields, hubspotName)
	},
	Doc: Doc{
		Title:     "HubSpot",
		URL:       "https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation",
		Signature: "`X-HubSpot-Signature-v3: <base64>`, `X-HubSpot-Request-Timestamp` (Unix milliseconds)",
		Signed:    "method, URL, body, timestamp; HMAC-SHA256; the key is the text of the app's client secret. The URL is what HubSpot calls: give it as `public_url`",
		Tolerance: "5 minutes, both ways",
		ID:        "of each event its `eventId`, the same for every retry",
		Type:      "of each event its `subscriptionType`, such as `contact.propertyChange`",
		Time:      "of each event its `occurredAt`, Unix milliseconds",
		Batch:     "a JSON array of up to 100 events",
		Retries:   "up to 10 within 24 hours, on 4xx and 5xx; waits 5 s",
		Notes: []string{
			"HubSpot does not promise that an `eventId` is unique. Another event under an ID that was there is kept as a conflict and not processed; where that happens, compose a name: `event_id: string(body.eventId) + \"/\" + string(body.subscriptionId) + \"/\" + string(body.occurredAt)`.",
			"HubSpot's documentation signs the URL with `%3A %2F %3F %40 %21 %24 %27 %28 %29 %2A %2C %3B` decoded, HubSpot's libraries sign it as it is: either is accepted. Only these are decoded, and only once.",
			"Nothing separates URL and body in the signed text. Therefore a URL with `[` or `{` in it is refused, and so is a body that does not begin with one of them.",
			"`options.signature_version: v2` or `v1` checks `X-HubSpot-Signature` (hex SHA-256 of secret, method, URL and body; `v1`: of secret and body) in place of v3. Neither signs a time, and such a digest can be continued by whoever has one; what could be put behind is no JSON, so a body that is no JSON is refused. Use them only for subscriptions that send no v3.",
			"`attemptNumber` changes between retries.",
		},
		Unverified: []string{"Whether the live service decodes the URL: no library does."},
		Config:     "provider: hubspot\nsecrets: [\"${HUBSPOT_CLIENT_SECRET}\"]\npublic_url: https://hooks.example.com",
	},
}

const (
	hubspotV3      = "X-Hubspot-Signature-V3"
	hubspotStamp   = "X-Hubspot-Request-Timestamp"
	hubspotOlder   = "X-Hubspot-Signature"
	hubspotVersion = "X-Hubspot-Signature-Version"
)

var hubspotFields = newFields("eventId", "subscriptionType", "occurredAt")

func hubspotName(v []value) Identity {
	return Identity{ID: v[0].text(), Type: v[1].str(), Time: v[2].anyTime()}
}

type hubspotScheme struct {
	noHandshake
	url    *publicURL
	macs   *macs
	window window
}

// hubspotOlderScheme is version 1 or 2: a digest that the secret begins.
type hubspotOlderScheme struct {
	hubspotScheme
	version string
	secrets []string
	keys    []key
}

var errHubSpotVersion = errors.New("expected v1, v2 or v3")

func openHubSpot(o *opening) opened {
	version := o.text("signature_version", "v3")
	s := hubspotScheme{url: o.url, macs: o.macs(sha256.New, plainSecret)}
	if s.url == nil && version != "v1" {
		o.errorf("public_url", "is missing: HubSpot signs the URL that it calls")
	}
	switch version {
	case "v1", "v2":
		older := &hubspotOlderScheme{hubspotScheme: s, version: version, keys: o.keys}
		for _, secret := range o.Secrets {
			older.secrets = append(older.secrets, secret.Text)
		}
		return opened{scheme: older}
	case "v3":
		s.window = o.tolerance(5 * time.Minute)
	default:
		o.errs = append(o.errs, &ConfigError{Key: "options.signature_version", Err: errHubSpotVersion})
	}
	return opened{scheme: &s}
}

func (s *hubspotScheme) verify(_ context.Context, r *Request) (proof, error) {
	signature, stamp := get(r.Header, hubspotV3), get(r.Header, hubspotStamp)
	switch {
	case signature == "":
		return proof{}, errUnsigned
	case stamp == "":
		return proof{}, errNoStamp
	}
	at, ok := unixMillis(stamp)
	if !ok {
		return proof{}, errStampForm
	}
	var space [sha256.Size]byte
	sent, ok := appendBase64(space[:0], signature, sha256.Size)
	called := s.url.of(r)
	if !ok || !hubspotBoundary(called, r.Body) {
		return proof{}, errMalformed
	}
	key, err := s.find(r, sent, called, stamp)
	if decoded := hubspotDecode(called); errors.Is(err, errMismatch) && decoded != called {
		key, err = s.find(r, sent, decoded, stamp)
	}
	if err != nil {
		return proof{}, err
	}
	return proof{key: key, signedURL: called}, s.window.check(at, r.Now)
}

func (s *hubspotScheme) find(r *Request, sent []byte, called, stamp string) (int, error) {
	return s.macs.find(r.Now, sent, func(m *mac) {
		m.string(r.Method)
		m.string(called)
		m.bytes(r.Body)
		m.string(stamp)
	})
}

// hubspotBoundary says whether URL and body can be told apart in the signed text.
func hubspotBoundary(called string, body []byte) bool {
	return !strings.ContainsAny(called, "[{") && (len(body) == 0 || body[0] == '[' || body[0] == '{')
}

// hubspotEscapes are what HubSpot's documentation decodes in a URL.
var hubspotEscapes = strings.NewReplacer(
	"%3A", ":", "%2F", "/", "%3F", "?", "%40", "@", "%21", "!", "%24", "$", "%27", "'", "%28", "(", "%29", ")", "%2A", "*", "%2C", ",", "%3B", ";",
	"%3a", ":", "%2f", "/", "%3f", "?", "%2a", "*", "%2c", ",", "%3b", ";",
)

func hubspotDecode(called string) string { return hubspotEscapes.Replace(called) }

func (s *hubspotScheme) identify(r *Request) (Identity, error) {
	if len(r.Body) == 0 || r.Body[0] != '{' {
		return Identity{}, nil
	}
	var v [3]value
	if err := hubspotFields.read(r.Body, v[:]); err != nil {
		return Identity{}, err
	}
	return hubspotName(v[:]), nil
}

func (s *hubspotOlderScheme) verify(_ context.Context, r *Request) (proof, error) {
	signature := get(r.Header, hubspotOlder)
	if signature == "" {
		return proof{}, errUnsigned
	}
	var space [sha256.Size]byte
	sent, ok := appendHex(space[:0], signature, sha256.Size)
	if v := get(r.Header, hubspotVersion); !ok || (v != "" && v != s.version) || !jsontext.Value(r.Body).IsValid() {
		return proof{}, errMalformed
	}
	p := proof{}
	if s.version == "v2" {
		if p.signedURL = s.url.of(r); !hubspotBoundary(p.signedURL, r.Body) {
			return proof{}, errMalformed
		}
	}
	err := errNoSecret
	for i := range s.keys {
		if !s.keys[i].validAt(r.Now) {
			continue
		}
		if hmac.Equal(sent, hubspotDigest(s.version, s.secrets[i], r.Method, p.signedURL, r.Body)) {
			p.key = i
			return p, nil
		}
		err = errMismatch
	}
	return proof{}, err
}

func hubspotDigest(version, secret, method, called string, body []byte) []byte {
	h := sha256.New()
	h.Write([]byte(secret))
	if version == "v2" {
		h.Write([]byte(method + called))
	}
	h.Write(body)
	return h.Sum(nil)
}

func signHubSpot(in *SignInput) (Signed, error) {
	h := signedHeaders(in)
	if version, ok := in.Options["signature_version"].(string); ok && version != "v3" {
		h.Set(hubspotVersion, version)
		h.Set(hubspotOlder, fmt.Sprintf("%x", hubspotDigest(version, in.Secret, in.Method, in.URL, in.Body)))
		return Signed{Header: h}, nil
	}
	stamp := writeMillis(in.Now)
	h.Set(hubspotStamp, stamp)
	h.Set(hubspotV3, base64Sum(sha256.New, []byte(in.Secret), func(m *mac) {
		m.string(in.Method + in.URL)
		m.bytes(in.Body)
		m.string(stamp)
	}))
	return Signed{Header: h}, nil
}

func sampleHubSpot(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	id, typ := "", ""
	body := []byte{'['}
	for i := range 1 + r.IntN(3) {
		if i > 0 {
			body = append(body, ',')
		}
		id, typ = fmt.Sprintf("%d%08d%d", 1+r.IntN(9), in.Seq, i), pick(s, "contact.creation", "contact.propertyChange", "deal.creation")
		body = fmt.Appendf(body, `{"eventId":%s,"subscriptionId":%d,"portalId":62515,"appId":54321,"occurredAt":%d,"subscriptionType":"%s","attemptNumber":0,"objectId":%d,`+
			`"changeSource":"CRM","propertyName":"%s","propertyValue":"%s"}`, id, 10_000+r.IntN(900), in.Now.UnixMilli(), typ, 1+r.IntN(900_000), pick(s, "lifecyclestage", "city"), s.person().city)
	}
	return jsonSample(id, typ, "HubSpot Connect 2.0 (http://dev.hubspot.com/) (namespace: webhooks-nio-http-client)", append(body, ']'), "X-Hubspot-Timeout-Millis", "5000")
}
