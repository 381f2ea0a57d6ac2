package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Paused is an operation that somebody has paused.
type Paused struct {
	Operation string    `json:"operation"`
	At        time.Time `json:"paused_at"`
	Actor     string    `json:"actor"`
	Reason    string    `json:"reason"`
}

// Paused lists the operations that are paused.
func (s *Store) Paused(ctx context.Context) ([]Paused, error) { return PausedOperations(ctx, s.pool) }

// PausedOperations lists the operations that are paused.
func PausedOperations(ctx context.Context, db *pgxpool.Pool) ([]Paused, error) {
	rows, err := db.Query(ctx, `SELECT operation, paused_at, actor, reason FROM catchment.paused_operations ORDER BY operation`)
	if err != nil {
		return nil, fmt.Errorf("read paused operations: %w", err)
	}
	return collect(rows, "read paused operations", pgx.RowToStructByPos[Paused])
}

// Act is who does something, and why.
type Act struct{ Actor, Reason string }

// Pause pauses an operation. changed is false when it was paused already.
func Pause(ctx context.Context, db *pgxpool.Pool, operation string, act Act) (changed bool, err error) {
	return switchOperation(ctx, db, "operations pause", `INSERT INTO catchment.paused_operations (operation, actor, reason) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		act, operation, operation, clean(act.Actor), clean(act.Reason))
}

// Resume ends the pause of an operation. changed is false when it was not paused.
func Resume(ctx context.Context, db *pgxpool.Pool, operation string, act Act) (changed bool, err error) {
	return switchOperation(ctx, db, "operations resume", `DELETE FROM catchment.paused_operations WHERE operation = $1`, act, operation, operation)
}

func switchOperation(ctx context.Context, db *pgxpool.Pool, command, sql string, act Act, operation string, args ...any) (changed bool, err error) {
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, sql, args...)
		if err != nil {
			return err
		}
		changed = tag.RowsAffected() > 0
		_, err = record(ctx, tx, command, act, map[string]any{"operation": operation}, tag.RowsAffected())
		return err
	})
	if err != nil {
		return false, fmt.Errorf("%s: %w", command, err)
	}
	return changed, nil
}

// Backfilled records that a partition's offsets from one to before another were taken from the archive.
func (s *Store) Backfilled(ctx context.Context, p Partition, from, next int64, act Act) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		_, err := record(ctx, tx, "backfill", act, map[string]any{"topic": p.Topic, "partition": p.Partition, "from": from, "next": next}, next-from)
		return err
	})
	if err != nil {
		return fmt.Errorf("record the backfill: %w", err)
	}
	return nil
}

// record writes a row of actions.
func record(ctx context.Context, tx pgx.Tx, command string, act Act, selection any, affected int64) (id int64, err error) {
	err = tx.QueryRow(ctx, `INSERT INTO catchment.actions (actor, command, reason, selection, affected) VALUES ($1, $2, $3, $4, $5) RETURNING id`,
		clean(act.Actor), command, clean(act.Reason), selection, affected).Scan(&id)
	return id, err
}

// OperationState is how an operation stands that has a definition, a result, a retry or a dead letter, or is paused.
type OperationState struct {
	Operation   string           `json:"operation"`
	Outcomes    map[string]int64 `json:"outcomes"`  // of all attempts that were ever made
	Estimated   bool             `json:"estimated"` // Outcomes are those of a sample, multiplied: what is rare may be missing
	Pending     int64            `json:"pending"`   // attempts that are still to be made
	NextDue     *time.Time       `json:"next_due"`
	DeadLetters int64            `json:"dead_letters"`
	Paused      *Paused          `json:"paused"`
}

// OperationStates counts what each operation has done and has still to do, from samples where there is much.
func OperationStates(ctx context.Context, db *pgxpool.Pool) ([]OperationState, error) {
	states := map[string]*OperationState{}
	get := func(name string) *OperationState {
		if states[name] == nil {
			states[name] = &OperationState{Operation: name, Outcomes: map[string]int64{}}
		}
		return states[name]
	}
	var name, outcome string
	var n int64
	var due *time.Time
	estimated := false
	for _, q := range []struct {
		table, sql string // with a place for TABLESAMPLE
		each       func(factor float64)
	}{
		{"results", `SELECT operation, outcome, count(*), NULL::timestamptz FROM catchment.results %s GROUP BY 1, 2`, func(f float64) {
			get(name).Outcomes[outcome] = estimate(n, f)
			estimated = f > 1
		}},
		{"retries", `SELECT operation, '', count(*), min(due_at) FROM catchment.retries %s GROUP BY 1`, func(f float64) {
			s := get(name)
			s.Pending, s.NextDue = estimate(n, f), due
		}},
		{"dead_letters", `SELECT operation, '', count(*), NULL::timestamptz FROM catchment.dead_letters %s WHERE operation IS NOT NULL GROUP BY 1`, func(f float64) {
			get(name).DeadLetters = estimate(n, f)
		}},
		{"definitions", `SELECT DISTINCT name, '', 0::bigint, NULL::timestamptz FROM catchment.definitions %s`, func(float64) { get(name) }},
	} {
		err := quickly(ctx, db, func(tx pgx.Tx) error {
			clause, factor, err := sample(ctx, tx, q.table)
			if err != nil {
				return err
			}
			rows, err := tx.Query(ctx, fmt.Sprintf(q.sql, clause))
			if err != nil {
				return err
			}
			_, err = pgx.ForEachRow(rows, []any{&name, &outcome, &n, &due}, func() error { q.each(factor); return nil })
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("count attempts: %w", err)
		}
	}
	paused, err := PausedOperations(ctx, db)
	if err != nil {
		return nil, err
	}
	for i := range paused {
		get(paused[i].Operation).Paused = &paused[i]
	}
	out := make([]OperationState, 0, len(states))
	for _, name := range slices.Sorted(maps.Keys(states)) {
		states[name].Estimated = estimated
		out = append(out, *states[name])
	}
	return out, nil
}
