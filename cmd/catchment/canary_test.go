package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/crypto/bcrypt"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/otlptest"
	"github.com/catchment-dev/catchment/pkg/proctest"
)

// canaries are what must stay where it was put: secrets, and what only bodies, headers, paths and queries hold.
var canaries = map[string]string{
	"a source's secret": shopSecret, "another source's secret": otherSecret, "the database's password": "canary-of-postgres",
	"a body": "canary-of-a-body", "a broken body": "canary-of-a-broken-body", "an amount": "canary-of-an-amount", "a header": "canary-of-a-header",
	"a credential": "canary-of-a-credential", "a query": "canary-of-a-query", "a path": "canary-of-a-path", "a record": "canary-of-a-record",
	"a wrong secret": "canary-of-a-wrong-secret", "a person's password": "canary-of-a-person", "a wrong password": "canary-of-a-wrong-person",
}

// singing is what programs and answers have said.
type singing struct {
	t   *testing.T
	all map[string]string // by what has said it
}

func (s *singing) hears(where, text string) { s.all[where] += text + "\n" }

// silent wants no canary in what was heard, as it is, in base64, in hex, or in a URL.
func (s *singing) silent() {
	s.t.Helper()
	for where, text := range s.all {
		for what, canary := range canaries {
			for _, form := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary))[:16], hex.EncodeToString([]byte(canary)), url.QueryEscape(canary)} {
				if at := strings.Index(text, form); at >= 0 {
					s.t.Errorf("%s tells %s: …%s…", where, what, text[max(0, at-200):min(len(text), at+100)])
					break
				}
			}
		}
	}
}

// TestCanaries sends secrets and bodies through every path of the three programs, at log level debug and with each request
// traced: none of them is in a log, a metric, a trace, an answer, a page of health, or what the tool says.
func TestCanaries(t *testing.T) {
	t.Parallel()
	k, c := kafkatest.New(t), otlptest.New(t)
	hash, err := bcrypt.GenerateFromPassword([]byte(canaries["a person's password"]), 8)
	require.NoError(t, err)
	db := withSecret(t, emptyDatabase(t), canaries["the database's password"])
	w := newWatched(t, place{
		brokers: k.Brokers, topic: k.Topic(t, 1), db: db, archive: "file://" + t.TempDir(),
		telemetry: fmt.Sprintf("log_level: debug, traces: otlp, trace_endpoint: %q, trace_one_in: 1", c.URL),
		more:      fmt.Sprintf("console: {users: [{name: ada, password: %[1]q, roles: [view-metadata, operate]}, {name: eve, password: %[1]q, roles: [view-metadata, view-payload]}]}\n", hash),
	})
	heard := &singing{t, map[string]string{}}
	w.everyRequest(heard)
	client := k.Client(t, kgo.DefaultProduceTopic(w.topic))
	for _, headers := range [][]kgo.RecordHeader{nil, {{Key: "ce_id", Value: []byte("evt_salvaged")}, {Key: "ce_specversion", Value: []byte("1.0")}}} {
		require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Key: []byte(canaries["a record"]), Value: []byte(canaries["a record"]), Headers: headers}).FirstErr())
	}
	require.NoError(t, os.Remove(filepath.Join(w.dir, "other"))) // it cannot be read any more
	require.True(t, await(t, 2*time.Minute, func() bool {
		return w.processor.Metric("catchment_processor_events_total") >= 8 && w.archiver.Metric("catchment_archiver_records_total") >= 8 &&
			w.ingress.Metric("catchment_ingress_secrets_unread") == 1 && countSpans(c, "process ") >= 6 && countSpans(c, "archive ") >= 6 && countSpans(c, "POST ") >= 12
	}), "not all went its way")
	for name, ops := range map[string]string{"ingress": w.ingressOps, "processor": w.processorOps, "archiver": w.ops} {
		heard.hears("metrics of "+name, openMetrics(t, ops))
		for _, page := range []string{"/readyz", "/livez", "/" + canaries["a path"]} {
			heard.hears("operations of "+name, w.get("http://"+ops+page))
		}
	}
	w.console(heard, string(hash))
	heard.hears("traces", c.Raw())
	for name, p := range map[string]*proctest.Process{"ingress": w.ingress, "processor": w.processor, "archiver": w.archiver} {
		p.Stop()
		heard.hears("log of "+name, p.Log())
	}
	w.secret("other", otherSecret)
	w.asks(heard, db)
	heard.silent()
	require.Contains(t, heard.all["log of ingress"], `"level":"DEBUG"`)
}

// withSecret puts a password into the URL of a database.
func withSecret(t *testing.T, db, password string) string {
	t.Helper()
	u, err := url.Parse(db)
	require.NoError(t, err)
	user := u.User.Username()
	if _, has := u.User.Password(); !has {
		u.User = url.UserPassword(user, password)
	}
	return u.String()
}

// everyRequest makes requests that end in every way that can be asked for.
func (w *watched) everyRequest(heard *singing) {
	w.t.Helper()
	good := fmt.Sprintf(`{"id":"evt_1","type":"order","secret":%q}`, canaries["a body"])
	sign := func(secret, body string) string {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(body))
		return hex.EncodeToString(mac.Sum(nil))
	}
	for _, one := range []struct {
		method, path, secret, body string
		header                     http.Header
		status                     int
	}{
		{"POST", "/webhooks/shop", shopSecret, good, nil, 200},
		{"POST", "/webhooks/shop", shopSecret, good, nil, 200},                                                                          // a duplicate
		{"POST", "/webhooks/shop", shopSecret, good + " ", nil, 200},                                                                    // a conflict
		{"POST", "/webhooks/shop/" + canaries["a path"], shopSecret, good + "  ", nil, 200},                                             // a sub-path
		{"POST", "/webhooks/shop?token=" + canaries["a query"], shopSecret, good + "   ", nil, 200},                                     // a query
		{"POST", "/webhooks/shop", shopSecret, fmt.Sprintf(`{"id":"evt_2","type":"bad","amount":%q}`, canaries["an amount"]), nil, 200}, // a dead letter
		{"POST", "/webhooks/shop", shopSecret, fmt.Sprintf(`{"id":"evt_3","type":"bad","amount":%q}`, canaries["an amount"]), nil, 200},
		{"POST", "/webhooks/shop", shopSecret, `{"id":"evt_4","type":"order","type":"` + canaries["a broken body"] + `"`, nil, 0},
		{"POST", "/webhooks/shop", shopSecret, canaries["a broken body"], nil, 0},
		{"POST", "/webhooks/shop", canaries["a wrong secret"], good, nil, 401},
		{"POST", "/webhooks/other", shopSecret, good, nil, 401},
		{"POST", "/webhooks/nobody/" + canaries["a path"], shopSecret, good, nil, 404},
		{"POST", "/" + canaries["a path"], shopSecret, good, nil, 404},
		{"PUT", "/webhooks/shop/" + canaries["a path"], shopSecret, good, nil, 405},
		{"POST", "/webhooks/shop", shopSecret, good, http.Header{"Content-Encoding": {"gzip"}}, 415},
		{"POST", "/webhooks/shop", shopSecret, strings.Repeat(canaries["a body"], 70_000), nil, 413},
		{"POST", "/webhooks/shop", shopSecret, good, http.Header{"X-Signature": {canaries["a credential"], canaries["a credential"]}}, 400},
	} {
		req, err := http.NewRequestWithContext(context.Background(), one.method, "http://"+w.listen+one.path, strings.NewReader(one.body))
		require.NoError(w.t, err)
		req.Header = http.Header{
			"Content-Type": {"application/json"}, "X-Signature": {sign(one.secret, one.body)}, "X-Note": {canaries["a header"]},
			"Authorization": {"Bearer " + canaries["a credential"]}, "Cookie": {"c=" + canaries["a credential"]},
			"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "Tracestate": {"x=" + canaries["a header"]}, "Baggage": {"x=" + canaries["a header"]},
		}
		for name, values := range one.header {
			req.Header[name] = values
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil && one.status == http.StatusRequestEntityTooLarge {
			continue // answered before all was sent
		}
		require.NoError(w.t, err)
		text, err := io.ReadAll(resp.Body)
		require.NoError(w.t, err)
		_ = resp.Body.Close()
		if one.status != 0 {
			require.Equal(w.t, one.status, resp.StatusCode, "%s %s: %s", one.method, one.path, text)
		}
		heard.hears("an answer", fmt.Sprint(resp.Status, resp.Header, string(text)))
	}
}

// console walks through the pages of the console as somebody who may not see payloads, as somebody who may, whose looks are
// not told again, and as nobody.
func (w *watched) console(heard *singing, hash string) {
	w.t.Helper()
	ask := func(user, password, method, path string, form url.Values) (int, string) {
		req, err := http.NewRequestWithContext(context.Background(), method, "http://"+w.processorOps+"/console/"+path, strings.NewReader(form.Encode()))
		require.NoError(w.t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth(user, canaries[password])
		resp, err := http.DefaultClient.Do(req)
		require.NoError(w.t, err)
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		require.NoError(w.t, err)
		require.NotContains(w.t, string(text), hash)
		return resp.StatusCode, fmt.Sprint(resp.Status, resp.Header, string(text))
	}
	letter := regexp.MustCompile(`dead-letter\?id=\d+`)
	_, letters := ask("ada", "a person's password", http.MethodGet, "dead-letters", nil)
	pages := []string{
		"", "overview", "overview?span=7d", "operations", "replay", "jobs", "sources", "audit", "actions", "dead-letters", "events?type=bad", "events?since=1h",
		"event?source=shop&id=evt_1", "event?source=shop&id=evt_2", "event?source=shop&id=evt_3", "events/" + canaries["a path"],
	}
	found := letter.FindAllString(letters, -1)
	require.GreaterOrEqual(w.t, len(found), 3, "two events, and a record that cannot be decoded")
	shown := 0
	for _, path := range append(pages, found...) {
		status, text := ask("ada", "a person's password", http.MethodGet, path, nil)
		require.Less(w.t, status, 500, "%s: %s", path, text)
		if bad := "&#34;" + canaries["an amount"] + "&#34;"; strings.Contains(text, bad) { // the error of an attempt, as Postgres says it: whoever may see metadata sees it
			shown++
			text = strings.ReplaceAll(text, bad, "")
		}
		heard.hears("the console's page "+path, text)
	}
	require.Positive(w.t, shown)
	event := url.Values{"source": {"shop"}, "id": {"evt_1"}}
	status, text := ask("ada", "a person's password", http.MethodPost, "event/payload", event)
	require.Equal(w.t, http.StatusForbidden, status)
	heard.hears("the console's refusal", text)
	status, text = ask("eve", "a person's password", http.MethodPost, "event/payload", event)
	require.Equal(w.t, http.StatusOK, status)
	require.Contains(w.t, text, canaries["a body"])
	status, text = ask("ada", "a person's password", http.MethodGet, "actions", nil)
	require.Equal(w.t, http.StatusOK, status)
	require.Contains(w.t, text, "evt_1")
	heard.hears("the console's actions", text)
	for _, path := range []string{"event?source=shop&id=evt_1", canaries["a path"]} {
		status, text = ask("ada", "a wrong password", http.MethodGet, path, nil)
		require.Equal(w.t, http.StatusUnauthorized, status)
		heard.hears("the console's refusal", text)
	}
}

// get returns an answer, whatever it is.
func (w *watched) get(url string) string {
	w.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	require.NoError(w.t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(w.t, err)
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	return fmt.Sprint(resp.Status, resp.Header, string(text))
}

// asks runs what the tool shows without payloads, also where the database does not answer.
func (w *watched) asks(heard *singing, db string) {
	w.t.Helper()
	text, err := os.ReadFile(w.processor.Config)
	require.NoError(w.t, err)
	gone := strings.Replace(string(text), db, "postgres://nobody:"+canaries["the database's password"]+"@127.0.0.1:1/none?connect_timeout=2", 1)
	require.NotEqual(w.t, gone, string(text))
	without := filepath.Join(w.dir, "without.yaml")
	require.NoError(w.t, os.WriteFile(without, []byte(gone), 0o600))
	for _, command := range []string{"status", "sources list", "events list", "operations list", "config check --offline", "audit"} {
		for _, config := range []string{w.processor.Config, without} {
			_, out, errs := tool(w.t, append(strings.Fields(command), "--config", config)...) // it may well fail
			require.NotEmpty(w.t, out+errs, command)
			heard.hears("catchment "+command, out+errs)
		}
	}
}
