package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/devconf"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/collect"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/journal"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/judge"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/workload"
	"github.com/catchment-dev/catchment/pkg/run"
)

// TestProveOneNode plays the providers against `up`, kills it in between, reads everything with the collector and has it
// judged. What a single node cannot show is not wanted of it.
func TestProveOneNode(t *testing.T) {
	const seed, events = 7, 3000
	dir := t.TempDir()
	cast, err := workload.NewCast(seed, filepath.Join(dir, "cast"))
	require.NoError(t, err)
	p := proveNode(t, cast.Configuration())
	p.start(t)
	p.ready(t)

	j, err := journal.Open(filepath.Join(dir, folder.JournalFile))
	require.NoError(t, err)
	cfg := p.settings(t)
	progress := &workload.Progress{}
	report := make(chan *workload.Report, 1)
	sending, enough := context.WithCancel(t.Context())
	defer enough()
	go func() {
		defer close(report)
		r, err := workload.Run(sending, workload.Options{
			Seed: seed, Cast: cast, URLs: []string{run.BaseURL(cfg.Ingress.Listen)}, Journal: j, Rate: 500, Senders: 64, Entities: 50,
			Mix:     &workload.Mix{Duplicates: 0.05, Parallel: 0.05, Conflicts: 0.03, Stale: 0.1, Twins: 0.1, Split: 0.05, Poison: 0.02, Forged: 0.05},
			Timeout: 5 * time.Second, Rotate: 200 * time.Millisecond, Settle: 10 * time.Second, Drain: 2 * time.Minute, Progress: progress,
		})
		if err == nil {
			report <- r
		}
	}()
	require.Eventually(t, func() bool { return progress.Acked.Load() > events/3 }, 2*time.Minute, 20*time.Millisecond)
	p.kill(t, true)
	p.start(t)
	p.ready(t)
	require.Eventually(t, func() bool { return progress.Acked.Load() >= events && progress.Rotations.Load() > 0 }, 2*time.Minute, 20*time.Millisecond)
	enough()
	r, ok := <-report
	require.True(t, ok, "the workload failed")
	require.NoError(t, j.Close())
	t.Logf("%+v", *r)
	require.Equal(t, r.Happenings, r.Acked)

	proveAtRest(t, p, cfg.Postgres.URL.Reveal(), cfg.Kafka.Topic)
	o := collect.Options{
		Dir: dir, Brokers: cfg.Kafka.Brokers, Topic: cfg.Kafka.Topic, ResultsTopic: cfg.Kafka.Results(), ProcessorGroup: cfg.Processor.Group,
		DatabaseURL: cfg.Postgres.URL.Reveal(), Archive: cfg.Archive.URL, Verifier: proveKey(t, p.dir),
	}
	about := folder.Run{Topic: o.Topic, ResultsTopic: o.ResultsTopic, ProcessorGroup: o.ProcessorGroup, Events: int(r.Happenings), Must: folder.Judged}
	cast.Describe(&about, seed)
	require.NoError(t, folder.Write(dir, folder.RunFile, about))
	require.NoError(t, cast.WriteSecrets(dir))
	require.NoError(t, os.Mkdir(filepath.Join(dir, folder.Logs), 0o755))
	log, err := os.ReadFile(p.log.Name())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, folder.Logs, "ingress.log"), log, 0o644))
	var v *judge.Verdict
	passed := await(t, time.Minute, func() bool { // the archive's last segments follow in a second or two
		require.NoError(t, collect.Run(t.Context(), o))
		v, err = judge.Judge(dir)
		require.NoError(t, err)
		return v.Passed()
	})
	var said bytes.Buffer
	printVerdict(&said, v)
	require.True(t, passed, "%s", said.String())
	t.Log(v.Line())
	require.EqualValues(t, v.Events, v.Acked)

	code, stdout, stderr := tool(t, "prove", "judge", dir)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "\n"+v.Line()+"\n")
	require.FileExists(t, filepath.Join(dir, folder.VerdictFile))
}

// proveNode is an `up` with the sources and operations of the workload.
func proveNode(t *testing.T, cast string) *process {
	t.Helper()
	p := newProcess(t)
	p.start(t)
	p.ready(t)
	p.exec(t, workload.Tables) // the operations' statements are checked at the start
	p.stop(t)
	p.cast(t, cast)
	return p
}

// cast gives an `up` that does not run these sources and operations.
func (p *process) cast(t *testing.T, cast string) {
	t.Helper()
	path := filepath.Join(p.dir, devconf.File)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	head, _, ok := strings.Cut(string(text), "\nsources:")
	require.True(t, ok)
	head = strings.NewReplacer("segment_age: 10s", "segment_age: 1s", "log_format: text", "log_format: json", "log_level: warn", "log_level: debug").Replace(head)
	require.NoError(t, os.WriteFile(path, []byte(head+"\n"+cast), 0o600))
}

// proveKey is the verifier key of the checkpoints, as the prover makes it from the signer key.
func proveKey(t *testing.T, dir string) string {
	t.Helper()
	signer, err := os.ReadFile(devconf.KeyPath(dir))
	require.NoError(t, err)
	key, err := collect.VerifierOf(string(signer))
	require.NoError(t, err)
	return key
}

// proveAtRest waits until the processor has come to the log's end.
func proveAtRest(t *testing.T, p *process, url, topic string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	before := int64(-1)
	require.Eventually(t, func() bool {
		var at, open int64
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT coalesce(sum(next_offset), 0) FROM catchment.progress WHERE topic = $1", topic).Scan(&at))
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FROM catchment.events WHERE status NOT IN ('processed', 'dead')").Scan(&open))
		still := at == before && open == 0
		before = at
		return still
	}, time.Minute, time.Second, "the processor does not come to rest: %s", p.errors())
}
