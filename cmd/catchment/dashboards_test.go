package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// dashboard is what Grafana needs to know of a page.
type dashboard struct {
	UID, Title string
	Templating struct{ List []struct{ Name, Type string } }
	Panels     []struct {
		Title, Description string
		Datasource         struct{ UID string }
		FieldConfig        struct{ Defaults struct{ Unit string } }
		Targets            []struct {
			Expr       string
			Datasource struct{ UID string }
		}
	}
}

func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root(t), "charts", "catchment", "files", "dashboards", "*.json"))
	require.NoError(t, err)
	all := map[string]dashboard{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var d dashboard
		require.NoError(t, json.Unmarshal(text, &d), file)
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = d
	}
	return all
}

// TestDashboards wants five pages whose panels have a unit, a description and a datasource that can be chosen, and name
// metrics that are there.
func TestDashboards(t *testing.T) {
	known, all := knownMetrics(t), dashboards(t)
	for _, name := range []string{"overview", "ingress", "processor", "archiver", "source"} {
		d := all[name]
		require.Equal(t, "catchment-"+name, d.UID)
		require.NotEmpty(t, d.Title)
		require.Equal(t, "datasource", d.Templating.List[0].Type)
		require.Greater(t, len(d.Panels), 8, name)
		for _, p := range d.Panels {
			where := name + ": " + p.Title
			require.NotEmpty(t, p.Title, where)
			require.NotEmpty(t, p.Description, where)
			require.NotEmpty(t, p.FieldConfig.Defaults.Unit, where)
			require.Equal(t, "${datasource}", p.Datasource.UID, where)
			require.NotEmpty(t, p.Targets, where)
			for _, target := range p.Targets {
				require.Equal(t, "${datasource}", target.Datasource.UID, where)
				if !strings.HasPrefix(target.Expr, "count(ALERTS") {
					requireKnown(t, known, target.Expr, where)
				}
			}
		}
	}
	require.Len(t, all, 5)
}

// TestDashboardQueries asks a real Prometheus, which watches the programs under load, every query of every page: each
// answers with data.
func TestDashboardQueries(t *testing.T) {
	t.Parallel()
	prometheusTool(t, "prometheus")
	k := kafkatest.New(t)
	w := newWatched(t, place{brokers: k.Brokers, topic: k.Topic(t, 3), db: emptyDatabase(t), archive: "file://" + t.TempDir(), telemetry: "log_level: warn"})
	w.watch("")
	w.load()
	variables := strings.NewReplacer("$__rate_interval", "20s", "$source", "shop")
	queries := 0
	for name, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				expr := variables.Replace(target.Expr)
				require.True(t, await(t, 2*time.Minute, func() bool { return len(w.query(expr)) > 0 }), "%s: %s: no data: %s", name, p.Title, expr)
				queries++
			}
		}
	}
	t.Logf("%d queries", queries)
}
