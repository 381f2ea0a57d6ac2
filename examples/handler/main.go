// Command handler is a processor with an operation in Go: it moves an order from one status to the next, and refuses the
// moves that make no sense. Run it with --config catchment.yaml in place of catchment-processor.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/processor"
)

func main() {
	os.Exit(processor.Main(os.Args[1:], os.Stderr,
		processor.Handle("order-status", orderStatus),
	))
}

// next are the statuses that may follow each.
var next = map[string][]string{
	"":        {"placed"},
	"placed":  {"paid", "cancelled"},
	"paid":    {"shipped", "refunded"},
	"shipped": {"delivered", "refunded"},
}

// orderStatus runs in the transaction that stores the event and the position: what it writes is committed with them, or
// not at all.
func orderStatus(ctx context.Context, tx pgx.Tx, ev event.Event) (processor.Result, error) {
	var body struct{ Order, Status string }
	if err := json.Unmarshal(ev.Body, &body); err != nil || body.Order == "" {
		return processor.Result{}, processor.Dead(errors.New("expected a JSON object with order and status")) // no attempt will help
	}
	var status string
	err := tx.QueryRow(ctx, `SELECT status FROM orders WHERE id = $1 FOR UPDATE`, body.Order).Scan(&status)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return processor.Result{}, fmt.Errorf("read order: %w", err) // wrapped: a lost connection is nobody's failed attempt
	}
	allowed := false
	for _, s := range next[status] {
		allowed = allowed || s == body.Status
	}
	if !allowed {
		return processor.Result{}, fmt.Errorf("order %s is %q and cannot become %q yet", body.Order, status, body.Status) // tried again
	}
	tag, err := tx.Exec(ctx, `INSERT INTO orders (id, status) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET status = excluded.status`,
		body.Order, body.Status)
	if err != nil {
		return processor.Result{}, fmt.Errorf("write order: %w", err)
	}
	return processor.Result{Rows: tag.RowsAffected(), Returned: map[string]string{"from": status, "to": body.Status}}, nil
}
