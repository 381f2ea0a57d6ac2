package provider

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"time"
)

// msgraph shows a value that the subscriber chose with each element.
var msgraph = &Provider{
	Name:         "msgraph",
	AckTimeout:   2500 * time.Millisecond,
	Authenticity: AuthToken,
	options:      []string{"client_state"},
	credentials: func() Credentials {
		t := newToken()
		return Credentials{Options: map[string]any{"client_state": t}, Signer: t}
	},
	open:   openMSGraph,
	sign:   signMSGraph,
	sample: sampleMSGraph,
	split:  splitMSGraph,
	Doc: Doc{
		Title:     "Microsoft Graph change notifications",
		URL:       "https://learn.microsoft.com/en-us/graph/change-notifications-delivery-webhooks",
		Signature: "`clientState` in each element of body `value[]`",
		Signed:    "nothing: the value is compared, in every element",
		ID:        "`id` of each element; not all kinds have one: then by the delivery's digest and the element's place",
		Type:      "`changeType` of each element, of lifecycle notifications `lifecycleEvent`",
		Batch:     "body `value[]`, possibly of several subscriptions",
		Handshake: "`POST ?validationToken=…` with `text/plain` or an empty body → 200 `text/plain` with the decoded token; not signed. A token with other characters than letters, digits, spaces and `-._~:/+=,;@%` is refused: it could be a script",
		Retries:   "for up to 4 hours; waits 3 s, so the ingress waits up to 2.5 s for Kafka; slow endpoints are throttled",
		Notes: []string{
			"`client_state` is a text or a list of them (while it is being changed); it may stand under `secrets` instead, each with an `id`.",
			"One element with another `clientState` is enough to refuse the delivery; so is a delivery without elements.",
			"The tokens of rich notifications (`validationTokens`) are stored and not checked; their contents are encrypted for you.",
			"The same URL serves as `lifecycleNotificationUrl`.",
		},
		Unverified: []string{"The form of rich notifications."},
		Config:     "provider: msgraph\noptions: {client_state: \"${GRAPH_CLIENT_STATE}\"}",
	},
}

type msgraphScheme struct {
	noHandshake
	tokens tokens
	states [][sha256.Size]byte // of the option
}

func openMSGraph(o *opening) opened {
	s := &msgraphScheme{}
	for _, state := range o.list("client_state") {
		s.states = append(s.states, sha256.Sum256([]byte(state)))
	}
	switch {
	case len(o.Secrets) > 0:
		s.tokens = o.tokens()
	case len(s.states) == 0:
		o.errorf("options.client_state", "is missing: the clientState of your subscriptions")
	}
	return opened{scheme: s}
}

func (s *msgraphScheme) greet(r *Request) (*Response, error) {
	if !strings.Contains(r.RawQuery, "validationToken=") || (len(r.Body) > 0 && mediaType(r.Header) != "text/plain") {
		return nil, nil
	}
	challenge, err := parameter(r.RawQuery, "validationToken")
	if err != nil {
		return nil, err
	}
	if challenge == "" || len(challenge) > 2*maxChallenge || !scriptless(challenge) {
		return nil, errHandshake
	}
	return textResponse(challenge), nil
}

// scriptless says whether a browser could take the text for nothing but text.
func scriptless(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && !strings.ContainsRune(" -._~:/+=,;@%", rune(c)) {
			return false
		}
	}
	return true
}

var (
	msgraphBody    = newFields("value")
	msgraphElement = newFields("clientState", "id", "changeType", "lifecycleEvent")
)

// verify wants a clientState of ours in every element, all the same one.
func (s *msgraphScheme) verify(_ context.Context, r *Request) (proof, error) {
	var body [1]value
	if err := msgraphBody.read(r.Body, body[:]); err != nil {
		return proof{}, err
	}
	elements := body[0].elements()
	if len(elements) == 0 {
		return proof{}, errClientState
	}
	p := proof{key: noKey}
	for i, one := range elements {
		var v [4]value
		if err := msgraphElement.read(one, v[:]); err != nil {
			return proof{}, err
		}
		key, err := s.find(r, v[0].str())
		if err != nil {
			return proof{}, err
		}
		if i == 0 {
			p.key = key
		}
	}
	return p, nil
}

func (s *msgraphScheme) find(r *Request, state string) (int, error) {
	if state == "" {
		return noKey, errClientState
	}
	sum, found := sha256.Sum256([]byte(state)), 0
	for i := range s.states {
		found |= subtle.ConstantTimeCompare(sum[:], s.states[i][:])
	}
	if found == 1 {
		return noKey, nil
	}
	if key, err := s.tokens.find(r.Now, state); err == nil {
		return key, nil
	}
	return noKey, errClientState
}

func (s *msgraphScheme) identify(*Request) (Identity, error) { return Identity{}, nil }

func splitMSGraph(r *Request) ([]Part, error) {
	var body [1]value
	if err := msgraphBody.read(r.Body, body[:]); err != nil {
		return nil, err
	}
	return partsOf(body[0], msgraphElement, func(v []value) Identity {
		id := Identity{ID: v[1].text(), Type: v[2].str()}
		if id.Type == "" {
			id.Type = v[3].str()
		}
		return id
	})
}

func signMSGraph(in *SignInput) (Signed, error) {
	state := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(in.Secret)
	body := strings.ReplaceAll(string(in.Body), `"clientState":""`, `"clientState":"`+state+`"`)
	return Signed{Header: signedHeaders(in), Body: []byte(body), Method: http.MethodPost}, nil
}
