package provider

import (
	"crypto/sha256"
	"net/http"
	"time"
)

// GitHub
//
//	header     X-Hub-Signature-256: sha256=<hex>
//	signed     body, HMAC-SHA256; the key is the text of the secret
//	tolerance  none: no time is signed
//	ID         X-GitHub-Delivery, the same when a delivery is sent again; not signed
//	type       X-GitHub-Event (the body's action is not joined to it); not signed
//	time       none that all events have
//
// Oddities: a hook may post forms, payload=<JSON>; the form's bytes are what is signed. X-Hub-Signature (SHA-1) is
// ignored. GitHub waits for 10 s and sends nothing again by itself, so the ingress may wait for Kafka longer than
// elsewhere.
var github = &Provider{
	Name:            "github",
	Docs:            "https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries",
	AckTimeout:      9 * time.Second,
	SecurityHeaders: []string{"X-Hub-Signature-256", "X-Github-Delivery", "X-Github-Event"},
	IDUnsigned:      true,
	newSecret:       newHexSecret,
	open:            openGitHub,
	sign:            signGitHub,
	sample:          sampleGitHub,
}

type githubScheme struct {
	noHandshake
	body bodyMAC
}

func openGitHub(o *opening) opened {
	return opened{scheme: &githubScheme{body: bodyMAC{
		macs: o.macs(sha256.New, plainSecret), prefix: "sha256=", decode: appendHex,
	}}}
}

func (s *githubScheme) verify(r *Request) (proof, error) {
	return s.body.verify(r, get(r.Header, "X-Hub-Signature-256"))
}

func (s *githubScheme) identify(r *Request) (Identity, error) {
	return Identity{ID: get(r.Header, "X-Github-Delivery"), Type: get(r.Header, "X-Github-Event")}, nil
}

func signGitHub(in *SignInput) (http.Header, error) {
	h := signedHeaders(in)
	setIfAny(h, "X-GitHub-Delivery", in.Sample.ID)
	setIfAny(h, "X-GitHub-Event", in.Sample.Type)
	h.Set("X-Hub-Signature-256", "sha256="+hexSum(sha256.New, []byte(in.Secret), func(m *mac) { m.bytes(in.Body) }))
	return h, nil
}
