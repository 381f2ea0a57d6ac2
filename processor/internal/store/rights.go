package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// RightsError says what the role of postgres.url may not do in the schema catchment, and how it gets that right.
type RightsError struct {
	Role   string
	Grants []string // statements for the schema's owner, without the semicolon
}

func (e *RightsError) Error() string {
	return fmt.Sprintf("the role %s lacks rights: the owner of the schema catchment must run %s;", e.Role, strings.Join(e.Grants, "; "))
}

// IsDenied says whether Postgres refused something for want of a right (42501).
func IsDenied(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "42501"
}

// Upkeep is what a processor is configured to remove.
type Upkeep struct{ Days, Results, Identities bool }

// need is a privilege on some of our tables.
type need struct{ privilege, tables string }

// works is what the processor does to the tables in its transactions. Without one of these it can store nothing, or not for long.
var works = []need{
	{"SELECT", "schema_version identities bodies duplicates conflicts results retries entities dead_letters progress definitions outbox jobs paused_operations"},
	{"INSERT", "identities bodies duplicates conflicts results retries entities dead_letters progress definitions outbox"},
	{"UPDATE", "bodies retries entities dead_letters progress jobs actions"},
	{"DELETE", "retries dead_letters outbox"},
}

// removes is what upkeep does besides.
func (u Upkeep) removes() (needs []need, functions []string) {
	functions = []string{"make_partitions(integer)"}
	if u.Days {
		needs, functions = append(needs, need{"DELETE", "bodies"}), append(functions, "drop_partition(timestamp with time zone)")
	}
	if u.Results {
		needs = append(needs, need{"DELETE", "results duplicates conflicts"})
	}
	if u.Identities {
		tables := strings.Join(AgedIdentities().tables, " ")
		needs = append(needs, need{"SELECT", tables}, need{"DELETE", tables})
	}
	return needs, functions
}

// CheckRights says whether the role may do what each batch does. The error is a *RightsError when it may not.
func (s *Store) CheckRights(ctx context.Context) error { return missing(ctx, s.pool, works, nil) }

// CheckUpkeep says whether the role may make the partitions of the next days, and remove what is over its retention. The
// error is a *RightsError when it may not.
func (s *Store) CheckUpkeep(ctx context.Context, u Upkeep) error {
	needs, functions := u.removes()
	return missing(ctx, s.pool, needs, functions)
}

// missing looks for rights that the role does not have. What is not there is passed over: CheckSchema tells of it.
func missing(ctx context.Context, db *pgxpool.Pool, needs []need, functions []string) error {
	e := &RightsError{}
	var usage bool
	if err := db.QueryRow(ctx, `SELECT quote_ident(current_user), coalesce(has_schema_privilege(to_regnamespace('catchment')::oid, 'USAGE'), true)`).Scan(&e.Role, &usage); err != nil {
		return fmt.Errorf("postgres: read rights: %w", err)
	}
	if !usage {
		// Nothing in it can be looked at before.
		e.Grants = []string{
			"GRANT USAGE ON SCHEMA catchment TO " + e.Role, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA catchment TO " + e.Role,
			"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA catchment TO " + e.Role,
		}
		return e
	}
	for _, n := range needs {
		lacking, err := texts(ctx, db, `SELECT 'catchment.' || t FROM unnest($1::text[]) WITH ORDINALITY AS x(t, i), to_regclass('catchment.' || t) AS r
			WHERE NOT has_table_privilege(r, $2::text) ORDER BY i`, strings.Fields(n.tables), n.privilege)
		if err != nil {
			return err
		}
		if len(lacking) > 0 {
			e.Grants = append(e.Grants, "GRANT "+n.privilege+" ON "+strings.Join(lacking, ", ")+" TO "+e.Role)
		}
	}
	lacking, err := texts(ctx, db, `SELECT 'catchment.' || f FROM unnest($1::text[]) WITH ORDINALITY AS x(f, i), to_regprocedure('catchment.' || f) AS r
		WHERE NOT has_function_privilege(r, 'EXECUTE') ORDER BY i`, functions)
	if err != nil {
		return err
	}
	if len(lacking) > 0 {
		e.Grants = append(e.Grants, "GRANT EXECUTE ON FUNCTION "+strings.Join(lacking, ", ")+" TO "+e.Role)
	}
	if len(e.Grants) > 0 {
		return e
	}
	return nil
}

func texts(ctx context.Context, db *pgxpool.Pool, sql string, args ...any) ([]string, error) {
	rows, err := db.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("postgres: read rights: %w", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("postgres: read rights: %w", err)
	}
	return list, nil
}
