package store

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib" // goose speaks database/sql
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// lockID is the advisory lock under which schema changes run.
const lockID = 0x63617463686d6e74 // "catchmnt"

const versionTable = "catchment.schema_version"

// Migrate brings the schema catchment to this release's state, unless it is a newer one's, and makes the partitions of the
// next days. Several may run at once: one works, the others wait.
// The URL must lead straight to the database, since the lock belongs to a session. Timeouts that the role or the database
// has for its statements do not hold: an index of a large table takes its time.
func Migrate(ctx context.Context, url string) (err error) {
	cfg, err := parse(url)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	db := stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0")
		return err
	}))
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("migrate: connect: %w", err)
	}
	defer func() { _ = conn.Close() }() // gives up the lock as well
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_lock($1)", int64(lockID)); err != nil {
		return fmt.Errorf("migrate: lock: %w", err)
	}
	defer func() {
		_, e := conn.ExecContext(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1)", int64(lockID))
		if err == nil && e != nil {
			err = fmt.Errorf("migrate: unlock: %w", e)
		}
	}()
	var there bool
	if err := conn.QueryRowContext(ctx, "SELECT to_regnamespace('catchment') IS NOT NULL").Scan(&there); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if !there {
		if _, err := conn.ExecContext(ctx, "CREATE SCHEMA catchment"); err != nil {
			return fmt.Errorf("migrate: create schema: %w", err)
		}
	}
	p, err := provider(db)
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	if _, err := conn.ExecContext(ctx, "SELECT catchment.make_partitions($1)", daysAhead); err != nil {
		return fmt.Errorf("migrate: make partitions: %w", err)
	}
	return nil
}

func provider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	versions, err := database.NewStore(goose.DialectPostgres, versionTable)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider("", db, files, goose.WithStore(versions))
}
