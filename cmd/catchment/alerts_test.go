package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"
)

// alertRule is one alert of charts/catchment/files/alerts.yaml.
type alertRule struct {
	Alert       string
	Expr        string
	For         string
	Labels      map[string]string
	Annotations map[string]string
}

// ruleFile is a file of Prometheus rules.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []alertRule
	}
}

func alertsFile(t *testing.T) string {
	t.Helper()
	return filepath.Join(root(t), "charts", "catchment", "files", "alerts.yaml")
}

func alertRules(t *testing.T) []alertRule {
	t.Helper()
	text, err := os.ReadFile(alertsFile(t))
	require.NoError(t, err)
	var f ruleFile
	require.NoError(t, yaml.Unmarshal(text, &f))
	require.Len(t, f.Groups, 1)
	require.NotEmpty(t, f.Groups[0].Rules)
	return f.Groups[0].Rules
}

// prometheusTool finds a program of Prometheus; without it the test is skipped, or fails where real parts are required.
func prometheusTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CATCHMENT_TEST_REAL") == "1" {
			t.Fatalf("CATCHMENT_TEST_REAL=1, but there is no %s: install Debian's package prometheus", name)
		}
		t.Skipf("there is no %s", name)
	}
	return path
}

var (
	metricName = regexp.MustCompile(`\b(catchment|go|process)_[a-z0-9_]+`)
	suffixes   = regexp.MustCompile(`_(bucket|count|sum)$`)
)

// requireKnown wants every metric of an expression to be in the registries.
func requireKnown(t *testing.T, known map[string]bool, expr, where string) {
	t.Helper()
	names := metricName.FindAllString(expr, -1)
	for _, name := range names {
		require.True(t, known[name] || known[suffixes.ReplaceAllString(name, "")], "%s: there is no metric %s", where, name)
	}
	require.NotEmpty(t, names, "%s names no metric of ours", where)
}

// knownMetrics are the names in the registries.
func knownMetrics(t *testing.T) map[string]bool {
	t.Helper()
	reg, all := registered(t)
	known := map[string]bool{}
	for _, m := range all {
		known[m.name] = true
	}
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		known[f.GetName()] = true
	}
	return known
}

// TestAlertsHaveRunbooks wants of each alert a page with what it means, how bad it is, what to look at and what to do, that
// shows the expression as it is, and no page without an alert.
func TestAlertsHaveRunbooks(t *testing.T) {
	known, names := knownMetrics(t), map[string]bool{}
	for _, a := range alertRules(t) {
		require.False(t, names[a.Alert], "%s is there twice", a.Alert)
		names[a.Alert] = true
		require.Contains(t, []string{"critical", "warning"}, a.Labels["severity"], a.Alert)
		require.NotEmpty(t, a.Annotations["summary"], a.Alert)
		require.Equal(t, "https://github.com/catchment-dev/catchment/blob/main/docs/runbooks/"+a.Alert+".md", a.Annotations["runbook_url"])
		requireKnown(t, known, a.Expr, a.Alert)
		page, err := os.ReadFile(filepath.Join(root(t), "docs", "runbooks", a.Alert+".md"))
		require.NoError(t, err)
		text := string(page)
		require.True(t, strings.HasPrefix(text, "# "+a.Alert+"\n\nSeverity: "+a.Labels["severity"]+"."), a.Alert)
		require.Contains(t, text, "```promql\n"+a.Expr+"\n```", a.Alert)
		require.True(t, a.For == "0m" || strings.Contains(text, "fires after "+strings.TrimSuffix(a.For, "m")+" min"), a.Alert)
		at := 0
		for _, part := range []string{"\n## What it means\n\n", "\n## How bad it is\n\n", "\n## What to look at\n\n- ", "\n## What to do\n\n- "} {
			i := strings.Index(text, part)
			require.Greater(t, i, at, "%s: %s", a.Alert, part)
			at = i
		}
	}
	pages, err := filepath.Glob(filepath.Join(root(t), "docs", "runbooks", "*.md"))
	require.NoError(t, err)
	for _, page := range pages {
		require.True(t, names[strings.TrimSuffix(filepath.Base(page), ".md")], "%s is of no alert", page)
	}
}

// TestAlertRules lets promtool check the rules and run their tests, in which each alert fires alone once, and none fires
// where all is well.
func TestAlertRules(t *testing.T) {
	promtool := prometheusTool(t, "promtool")
	out, err := exec.Command(promtool, "check", "rules", "--lint=all", "--lint-fatal", alertsFile(t)).CombinedOutput()
	require.NoError(t, err, "%s", out)
	tried := map[string]bool{}
	for _, name := range []string{"alerts_test.yaml", "alerts_week_test.yaml"} {
		file := filepath.Join("testdata", name)
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var tests struct {
			Tests []struct {
				Name  string
				Exprs []struct {
					Expr    string
					Samples []struct{ Labels string } `yaml:"exp_samples"`
				} `yaml:"promql_expr_test"`
			}
		}
		require.NoError(t, yaml.Unmarshal(text, &tests))
		for _, one := range tests.Tests {
			require.Len(t, one.Exprs, 1, one.Name)
			require.Contains(t, one.Exprs[0].Expr, `(ALERTS{alertstate="firing"})`, one.Name)
			tried[one.Name] = true
			if one.Name == "healthy" {
				require.Empty(t, one.Exprs[0].Samples)
				continue
			}
			require.Len(t, one.Exprs[0].Samples, 1, one.Name)
			require.Contains(t, one.Exprs[0].Samples[0].Labels, `alertname="`+one.Name+`"`)
		}
		out, err := exec.Command(promtool, "test", "rules", file).CombinedOutput()
		require.NoError(t, err, "%s", out)
	}
	require.True(t, tried["healthy"])
	for _, a := range alertRules(t) {
		require.True(t, tried[a.Alert], "%s has no test", a.Alert)
	}
}
