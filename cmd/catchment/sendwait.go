package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// sourceInURL is the source that a webhook's URL names.
func sourceInURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("%w: --url: %w", run.ErrUsage, err)
	}
	_, rest, ok := strings.Cut(u.Path, "/webhooks/")
	name, _, _ := strings.Cut(rest, "/")
	if !ok || name == "" {
		return "", fmt.Errorf("%w: --wait: expected a URL that ends in /webhooks/SOURCE, found %s", run.ErrUsage, path.Base(u.Path))
	}
	return name, nil
}

// awaitProcessed returns when each event is stored and its operations have succeeded. The error names the first event that
// is not after the given time, or that is dead.
func (a *app) awaitProcessed(ctx context.Context, source string, ids []string, patience time.Duration) error {
	cfg, err := a.load(settings.NeedPostgres)
	if err != nil {
		return err
	}
	db, err := inspect.Open(ctx, cfg.Postgres)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, id := range ids {
		if err := awaitEvent(ctx, db, source, id); err != nil {
			return err
		}
	}
	return nil
}

func awaitEvent(ctx context.Context, db *pgxpool.Pool, source, id string) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	last := "not stored"
	for {
		d, err := inspect.Show(ctx, db, source, id)
		switch {
		case err == nil && (d.Status == "processed" || d.Status == "unmatched"):
			return nil
		case err == nil && d.Status == "dead":
			return fmt.Errorf("event %q of source %q is dead: `catchment events show` says why", id, source)
		case err == nil:
			last = d.Status
		case ctx.Err() == nil && !errors.Is(err, inspect.ErrNoEvent):
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("event %q of source %q was accepted, and is still %s after --wait: `catchment status`", id, source, last)
		case <-tick.C:
		}
	}
}
