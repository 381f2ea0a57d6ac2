package main

//go:generate go test . -run TestMetricsReference -update

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
	"github.com/catchment-dev/catchment/processor"
)

var update = flag.Bool("update", false, "write the generated files anew")

// metric is one name of the registries.
type metric struct{ name, kind, help, labels string }

// promised are the names that stay.
var promised = strings.Fields(`
	ingress_requests_total{source,outcome} ingress_request_seconds{source} ingress_ack_seconds{} ingress_inflight_bytes{}
	processor_events_total{source,outcome} processor_batch_seconds{} processor_lag_records{partition} processor_oldest_unprocessed_seconds{} processor_fenced_total{}
	archiver_segments_total{} archiver_records_total{} archiver_oldest_unarchived_seconds{} retention_headroom_seconds{consumer} dead_letters{source} build_info{revision,version}`)

// labelMeanings are all labels, and what their values come from: never from a request.
var labelMeanings = map[string]string{
	"source":    "a source of the configuration; `_unknown`: a request for none; `other`: a record of a source that is not in the configuration any more; empty: a record that names none",
	"outcome":   "how it ended, one of a fixed list",
	"operation": "an operation of the configuration",
	"partition": "a partition of the topic of deliveries that this process has",
	"consumer":  "`processor`, `archiver`, `archiver-results`",
	"secret_id": "the ID of a secret that is in use",
	"result":    "one of a fixed list",
	"kind":      "`results`, `repeats`, `identities`",
	"topic":     "a topic of the configuration",
	"service":   "`ingress`, `processor`, `archiver`",
	"key":       "a key of the configuration that names a certificate",
	"client":    "which of our Kafka clients: `ingress`, `ingress-at-once` (sources with `linger: 0s`), `processor`, `processor-outbox`, `archiver`, `archiver-results`",
	"node_id":   "a broker's ID; `seed_0` and so on: as the configuration names it",
	"state":     "`busy`, `idle`, `opening`",
	"version":   "of the program",
	"revision":  "the commit that the program was built from",
}

// collectorsOf is a registry that remembers what it is given.
type collectorsOf struct {
	*prometheus.Registry
	mu    sync.Mutex
	given []prometheus.Collector
}

func (c *collectorsOf) Register(one prometheus.Collector) error {
	c.mu.Lock()
	c.given = append(c.given, one)
	c.mu.Unlock()
	return c.Registry.Register(one)
}

func (c *collectorsOf) MustRegister(all ...prometheus.Collector) {
	for _, one := range all {
		if err := c.Register(one); err != nil {
			panic(err)
		}
	}
}

const everythingConfigured = `
kafka: {brokers: ["127.0.0.1:1"]}
postgres: {url: "postgres://nobody@127.0.0.1:1/none"}
archive: {url: "file://%s"}
ingress: {listen: "127.0.0.1:0"}
sources:
  shop: {provider: hmac, linger: 0s, hmac: {header: X-Signature, algorithm: sha256, encoding: hex, signed: "{body}"}, secrets: [{id: first, value: a secret, not_after: 2027-01-01T00:00:00Z}]}
operations:
  - {name: orders, on: {source: shop}, sql: SELECT 1}
`

// registered makes the three services, and returns what they have to show.
func registered(t *testing.T) (*collectorsOf, []metric) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "catchment.yaml")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, everythingConfigured, dir), 0o600))
	cfg, err := processor.Load(path, settings.Everything...)
	require.NoError(t, err)
	reg := &collectorsOf{Registry: telemetry.Registry()}
	made, err := makeServices(cfg, slog.New(slog.DiscardHandler), reg)
	require.NoError(t, err)
	telemetry.Watch(reg, cfg, made...)
	client, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1"), kafka.Metrics(reg, "processor"))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return reg, namesIn(t, reg)
}

var descText = regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), unit: "[^"]*", constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// namesIn are the names in a registry that are ours, sorted, each once.
func namesIn(t *testing.T, reg *collectorsOf) (all []metric) {
	t.Helper()
	kinds := map[string]string{}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		kinds[f.GetName()] = strings.ToLower(f.GetType().String())
	}
	ch := make(chan *prometheus.Desc)
	go func() {
		reg.Describe(ch)
		for _, c := range reg.given {
			c.Describe(ch)
		}
		close(ch)
	}()
	var descs []string
	for d := range ch {
		descs = append(descs, d.String())
	}
	seen := map[string]bool{}
	for _, d := range descs {
		m := descText.FindStringSubmatch(d)
		require.NotNil(t, m, d)
		name, err := strconv.Unquote(m[1])
		require.NoError(t, err)
		help, err := strconv.Unquote(m[2])
		require.NoError(t, err)
		if seen[name] || !strings.HasPrefix(name, "catchment_") {
			continue
		}
		seen[name] = true
		var labels []string
		for _, l := range strings.Split(m[3]+","+m[4], ",") {
			if l, _, _ = strings.Cut(strings.TrimPrefix(l, "c("), "="); l != "" {
				labels = append(labels, strings.TrimSuffix(l, ")"))
			}
		}
		slices.Sort(labels)
		kind := kinds[name]
		if kind == "" && strings.HasSuffix(name, "_total") {
			kind = "counter"
		} else if kind == "" {
			kind = "gauge"
		}
		all = append(all, metric{name, kind, help, strings.Join(labels, ",")})
	}
	slices.SortFunc(all, func(a, b metric) int { return strings.Compare(a.name, b.name) })
	return all
}

// TestMetricsReference holds docs/metrics.md against the registries, and the registries against what was promised.
func TestMetricsReference(t *testing.T) {
	reg, all := registered(t)
	for _, want := range promised {
		name, labels, _ := strings.Cut(strings.TrimSuffix(want, "}"), "{")
		i := slices.IndexFunc(all, func(m metric) bool { return m.name == "catchment_"+name })
		require.GreaterOrEqual(t, i, 0, name)
		wanted := strings.Split(labels, ",")
		slices.Sort(wanted)
		require.Equal(t, strings.Join(wanted, ","), all[i].labels, name)
	}
	problems, err := testutil.GatherAndLint(reg)
	require.NoError(t, err)
	require.Empty(t, problems)
	for _, m := range all {
		require.NotEmpty(t, m.help, m.name)
		require.Equal(t, m.kind == "counter", strings.HasSuffix(m.name, "_total"), m.name)
	}
	path := filepath.Join(root(t), "docs", "metrics.md")
	text := metricsPage(t, all)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	have, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, text, string(have), "make generate")
}

func metricsPage(t *testing.T, all []metric) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`# Metrics

Made from the programs' registries by ` + "`make generate`" + `. Each service serves them on its operations listener, ` + "`/metrics`" + `, in
Prometheus' text format, OpenMetrics or protobuf, whichever the scraper asks for. Histograms are
native and classic: a Prometheus that does not take native ones gets the buckets. Beside these there are ` + "`go_…` and `process_…`" + `.

No label takes a value from a request, so that the number of series is that of the configuration:

| label | values |
| --- | --- |
`)
	labels := map[string]bool{}
	for _, m := range all {
		for _, l := range strings.Split(m.labels, ",") {
			labels[l] = l != ""
		}
	}
	for _, l := range slices.Sorted(func(yield func(string) bool) {
		for l, ok := range labels {
			if ok && !yield(l) {
				return
			}
		}
	}) {
		require.NotEmpty(t, labelMeanings[l], "the label %s has no meaning", l)
		fmt.Fprintf(&b, "| `%s` | %s |\n", l, labelMeanings[l])
	}
	rest := all
	for _, part := range []struct{ title, prefix string }{
		{"Ingress", "catchment_ingress_"},
		{"Processor", "catchment_processor_"},
		{"Archiver", "catchment_archiver_"},
		{"Kafka clients", "catchment_kafka_"},
		{"Of more than one service", "catchment_"},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| name | type | labels | meaning |\n| --- | --- | --- | --- |\n", part.title)
		var others []metric
		for _, m := range rest {
			if !strings.HasPrefix(m.name, part.prefix) {
				others = append(others, m)
				continue
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kind, strings.ReplaceAll(m.labels, ",", ", "), m.help)
		}
		rest = others
	}
	b.WriteString("\nThe processor is the one that says `catchment_dead_letters`: every process of its group says the same, from Postgres, so take the `max`.\n")
	return b.String()
}
