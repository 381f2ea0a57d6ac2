package processor

import (
	"context"

	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// Migrate brings the schema catchment of the database to this release's state, under an advisory lock. The URL must
// lead straight to the database, not through a pooler in transaction mode.
func Migrate(ctx context.Context, url string) error { return store.Migrate(ctx, url) }

func migrateURL(cfg *settings.File) string {
	if !cfg.Postgres.MigrateURL.Empty() {
		return cfg.Postgres.MigrateURL.Reveal()
	}
	return cfg.Postgres.URL.Reveal()
}
