package ingress

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// startFile runs an ingress whose configuration is a file in dir; sources is the YAML below sources.
func startFile(t *testing.T, dir, sources string) *harness {
	t.Helper()
	cluster := kafkatest.New(t)
	topic := cluster.Topic(t, 3)
	path := filepath.Join(dir, "catchment.yaml")
	write(t, path, fmt.Sprintf("kafka: {brokers: [\"%s\"], topic: %s, create_topic: false}\ningress: {listen: \"127.0.0.1:0\", read_header_timeout: 60s}\nsources:\n%s",
		strings.Join(cluster.Brokers, `", "`), topic, sources))
	cfg, err := settings.Load(path, settings.NeedKafka, settings.NeedIngress, settings.NeedSources)
	require.NoError(t, err)
	h := &harness{t: t, log: &syncBuffer{}, reg: prometheus.NewRegistry(), topic: topic, kafka: cluster}
	h.Service, err = New(cfg, slog.New(slog.NewJSONHandler(h.log, nil)), h.reg)
	require.NoError(t, err)
	h.run()
	h.ready()
	return h
}

func write(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

// TestSecretRotation sends all the while as secrets come and go: nothing that a valid secret has signed is refused, and
// a secret that is gone is refused from then on. R52.
func TestSecretRotation(t *testing.T) {
	dir := t.TempDir()
	// As Kubernetes mounts a secret: the files are links through ..data, which is swapped.
	mount := func(gen int, a, b string) {
		data := fmt.Sprintf("..gen%d", gen)
		require.NoError(t, os.Mkdir(filepath.Join(dir, data), 0o700))
		write(t, filepath.Join(dir, data, "a"), a+"\n")
		write(t, filepath.Join(dir, data, "b"), b+"\n")
		require.NoError(t, os.Symlink(data, filepath.Join(dir, "..new")))
		require.NoError(t, os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
	}
	secret := func(n int) string { return fmt.Sprintf("whsec_rotated_secret_%d", n) }
	mount(0, secret(0), secret(1))
	for _, f := range []string{"a", "b"} {
		require.NoError(t, os.Symlink(filepath.Join("..data", f), filepath.Join(dir, f)))
	}
	h := startFile(t, dir, "  stripe: {provider: stripe, secrets: [{file: a}, {file: b}]}\n")

	var current, n atomic.Int64 // secret(current) and the next one are valid
	current.Store(1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				s := sampleOf("stripe", w*1_000_000+i)
				resp, err := http.DefaultClient.Do(h.signed("stripe", "stripe", secret(int(current.Load())), time.Now(), s))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("answered %d in a rotation", resp.StatusCode)
				}
				n.Add(1)
			}
		})
	}
	status := func(k int) int {
		resp, _ := h.call(h.signed("stripe", "stripe", secret(k), time.Now(), sampleOf("stripe", 10_000_000+k)))
		return resp.StatusCode
	}
	for gen := 1; gen <= 3; gen++ {
		mount(gen, secret(gen), secret(gen+1))
		require.Eventually(t, func() bool { return status(gen+1) == 200 }, 30*time.Second, 20*time.Millisecond)
		require.Equal(t, 401, status(gen-1), "a secret that is gone")
		current.Store(int64(gen + 1))
	}
	close(stop)
	wg.Wait()
	require.Greater(t, n.Load(), int64(100))
	sum := sha256.Sum256([]byte(secret(4)))
	require.Positive(t, testutil.ToFloat64(h.metrics.verified.WithLabelValues("stripe", "k_"+hex.EncodeToString(sum[:6]))), "which secret is in use")
	require.Equal(t, 2, testutil.CollectAndCount(h.metrics.verified), "series of secrets that are gone are dropped")
	require.InDelta(t, 3, testutil.ToFloat64(h.metrics.reloads.WithLabelValues(reloadOK)), 0)
	require.NotContains(t, h.log.String(), "whsec_rotated")
}

// TestBadReload: what cannot be read leaves the secrets from before in use.
func TestBadReload(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "hooks"), filepath.Join(dir, "other")
	write(t, file, "first secret\n")
	write(t, other, "other's secret\n")
	const text = "  github: {provider: github, secrets: [{id: q4, file: hooks}]}\n  other: {provider: github, secrets: [{file: other}]}\n"
	h := startFile(t, dir, text)
	yaml := filepath.Join(dir, "catchment.yaml")
	whole, err := os.ReadFile(yaml)
	require.NoError(t, err)
	status := func(source, secret string) int {
		resp, _ := h.call(h.signed(source, "github", secret, time.Now(), sampleOf("github", 1)))
		return resp.StatusCode
	}
	failures := func() float64 { return testutil.ToFloat64(h.metrics.reloads.WithLabelValues(reloadFailed)) }
	for name, spoil := range map[string]func(){
		"empty":       func() { write(t, file, "\n") },
		"gone":        func() { require.NoError(t, os.Remove(file)) },
		"a folder":    func() { require.NoError(t, os.Remove(file)); require.NoError(t, os.Mkdir(file, 0o700)) },
		"control":     func() { write(t, file, "first\x00secret\n") },
		"broken file": func() { write(t, yaml, "sources: [") },
		"doubled ID":  func() { write(t, yaml, strings.Replace(string(whole), "[{id: q4", "[{id: q4, value: x}, {id: q4", 1)) },
		"wrong variable": func() {
			write(t, yaml, strings.Replace(string(whole), "[{id: q4", "[\"${NOT_SET_ANYWHERE}\", {id: q4", 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := failures()
			spoil()
			h.Reload()
			require.InDelta(t, before+1, failures(), 0)
			require.Equal(t, 200, status("github", "first secret"))
			require.NotEqual(t, 200, status("github", "second secret"))
			require.NoError(t, os.RemoveAll(file))
			write(t, file, "first secret\n")
			write(t, yaml, string(whole))
			h.Reload()
			require.InDelta(t, before+1, failures(), 0, h.log)
		})
	}
	// One source's broken secret keeps no other from its new one.
	write(t, file, "")
	write(t, other, "another\n")
	h.Reload()
	require.Equal(t, 200, status("github", "first secret"))
	require.Equal(t, 200, status("other", "another"))
	require.Equal(t, 401, status("other", "other's secret"))
	// An ID of its own, in catchment.yaml, is how a named secret is rotated.
	write(t, file, "first secret\n")
	write(t, filepath.Join(dir, "hooks-2"), "second secret")
	write(t, yaml, strings.Replace(string(whole), "[{id: q4", "[{id: q5, file: hooks-2}, {id: q4", 1))
	h.Reload()
	require.Equal(t, 200, status("github", "second secret"))
	require.Equal(t, 200, status("github", "first secret"))
	require.NotContains(t, h.log.String(), "was replaced under the ID")
	// A file that is overwritten under its ID counts, and it is said that the ID now stands for two.
	write(t, file, "third secret\n")
	h.Reload()
	require.Equal(t, 200, status("github", "third secret"))
	require.Equal(t, 401, status("github", "first secret"))
	require.Contains(t, h.log.String(), "was replaced under the ID")
	require.NotContains(t, h.log.String(), "second secret")
}

// TestReloadWhileStopped: a reload is safe whether or not the service runs.
func TestReloadWhileStopped(t *testing.T) {
	h := start(t, kafkatest.New(t), "20s", "")
	require.NoError(t, h.stop())
	h.Reload()
	require.InDelta(t, 1, testutil.ToFloat64(h.metrics.reloads.WithLabelValues(reloadOK)), 0)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	h.secrets.watch(ctx)
}
