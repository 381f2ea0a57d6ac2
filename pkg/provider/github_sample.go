package provider

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// sampleGitHub makes a push, or an event of a pull request or an issue.
func sampleGitHub(r *rand.Rand, in SampleInput) Sample {
	s := sampler{r, in}
	g := githubSampler{sampler: s, login: pick(s, "ada-berg", "jlindqvist", "octo-mira"), repo: pick(s, "storefront", "billing", "infra")}
	typ := pick(s, "push", "push", "pull_request", "issues")
	var body []byte
	switch typ {
	case "push":
		body = g.push()
	case "pull_request":
		body = g.pullRequest()
	case "issues":
		body = g.issue()
	}
	id := s.uuid()
	return Sample{ID: id, Type: typ, Body: body, Header: http.Header{
		"Accept":                                 {"*/*"},
		"Content-Type":                           {"application/json"},
		"User-Agent":                             {"GitHub-Hookshot/" + s.hex(7)},
		"X-Github-Delivery":                      {id},
		"X-Github-Event":                         {typ},
		"X-Github-Hook-Id":                       {"487125663"},
		"X-Github-Hook-Installation-Target-Id":   {"70107786"},
		"X-Github-Hook-Installation-Target-Type": {"repository"},
	}}
}

type githubSampler struct {
	sampler
	login, repo string
}

func (g githubSampler) now() string { return g.in.Now.UTC().Format(time.RFC3339) }

// tail is what all events end in: repository and sender.
func (g githubSampler) tail() string {
	return fmt.Sprintf(`"repository":{"id":70107786,"node_id":"MDEwOlJlcG9zaXRvcnk3MDEwNzc4Ng==","name":"%[2]s","full_name":"%[1]s/%[2]s","private":false,`+
		`"owner":%[3]s,"html_url":"https://github.com/%[1]s/%[2]s","description":"What it says","fork":false,"url":"https://api.github.com/repos/%[1]s/%[2]s",`+
		`"created_at":"2023-02-14T09:31:02Z","updated_at":"%[4]s","pushed_at":"%[4]s","size":1824,"stargazers_count":%[5]d,"language":"Go","visibility":"public",`+
		`"open_issues":%[6]d,"topics":["shop","webhooks"],"default_branch":"main"},"sender":%[3]s}`,
		g.login, g.repo, g.user(), g.now(), g.r.IntN(900), g.r.IntN(60))
}

func (g githubSampler) user() string {
	return fmt.Sprintf(`{"login":"%[1]s","id":583231,"node_id":"MDQ6VXNlcjU4MzIzMQ==","avatar_url":"https://avatars.githubusercontent.com/u/583231?v=4",`+
		`"url":"https://api.github.com/users/%[1]s","html_url":"https://github.com/%[1]s","type":"User","site_admin":false}`, g.login)
}

func (g githubSampler) push() []byte {
	before, after := g.hex(40), g.hex(40)
	message := pick(g.sampler, "Retry the export after a timeout", "Fix rounding of partial refunds", "Bump dependencies", "Add “paid” badge")
	commit := fmt.Sprintf(`{"id":"%s","tree_id":"%s","distinct":true,"message":"%s","timestamp":"%s","url":"https://github.com/%s/%s/commit/%s",`+
		`"author":{"name":"%[5]s","email":"%[5]s@users.noreply.github.com","username":"%[5]s"},"committer":{"name":"GitHub","email":"noreply@github.com","username":"web-flow"},`+
		`"added":[],"removed":[],"modified":["internal/export/export.go","CHANGELOG.md"]}`, after, g.hex(40), message, g.now(), g.login, g.repo, after)
	return fmt.Appendf(nil, `{"ref":"refs/heads/%s","before":"%s","after":"%s","created":false,"deleted":false,"forced":false,"base_ref":null,`+
		`"compare":"https://github.com/%s/%s/compare/%s...%s","commits":[%[8]s],"head_commit":%[8]s,"pusher":{"name":"%[4]s","email":"%[4]s@users.noreply.github.com"},%[9]s`,
		pick(g.sampler, "main", "release/4.2", "fix-export"), before, after, g.login, g.repo, before[:12], after[:12], commit, g.tail())
}

func (g githubSampler) pullRequest() []byte {
	n := 100 + g.r.IntN(4000)
	action := pick(g.sampler, "opened", "synchronize", "closed", "reopened")
	state, merged := "open", "false"
	if action == "closed" {
		state, merged = "closed", pick(g.sampler, "true", "false")
	}
	return fmt.Appendf(nil, `{"action":"%s","number":%[2]d,"pull_request":{"url":"https://api.github.com/repos/%[3]s/%[4]s/pulls/%[2]d","id":%[5]d,"number":%[2]d,"state":"%[6]s",`+
		`"locked":false,"title":"%[7]s","user":%[8]s,"body":"Closes #%[9]d.","created_at":"%[10]s","updated_at":"%[10]s","merged":%[11]s,"draft":false,`+
		`"head":{"label":"%[3]s:fix","ref":"fix","sha":"%[12]s"},"base":{"label":"%[3]s:main","ref":"main","sha":"%[13]s"},`+
		`"comments":%[14]d,"commits":%[15]d,"additions":%[16]d,"deletions":%[17]d,"changed_files":3},%[18]s`,
		action, n, g.login, g.repo, 1_500_000_000+g.r.IntN(400_000_000), state, pick(g.sampler, "Export: retry", "Refunds: round half up", "Docs: typo"),
		g.user(), n-1, g.now(), merged, g.hex(40), g.hex(40), g.r.IntN(9), 1+g.r.IntN(6), g.r.IntN(300), g.r.IntN(80), g.tail())
}

func (g githubSampler) issue() []byte {
	n := 100 + g.r.IntN(4000)
	action := pick(g.sampler, "opened", "closed", "labeled", "edited")
	state := "open"
	if action == "closed" {
		state = "closed"
	}
	return fmt.Appendf(nil, `{"action":"%s","issue":{"url":"https://api.github.com/repos/%[2]s/%[3]s/issues/%[4]d","id":%[5]d,"number":%[4]d,"title":"%[6]s","user":%[7]s,`+
		`"labels":[{"id":208045946,"name":"bug","color":"d73a4a","default":true}],"state":"%[8]s","locked":false,"assignees":[],"comments":%[9]d,`+
		`"created_at":"%[10]s","updated_at":"%[10]s","author_association":"CONTRIBUTOR","body":"Steps:\n\n1. Export\n2. Wait\n\nIt stops at %[11]d %%."},%[12]s`,
		action, g.login, g.repo, n, 2_000_000_000+g.r.IntN(400_000_000), pick(g.sampler, "Export hangs", "Wrong total after a partial refund", "Spelling"),
		g.user(), state, g.r.IntN(20), g.now(), g.r.IntN(100), g.tail())
}
