package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/provider"
)

// goldenRequest is a file of pkg/provider/testdata/<preset>.
type goldenRequest struct {
	Config  map[string]any
	Request map[string]any
	Want    struct {
		Status   int
		Reason   string
		ID, Type string
		Time     *time.Time
		Response *string
		Events   []struct {
			ID, Type string
			Time     *time.Time
		}
	}
}

// TestVerifyGolden puts every golden request of every preset through the command.
func TestVerifyGolden(t *testing.T) {
	outcomes := map[int]string{400: "malformed", 401: "unauthenticated", 403: "forbidden", 405: "method_not_allowed", 503: "key_unavailable"}
	for _, p := range provider.All {
		files, err := filepath.Glob("../../pkg/provider/testdata/" + p.Name + "/*.json")
		require.NoError(t, err)
		require.NotEmpty(t, files, p.Name)
		for _, file := range files {
			t.Run(p.Name+"/"+filepath.Base(file), func(t *testing.T) {
				text, err := os.ReadFile(file)
				require.NoError(t, err)
				var g goldenRequest
				require.NoError(t, json.Unmarshal(text, &g))
				body := g.body(t)
				v := judgeGolden(t, p.Name, &g)
				if g.Want.Status != 0 {
					require.Equal(t, verdict{Source: "golden", Outcome: outcomes[g.Want.Status], Reason: g.Want.Reason, Events: []verdictEvent{}}, v)
					return
				}
				require.True(t, v.Verified, v)
				require.Empty(t, v.Reason)
				if g.Want.Response != nil {
					require.Equal(t, "handshake", v.Outcome)
					require.Equal(t, *g.Want.Response, string(v.Response.Body))
					require.Empty(t, v.Events)
					return
				}
				require.Equal(t, "accepted", v.Outcome)
				require.Nil(t, v.Response)
				require.Equal(t, g.events(body), named(&g, v.Events))
			})
		}
	}
}

func (g *goldenRequest) body(t *testing.T) []byte {
	t.Helper()
	if text, ok := g.Request["body_base64"].(string); ok {
		body, err := base64.StdEncoding.DecodeString(text)
		require.NoError(t, err)
		return body
	}
	body, _ := g.Request["body"].(string)
	return []byte(body)
}

// events are what the command should answer.
func (g *goldenRequest) events(body []byte) []verdictEvent {
	if g.Want.Events == nil {
		e := verdictEvent{ID: g.Want.ID, Type: g.Want.Type, Time: written(g.Want.Time)}
		if e.ID == "" {
			sum := sha256.Sum256(body)
			e.ID = "sha256:" + hex.EncodeToString(sum[:])
		}
		return []verdictEvent{e}
	}
	events := []verdictEvent{}
	for _, e := range g.Want.Events {
		events = append(events, verdictEvent{ID: e.ID, Type: e.Type, Time: written(e.Time)})
	}
	return events
}

var digestKey = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// named puts back what golden files write for the key of a delivery with several events.
func named(g *goldenRequest, events []verdictEvent) []verdictEvent {
	if g.Want.Events == nil {
		return events
	}
	for i := range min(len(events), len(g.Want.Events)) {
		if key, ok := strings.CutPrefix(g.Want.Events[i].ID, "{key}"); ok && strings.HasSuffix(events[i].ID, key) {
			if found := strings.TrimSuffix(events[i].ID, key); found == g.Want.ID || g.Want.ID == "" && digestKey.MatchString(found) {
				events[i].ID = g.Want.Events[i].ID
			}
		}
	}
	return events
}

func written(at *time.Time) *string {
	if at == nil || at.IsZero() {
		return nil
	}
	text := at.UTC().Format(time.RFC3339Nano)
	return &text
}

// judgeGolden writes the golden file's configuration, keys and request as a user would have them.
func judgeGolden(t *testing.T, name string, g *goldenRequest) verdict {
	t.Helper()
	dir := t.TempDir()
	source, args := g.Config, []string{"verify", "--config", filepath.Join(dir, "catchment.yaml")}
	if source == nil {
		source = map[string]any{}
	}
	if keys, ok := source["keys"]; ok {
		delete(source, "keys")
		args = append(args, "--keys", filepath.Join(dir, "keys.json"))
		writeJSON(t, filepath.Join(dir, "keys.json"), keys)
	}
	source["provider"] = name
	secrets, _ := source["secrets"].([]any)
	for _, s := range secrets {
		secret := s.(map[string]any)
		secret["value"] = secret["text"]
		delete(secret, "text")
	}
	writeJSON(t, filepath.Join(dir, "catchment.yaml"), map[string]any{
		"ingress": map[string]any{"trusted_proxies": g.proxies()}, "sources": map[string]any{"golden": dollars(source)},
	})
	g.Request["source"] = "golden"
	g.Request["body_base64"] = g.body(t)
	delete(g.Request, "body")
	writeJSON(t, filepath.Join(dir, "requests.jsonl"), g.Request)
	code, stdout, stderr := tool(t, append(args, filepath.Join(dir, "requests.jsonl"))...)
	require.Equal(t, 0, code, stderr)
	require.Empty(t, stderr)
	return verdicts(t, stdout)[0]
}

// proxies are there when the golden request came through one.
func (g *goldenRequest) proxies() []string {
	if through, _ := g.Request["from_proxy"].(bool); through {
		return []string{"10.0.0.0/8"}
	}
	return []string{}
}

// dollars keeps what looks like a variable from being one.
func dollars(v any) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "$", "$$")
	case []any:
		for i := range v {
			v[i] = dollars(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = dollars(v[k])
		}
	}
	return v
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	require.NoError(t, e.Encode(v))
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
}

func verdicts(t *testing.T, stdout string) []verdict {
	t.Helper()
	var all []verdict
	for text := range strings.Lines(stdout) {
		var v verdict
		require.NoError(t, json.Unmarshal([]byte(text), &v))
		all = append(all, v)
	}
	return all
}

// savedSample is a genuine request of the preset, as a line.
func savedSample(t *testing.T, name, secret string, at time.Time, change func(line map[string]any)) string {
	t.Helper()
	p, ok := provider.ByName(name)
	require.True(t, ok)
	s := p.Sample(rand.New(rand.NewPCG(1, 2)), provider.SampleInput{Now: at})
	signed, err := p.Sign(&provider.SignInput{Secret: secret, URL: "https://h.example/webhooks/x", Body: s.Body, Now: at, Sample: s})
	require.NoError(t, err)
	l := map[string]any{"source": name, "headers": signed.Header, "body_base64": signed.Body, "at": float64(at.UnixMilli()) / 1000}
	if change != nil {
		change(l)
	}
	text, err := json.Marshal(l)
	require.NoError(t, err)
	return string(text)
}

func verifyLines(t *testing.T, cfg string, lines ...string) (code int, stdout, stderr string) {
	t.Helper()
	requests := filepath.Join(t.TempDir(), "requests.jsonl")
	require.NoError(t, os.WriteFile(requests, []byte(strings.Join(lines, "\n")), 0o600))
	return tool(t, "verify", "--config", writeConfig(t, cfg), requests)
}

const twoSources = "sources:\n  stripe: {provider: stripe, secrets: [whsec_a]}\n  github: {provider: github, secrets: [\"${CATCHMENT_TEST_NO_SUCH}\"]}\n" +
	"  git.hub: {provider: githob, secrets: [x]}\n  git: {provider: github, secrets: [x], on_missing_id: reject, max_body: 10kB}\n"

// TestVerifySourceBySource wants a wrong source to spoil its own requests alone.
func TestVerifySourceBySource(t *testing.T) {
	at := time.Unix(1_795_435_200, 250_000_000)
	code, stdout, stderr := verifyLines(t, "kafka: {broker: x}\npostgres: {url: \"${CATCHMENT_TEST_NO_SUCH}\"}\n"+twoSources,
		savedSample(t, "stripe", "whsec_a", at, nil),
		savedSample(t, "github", "x", at, nil),
		savedSample(t, "github", "x", at, func(l map[string]any) { l["source"] = "git.hub" }),
		savedSample(t, "github", "x", at, func(l map[string]any) { l["source"] = "git" }),
		savedSample(t, "github", "x", at, func(l map[string]any) { l["source"] = "nobody" }),
		savedSample(t, "stripe", "whsec_b", at, nil),
		savedSample(t, "stripe", "whsec_a", at, func(l map[string]any) { l["at"] = at.Add(time.Hour).Unix() }),
		savedSample(t, "stripe", "whsec_a", at, func(l map[string]any) { l["method"] = "GET" }),
		`{"source":"git","headers":{"x-hub-signature-256":["sha256=e38cd0d9ea9ae1ba33cf0a51e1d2f8d9d8e2a9b2f5b9c2d5d40c7d7e2f3c4b5a"," "]}}`,
		`{"source":"git","body_base64":"`+strings.Repeat("AAAA", 5000)+`"}`,
	)
	require.Equal(t, 0, code, "every request was judged")
	require.Contains(t, stderr, "not looked at: ")
	require.Contains(t, stderr, "kafka.broker: unknown key")
	var got []string
	for _, v := range verdicts(t, stdout) {
		got = append(got, fmt.Sprintf("%s %v %s %d", v.Source, v.Verified, v.Outcome, len(v.Events)))
	}
	require.Equal(t, []string{
		"stripe true accepted 1", "github false config_error 0", "git.hub false config_error 0", "git true accepted 1", "nobody false unknown_source 0",
		"stripe false unauthenticated 0", "stripe false unauthenticated 0", "stripe false method_not_allowed 0", "git false malformed 0", "git false too_large 0",
	}, got)
	vs := verdicts(t, stdout)
	require.Contains(t, vs[1].Reason, "sources.github.secrets[0].value: expected the environment variable CATCHMENT_TEST_NO_SUCH to be set")
	require.Contains(t, vs[2].Reason, `unknown provider "githob"`)
	require.Equal(t, "signature mismatch", vs[5].Reason)
	require.Equal(t, "timestamp too old", vs[6].Reason)
}

// TestVerifyLines wants a line that is no request to be told, and the others to be judged.
func TestVerifyLines(t *testing.T) {
	good := savedSample(t, "stripe", "whsec_a", time.Now(), func(l map[string]any) { delete(l, "at") })
	for line, want := range map[string]string{
		`{`:                                     "expected one JSON object",
		`[]`:                                    "expected a JSON object",
		`{"source":"stripe"} {}`:                "expected one JSON object",
		`{"method":"POST"}`:                     `expected the name of a source in "source"`,
		`{"source":"a","source":"b"}`:           "a member is there twice",
		`{"source":1}`:                          "source: found a number",
		`{"source":"a","headers":{"a":1}}`:      "headers.a: ",
		`{"source":"a","at":"1"}`:               "at: found a string",
		`{"source":"a","at":1e300}`:             "at: expected Unix seconds",
		`{"source":"a","path":"a"}`:             "path: expected one that begins with /",
		`{"source":"a","body_base64":"YQ"}`:     "body_base64: expected base64",
		`{"source":"a","body_base64":"YR=="}`:   "body_base64: expected base64",
		`{"source":"a","body_base64":"YQ==\n"}`: "body_base64: expected base64",
		`{"source":"a","body_base64":"-_=="}`:   "body_base64: expected base64",
	} {
		code, stdout, stderr := verifyLines(t, twoSources, good, "", line, good)
		require.Equal(t, 1, code, line)
		require.Len(t, verdicts(t, stdout), 2, line)
		require.Contains(t, stderr, "requests.jsonl:3: not a request: ", line)
		require.Contains(t, stderr, want, line)
	}
}

// TestVerifyNamelessTokens: which token has fitted is not told, so that one without the ID that the services want is
// judged; what else is wrong with a source still is.
func TestVerifyNamelessTokens(t *testing.T) {
	line := func(source, name, value string) string {
		return fmt.Sprintf(`{"source":%q,"headers":{%q:%q},"body_base64":"e30="}`, source, name, value)
	}
	code, stdout, stderr := verifyLines(t, `sources:
  basic: {provider: basic, secrets: ["user:word"]}
  auth0: {provider: auth0, secrets: [{id: a, value: "Bearer one"}, "Bearer two"], options: {tolerance: off}}
  empty: {provider: bearer, secrets: [" "]}
  unset: {provider: bearer, secrets: ["${CATCHMENT_TEST_NO_SUCH}"]}
`,
		line("basic", "Authorization", "Basic dXNlcjp3b3Jk"), line("basic", "Authorization", "Basic dXNlcjp3b3Jr"), line("auth0", "authorization", "Bearer two"),
		line("empty", "Authorization", "Bearer  "), line("unset", "Authorization", "Bearer "),
	)
	require.Equal(t, 0, code)
	require.Contains(t, stderr, "sources.basic.secrets[0]: needs an id")
	require.NotContains(t, stderr, "user:word")
	var got []string
	for _, v := range verdicts(t, stdout) {
		got = append(got, v.Source+" "+v.Outcome)
	}
	require.Equal(t, []string{"basic accepted", "basic unauthenticated", "auth0 accepted", "empty config_error", "unset config_error"}, got)
}

// TestVerifyHost: the host that was called is part of what an HTTP message signature may cover.
func TestVerifyHost(t *testing.T) {
	key, digest := []byte("a key of thirty-two bytes or so."), sha256.Sum256([]byte("{}"))
	params := `("@authority" "host" "content-digest");created=1795435200`
	content := "sha-256=:" + base64.StdEncoding.EncodeToString(digest[:]) + ":"
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "\"@authority\": hooks.example.com\n\"host\": Hooks.example.com:443\n\"content-digest\": %s\n\"@signature-params\": %s", content, params)
	line := func(host string) string {
		text, err := json.Marshal(map[string]any{"source": "p", "at": 1_795_435_200, "body_base64": []byte("{}"), "headers": map[string]string{
			"Host": host, "Content-Digest": content, "Signature-Input": "s=" + params, "Signature": "s=:" + base64.StdEncoding.EncodeToString(m.Sum(nil)) + ":",
		}})
		require.NoError(t, err)
		return string(text)
	}
	cfg := fmt.Sprintf("sources: {p: {provider: rfc9421, options: {algorithm: hmac-sha256}, secrets: [%q]}}\n", base64.StdEncoding.EncodeToString(key))
	_, stdout, _ := verifyLines(t, cfg, line("Hooks.example.com:443"), line("other.example.com"))
	vs := verdicts(t, stdout)
	require.Equal(t, "accepted", vs[0].Outcome, vs[0].Reason)
	require.Equal(t, "signature mismatch", vs[1].Reason)
}

func TestVerifyForm(t *testing.T) {
	at := time.Unix(1_795_435_200, 0)
	code, stdout, _ := verifyLines(t, "sources: {stripe: {provider: stripe, secrets: [whsec_a]}, slack: {provider: slack, secrets: [s]}, github: {provider: github, secrets: [g]}}\n",
		savedSample(t, "stripe", "whsec_x", at, nil),
		handshakeLine(t, at),
		savedSample(t, "github", "g", at, func(l map[string]any) { l["query"], l["path"] = "a=b", "/webhooks/github/x%2Fy" }),
	)
	require.Equal(t, 0, code)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	require.Equal(t, `{"source":"stripe","verified":false,"outcome":"unauthenticated","reason":"signature mismatch","events":[]}`, lines[0])
	require.Equal(t, `{"source":"slack","verified":true,"outcome":"handshake","reason":"","events":[],"response":{"status":200,"headers":{"Content-Type":"text/plain; charset=utf-8","X-Content-Type-Options":"nosniff"},"body_base64":"YWJj"}}`, lines[1])
	require.Regexp(t, `^\{"source":"github","verified":true,"outcome":"accepted","reason":"","events":\[\{"id":"[^"]+","type":"[a-z_]+","time":null\}\]\}$`, lines[2])
}

func handshakeLine(t *testing.T, at time.Time) string {
	t.Helper()
	p, _ := provider.ByName("slack")
	body := []byte(`{"token":"x","challenge":"abc","type":"url_verification"}`)
	signed, err := p.Sign(&provider.SignInput{Secret: "s", Body: body, Now: at})
	require.NoError(t, err)
	headers := map[string]string{}
	for name := range signed.Header {
		headers[strings.ToUpper(name)] = signed.Header.Get(name)
	}
	text, err := json.Marshal(map[string]any{"source": "slack", "headers": headers, "body_base64": body, "at": at.Unix()})
	require.NoError(t, err)
	return string(text)
}

func TestVerifyUsage(t *testing.T) {
	dir := t.TempDir()
	requests, keys := filepath.Join(dir, "requests.jsonl"), filepath.Join(dir, "keys.json")
	require.NoError(t, os.WriteFile(requests, nil, 0o600))
	require.NoError(t, os.WriteFile(keys, []byte(`{"keys":[]}`), 0o600))
	right := writeConfig(t, "sources: {}\n")
	for want, args := range map[string][]string{
		"there is no nothing.yaml":      {"--config", "nothing.yaml", requests},
		"read requests":                 {"--config", right, filepath.Join(dir, "nothing")},
		"expected 1 arguments, found 0": {"--config", right},
		"--keys " + keys:                {"--config", right, "--keys", keys, requests},
		"sources: expected a mapping":   {"--config", writeConfig(t, "sources: []\n"), requests},
		"not YAML":                      {"--config", writeConfig(t, "sources: {\n"), requests},
		"ingress.max_body":              {"--config", writeConfig(t, "ingress: {max_body: x}\n"), requests},
	} {
		code, _, stderr := tool(t, append([]string{"verify"}, args...)...)
		require.Equal(t, 2, code, want)
		require.Contains(t, stderr, want)
	}
	code, stdout, _ := tool(t, "verify", "--config", right, requests)
	require.Equal(t, 0, code)
	require.Empty(t, stdout)
}

func TestVerifyReadsStandardInput(t *testing.T) {
	var out, errs buffer
	a := &app{config: writeConfig(t, twoSources), out: &out, err: &errs}
	line := savedSample(t, "stripe", "whsec_a", time.Now(), nil)
	require.NoError(t, a.verify(t.Context(), strings.NewReader(line+"\r\n"+line), "-", ""))
	require.Len(t, verdicts(t, out.String()), 2)

	long := `{"source":"stripe","query":"` + strings.Repeat("a", maxLine) + `"}`
	require.ErrorIs(t, a.verify(t.Context(), strings.NewReader(long+"\n"+line), "-", ""), errSaid)
	require.Len(t, verdicts(t, out.String()), 3)
	require.Contains(t, errs.String(), "-:1: not a request: the line is longer than 64 MiB")
}
