package objstore_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/objstore/objstoretest"
	"github.com/catchment-dev/catchment/pkg/s3test"
)

func open(t *testing.T, url string) objstore.Store {
	t.Helper()
	s, err := objstore.Open(t.Context(), url)
	require.NoError(t, err)
	return s
}

func TestFile(t *testing.T) {
	url := "file://" + t.TempDir() + "/not/yet/there"
	objstoretest.Run(t, url)
}

func TestS3(t *testing.T) {
	bucket := s3test.New(t)
	if bucket == nil {
		return // the report says so
	}
	objstoretest.Run(t, bucket.URL)
	t.Run("under a prefix", func(t *testing.T) {
		url := "s3://" + bucket.Name + "/some/prefix/" + bucket.URL[len("s3://"+bucket.Name):]
		objstoretest.Run(t, url)
	})
}

func TestURLs(t *testing.T) {
	for url, want := range map[string]string{
		"":                                     "expected file:// or s3://",
		"gs://bucket":                          "expected file:// or s3://",
		"file://relative/folder":               "expected file:///absolute/folder",
		"file:relative":                        "expected file:///absolute/folder",
		"s3://b?region=x&sse=aws":              `unknown parameter "sse"`,
		"s3://b?region=x&endpoint=localhost:1": "endpoint: expected http",
		"s3://b?region=x&path_style=maybe":     "path_style: expected true or false",
		"s3:///prefix?region=x":                "expected s3://bucket",
		"s3://key:secret@bucket?region=x":      "keys come from",
	} {
		_, err := objstore.Open(t.Context(), url)
		require.ErrorContains(t, err, want, url)
	}
}

// proxy stands before the bucket's server and may change requests and answers.
func proxy(t *testing.T, b *s3test.Bucket, request func(*http.Request), answer func(*http.Response) error) string {
	t.Helper()
	target, err := url.Parse(b.Endpoint)
	require.NoError(t, err)
	p := httputil.NewSingleHostReverseProxy(target)
	p.ModifyResponse = answer
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request(r)
		p.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return "s3://" + b.Name + "?region=" + b.Region + "&endpoint=" + url.QueryEscape(server.URL)
}

func TestProbeRefuses(t *testing.T) {
	t.Run("a store that takes a key twice", func(t *testing.T) {
		require.ErrorIs(t, objstore.Probe(t.Context(), careless{open(t, "file://"+t.TempDir())}), objstore.ErrUnsafe)
	})
	bucket := s3test.New(t)
	if bucket == nil {
		return
	}
	t.Run("a server that says that it does not know the condition", func(t *testing.T) {
		url := proxy(t, bucket, func(*http.Request) {}, func(r *http.Response) error {
			if r.Request.Method == http.MethodPut {
				r.StatusCode = http.StatusNotImplemented
			}
			return nil
		})
		require.ErrorIs(t, objstore.Probe(t.Context(), open(t, url)), objstore.ErrUnsafe)
	})
	t.Run("but not one that is down", func(t *testing.T) {
		server := httptest.NewServer(nil)
		server.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		err := objstore.Probe(ctx, open(t, "s3://b?region=x&endpoint="+url.QueryEscape(server.URL)))
		require.Error(t, err)
		require.NotErrorIs(t, err, objstore.ErrUnsafe)
	})
}

// impatient is a server that closes the connection on an upload, without reading it, as one may that has the object already. taken
// says that it has, looks counts how often it was asked.
func impatient(t *testing.T) (s objstore.Store, taken *atomic.Bool, looks *atomic.Int32) {
	t.Helper()
	taken, looks = &atomic.Bool{}, &atomic.Int32{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_ = conn.(*net.TCPConn).SetLinger(0) //nolint:forcetypeassert // of this server they all are
				_ = conn.Close()
			}
		case taken.Load():
			looks.Add(1)
			w.Header().Set("Content-Length", "3145728")
		default:
			looks.Add(1)
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	return open(t, "s3://b?region=x&endpoint="+url.QueryEscape(server.URL)), taken, looks
}

// A refusal is known as one though its answer is lost with the connection, each time anew.
func TestRefusedBeforeItIsRead(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "a")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "b")
	s, taken, looks := impatient(t)
	body := make([]byte, 3<<20)
	err := s.Create(t.Context(), "a", body)
	require.Error(t, err)
	require.NotErrorIs(t, err, objstore.ErrExists, "nothing is there: it is to be sent again")
	require.NotErrorIs(t, err, objstore.ErrNotFound)
	require.EqualValues(t, 1, looks.Load())
	taken.Store(true)
	require.ErrorIs(t, s.Create(t.Context(), "a", body), objstore.ErrExists)
	require.EqualValues(t, 2, looks.Load())
}

// careless ignores that an object exists, as some S3 layers do.
type careless struct{ objstore.Store }

func (c careless) Create(ctx context.Context, key string, body []byte) error {
	if err := c.Store.Create(ctx, key, body); !errors.Is(err, objstore.ErrExists) {
		return err
	}
	return nil
}

func TestFileLeavesNothingBehind(t *testing.T) {
	root := t.TempDir()
	s := open(t, "file://"+root)
	require.NoError(t, s.Create(t.Context(), "events/a", []byte("a")))

	t.Run("when a writer was killed", func(t *testing.T) {
		killed, young := filepath.Join(root, "tmp", "1.part"), filepath.Join(root, "tmp", "2.part")
		require.NoError(t, os.WriteFile(killed, []byte("half"), 0o600))
		require.NoError(t, os.WriteFile(young, []byte("another's"), 0o600))
		old := time.Now().Add(-time.Hour)
		require.NoError(t, os.Chtimes(killed, old, old))
		require.NoError(t, s.Create(t.Context(), "events/b", []byte("b")))
		require.Equal(t, []string{"2.part"}, temporaries(t, root))
		for key, err := range s.List(t.Context(), "", "") {
			require.NoError(t, err)
			require.NotContains(t, key, "tmp")
		}
	})
	t.Run("keys stay in the folder", func(t *testing.T) {
		for _, key := range []string{"../x", "/etc/x", "a/../../x", "tmp/x"} {
			require.Error(t, s.Create(t.Context(), key, nil), key)
		}
	})
}

func temporaries(t *testing.T, root string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "tmp"))
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
