package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
)

var gitlab = &Provider{
	Name:            "gitlab",
	SecretHeaders:   []string{"X-Gitlab-Token"},
	SecurityHeaders: []string{"X-Gitlab-Token", "Idempotency-Key", "X-Gitlab-Event-Uuid", "X-Gitlab-Event"},
	IDUnsigned:      true,
	Authenticity:    AuthToken,
	credentials:     secretOnly(newToken),
	open:            openGitLab,
	sign:            signGitLab,
	sample:          sampleGitLab,
	Doc: Doc{
		Title:     "GitLab, secret token",
		URL:       "https://docs.gitlab.com/user/project/integrations/webhooks/",
		Signature: "`X-Gitlab-Token`: the secret token itself, compared in constant time",
		Signed:    "nothing: whoever learns the token can send anything. Prefer `gitlab-signed` where the GitLab server offers signing tokens",
		ID:        "`Idempotency-Key`, the same for every retry; without it (GitLab before 17.4) `X-Gitlab-Event-UUID`",
		Type:      "`X-Gitlab-Event`, such as `Push Hook`",
		Retries:   "waits 10 s; a hook that fails again and again is disabled",
		Notes: []string{
			"`X-Gitlab-Webhook-UUID` names the hook, not the event.",
			"Bodies are up to 25 MB: set `max_body: 25MB` and the topic's `max.message.bytes` to match.",
		},
		Unverified: []string{
			"`X-Gitlab-Event-UUID` may be shared by several hooks that one event triggers: give each hook its own source.",
			"The time limit and when a hook is disabled.",
		},
		Config: "provider: gitlab\nsecrets: [{id: 2026-q4, value: \"${GITLAB_TOKEN}\"}]\nmax_body: 25MB",
	},
}

var gitlabSigned = &Provider{
	Name:            "gitlab-signed",
	SecretHeaders:   []string{"X-Gitlab-Token"},
	SecurityHeaders: []string{"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature", "X-Gitlab-Event"},
	credentials:     secretOnly(newWhsec),
	open:            openGitLabSigned,
	sign:            func(in *SignInput) (Signed, error) { return signStandard(in, webhookNames) },
	sample:          sampleGitLab,
	Doc: Doc{
		Title:     "GitLab, signing token",
		URL:       "https://gitlab.com/gitlab-org/gitlab/-/merge_requests/230944",
		Signature: "`webhook-signature: v1,<base64>`, `webhook-id`, `webhook-timestamp` (Unix seconds)",
		Signed:    "`webhook-id`, `.`, `webhook-timestamp`, `.`, body; HMAC-SHA256; the key is the base64 behind `whsec_` (32 bytes)",
		Tolerance: "5 minutes, both ways",
		ID:        "`webhook-id`, which is the `Idempotency-Key`: the same for every retry; signed",
		Type:      "`X-Gitlab-Event`, such as `Push Hook`; not signed",
		Retries:   "waits 10 s; a hook that fails again and again is disabled",
		Notes: []string{
			"The scheme is that of Standard Webhooks. A secret token, if the hook has one as well, is not looked at.",
			"Bodies are up to 25 MB: set `max_body: 25MB` and the topic's `max.message.bytes` to match.",
		},
		Unverified: []string{"The time limit and when a hook is disabled.", "Whether every GitLab server offers signing tokens: they began behind the feature flag `webhook_signing_token`."},
		Config:     "provider: gitlab-signed\nsecrets: [\"${GITLAB_SIGNING_TOKEN}\"]\nmax_body: 25MB",
	},
}

type gitlabScheme struct{ tokenScheme }

func openGitLab(o *opening) opened {
	return opened{scheme: &gitlabScheme{tokenScheme{header: "X-Gitlab-Token", tokens: o.tokens()}}}
}

func (s *gitlabScheme) identify(r *Request) (Identity, error) {
	id := Identity{ID: get(r.Header, "Idempotency-Key"), Type: get(r.Header, "X-Gitlab-Event")}
	if id.ID == "" {
		id.ID = get(r.Header, "X-Gitlab-Event-Uuid")
	}
	return id, nil
}

func signGitLab(in *SignInput) (Signed, error) {
	h := signedHeaders(in)
	setIfAny(h, "Idempotency-Key", in.Sample.ID)
	setIfAny(h, "X-Gitlab-Event", in.Sample.Type)
	h.Set("X-Gitlab-Token", in.Secret)
	return Signed{Header: h}, nil
}

// gitlabSignedScheme is Standard Webhooks, but for the type.
type gitlabSignedScheme struct{ scheme }

func openGitLabSigned(o *opening) opened {
	return opened{scheme: gitlabSignedScheme{openStandard(o, webhookNames, webhookNames).scheme}}
}

func (gitlabSignedScheme) identify(r *Request) (Identity, error) {
	return Identity{ID: get(r.Header, webhookNames.id), Type: get(r.Header, "X-Gitlab-Event")}, nil
}

// sampleGitLab makes a push, an event of an issue or one of a merge request.
func sampleGitLab(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	who := s.person()
	id, typ := s.uuid(), pick(s, "Push Hook", "Issue Hook", "Merge Request Hook")
	project := `"project":{"id":15,"name":"storefront","web_url":"https://gitlab.example.com/north/storefront","path_with_namespace":"north/storefront","default_branch":"main"}`
	var body []byte
	if typ == "Push Hook" {
		body = fmt.Appendf(nil, `{"object_kind":"push","event_name":"push","before":"%s","after":"%s","ref":"refs/heads/main","user_name":"%s","user_email":"%s","project_id":15,%s,`+
			`"commits":[{"id":"%[2]s","message":"%[6]s","timestamp":"%[7]s","added":[],"modified":["CHANGELOG"],"removed":[]}],"total_commits_count":1}`,
			s.hex(40), s.hex(40), who.first+" "+who.last, who.mail, project, pick(s, "Retry the export", "Fix rounding", "Add “paid” badge"), s.iso())
	} else {
		kind := map[string]string{"Issue Hook": "issue", "Merge Request Hook": "merge_request"}[typ]
		body = fmt.Appendf(nil, `{"object_kind":"%s","event_type":"%[1]s","user":{"id":%d,"name":"%s","email":"%s"},%s,"object_attributes":{"id":%d,"iid":%d,"title":"%s",`+
			`"created_at":"%s","state":"%s","action":"%s"}}`, kind, 1+r.IntN(90), who.first+" "+who.last, who.mail, project, 90_000+in.Seq, 1+r.IntN(900),
			pick(s, "Export hangs", "Wrong total after a partial refund", "Spelling"), s.iso(), pick(s, "opened", "closed"), pick(s, "open", "update", "close"))
	}
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Content-Type":          {"application/json"},
		"User-Agent":            {"GitLab/18.5.1"},
		"Idempotency-Key":       {id},
		"X-Gitlab-Event":        {typ},
		"X-Gitlab-Event-Uuid":   {s.uuid()},
		"X-Gitlab-Instance":     {"https://gitlab.example.com"},
		"X-Gitlab-Webhook-Uuid": {"02affd2d-2cba-4033-917d-ec22d5dc4b38"},
	}}
}
