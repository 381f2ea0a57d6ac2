package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/pgtest"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/processor"
)

const watchedConfig = `
kafka: {brokers: ["%[1]s"], topic: "%[2]s", results_topic: "%[2]s.results"}
postgres: {url: "%[3]s"}
archive: {url: "%[4]s"}
ingress: {listen: "%[5]s", ops_listen: "%[6]s"}
processor: {ops_listen: "%[7]s", group: "%[2]s.processor"}
archiver: {ops_listen: "%[8]s", group: "%[2]s.archiver", segment_age: 1s}
telemetry: {%[9]s}
sources:
  shop: {provider: hmac, secrets: [{id: old, value: not used, not_after: 2030-01-01T00:00:00Z}, {id: now, file: "%[10]s"}], event_id: body.id, event_type: body.type, hmac: &scheme {header: X-Signature, algorithm: sha256, encoding: hex, signed: "{body}"}}
  other: {provider: hmac, secrets: [{id: now, file: "%[11]s"}], event_id: body.id, event_type: body.type, hmac: *scheme}
operations:
  - {name: good, on: {source: shop}, sql: SELECT 1}
  - {name: bad, on: {source: shop, types: [bad]}, sql: "SELECT @amount::int", params: {amount: body.amount}}
  - {name: unclear, on: {source: shop}, when: body.missing == 1, sql: SELECT 1}
`

// Where the secrets of watchedConfig come from.
const (
	shopSecret  = "shop-secret-0123456789"
	otherSecret = "other-secret-0123456789"
)

// watched is the three services as the programs that are shipped, and a Prometheus that watches them.
type watched struct {
	t                             *testing.T
	listen, topic, dir            string
	ingress, processor, archiver  *proctest.Process
	ingressOps, processorOps, ops string
	prometheus                    string // its URL
}

// place is what the services work on.
type place struct {
	brokers            []string
	topic, db, archive string
	telemetry          string
	more               string // sections of the configuration
	env                []string
}

func newWatched(t *testing.T, p place) *watched {
	t.Helper()
	w := &watched{
		t: t, dir: t.TempDir(), topic: p.topic, listen: proctest.FreeAddress(t),
		ingressOps: proctest.FreeAddress(t), processorOps: proctest.FreeAddress(t), ops: proctest.FreeAddress(t),
	}
	w.secret("shop", shopSecret)
	w.secret("other", otherSecret)
	config := fmt.Appendf(nil, watchedConfig, strings.Join(p.brokers, `", "`), p.topic, p.db, p.archive, w.listen,
		w.ingressOps, w.processorOps, w.ops, p.telemetry, filepath.Join(w.dir, "shop"), filepath.Join(w.dir, "other"))
	config = append(config, p.more...)
	w.ingress = proctest.New(t, proctest.Build(t, "../../ingress/cmd/ingress"), w.ingressOps, config)
	w.processor = proctest.New(t, proctest.Build(t, "../../processor/cmd/processor"), w.processorOps, config)
	w.archiver = proctest.New(t, proctest.Build(t, "../../archiver/cmd/archiver"), w.ops, config)
	for _, one := range []*proctest.Process{w.ingress, w.processor, w.archiver} {
		one.Start(p.env...)
	}
	for _, one := range []*proctest.Process{w.ingress, w.processor, w.archiver} {
		one.WaitReady()
	}
	return w
}

// secret writes a source's secret.
func (w *watched) secret(source, text string) {
	w.t.Helper()
	require.NoError(w.t, os.WriteFile(filepath.Join(w.dir, source), []byte(text), 0o600))
}

// post sends a body to a source and returns the status; 0: there was no answer.
func (w *watched) post(source, secret, body string, header http.Header) int {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, "http://"+w.listen+"/webhooks/"+source, strings.NewReader(body))
	if err != nil {
		return 0
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Signature", hex.EncodeToString(mac.Sum(nil)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// load sends what there is in real life, ten times a second, until stop or the test's end.
func (w *watched) load() (stop func()) {
	n := 0
	return w.repeat(func(together func(func())) {
		kind := "order"
		if n%50 == 0 {
			kind = "bad"
		}
		body := fmt.Sprintf(`{"id":"evt_%d","type":%q,"amount":"none"}`, n, kind)
		together(func() { w.post("shop", shopSecret, body, nil) })
		together(func() { w.post("other", otherSecret, body, nil) })
		if n%20 == 0 {
			w.post("shop", "somebody else's", body, nil)
			w.post("shop", shopSecret, body, nil) // a duplicate
			w.post("shop", shopSecret, body+" ", nil)
			w.post("nobody", shopSecret, body, nil)
		}
		n++
	})
}

// repeat sends ten times a second, until stop or the test's end, what send gives together to be sent.
func (w *watched) repeat(send func(together func(func()))) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				send(done.Go)
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); done.Wait() })
	w.t.Cleanup(stop)
	return stop
}

// watch starts a Prometheus that scrapes all three every second, with these rules.
func (w *watched) watch(rules string) {
	w.t.Helper()
	program, address, dir := prometheusTool(w.t, "prometheus"), proctest.FreeAddress(w.t), w.t.TempDir()
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%s]
scrape_configs:
  - {job_name: ingress, static_configs: [{targets: ["%s"]}]}
  - {job_name: processor, static_configs: [{targets: ["%s"]}]}
  - {job_name: archiver, static_configs: [{targets: ["%s"]}]}
`, rules, w.ingressOps, w.processorOps, w.ops)
	file := filepath.Join(dir, "prometheus.yml")
	require.NoError(w.t, os.WriteFile(file, []byte(config), 0o600))
	log, err := os.Create(filepath.Join(dir, "log"))
	require.NoError(w.t, err)
	cmd := exec.Command(program, "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = log, log
	require.NoError(w.t, cmd.Start())
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	w.prometheus = "http://" + address
	require.True(w.t, await(w.t, time.Minute, func() bool { return len(w.query("sum(up) == 3")) == 1 }), "Prometheus does not scrape")
}

// query returns the samples of a query now, as labels; nil: none, or no answer.
func (w *watched) query(expr string) []map[string]string {
	w.t.Helper()
	resp, err := http.PostForm(w.prometheus+"/api/v1/query", url.Values{"query": {expr}})
	if err != nil {
		return nil
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode == http.StatusServiceUnavailable { // it starts
		return nil
	}
	text, err := io.ReadAll(resp.Body)
	require.NoError(w.t, err)
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct{ Metric map[string]string }
		}
	}
	require.NoError(w.t, json.NewDecoder(bytes.NewReader(text)).Decode(&answer), "%s", text)
	require.Equal(w.t, "success", answer.Status, "%s: %s", expr, answer.Error)
	var all []map[string]string
	for _, one := range answer.Data.Result {
		all = append(all, one.Metric)
	}
	return all
}

// emptyDatabase is a database with the schema.
func emptyDatabase(t *testing.T) string {
	t.Helper()
	db := pgtest.New(t)
	require.NoError(t, processor.Migrate(t.Context(), db))
	return db
}
