package store

import (
	"context"
	"fmt"
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

// record writes a row of actions.
func record(ctx context.Context, tx pgx.Tx, command string, act Act, selection any, affected int64) (id int64, err error) {
	err = tx.QueryRow(ctx, `INSERT INTO catchment.actions (actor, command, reason, selection, affected) VALUES ($1, $2, $3, $4, $5) RETURNING id`,
		clean(act.Actor), command, clean(act.Reason), selection, affected).Scan(&id)
	return id, err
}
