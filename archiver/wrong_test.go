package archiver

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/s3test"
)

// What a store may be that is no store, or not for this archiver; and what is said of it.
func wrongStores(t *testing.T, bucket *s3test.Bucket) map[string]struct{ url, said string } {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = deaf.Close() })
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, gone.Close())
	at := func(name, endpoint string) string {
		return "s3://" + name + "?" + url.Values{"region": {"us-east-1"}, "endpoint": {endpoint}, "path_style": {"true"}}.Encode()
	}
	out := map[string]struct{ url, said string }{
		"a file in the place of the folder": {"file://" + file, "(archive.url): probe: mkdir " + file + "/probe: not a directory"},
		"nobody listens":                    {at("b", "http://"+gone.Addr().String()), "connection refused"},
		"nothing is answered":               {at("b", "http://"+deaf.Addr().String()), "waiting for the archive's store"},
	}
	if bucket != nil {
		out["no such bucket"] = struct{ url, said string }{at("nobody-made-this", bucket.Endpoint), "there is no bucket nobody-made-this (`catchment archive ensure` makes it)"}
		out["another secret"] = struct{ url, said string }{bucket.URL, "does not accept these credentials"}
	}
	return out
}

// TestWrongStoreIsSaid: the archiver is alive, is not ready, says why, and takes nothing from Kafka for its own. With a store that is
// right it archives everything.
func TestWrongStoreIsSaid(t *testing.T) {
	r := newRig(t, 1)
	bucket := s3test.New(t)
	r.produce(10)
	for name, c := range wrongStores(t, bucket) {
		t.Run(name, func(t *testing.T) {
			if name == "another secret" {
				t.Setenv("AWS_SECRET_ACCESS_KEY", "another")
			}
			p := r.process(c.url)
			p.Start()
			r.eventually(func() bool { return strings.Contains(p.Readiness(), c.said) }, c.said)
			require.False(t, p.Ready())
			require.LessOrEqual(t, r.committed(), int64(0))
			p.Stop()
		})
	}
	p := r.process(r.cfg.Archive.URL)
	p.Start()
	r.judge()
	r.everyRow()
	p.Stop()
}

// Credentials that may write and not list would find no chain's end.
func TestMissingRightIsSaid(t *testing.T) {
	user, _ := s3test.Restricted(t, []byte(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:PutObject","s3:GetObject"],"Resource":["arn:aws:s3:::BUCKET/*"]}]}`))
	if user == nil {
		return // the report says so
	}
	r := newRig(t, 1)
	r.produce(10)
	t.Setenv("AWS_ACCESS_KEY_ID", user.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", user.SecretKey)
	p := r.process(user.URL)
	p.Start()
	const said = "list probe/create-only.txt: bucket restricted: these credentials lack a right (schemas/access"
	r.eventually(func() bool { return strings.Contains(p.Readiness(), said) }, said)
	p.Stop()
}

// TestStoppedWithinAnUpload: SIGTERM while the store does not answer ends the archiver after its drain, and the upload may come to
// the store afterwards. The next archiver makes one chain of it.
func TestStoppedWithinAnUpload(t *testing.T) {
	r := newRig(t, 1)
	bucket := r.inBucket()
	if bucket == nil {
		return
	}
	r.cfg.Archiver.DrainTimeout = time.Second
	g := newGate()
	proxy := bucket.Proxy(t, func(req *http.Request) s3test.Fault {
		if s3test.IsWrite(req, "events/") {
			g.pass()
		}
		return s3test.None
	})
	r.produce(20)
	p := r.process(proxy.URL)
	p.Start()
	r.arrives(g)
	p.Signal(syscall.SIGTERM)
	require.Zero(t, p.Wait())
	require.LessOrEqual(t, r.committed(), int64(0))
	next := r.process(bucket.URL)
	next.Start()
	r.produce(20)
	r.judge()
	close(g.open) // what was on its way comes now, or is gone with its sender
	r.produce(20)
	r.judge()
	r.everyRow()
	next.Stop()
}

// TestTwoTopicsInOneArchive: archivers of different topics, or of different clusters, may share a store: their chains have names
// of their own.
func TestTwoTopicsInOneArchive(t *testing.T) {
	a, b := newRig(t, 2), newRig(t, 2)
	b.cfg.Archive, b.store = a.cfg.Archive, a.store
	first, second := a.start(nil), b.start(nil)
	a.produce(30)
	b.produce(30)
	a.waitArchived(60) // of both
	first.stop(a)
	second.stop(b)
	problems, err := archive.Check(t.Context(), a.store, nil)
	require.NoError(t, err)
	require.Empty(t, problems)
	rows := map[string]int{}
	for s, err := range archive.Segments(t.Context(), a.store) {
		require.NoError(t, err)
		for w, err := range archive.Records(t.Context(), a.store, s.Key) {
			require.NoError(t, err)
			rows[w.Topic]++
		}
	}
	require.Equal(t, map[string]int{a.topic: 30, b.topic: 30}, rows)
}
