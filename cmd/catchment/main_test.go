package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/run"
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

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().String()
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
