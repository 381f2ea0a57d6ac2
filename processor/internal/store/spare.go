package store

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// relations are the relations of the schema catchment that are ours. A role called catchment may have tables of its own there,
// for Postgres looks for names in the schema of the role's name first.
var relations = strings.Fields("actions bodies conflicts dead_letters definitions duplicates entities events identities jobs outbox paused_operations progress results retries schema_version")

var partition = regexp.MustCompile(`_[0-9]+$`)

func belongs(schema, relation string) bool {
	return schema == "catchment" && slices.Contains(relations, partition.ReplaceAllString(relation, ""))
}

func notYours(relation string) error {
	return &StatementError{Message: fmt.Sprintf("it changes catchment.%s, which is not an operation's to change: for a table of that name in another schema write the schema too, such as public.%s", relation, relation)}
}

// spares looks whether a statement that has no plan, such as TRUNCATE, names a relation of ours without its schema. The
// error is then a *StatementError.
func spares(ctx context.Context, tx pgx.Tx, st *Statement) error {
	if !changes[strings.ToLower(st.FirstWord())] {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT c.relname FROM unnest($1::text[]) AS w JOIN pg_catalog.pg_class c ON c.oid = to_regclass(quote_ident(w))
		WHERE c.relnamespace = to_regnamespace('catchment')`, st.words())
	if err != nil {
		return fmt.Errorf("postgres: look up names: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("postgres: look up names: %w", err)
	}
	for _, name := range names {
		if belongs("catchment", name) {
			return notYours(name)
		}
	}
	return nil
}

// step is one of a plan, as EXPLAIN tells it.
type step struct {
	Kind     string `json:"Node Type"`
	Schema   string `json:"Schema"`
	Relation string `json:"Relation Name"`
	Plans    []step `json:"Plans"`
}

// changed returns a *StatementError when the plan changes a relation of ours, by whatever name it was found.
func changed(plan []byte) error {
	var parts []struct {
		Plan step `json:"Plan"`
	}
	if err := json.Unmarshal(plan, &parts); err != nil {
		return fmt.Errorf("postgres: read a plan: %w", err)
	}
	for _, p := range parts {
		if name := p.Plan.target(); name != "" {
			return notYours(name)
		}
	}
	return nil
}

// target names a relation of ours that the step or one below it changes; empty: none.
func (s *step) target() string {
	if s.Kind == "ModifyTable" && belongs(s.Schema, s.Relation) {
		return s.Relation
	}
	for i := range s.Plans {
		if name := s.Plans[i].target(); name != "" {
			return name
		}
	}
	return ""
}
