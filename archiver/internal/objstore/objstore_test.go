package objstore_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
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
