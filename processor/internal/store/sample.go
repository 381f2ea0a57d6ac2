package store

import (
	"context"
	"fmt"
	"math"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// SampledPages is how many pages of a table are read to count its rows; of a larger table it is a sample.
const SampledPages = 4_000

// quickly reads without the compiler that Postgres starts for statements that seem long: it takes seconds, and a page that
// opens many partitions for few rows always seems long.
func quickly(ctx context.Context, db *pgxpool.Pool, f func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, db, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL jit = off`); err != nil {
			return err
		}
		return f(tx)
	})
}

// sample is what stands behind a table's name so that a bounded number of its pages is read, always the same ones, and by
// what a count of them is to be multiplied; 1: all of them are read.
func sample(ctx context.Context, tx pgx.Tx, table string) (clause string, factor float64, err error) {
	var pages int64
	if err := tx.QueryRow(ctx, `SELECT pg_catalog.pg_relation_size($1::text::regclass) / 8192`, "catchment."+table).Scan(&pages); err != nil {
		return "", 0, err
	}
	if pages <= SampledPages {
		return "", 1, nil
	}
	percent := 100 * SampledPages / float64(pages)
	return fmt.Sprintf("TABLESAMPLE SYSTEM (%g) REPEATABLE (1)", percent), 100 / percent, nil
}

// estimate is a count of a sample, multiplied, to three digits: there are no more that mean something.
func estimate(n int64, factor float64) int64 {
	if factor == 1 || n == 0 {
		return n
	}
	v := float64(n) * factor
	unit := math.Pow(10, max(math.Floor(math.Log10(v))-2, 0))
	return int64(math.Round(v/unit) * unit)
}
