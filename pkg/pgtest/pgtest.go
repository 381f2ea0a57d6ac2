// Package pgtest gives a test an empty Postgres database. Nothing comes in but the test; the URL of a database that
// nobody else uses goes out, on a server that an environment variable names, or else on one of this process's own.
// It knows no table: the caller brings its migrations, and nothing but tests may import it.
package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

// Environment variables that say which server the tests get.
const (
	Env      = "CATCHMENT_TEST_DATABASE_URL" // URL of a server, whose user may create databases
	EnvFetch = "CATCHMENT_TEST_POSTGRES"     // "embedded": the one that is fetched, also where another is installed
	EnvCache = "CATCHMENT_POSTGRES_CACHE"    // folder in which fetched servers are kept
)

var (
	server = sync.OnceValues(findServer)
	serial atomic.Int64
)

// New returns the URL of a fresh, empty database, which is dropped when the test ends. The server is the one that
// Env names; else a container when CATCHMENT_TEST_CONTAINERS=1; else one started from the local Postgres programs;
// else one that is downloaded. There is at most one server a process.
func New(t testing.TB) string {
	t.Helper()
	admin, err := server()
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	name := fmt.Sprintf("test_%d_%d_%d", os.Getpid(), time.Now().UnixMilli(), serial.Add(1))
	if err := execute(admin, "CREATE DATABASE "+name); err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(func() {
		if err := execute(admin, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			t.Logf("pgtest: %v", err)
		}
	})
	u, err := url.Parse(admin)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	u.Path = "/" + name
	return u.String()
}

func execute(databaseURL, statement string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

func findServer() (string, error) {
	databaseURL, how, err := chooseServer()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return "", fmt.Errorf("%s: %w", how, err)
	}
	defer func() { _ = conn.Close(ctx) }()
	parts.Report("postgres", how+" "+conn.PgConn().ParameterStatus("server_version"))
	return databaseURL, nil
}

func chooseServer() (databaseURL, how string, err error) {
	if os.Getenv(EnvFetch) == "embedded" {
		u, err := startEmbedded()
		return u, "embedded", err
	}
	if u := os.Getenv(Env); u != "" {
		return u, "given", nil
	}
	if parts.Containers() {
		u, err := parts.Container("postgres")
		return u, "container", err
	}
	if bin, ok := localPrograms(); ok {
		u, err := start(bin)
		return u, "local", err
	}
	u, err := startEmbedded()
	return u, "embedded", err
}
