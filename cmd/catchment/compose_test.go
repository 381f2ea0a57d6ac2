package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v4"

	"github.com/catchment-dev/catchment/pkg/settings"
)

// composeFile is what the test wants to know of docker-compose.yml.
type composeFile struct {
	Services map[string]struct {
		Image    string
		Ports    []string
		Profiles []string
		Volumes  []string
		Configs  []struct{ Source, Target string }
		ReadOnly bool     `yaml:"read_only"`
		CapDrop  []string `yaml:"cap_drop"`
		Build    any
	}
	Configs map[string]struct{ File string }
}

func readYAML(t *testing.T, into any, path ...string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(append([]string{root(t)}, path...)...))
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, into))
}

// TestCompose wants every image of docker-compose.yml to be pinned and to be another by a variable that .env.example has, every
// port on this machine alone, and our programs' containers locked down.
func TestCompose(t *testing.T) {
	var c composeFile
	readYAML(t, &c, "docker-compose.yml")
	example, err := os.ReadFile(filepath.Join(root(t), ".env.example"))
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(root(t), "docker-compose.yml"))
	require.NoError(t, err)
	for _, m := range regexp.MustCompile(`\$\{([A-Z_0-9]+):-([^}]*)\}`).FindAllStringSubmatch(string(text), -1) {
		require.Contains(t, string(example), fmt.Sprintf("\n%s=%s\n", m[1], m[2]), ".env.example")
	}
	image := regexp.MustCompile(`^\$\{[A-Z0-9_]+_IMAGE:-[a-z0-9./-]+:([a-z0-9.-]+)\}$`)
	for name, s := range c.Services {
		require.Regexp(t, image, s.Image, name)
		require.NotEqual(t, "latest", image.FindStringSubmatch(s.Image)[1], name)
		require.NotContains(t, strings.ToLower(s.Image), "minio", name)
		require.NotContains(t, strings.ToLower(s.Image), "bitnami", name)
		for _, p := range s.Ports {
			require.True(t, strings.HasPrefix(p, "127.0.0.1:"), "%s: %s", name, p)
		}
		for _, used := range s.Configs {
			require.FileExists(t, filepath.Join(root(t), c.Configs[used.Source].File), name)
		}
		if strings.Contains(s.Image, ":-catchment") {
			require.True(t, s.ReadOnly, name)
			require.Equal(t, []string{"ALL"}, s.CapDrop, name)
			require.NotNil(t, s.Build, name)
		}
	}
	for name, want := range map[string]string{"prometheus": "observability", "grafana": "observability", "otel-collector": "observability", "valkey": "valkey"} {
		require.Equal(t, []string{want}, c.Services[name].Profiles)
	}
}

// TestComposeObservability wants Prometheus to ask each service where it listens, and Grafana to find Prometheus and the
// dashboards, whose only variable for a data source it can fill.
func TestComposeObservability(t *testing.T) {
	var c composeFile
	readYAML(t, &c, "docker-compose.yml")
	var scraped struct {
		Files   []string `yaml:"rule_files"`
		Configs []struct {
			Static []struct{ Targets []string } `yaml:"static_configs"`
		} `yaml:"scrape_configs"`
	}
	readYAML(t, &scraped, c.Configs["prometheus"].File)
	t.Setenv("STRIPE_WEBHOOK_SECRET", "x")
	t.Setenv("GITHUB_WEBHOOK_SECRET", "x")
	t.Setenv("SHOPIFY_CLIENT_SECRET", "x")
	t.Setenv("POSTGRES_PASSWORD", "x")
	cfg, err := settings.Load(filepath.Join(root(t), c.Configs["catchment"].File), settings.Everything...)
	require.NoError(t, err)
	targets := []string{}
	for _, s := range scraped.Configs[0].Static {
		targets = append(targets, s.Targets...)
	}
	require.Equal(t, []string{"ingress" + cfg.Ingress.OpsListen, "processor" + cfg.Processor.OpsListen, "archiver" + cfg.Archiver.OpsListen}, targets)
	mounted := func(service, source string) string {
		for _, used := range c.Services[service].Configs {
			if used.Source == source {
				return used.Target
			}
		}
		return ""
	}
	require.Equal(t, []string{mounted("prometheus", "alerts")}, scraped.Files)

	var sources struct {
		Datasources []struct {
			Type, URL string
			Default   bool `yaml:"isDefault"`
		}
	}
	readYAML(t, &sources, c.Configs["grafana-datasource"].File)
	require.Len(t, sources.Datasources, 1)
	require.Equal(t, "prometheus", sources.Datasources[0].Type)
	require.Equal(t, "http://prometheus:9090", sources.Datasources[0].URL)
	require.True(t, sources.Datasources[0].Default)
	require.True(t, strings.HasPrefix(mounted("grafana", "grafana-datasource"), "/etc/grafana/provisioning/datasources/"))
	require.True(t, strings.HasPrefix(mounted("grafana", "grafana-dashboards"), "/etc/grafana/provisioning/dashboards/"))
	var providers struct {
		Providers []struct{ Options struct{ Path string } }
	}
	readYAML(t, &providers, c.Configs["grafana-dashboards"].File)
	require.True(t, slices.Contains(c.Services["grafana"].Volumes, "./charts/catchment/files/dashboards:"+providers.Providers[0].Options.Path+":ro"))
	for name, d := range dashboards(t) {
		for _, v := range d.Templating.List {
			require.True(t, v.Type != "datasource" || v.Name == "datasource", name)
		}
	}
}
