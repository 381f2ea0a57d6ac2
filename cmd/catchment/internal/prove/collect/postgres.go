package collect

import (
	"context"
	"fmt"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
)

// postgres dumps Catchment's published relations and the workload's tables, all of one moment.
func postgres(ctx context.Context, o Options) error {
	conn, err := pgx.Connect(ctx, o.DatabaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	for _, dump := range []func() error{
		func() error {
			return write(ctx, tx, o.Dir, func(r *folder.Identity) bool { return o.ours(r.Source) }, folder.IdentitiesFile, `SELECT source, event_id AS id, delivery_id::text AS delivery FROM catchment.identities`)
		},
		func() error {
			return write(ctx, tx, o.Dir, func(r *folder.Event) bool { return o.ours(r.Source) }, folder.EventsFile, `SELECT source, event_id AS id, status, delivery_id::text AS delivery,
				encode(sha256(body), 'hex') AS sha256, replace(topic_id::text, '-', '') AS topic_id, partition, "offset", deliveries FROM catchment.events`)
		},
		func() error {
			return write(ctx, tx, o.Dir, func(r *folder.Result) bool { return o.ours(r.Source) }, folder.ResultsFile, `SELECT source, event_id AS id, operation,
				(array_agg(outcome ORDER BY attempt DESC, started_at DESC))[1] AS outcome,
				count(*) FILTER (WHERE outcome = 'succeeded')::integer AS succeeded
				FROM catchment.results GROUP BY source, event_id, operation`)
		},
		func() error {
			return write(ctx, tx, o.Dir, func(r *folder.Conflict) bool { return o.ours(r.Source) }, folder.ConflictsFile, `SELECT source, event_id AS id, delivery_id::text AS delivery,
				encode(sha256(body), 'hex') AS sha256 FROM catchment.conflicts
				UNION ALL SELECT source, event_id, delivery_id::text, encode(body_sha256, 'hex') FROM catchment.duplicates WHERE body_sha256 IS NOT NULL`)
		},
		func() error {
			return write(ctx, tx, o.Dir, func(r *folder.Letter) bool { return o.ours(r.Source) }, folder.LettersFile, `SELECT coalesce(source, '') AS source, coalesce(event_id, '') AS id,
				coalesce(operation, '') AS operation, reason, partition, "offset" FROM catchment.dead_letters`)
		},
		func() error {
			return write(ctx, tx, o.Dir, func(*folder.Progress) bool { return true }, folder.ProgressFile, `SELECT topic, replace(topic_id::text, '-', '') AS topic_id, partition,
				next_offset AS next FROM catchment.progress`)
		},
		func() error {
			return write(ctx, tx, o.Dir, func(r *folder.Effect) bool { return o.ours(r.Source) }, folder.LedgerFile, `SELECT source, event_id AS id, entity, coalesce(delivery_id::text, '') AS delivery FROM prove_ledger`)
		},
		func() error {
			return write(ctx, tx, o.Dir, func(r *folder.Counter) bool { return o.changed(r.Entity) }, folder.CountersFile, `SELECT entity, n FROM prove_counters`)
		},
		func() error {
			return write(ctx, tx, o.Dir, func(r *folder.State) bool { return o.changed(r.Entity) }, folder.StateFile, `SELECT 0::bigint AS number, entity, version, event_id AS id FROM prove_state`)
		},
		func() error {
			return write(ctx, tx, o.Dir, func(r *folder.State) bool { return o.changed(r.Entity) }, folder.HistoryFile, `SELECT number, entity, version, event_id AS id FROM prove_history ORDER BY number`)
		},
	} {
		if err := dump(); err != nil {
			return err
		}
	}
	return nil
}

// write dumps what a query finds and keep wants, a row at a time. Its columns are called as the fields of T are.
func write[T any](ctx context.Context, tx pgx.Tx, dir string, keep func(*T) bool, name, query string) error {
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer rows.Close()
	return folder.WriteAll(dir, name, each(rows, keep))
}

func each[T any](rows pgx.Rows, keep func(*T) bool) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for rows.Next() {
			row, err := pgx.RowToStructByNameLax[T](rows)
			if err == nil && !keep(&row) {
				continue
			}
			if !yield(row, err) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			var none T
			yield(none, err)
		}
	}
}
