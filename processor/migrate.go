package processor

import (
	"context"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// Migrate brings the schema catchment of the database to this release's state, under an advisory lock. The URL must
// lead straight to the database, not through a pooler in transaction mode.
func Migrate(ctx context.Context, url string) error { return store.Migrate(ctx, url) }

// MigrateURL is the URL for Migrate: postgres.migrate_url, else postgres.url, with the password of postgres.password_file.
// The error says which file could not be read.
func MigrateURL(p settings.Postgres) (config.Secret, error) { return store.MigrateURL(p) }
