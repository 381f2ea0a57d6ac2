package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/devconf"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/sender"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// running is an `up` in this process.
type running struct {
	dir, config string
	opsListen   string
	out, err    buffer
	stop        context.CancelFunc
	ended       chan error
}

// startUp starts an `up` and waits until it is ready.
func startUp(t *testing.T, o upOptions) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{dir: o.dir, config: filepath.Join(o.dir, devconf.File), opsListen: o.opsListen, stop: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- up(ctx, o, &r.out, &r.err) }()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("standard error of up:\n%s", r.err.String())
		}
		cancel()
		_ = r.wait(t)
	})
	require.Eventually(t, func() bool {
		select {
		case err := <-r.ended:
			r.ended <- err
			t.Fatalf("up ended: %v", err)
		default:
		}
		return strings.Contains(r.out.String(), "Catchment is up.")
	}, 60*time.Second, 50*time.Millisecond, "not ready")
	return r
}

// wait returns how the `up` ended.
func (r *running) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.ended:
		r.ended <- err
		return err
	case <-time.After(60 * time.Second):
		t.Errorf("up does not end")
		return errors.New("up does not end")
	}
}

func (r *running) settings(t *testing.T) *settings.File {
	t.Helper()
	cfg, err := settings.Load(r.config, settings.Everything...)
	require.NoError(t, err)
	return cfg
}

// texts runs a query on the database of an `up` and returns its rows' single column.
func (r *running) texts(t *testing.T, sql string, args ...any) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), r.settings(t).Postgres.URL.Reveal())
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	rows, err := conn.Query(t.Context(), sql, args...)
	require.NoError(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return got
}

func TestUp(t *testing.T) {
	dir := openDir(t)
	o := upOptions{dir: dir, listen: proctest.FreeAddress(t), opsListen: proctest.FreeAddress(t)}
	r := startUp(t, o)
	require.Contains(t, r.out.String(), "nothing is replicated")
	require.Contains(t, r.out.String(), "send stripe --config "+r.config)
	ports := r.settings(t)

	t.Run("is ready and counts", func(t *testing.T) {
		code, stdout, stderr := tool(t, "healthcheck", "--config", r.config)
		require.Equal(t, 0, code, stdout+stderr)
		body, status, err := run.Get(t.Context(), "http://"+o.opsListen+"/metrics", 1<<20)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, string(body), "catchment_build_info")
	})
	t.Run("has a console", func(t *testing.T) {
		require.Contains(t, r.out.String(), "http://"+o.opsListen+"/console/")
		body, status, err := run.Get(t.Context(), "http://"+o.opsListen+"/console/", 1<<20)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, status)
		require.Contains(t, string(body), "No events yet")
	})
	t.Run("events are stored when send has waited", func(t *testing.T) {
		code, _, stderr := tool(t, "send", "shopify", "--config", r.config, "--count", "5", "--wait", "90s")
		require.Equal(t, 0, code, stderr)
		code, stdout, stderr := tool(t, "events", "list", "--config", r.config, "--source", "shopify", "--output", "json")
		require.Equal(t, 0, code, stderr)
		require.Equal(t, 5, strings.Count(stdout, `"event_id"`), stdout)
		code, _, stderr = tool(t, "send", "stripe", "--config", r.config, "--url", "http://"+ports.Ingress.Listen+"/hooks", "--wait", "1s")
		require.Equal(t, 2, code)
		require.Contains(t, stderr, "/webhooks/SOURCE")
	})
	t.Run("a second one is refused", func(t *testing.T) {
		err := up(t.Context(), upOptions{dir: dir, listen: proctest.FreeAddress(t), opsListen: proctest.FreeAddress(t)}, &buffer{}, &buffer{})
		require.ErrorContains(t, err, "another `catchment up` is running in "+dir)
	})
	t.Run("a busy port is named with its flag", func(t *testing.T) {
		err := up(t.Context(), upOptions{dir: openDir(t), listen: o.listen, opsListen: o.opsListen}, &buffer{}, &buffer{})
		require.ErrorContains(t, err, o.listen+" is in use by another program: stop that, or choose another with --listen")
		require.ErrorContains(t, err, "--ops-listen")
	})
	t.Run("a busy port at the first start leaves nothing behind", func(t *testing.T) {
		fresh := openDir(t)
		require.Error(t, up(t.Context(), upOptions{dir: fresh, listen: o.listen, opsListen: proctest.FreeAddress(t)}, &buffer{}, &buffer{}))
		require.ErrorContains(t, up(t.Context(), upOptions{dir: fresh, listen: "127.0.0.1:9090", opsListen: "127.0.0.1:9090"}, &buffer{}, &buffer{}), "--ops-listen")
		left, err := os.ReadDir(fresh)
		require.NoError(t, err)
		require.Empty(t, left)
	})
	t.Run("events go all the way", func(t *testing.T) { allTheWay(t, r) })

	r.stop()
	require.NoError(t, r.wait(t))
	require.Contains(t, r.err.String(), "stopped")

	again := startUp(t, upOptions{dir: dir}) // the file keeps the addresses
	require.Equal(t, ports.Ingress.Listen, again.settings(t).Ingress.Listen)
	require.Equal(t, ports.Kafka.Brokers, again.settings(t).Kafka.Brokers)
	require.Len(t, again.texts(t, `SELECT event_id FROM catchment.events WHERE source = 'stripe'`), 200)
	again.stop()
	require.NoError(t, again.wait(t))
	t.Run("the folder can be moved", func(t *testing.T) { moved(t, dir) })
}

// moved gives the folder another name: everything is found there, and nothing is made where it was.
func moved(t *testing.T, dir string) {
	t.Helper()
	to := filepath.Join(openDir(t), "moved here")
	require.NoError(t, os.Rename(dir, to))
	r := startUp(t, upOptions{dir: to})
	code, _, stderr := tool(t, "send", "slack", "--config", r.config, "--count", "5", "--wait", "90s")
	require.Equal(t, 0, code, stderr)
	r.stop()
	require.NoError(t, r.wait(t))
	require.NoDirExists(t, dir, "the archiver tries its store at the start")
	code, stdout, stderr := tool(t, "archive", "verify", "--config", r.config)
	require.Equal(t, 0, code, stdout+stderr)
}

// allTheWay sends events and looks for them at every hop.
func allTheWay(t *testing.T, r *running) {
	t.Helper()
	code, stdout, stderr := tool(t, "send", "stripe", "--config", r.config, "--count", "200", "--duplicates", "10%", "--out-of-order", "--output", "json")
	require.Equal(t, 0, code, stderr)
	var sent sender.Report
	require.NoError(t, json.Unmarshal([]byte(stdout), &sent))
	require.Equal(t, 200, sent.Accepted)
	require.Equal(t, 220, sent.Statuses["200"])
	require.Eventually(t, func() bool {
		return len(r.texts(t, `SELECT event_id FROM catchment.events WHERE source = 'stripe' AND status IN ('processed', 'unmatched')`)) == 200
	}, 30*time.Second, 200*time.Millisecond)

	// The newest event of each order has decided its status.
	require.Empty(t, r.texts(t, `
		WITH newest AS (
			SELECT DISTINCT ON (b->'data'->'object'->'metadata'->>'order_id') b->'data'->'object'->'metadata'->>'order_id' AS id,
				CASE type WHEN 'payment_intent.succeeded' THEN 'paid' ELSE 'failed' END AS status
			FROM (SELECT type, event_id, event_time, convert_from(body, 'UTF8')::jsonb AS b FROM catchment.events WHERE source = 'stripe') e
			WHERE type IN ('payment_intent.succeeded', 'payment_intent.payment_failed')
			ORDER BY 1, event_time DESC, event_id COLLATE "C" DESC)
		SELECT n.id FROM newest n LEFT JOIN orders o USING (id) WHERE o.status IS DISTINCT FROM n.status`))

	listEverything(t, r)
	id := r.texts(t, `SELECT event_id FROM catchment.events WHERE source = 'stripe' ORDER BY event_id LIMIT 1`)[0]
	require.Eventually(t, func() bool { // its segment is closed within segment_age
		code, stdout, stderr = tool(t, "events", "show", id, "--config", r.config, "--output", "json")
		require.Equal(t, 0, code, stderr)
		return strings.Contains(stdout, `"segment": "events/date=`)
	}, 60*time.Second, 500*time.Millisecond, "not in the archive")
	store, err := archive.Open(t.Context(), r.settings(t).Archive)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return len(archivedResults(t, store)) == len(r.texts(t, `SELECT event_id || operation FROM catchment.results`))
	}, 60*time.Second, 500*time.Millisecond, "results that are not archived")
	for _, want := range []string{`"secret_id": "k_`, `"operation": "order-status"`, `"offset":`, `"topic_id":`} {
		require.Contains(t, stdout, want)
	}
	for _, args := range [][]string{
		{"events", "show", id},
		{"events", "list"},
		{"events", "list", "--source", "stripe", "--output", "json"},
		{"sources", "list"},
		{"status"},
		{"topics", "check"},
		{"topics", "ensure"},
		{"config", "check"},
		{"migrate"},
	} {
		code, stdout, stderr := tool(t, append(args, "--config", r.config)...)
		require.Equal(t, 0, code, "%v\n%s%s", args, stdout, stderr)
		require.NotEmpty(t, stdout, "%v", args)
	}
}

// listEverything lists more events than are read at once, and the newest of them.
func listEverything(t *testing.T, r *running) {
	t.Helper()
	there := len(r.texts(t, "SELECT event_id FROM catchment.events"))
	code, _, stderr := tool(t, "send", "github", "--config", r.config, "--count", strconv.Itoa(2*listPage))
	require.Equal(t, 0, code, stderr)
	all := there + 2*listPage
	list := func(args ...string) (ids []string) {
		code, stdout, stderr := tool(t, append([]string{"events", "list", "--config", r.config, "--output", "json"}, args...)...)
		require.Equal(t, 0, code, stderr)
		var events []struct {
			ID string `json:"event_id"`
		}
		require.NoError(t, json.Unmarshal([]byte(stdout), &events))
		for _, e := range events {
			ids = append(ids, e.ID)
		}
		return ids
	}
	require.Eventually(t, func() bool { return len(list()) == all }, 60*time.Second, 200*time.Millisecond)
	ids := list()
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(ids))), all, "each once")
	require.Equal(t, ids[:listPage+1], list("--limit", strconv.Itoa(listPage+1)))
	require.Len(t, list("--source", "github"), 2*listPage)
	require.Empty(t, list("--source", "nobody"))
	code, stdout, stderr := tool(t, "events", "list", "--config", r.config)
	require.Equal(t, 0, code, stderr)
	require.Equal(t, all+1, strings.Count(stdout, "\n"), "one line an event, and the heads")
	require.Equal(t, 1, strings.Count(stdout, "RECEIVED"))
}

func TestUpUsesWhatIsNotEmbedded(t *testing.T) {
	dir := openDir(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, devconf.Data), 0o755))
	_, err := devconf.Create(t.Context(), dir, proctest.FreeAddress(t), proctest.FreeAddress(t))
	require.NoError(t, err)
	path := filepath.Join(dir, devconf.File)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	for name, tc := range map[string]struct{ from, to, want string }{
		"two brokers":            {`brokers: ["127.0.0.1:`, `brokers: ["127.0.0.1:1", "127.0.0.1:`, "kafka.brokers: expected exactly one broker"},
		"a broker elsewhere":     {`brokers: ["127.0.0.1:`, `brokers: ["kafka.example.com:`, "kafka.brokers: expected exactly one broker"},
		"a database elsewhere":   {"@127.0.0.1:", "@db.example.com:", "must name 127.0.0.1"},
		"an error in an address": {"listen: \"127.0.0.1:", "listen: \"127.0.0.1.5:", "cannot listen on"},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(string(text), tc.from, tc.to, 1)
			require.NotEqual(t, string(text), changed)
			require.NoError(t, os.WriteFile(path, []byte(changed), 0o600))
			require.ErrorContains(t, up(t.Context(), upOptions{dir: dir}, &buffer{}, &buffer{}), tc.want)
		})
	}
}

func TestRestoreKey(t *testing.T) {
	dir := openDir(t)
	data := filepath.Join(dir, devconf.Data)
	require.NoError(t, os.Mkdir(data, 0o755))
	_, err := devconf.Create(t.Context(), dir, proctest.FreeAddress(t), proctest.FreeAddress(t))
	require.NoError(t, err)
	require.NoError(t, os.RemoveAll(data))
	require.NoError(t, os.Mkdir(data, 0o755))
	var said buffer
	n := &node{dir: dir, say: progress(&said)}
	require.NoError(t, n.configure(t.Context(), upOptions{dir: dir}))
	require.Contains(t, said.String(), "made a new one")
	require.False(t, n.cfg.Archive.CheckpointKey.Empty())
	require.True(t, devconf.TablePending(dir))

	require.NoError(t, os.Remove(devconf.KeyPath(dir)))
	require.NoError(t, os.MkdirAll(filepath.Join(data, "archive", "events"), 0o755))
	require.ErrorContains(t, n.configure(t.Context(), upOptions{dir: dir}), "archive.checkpoint_key")
}

func TestLockWaitsForADyingProcess(t *testing.T) {
	dir := openDir(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, devconf.Data), 0o755))
	unlock, err := lockFolder(t.Context(), dir)
	require.NoError(t, err)
	time.AfterFunc(200*time.Millisecond, unlock)
	again, err := lockFolder(t.Context(), dir)
	require.NoError(t, err)
	again()
}

func TestDiskFull(t *testing.T) {
	require.NoError(t, diskFull(nil, "data"))
	other := errors.New("other")
	require.Equal(t, other, diskFull(other, "data"))
	for _, text := range []string{"write x: no space left on device", "PANIC: could not write: No space left on device"} {
		require.ErrorContains(t, diskFull(errors.New(text), "data"), "free space for data and start again")
	}
}

func TestQuote(t *testing.T) {
	for text, want := range map[string]string{"/a/b.yaml": "/a/b.yaml", "/a b": "'/a b'", "it's": `'it'\''s'`, "a&b": "'a&b'", "": "''"} {
		require.Equal(t, want, quote(text))
	}
}
