package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
)

var gitea = &Provider{
	Name:    "gitea",
	Methods: []string{http.MethodPost, http.MethodGet},
	SecurityHeaders: []string{
		"X-Gitea-Signature", "X-Forgejo-Signature", "X-Gogs-Signature", "X-Hub-Signature-256", "Content-Type",
		"X-Gitea-Delivery", "X-Forgejo-Delivery", "X-Gogs-Delivery", "X-Github-Delivery",
		"X-Gitea-Event", "X-Forgejo-Event", "X-Gogs-Event", "X-Github-Event",
	},
	IDUnsigned:  true,
	credentials: secretOnly(newHexSecret),
	open:        func(o *opening) opened { return opened{scheme: &giteaScheme{macs: o.macs(sha256.New, plainSecret)}} },
	sign:        signGitea,
	sample:      sampleGitea,
	Doc: Doc{
		Title:     "Gitea, Forgejo, Gogs",
		URL:       "https://docs.gitea.com/usage/webhooks",
		Signature: "`X-Gitea-Signature: <hex>`; the same under `X-Forgejo-Signature`, `X-Gogs-Signature` and, with `sha256=` before it, `X-Hub-Signature-256`, of which one must fit",
		Signed:    "the event's JSON text, HMAC-SHA256: the body; of a hook that posts forms, the decoded value of `payload`; of a hook that uses `GET`, the decoded `payload` of the query. The key is the text of the secret",
		ID:        "`X-Gitea-Delivery`, else `X-Forgejo-`, `X-Gogs-` or `X-GitHub-Delivery`; not signed",
		Type:      "`X-Gitea-Event`, else `X-Forgejo-`, `X-Gogs-` or `X-GitHub-Event`, such as `push`; not signed",
		Notes: []string{
			"GitHub signs a form's bytes; Gitea signs what the form contains. A form with anything besides one `payload` is refused, and so is a `GET` with a body: the signature would not cover it.",
			"The event of a `GET` stands in the query, and the body is empty: prefer `POST` with JSON.",
			"Without a secret, Gitea sends the headers with empty values: such deliveries are refused. `X-Hub-Signature` (SHA-1) is ignored.",
			"Deliveries are repeated by hand only.",
		},
		Unverified: []string{"The names with `X-Forgejo-`.", "Whether a delivery that is repeated by hand keeps its ID."},
		Config:     "provider: gitea\nsecrets: [\"${GITEA_SECRET}\"]",
	},
}

type giteaScheme struct {
	noHandshake
	macs *macs
}

func (s *giteaScheme) verify(_ context.Context, r *Request) (proof, error) {
	var space [4 * sha256.Size]byte
	sent, unsigned := space[:0], true
	for _, name := range gitea.SecurityHeaders[:4] {
		text := get(r.Header, name)
		if text == "" {
			continue
		}
		unsigned = false
		if name == "X-Hub-Signature-256" {
			var ok bool
			if text, ok = strings.CutPrefix(text, "sha256="); !ok {
				continue
			}
		}
		sent, _ = appendHex(sent, text, sha256.Size)
	}
	switch {
	case unsigned:
		return proof{}, errUnsigned
	case len(sent) == 0:
		return proof{}, errMalformed
	}
	payload, ok := giteaPayload(r)
	if !ok {
		return proof{}, errMalformed
	}
	key, err := s.macs.find(r.Now, sent, func(m *mac) { m.bytes(payload) })
	return proof{key: key}, err
}

// giteaPayload is the text that is signed. Where it stands in a form, the form may hold nothing else.
func giteaPayload(r *Request) ([]byte, bool) {
	switch {
	case r.Method == http.MethodGet:
		form, err := url.ParseQuery(r.RawQuery)
		if err != nil || len(r.Body) > 0 || len(form["payload"]) != 1 {
			return nil, false
		}
		return []byte(form["payload"][0]), true
	case mediaType(r.Header) == "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(r.Body))
		if err != nil || len(form) != 1 || len(form["payload"]) != 1 {
			return nil, false
		}
		return []byte(form["payload"][0]), true
	}
	return r.Body, true
}

func (s *giteaScheme) identify(r *Request) (Identity, error) {
	var id Identity
	for _, name := range gitea.SecurityHeaders[5:9] {
		if id.ID == "" {
			id.ID = get(r.Header, name)
		}
	}
	for _, name := range gitea.SecurityHeaders[9:] {
		if id.Type == "" {
			id.Type = get(r.Header, name)
		}
	}
	if id.ID == "" && r.Method == http.MethodGet { // the body is empty, and its digest that of every other
		payload, _ := giteaPayload(r)
		sum := sha256.Sum256(payload)
		id.ID = "sha256:" + hex.EncodeToString(sum[:])
	}
	return id, nil
}

func signGitea(in *SignInput) (Signed, error) {
	h := signedHeaders(in)
	setIfAny(h, "X-Gitea-Delivery", in.Sample.ID)
	setIfAny(h, "X-Gitea-Event", in.Sample.Type)
	h.Set("X-Gitea-Signature", hexSum(sha256.New, []byte(in.Secret), func(m *mac) { m.bytes(in.Body) }))
	return Signed{Header: h}, nil
}

func sampleGitea(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	id, typ := s.uuid(), pick(s, "push", "push", "issues", "pull_request")
	user := fmt.Sprintf(`{"id":%d,"login":"%s","full_name":"%s","email":"%s"}`, 1+r.IntN(900), strings.ToLower(who.last), who.first+" "+who.last, who.mail)
	body := fmt.Sprintf(`{"ref":"refs/heads/main","before":"%s","after":"%s","compare_url":"https://git.example.com/north/storefront/compare","commits":[{"message":"%s","timestamp":"%s"}],"pusher":%s,`,
		s.hex(40), s.hex(40), pick(s, "Retry the export", "Fix rounding", "Add “paid” badge"), s.iso(), user)
	if typ != "push" {
		body = fmt.Sprintf(`{"action":"%s","number":%d,"%s":{"title":"%s","state":"open","created_at":"%s","user":%s},`, pick(s, "opened", "closed"), 1+r.IntN(900),
			map[string]string{"issues": "issue", "pull_request": "pull_request"}[typ], pick(s, "Export hangs", "Spelling"), s.iso(), user)
	}
	body += fmt.Sprintf(`"repository":{"id":140,"name":"storefront","full_name":"north/storefront","private":true,"default_branch":"main"},"sender":%s}`, user)
	return jsonSample(id, typ, "Go-http-client/1.1", []byte(body), "X-Gitea-Delivery", id, "X-Gitea-Event", typ, "X-Gitea-Event-Type", typ)
}
