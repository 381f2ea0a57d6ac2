// Package store is all of the processor's SQL. Decoded events, users' statements and positions come in and
// transactions on Postgres go out, with errors sorted by what they mean for the batch. It never talks to Kafka, keeps
// no session state, and decides nothing about operations.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/failpoint"
)

const (
	connectTimeout = 10 * time.Second
	cancelGrace    = 3 * time.Second // between asking the server to cancel and closing the connection
	commitTimeout  = 15 * time.Second
	ownTimeout     = 30 * time.Second // statement_timeout of our own statements
)

const readOnly = "25006"

// EndTimeout is how long a transaction may take after its context has ended: until the statement is given up, and its
// COMMIT or ROLLBACK too.
const EndTimeout = 2*cancelGrace + commitTimeout

// Store is a pool of connections. It is safe for concurrent use.
type Store struct {
	pool    *pgxpool.Pool
	results string // topic of the results; empty: they are not published
	as      atomic.Pointer[surroundings]
}

// Config makes the pool's configuration. Nothing in it outlives a transaction, so that it works behind PgBouncer in
// transaction mode.
func Config(p settings.Postgres, name string) (*pgxpool.Config, error) {
	if _, err := parse(p.URL.Reveal()); err != nil {
		return nil, fmt.Errorf("postgres.url: %w", err)
	}
	cfg, err := pgxpool.ParseConfig(p.URL.Reveal())
	if err != nil {
		return nil, errors.New("postgres.url: expected pool_ settings such as pool_max_conn_lifetime=1h")
	}
	if p.Dial != nil {
		cfg.ConnConfig.DialFunc = pgconn.DialFunc(p.Dial)
	}
	if p.MaxConns > 0 {
		cfg.MaxConns = int32(min(p.MaxConns, 1<<15))
	}
	if p.Prepared == "off" {
		cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
	if cfg.ConnConfig.RuntimeParams["application_name"] == "" {
		cfg.ConnConfig.RuntimeParams["application_name"] = name
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectTimeout
	}
	cfg.ConnConfig.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &canceller{conn: c}
	}
	onError := cfg.ConnConfig.OnPgError
	cfg.ConnConfig.OnPgError = func(c *pgconn.PgConn, e *pgconn.PgError) bool {
		// A session that may only read stays so, also when the address leads to another server now: a new one finds it.
		return e.Code != readOnly && onError(c, e)
	}
	failpoint.Watch(&cfg.ConnConfig.Config)
	cfg.AfterConnect = func(_ context.Context, c *pgx.Conn) error {
		types := c.TypeMap()
		types.TryWrapEncodePlanFuncs = append([]pgtype.TryWrapEncodePlanFunc{wrapArrays}, types.TryWrapEncodePlanFuncs...)
		return nil
	}
	cfg.BeforeConnect = renew(p)
	return cfg, nil
}

// Open makes the pool; it connects when it is first used.
func Open(ctx context.Context, p settings.Postgres, name string) (*Store, error) {
	cfg, err := Config(p, name)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %w", err)
	}
	return &Store{pool: pool}, nil
}

// Close waits for the connections in use and closes all.
func (s *Store) Close() { s.pool.Close() }

// PoolStat is what the pool counts.
func (s *Store) PoolStat() *pgxpool.Stat { return s.pool.Stat() }

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.pool.Ping(ctx); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	return nil
}

// Class is what an error means for the work at hand.
type Class int

// The classes of errors.
const (
	Transient Class = iota // try the same again: connection, deadlock, full, read-only, shutting down
	Retryable              // the statement's own fault, which may pass: foreign keys, timeouts, missing tables, RAISE
	Poison                 // the statement's own fault, which will not pass: data exceptions and other constraints
)

// Classify sorts an error that Postgres or the way to it returned.
func Classify(err error) Class {
	var f *fault
	if errors.As(err, &f) {
		return f.class
	}
	var pe *pgconn.PgError
	if mutant.On(mutant.M16) {
		return Poison
	}
	if !errors.As(err, &pe) {
		return Transient
	}
	switch pe.Code {
	case "26000", "40001", "40P01", "40003", "55P03", "55006", readOnly, "25P03", "25P04":
		return Transient
	case "23503", "57014":
		return Retryable
	case "23514":
		if partitioning(pe) { // a table's next partition is not there yet
			return Retryable
		}
	case "0A000":
		if strings.Contains(pe.Message, "cached plan") {
			return Transient
		}
		return Retryable
	}
	switch pe.Code[:2] {
	case "08", "53", "57", "58", "XX":
		return Transient
	case "22", "23", "54":
		return Poison
	}
	return Retryable
}

// Unreachable says whether an error means that the server cannot be asked now.
func Unreachable(err error) bool {
	var connect *pgconn.ConnectError
	var pe *pgconn.PgError
	return errors.As(err, &connect) || IsCredentials(err) || errors.As(err, &pe) && (strings.HasPrefix(pe.Code, "57P") || strings.HasPrefix(pe.Code, "53"))
}

// IsRefused says whether Postgres refused the SQL itself (class 42: what it names is missing, or it is wrong): more likely
// the deployment's fault than the event's.
func IsRefused(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code[:2] == "42"
}

// IsTimeout says whether a statement took longer than it may.
func IsTimeout(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "57014"
}

// IsCredentials says whether the server refused who we are: it must be told clearly, and a retry is up to the operator.
func IsCredentials(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && (pe.Code == "28P01" || pe.Code == "28000" || pe.Code == "3D000")
}

// Message is an error's text for a results row: Postgres' message, detail and code, without values of parameters.
func Message(err error) string {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return clean(err.Error())
	}
	msg := pe.Message
	if pe.ConstraintName != "" {
		msg += " (constraint " + pe.ConstraintName + ")"
	}
	return clean(msg + " (SQLSTATE " + pe.Code + ")")
}
