package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/devconf"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// effects is an operation that shows how often it took effect.
const effects = `
  - name: effects
    on: {source: stripe}
    sql: INSERT INTO effects (event_id) VALUES (@id)
`

// TestKillNine kills `up` at ten random moments while events are sent. Afterwards every event that was answered 200
// is in Postgres once, took effect once, is in the archive byte for byte, and nothing is anywhere that was not sent.
// In every other round the database is killed too; in the others it is left behind.
func TestKillNine(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CATCHMENT_TEST_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("seed %d (repeat with CATCHMENT_TEST_SEED=%d)", seed, seed)
	r := rand.New(rand.NewPCG(seed, 0))

	p := newProcess(t)
	p.start(t)
	p.ready(t)
	p.exec(t, "CREATE TABLE effects (event_id text); CREATE INDEX ON effects (event_id)")
	p.stop(t) // Ctrl-C is told apart from a kill: exit code 0
	p.addOperation(t, effects)

	load := newLoad(t, p, seed)
	load.run(t, 4)
	for round := range 10 {
		p.start(t)
		early := r.IntN(4) == 0 // in the middle of the start, perhaps
		if !early {
			before := load.acceptedCount()
			require.Eventually(t, func() bool { return load.acceptedCount() > before }, 60*time.Second, 10*time.Millisecond,
				"round %d: nothing is accepted", round)
		}
		pause(t, time.Duration(r.IntN(1500))*time.Millisecond)
		withChildren := round%2 == 0
		p.kill(t, withChildren)
		t.Logf("round %d: killed (early %v, with Postgres %v), %d accepted so far", round, early, withChildren, load.acceptedCount())
	}
	p.start(t)
	p.ready(t)
	killPostgres(p.dir) // under its supervisor this time
	before := load.acceptedCount()
	require.Eventually(t, func() bool { return load.acceptedCount() > before+20 }, 60*time.Second, 10*time.Millisecond)
	accepted, sent := load.end()
	t.Logf("%d events sent, %d accepted", len(sent), len(accepted))

	url := p.settings(t).Postgres.URL.Reveal()
	require.Eventually(t, func() bool { return p.processed(t.Context(), url, accepted) }, 60*time.Second, 500*time.Millisecond, "events are missing in Postgres")
	checkPostgres(t, p, accepted, sent)
	p.stop(t) // closes the last segments
	checkArchive(t, p, accepted, sent)
}

// TestSecondSignal ends a drain that a half-sent request holds up.
func TestSecondSignal(t *testing.T) {
	p := newProcess(t)
	p.start(t)
	p.ready(t)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", p.settings(t).Ingress.Listen)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, "POST /webhooks/stripe HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
	require.NoError(t, err)

	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	require.Eventually(t, func() bool { return strings.Contains(p.errors(), "stopping:") }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGINT))
	require.Eventually(t, p.gone, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, 1, p.cmd.ProcessState.ExitCode())
	require.NoFileExists(t, filepath.Join(p.dir, devconf.Data, "postgres", "postmaster.pid"))

	p.start(t)
	p.ready(t)
	p.stop(t)
}

// pause waits for a random time, which is what this test is about.
func pause(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// process is an `up` as a process of its own.
type process struct {
	dir, ops string
	cmd      *exec.Cmd
	exited   chan struct{}
	log      *os.File
}

func newProcess(t *testing.T) *process {
	t.Helper()
	p := &process{dir: openDir(t)}
	require.NoError(t, os.Mkdir(filepath.Join(p.dir, devconf.Data), 0o755))
	p.ops = proctest.FreeAddress(t)
	_, err := devconf.Create(t.Context(), p.dir, proctest.FreeAddress(t), p.ops)
	require.NoError(t, err)
	p.log, err = os.Create(filepath.Join(p.dir, "up.log"))
	require.NoError(t, err)
	t.Cleanup(func() {
		p.kill(t, true)
		_ = p.log.Close()
		if t.Failed() {
			t.Logf("end of the log of up:\n%s", p.errors())
		}
	})
	return p
}

func (p *process) start(t *testing.T) {
	t.Helper()
	p.cmd = exec.Command(os.Args[0], "up", "--dir", p.dir)
	p.cmd.Env = append(os.Environ(), runMain+"=1")
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	require.NoError(t, p.cmd.Start())
	cmd, exited := p.cmd, make(chan struct{})
	p.exited = exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
}

// gone says whether the process has ended by itself.
func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

func (p *process) ready(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		return p.gone() || run.Ask(t.Context(), p.ops, false).Healthy
	}, 60*time.Second, 50*time.Millisecond, "not ready")
	require.False(t, p.gone(), "up has ended")
}

// stop asks the process to drain.
func (p *process) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.exited:
	case <-time.After(60 * time.Second):
		t.Fatal("up does not end")
	}
	require.Equal(t, 0, p.cmd.ProcessState.ExitCode())
	p.cmd = nil
}

// kill ends the process without a warning, and with it the database's postmaster or not.
func (p *process) kill(t *testing.T, withPostgres bool) {
	t.Helper()
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		<-p.exited
		p.cmd = nil
	}
	if withPostgres {
		killPostgres(p.dir)
	}
}

// killPostgres kills the database's main process; its others end when they notice.
func killPostgres(dir string) {
	b, err := os.ReadFile(filepath.Join(dir, devconf.Data, "postgres", "postmaster.pid"))
	if err != nil {
		return
	}
	first, _, _ := strings.Cut(string(b), "\n")
	if pid, err := strconv.Atoi(first); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func (p *process) errors() string {
	b, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-4000):])
}

func (p *process) settings(t *testing.T) *settings.File {
	t.Helper()
	cfg, err := settings.Load(filepath.Join(p.dir, devconf.File), settings.Everything...)
	require.NoError(t, err)
	return cfg
}

func (p *process) addOperation(t *testing.T, text string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(p.dir, devconf.File), os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func (p *process) exec(t *testing.T, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), p.settings(t).Postgres.URL.Reveal())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// load sends events until it is ended, and remembers what was sent and what was answered 200.
type load struct {
	url, secret string
	provider    *provider.Provider
	seed        uint64
	client      *http.Client
	stop        context.CancelFunc
	workers     sync.WaitGroup

	mu       sync.Mutex
	next     int
	sent     map[string][sha256.Size]byte // by event ID: the body's digest
	accepted map[string]bool
}

func newLoad(t *testing.T, p *process, seed uint64) *load {
	t.Helper()
	cfg := p.settings(t)
	stripe, ok := provider.ByName("stripe")
	require.True(t, ok)
	return &load{
		url: run.BaseURL(cfg.Ingress.Listen) + "/webhooks/stripe", secret: cfg.Sources["stripe"].Secrets[0].Value.Reveal(),
		provider: stripe, seed: seed, client: &http.Client{Timeout: 10 * time.Second},
		sent: map[string][sha256.Size]byte{}, accepted: map[string]bool{},
	}
}

func (l *load) run(t *testing.T, workers int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l.stop = cancel
	t.Cleanup(func() { l.end() })
	for range workers {
		l.workers.Go(func() {
			for ctx.Err() == nil {
				l.one(ctx)
			}
		})
	}
}

// one sends a new event, and sends it again, as providers do, until it is accepted or the tries are used up; some
// accepted events are sent once more too.
func (l *load) one(ctx context.Context) {
	l.mu.Lock()
	seq := l.next
	l.next++
	l.mu.Unlock()
	r := rand.New(rand.NewPCG(l.seed, uint64(seq)+1))
	s := l.provider.Sample(r, provider.SampleInput{Seq: seq, Now: time.Now(), Run: uint32(l.seed)})
	l.mu.Lock()
	l.sent[s.ID] = sha256.Sum256(s.Body)
	l.mu.Unlock()
	for range 1 + r.IntN(5) {
		if l.post(ctx, s) && r.IntN(10) > 0 {
			return
		}
		wait := time.NewTimer(time.Duration(5+r.IntN(30)) * time.Millisecond)
		select {
		case <-ctx.Done():
		case <-wait.C:
		}
		wait.Stop()
	}
}

func (l *load) post(ctx context.Context, s provider.Sample) bool {
	signed, err := l.provider.Sign(&provider.SignInput{Secret: l.secret, Method: http.MethodPost, URL: l.url, Body: s.Body, Now: time.Now(), Sample: s})
	if err != nil {
		return false
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, bytes.NewReader(s.Body))
	if err != nil {
		return false
	}
	req.Header = signed.Header
	resp, err := l.client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false
	}
	l.mu.Lock()
	l.accepted[s.ID] = true
	l.mu.Unlock()
	return true
}

func (l *load) acceptedCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)
}

func (l *load) end() (accepted map[string]bool, sent map[string][sha256.Size]byte) {
	l.stop()
	l.workers.Wait()
	return l.accepted, l.sent
}

// stored is an event as Postgres has it.
type stored struct {
	ID      string
	Body    []byte
	Effects int
}

func (p *process) stored(ctx context.Context, url string) ([]stored, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := conn.Query(ctx, `
		SELECT e.event_id, e.body, (SELECT count(*) FROM effects f WHERE f.event_id = e.event_id)
		FROM catchment.events e WHERE e.source = 'stripe'`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowToStructByPos[stored])
}

// processed says whether every accepted event has arrived and taken effect. The database may be away for a moment.
func (p *process) processed(ctx context.Context, url string, accepted map[string]bool) bool {
	all, err := p.stored(ctx, url)
	done := 0
	for _, s := range all {
		if accepted[s.ID] && s.Effects > 0 {
			done++
		}
	}
	return err == nil && done >= len(accepted)
}

func checkPostgres(t *testing.T, p *process, accepted map[string]bool, sent map[string][sha256.Size]byte) {
	t.Helper()
	times := map[string]int{}
	all, err := p.stored(t.Context(), p.settings(t).Postgres.URL.Reveal())
	require.NoError(t, err)
	for _, s := range all {
		times[s.ID]++
		digest, known := sent[s.ID]
		require.True(t, known, "%s was never sent", s.ID)
		require.Equal(t, digest, sha256.Sum256(s.Body), "the body of %s", s.ID)
		require.Equal(t, 1, s.Effects, "effects of %s", s.ID)
	}
	for id := range accepted {
		require.Equal(t, 1, times[id], "%s in Postgres", id)
	}
}

func checkArchive(t *testing.T, p *process, accepted map[string]bool, sent map[string][sha256.Size]byte) {
	t.Helper()
	store, err := archive.Open(t.Context(), p.settings(t).Archive)
	require.NoError(t, err)
	found, places := map[string]bool{}, map[string]bool{}
	for segment, err := range archive.Segments(t.Context(), store) {
		require.NoError(t, err)
		for rec, err := range archive.Records(t.Context(), store, segment.Key) {
			require.NoError(t, err)
			digest, known := sent[rec.EventID]
			require.True(t, known, "%s was never sent", rec.EventID)
			require.Equal(t, digest, sha256.Sum256(rec.Body), "the body of %s", rec.EventID)
			place := fmt.Sprintf("%v/%d", segment.Partition, rec.Offset)
			require.False(t, places[place], "%s is archived twice", place)
			found[rec.EventID], places[place] = true, true
		}
	}
	for id := range accepted {
		require.True(t, found[id], "%s is not in the archive", id)
	}
}
