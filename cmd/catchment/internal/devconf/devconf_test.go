package devconf

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/pkg/settings"
)

func TestRender(t *testing.T) {
	got, err := Values{
		Listen: "127.0.0.1:8080", OpsListen: "127.0.0.1:9090", KafkaPort: 23456, PostgresPort: 23457,
		PostgresPassword: "pg-$ecret",
		Secrets: map[string]string{
			"github": "gh-secret", "shopify": "shop-secret", "slack": "slack-secret", "stripe": "whsec_stripe",
			"standard-webhooks": "whsec_c3RhbmRhcmQ=",
		},
	}.Render()
	require.NoError(t, err)
	golden := filepath.Join("testdata", "catchment.golden.yaml")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, Data), 0o755))
	created, err := Create(t.Context(), dir, "127.0.0.1:8081", "127.0.0.1:9091")
	require.NoError(t, err)
	require.True(t, created)

	cfg, err := settings.Load(filepath.Join(dir, File), settings.Everything...)
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:8081", cfg.Ingress.Listen)
	require.Equal(t, "127.0.0.1:9091", cfg.Ingress.OpsListen)
	require.True(t, cfg.Kafka.Embedded)
	require.True(t, cfg.Postgres.Embedded)
	require.Len(t, cfg.Sources, len(sources))
	require.Equal(t, "file://"+filepath.Join(dir, Data, "archive"), cfg.Archive.URL)

	signer, err := note.NewSigner(cfg.Archive.CheckpointKey.Reveal())
	require.NoError(t, err)
	public, err := os.ReadFile(filepath.Join(dir, Data, publicKeyFile))
	require.NoError(t, err)
	require.Contains(t, string(public), signer.Name())

	for _, name := range []string{File, filepath.Join(Data, keyFile)} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), name)
	}

	require.True(t, TablePending(dir))
	require.NoError(t, TableMade(dir))
	require.False(t, TablePending(dir))

	before, err := os.ReadFile(filepath.Join(dir, File))
	require.NoError(t, err)
	created, err = Create(t.Context(), dir, "127.0.0.1:1", "127.0.0.1:2")
	require.NoError(t, err)
	require.False(t, created)
	after, err := os.ReadFile(filepath.Join(dir, File))
	require.NoError(t, err)
	require.Equal(t, before, after)
}
