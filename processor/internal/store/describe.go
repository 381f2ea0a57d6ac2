package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/catchment-dev/catchment/pkg/expr"
)

// ErrNoSchema says that the schema is not there, or older than this release. Errors that wrap it say which.
var ErrNoSchema = errors.New("run catchment migrate")

// CheckSchema says whether the schema is at least this release's. A newer one will do: a release works on the schema of
// the next one, so that processors are replaced one by one. The error wraps ErrNoSchema.
func (s *Store) CheckSchema(ctx context.Context) error { return CheckPool(ctx, s.pool) }

// CheckPool says whether the schema is there and not older than this release's. The error wraps ErrNoSchema.
func CheckPool(ctx context.Context, db *pgxpool.Pool) error {
	needed, err := newest()
	if err != nil {
		return err
	}
	var there bool
	if err := db.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, versionTable).Scan(&there); err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if !there {
		return fmt.Errorf("the database has no schema catchment, this release needs its version %d: %w", needed, ErrNoSchema)
	}
	var version int64
	if err := db.QueryRow(ctx, `SELECT coalesce(max(version_id) FILTER (WHERE is_applied), 0) FROM `+versionTable).Scan(&version); err != nil {
		return fmt.Errorf("postgres: read the version of the schema catchment: %w", err)
	}
	if version < needed {
		return fmt.Errorf("the schema catchment is at version %d, this release needs %d: %w", version, needed, ErrNoSchema)
	}
	return nil
}

// StatementError is Postgres' refusal to prepare a statement. Line and Col count from 1 within the statement's
// source; 0: Postgres does not say where.
type StatementError struct {
	Line, Col int
	Message   string
}

// Error gives place and message.
func (e *StatementError) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d, column %d of the statement: %s", e.Line, e.Col, e.Message)
}

// Describe prepares a statement, under the role that will run it, and sets its parameters' kinds. The error is a
// *StatementError when Postgres refuses the statement.
func (s *Store) Describe(ctx context.Context, st *Statement) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	defer conn.Release()
	sd, err := conn.Conn().Prepare(ctx, "", st.SQL)
	var pe *pgconn.PgError
	if errors.As(err, &pe) && Classify(err) != Transient {
		return refused(st, pe)
	}
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	if len(sd.ParamOIDs) != len(st.Params) {
		return &StatementError{Message: fmt.Sprintf("expected %d parameters, Postgres sees %d", len(st.Params), len(sd.ParamOIDs))}
	}
	kinds, err := kindsOf(ctx, conn.Conn(), sd.ParamOIDs)
	if err != nil {
		return err
	}
	st.Kinds, st.oids = kinds, sd.ParamOIDs
	if err := allowed(ctx, conn.Conn(), st); err != nil {
		return err
	}
	return makeSet(ctx, conn.Conn(), st)
}

// allowed asks for a plan of the statement, which only a role gets that may run it, and which says what it changes. The
// error is a *StatementError when the role may not, or when that is ours. All happens in one transaction, as a pooler demands.
func allowed(ctx context.Context, conn *pgx.Conn, st *Statement) error {
	ctx, cancel := context.WithTimeout(ctx, ownTimeout)
	defer cancel()
	tx, err := conn.Begin(ctx)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	t := &Tx{tx: tx}
	defer t.Rollback(ctx)
	if err := spares(ctx, tx, st); err != nil {
		return err
	}
	values := ""
	if n := len(st.Params); n > 0 {
		values = "(NULL" + strings.Repeat(", NULL", n-1) + ")"
	}
	var plan []byte
	err = t.Nested(ctx, func() error {
		for _, sql := range []string{`SET LOCAL plan_cache_mode = force_generic_plan`, `PREPARE catchment_access AS ` + st.SQL} {
			if _, err := tx.Exec(ctx, sql); err != nil {
				return err
			}
		}
		return tx.QueryRow(ctx, `EXPLAIN (VERBOSE, COSTS off, FORMAT JSON) EXECUTE catchment_access`+values, pgx.QueryExecModeSimpleProtocol).Scan(&plan)
	})
	_, e := tx.Exec(ctx, `DEALLOCATE catchment_access`) // it outlives the transaction
	var pe *pgconn.PgError
	switch {
	case err == nil && e == nil:
		return changed(plan)
	case err == nil && e != nil:
		return fmt.Errorf("postgres: %w", e)
	case IsDenied(err) && errors.As(err, &pe):
		return &StatementError{Message: Message(pe) + ": the role of postgres.url needs a GRANT for what the statement does"}
	case isPg(err) && Classify(err) != Transient:
		return nil // it is allowed, or has no plan
	}
	return fmt.Errorf("postgres: %w", err)
}

func refused(st *Statement, pe *pgconn.PgError) *StatementError {
	e := &StatementError{Message: Message(pe)}
	if pe.Position > 0 {
		e.Line, e.Col = st.Place(int(pe.Position))
	}
	switch {
	case pe.Code == "42P18":
		e.Message += ": expected a cast that says the type, such as @name::text"
	case pe.Code == "42601" && pe.Message == "cannot insert multiple commands into a prepared statement":
		e.Message += ": expected a list of statements under sql"
	case pe.Hint != "":
		e.Message += ": " + clean(pe.Hint)
	}
	return e
}

func kindsOf(ctx context.Context, conn *pgx.Conn, oids []uint32) ([]expr.Kind, error) {
	kinds := make([]expr.Kind, len(oids))
	if len(oids) == 0 {
		return kinds, nil
	}
	rows, err := conn.Query(ctx, `SELECT oid, typcategory = 'A' FROM pg_catalog.pg_type WHERE oid = ANY($1)`, oids)
	if err != nil {
		return nil, fmt.Errorf("postgres: types of parameters: %w", err)
	}
	arrays := map[uint32]bool{}
	var oid uint32
	var array bool
	if _, err := pgx.ForEachRow(rows, []any{&oid, &array}, func() error { arrays[oid] = array; return nil }); err != nil {
		return nil, fmt.Errorf("postgres: types of parameters: %w", err)
	}
	for i, oid := range oids {
		switch {
		case arrays[oid]:
			kinds[i] = expr.KindArray
		case oid == pgtype.ByteaOID:
			kinds[i] = expr.KindBytes
		case oid == pgtype.JSONOID || oid == pgtype.JSONBOID:
			kinds[i] = expr.KindJSON
		}
	}
	return kinds, nil
}

// Define remembers an operation's definition.
func (s *Store) Define(ctx context.Context, name string, definition, digest []byte) error {
	_, err := s.pool.Exec(ctx, `INSERT INTO catchment.definitions (sha256, name, definition) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		digest, name, string(definition))
	if err != nil {
		return fmt.Errorf("postgres: remember definition of %s: %w", name, err)
	}
	return nil
}
