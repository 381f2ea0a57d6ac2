package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// runMain makes the test binary behave as the tool, so that tests can start, signal and kill it as a process.
const runMain = "CATCHMENT_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMain) != "" {
		ctx, stop := run.Signals(context.Background())
		code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	proctest.Main(m, 1)
}

// openDir returns a folder that the account of Postgres can reach, unlike t.TempDir, which is its owner's alone.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755))
	require.NoError(t, os.Chmod(dir, 0o755))
	return dir
}

// tool runs one command line in this process.
func tool(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs buffer
	code = execute(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

// buffer is a bytes.Buffer that several goroutines may use.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestExitCodes(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "catchment.yaml")
	broken := filepath.Join(t.TempDir(), "broken.yaml")
	require.NoError(t, os.WriteFile(broken, []byte("kafka:\n  brokerz: [a:1]\n"), 0o600))
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	require.NoError(t, os.WriteFile(bad, []byte(`kafka: {brokers: ["a:1"]}
postgres: {url: "postgres://a/b"}
archive: {url: "file:///tmp/a"}
sources: {a: {provider: none}}
operations: [{name: a, on: {source: a}, when: "body.x >", sql: SELECT 1}]
surprise: 1
`), 0o600))
	strip := filepath.Join(t.TempDir(), "strip.yaml")
	require.NoError(t, os.WriteFile(strip, []byte("kafka: {brokers: [\"a:1\"]}\nsources: {a: {provider: strip}}\n"), 0o600))
	for name, tc := range map[string]struct {
		args []string
		code int
		want string // in standard error
	}{
		"help":              {[]string{"--help"}, 0, ""},
		"version":           {[]string{"version", "--output", "json"}, 0, ""},
		"unknown command":   {[]string{"upp"}, 2, `no command "upp"`},
		"unknown flag":      {[]string{"version", "--colour"}, 2, "--colour"},
		"unknown output":    {[]string{"version", "--output", "xml"}, 2, "expected table or json"},
		"unknown provider":  {[]string{"send", "acme"}, 2, "stripe"},
		"bad share":         {[]string{"send", "stripe", "--duplicates", "many"}, 2, "percentage"},
		"no configuration":  {[]string{"send", "stripe", "--config", missing}, 2, "catchment up"},
		"up with --config":  {[]string{"up", "--config", broken}, 2, "--dir"},
		"broken file":       {[]string{"config", "check", "--offline", "--config", broken}, 2, "broken.yaml:2:3: kafka.brokerz"},
		"unknown status":    {[]string{"events", "list", "--status", "done"}, 2, "expected one of processed"},
		"negative limit":    {[]string{"events", "list", "--limit", "-1"}, 2, "--limit"},
		"a folder":          {[]string{"config", "check", "--offline", "--config", t.TempDir()}, 2, "is a directory"},
		"a bad expression":  {[]string{"config", "check", "--offline", "--config", bad}, 2, "bad.yaml:5:47: operations[0].when: line 1"},
		"a bad provider":    {[]string{"config", "check", "--offline", "--config", strip}, 2, `strip.yaml:2:25: sources.a.provider: unknown provider "strip"`},
		"beside other keys": {[]string{"config", "check", "--offline", "--config", bad}, 2, "bad.yaml:6:1: surprise: unknown key"},
		"nobody is healthy": {[]string{"healthcheck", "--config", writeConfig(t, "ingress: {ops_listen: \"127.0.0.1:1\"}\n")}, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, stderr := tool(t, tc.args...)
			require.Equal(t, tc.code, code, stderr)
			require.Contains(t, stderr, tc.want)
		})
	}
}

// A bucket's region that neither the file nor the environment says is told with its place in the file, by whoever opens the archive.
func TestRegionIsMissing(t *testing.T) {
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_CONFIG_FILE", filepath.Join(t.TempDir(), "none"))
	const said = ": the bucket's region is missing: expected s3://bucket?region=…, or AWS_REGION in the environment"
	where := map[string]string{"url": ":2:16: archive.url", "checkpoint_copy": ":3:20: archive.checkpoint_copy", "encryption.keys_url": ":4:27: archive.encryption.keys_url"}
	all := fmt.Sprintf(`kafka: {brokers: ["a:1"]}
archive: {url: "s3://b",
  checkpoint_copy: "s3://c",
  encryption: {keys_url:  "s3://k", master_key: "%s"}}
postgres: {url: "postgres://a/b"}
`, strings.Repeat("01", 32))
	path := writeConfig(t, all)
	code, _, stderr := tool(t, "config", "check", "--offline", "--config", path)
	require.Equal(t, 2, code, stderr)
	for _, at := range where {
		require.Contains(t, stderr, path+at+said)
	}
	for _, args := range [][]string{{"archive", "ls"}, {"archive", "ensure"}, {"archive", "cat", "a"}} {
		code, _, stderr := tool(t, append(args, "--config", path)...)
		require.Equal(t, 2, code, "%v %s", args, stderr)
		require.Contains(t, stderr, path+where["url"]+said, args)
	}
	cfg, err := settings.Load(path, settings.NeedKafka, settings.NeedArchive, settings.NeedArchiver)
	require.NoError(t, err)
	_, err = archiver.New(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	require.EqualError(t, err, path+where["url"]+said)
	t.Setenv("AWS_REGION", "eu-central-1")
	code, _, stderr = tool(t, "config", "check", "--offline", "--config", path)
	require.Equal(t, 0, code, stderr)
	code, _, stderr = tool(t, "archive", "verify", "--copy", "gs://b", "--config", path)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, `--copy: archive.checkpoint_copy: expected file:// or s3://, found "gs"`)
}

func writeConfig(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "catchment.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestClean(t *testing.T) {
	require.Equal(t, "a·[31mb c", clean("a\x1b[31mb\nc"))
	require.Equal(t, "-", clean(""))
	require.Equal(t, 1, strings.Count(clean("\u202eevil"), "·"))
}
