package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/devconf"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/workload"
	"github.com/catchment-dev/catchment/pkg/run"
)

// makeCast makes the providers of a run by the tool, and returns the run's folder and what its system's configuration must have.
func makeCast(t *testing.T) (dir, configuration string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "run")
	code, stdout, stderr := tool(t, "prove", "cast", dir)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "-standard-webhooks")
	text, err := os.ReadFile(filepath.Join(dir, workload.SourcesFile))
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(dir, workload.TablesFile))
	return dir, string(text)
}

// TestProveTarget runs the prover against a system that is there already, twice with a cast of its own each: it makes the
// faults that it may, and no others, and sees what is lost there.
func TestProveTarget(t *testing.T) {
	first, sources := makeCast(t)
	code, _, stderr := tool(t, "prove", "cast", first)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "has a cast already")
	p := proveNode(t, sources)
	p.start(t)
	p.ready(t)
	cfg := p.settings(t)
	allow := filepath.Join(t.TempDir(), "faults.yaml")
	require.NoError(t, os.WriteFile(allow, fmt.Appendf(nil, `faults:
  - name: everything-stands-still
    begin: TO=%[1]d; kill -STOP ${TO}
    end: kill -CONT %[1]d
    lasts: 1s
    no_ack: true
  - name: not-possible
    begin: echo no such thing; exit 3
`, p.cmd.Process.Pid), 0o600))
	args := func(dir string, more ...string) []string {
		return append([]string{
			"prove", "--config", filepath.Join(p.dir, devconf.File), "--target", run.BaseURL(cfg.Ingress.Listen), "--dir", dir,
			"--events", "1500", "--rate", "500", "--seed", "7",
		}, more...)
	}
	for _, c := range []struct {
		wrong string
		args  []string
	}{
		{"--faults is of the system that prove starts", args(first, "--faults", "store-kill")},
		{"--dir is missing", args("")},
		{"there is no cast", args(t.TempDir())},
		{"expected one of faults", args(first, "--allow", filepath.Join(p.dir, devconf.File))},
	} {
		code, _, stderr := tool(t, c.args...)
		require.NotZero(t, code)
		require.Contains(t, stderr, c.wrong)
	}

	code, stdout, stderr := tool(t, args(first, "--allow", allow)...)
	require.Zero(t, code, "%s\n%s", stdout, stderr)
	require.Contains(t, stdout, `"faults":1,"kinds":1,"lost":0,"doubled":0,"invented":0,"regressed":0,"valid":true,"failed":[]}`)
	require.Contains(t, stderr, "not-possible: ")
	log, err := os.ReadFile(filepath.Join(first, "commands.log"))
	require.NoError(t, err)
	require.Contains(t, string(log), "no such thing")

	code, _, stderr = tool(t, args(first)...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "each run wants a cast of its own")
	second, sources := makeCast(t)
	code, _, stderr = tool(t, args(second)...)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "does not know the source prove-")
	p.stop(t)
	p.cast(t, sources)
	p.start(t)
	p.ready(t)

	taken := make(chan error, 1)
	go func() { taken <- takeOne(t, cfg.Postgres.URL.Reveal(), second) }()
	code, stdout, stderr = tool(t, args(second)...)
	require.NoError(t, <-taken)
	require.Equal(t, 1, code, stderr)
	require.Contains(t, stdout, `"valid":true,"failed":[4]}`)
	require.Contains(t, stdout, "once           1 found")
}

// takeOne takes one effect out of the ledger, of the cast's sources, once there are some.
func takeOne(t *testing.T, url, dir string) error {
	cast, err := workload.LoadCast(dir)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(t.Context()) }()
	for run.Pause(t.Context(), 10*time.Millisecond) {
		tag, err := conn.Exec(t.Context(), `DELETE FROM prove_ledger WHERE ctid IN (SELECT ctid FROM prove_ledger WHERE source = $1 LIMIT 1)`, cast.Names()[0])
		if err != nil || tag.RowsAffected() > 0 {
			return err
		}
	}
	return t.Context().Err()
}
