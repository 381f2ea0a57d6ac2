package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/control"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// replayFlags say what is replayed, and how.
type replayFlags struct {
	selectFlags
	actFlags
	operation                string
	force, dryRun, yes, wait bool
	rate                     float64
	limit                    int
}

func newReplay(a *app) *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use:   "replay --operation NAME",
		Short: "Run stored events through an operation, once each, in the processor",
		Long: "Run the selected stored events, all of them when nothing is selected, through an operation for which it has had no effect yet.\n" +
			"The processor runs this as a job, with live traffic first, and goes on after a crash. An operation is its name: changed SQL takes a\n" +
			"new name, or --force with --reason, which runs events again that have had their effect. Guards and versions hold.",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.replay(cmd.Context(), f) },
	}
	f.selectFlags.register(c, "received")
	f.actFlags.register(c)
	registerJob(c, &f.rate, &f.yes, &f.wait)
	c.Flags().StringVar(&f.operation, "operation", "", "the operation's `name`")
	c.Flags().BoolVar(&f.force, "force", false, "also events for which the operation has had its effect; needs --reason")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "try the first events, show values and rows, and take it back; exit code 1 when one would fail")
	c.Flags().IntVar(&f.limit, "limit", 20, "of --dry-run: how many events at most")
	return c
}

func (a *app) replay(ctx context.Context, f replayFlags) error {
	sel, err := f.selection(time.Now())
	switch {
	case err != nil:
		return err
	case f.operation == "":
		return fmt.Errorf("%w: say which operation with --operation NAME (`catchment operations list`)", run.ErrUsage)
	case f.force && !f.dryRun && strings.TrimSpace(f.reason) == "":
		return fmt.Errorf("%w: --force repeats effects: say why with --reason", run.ErrUsage)
	case f.limit < 1:
		return fmt.Errorf("%w: --limit must be at least 1", run.ErrUsage)
	}
	if err := wrongRate(f.rate); err != nil {
		return err
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, cfg *settings.File) error {
		on, err := cfg.OperationOn(f.operation)
		if err != nil {
			return fmt.Errorf("%w: %w", run.ErrUsage, err)
		}
		if err := a.sayNotStored(ctx, db, sel); err != nil {
			return err
		}
		j, err := control.NewReplay(ctx, db, f.operation, on.Source, on.Types, sel, f.force, f.rate, f.act())
		if err != nil {
			return err
		}
		if f.dryRun {
			return a.dryRun(ctx, cfg, j, f.limit)
		}
		question := fmt.Sprintf("Run operation %s for %d events?", f.operation, j.Expected)
		if f.force {
			question = fmt.Sprintf("Run operation %s for %d events, once more for those that have had its effect?", f.operation, j.Expected)
		}
		return a.startJob(ctx, db, j, f.yes, f.wait, question)
	}, settings.NeedOperations)
}

// sayNotStored names those of the asked for events that are not stored; the others are run.
func (a *app) sayNotStored(ctx context.Context, db *pgxpool.Pool, sel control.Selection) error {
	for _, id := range sel.EventIDs {
		sources, err := inspect.Sources(ctx, db, id)
		if err != nil {
			return err
		}
		if len(sources) == 0 || sel.Source != "" && !slices.Contains(sources, sel.Source) {
			fmt.Fprintf(a.err, "Event %q is not stored.\n", id)
		}
	}
	return nil
}

// dryRunView is what a replay would do, by its first events.
type dryRunView struct {
	Events int64 `json:"events"` // that the replay would look at
	inspect.Trials
}

func (a *app) dryRun(ctx context.Context, cfg *settings.File, j *control.Job, limit int) error {
	b, err := a.bench(ctx, cfg)
	if err != nil {
		return err
	}
	defer b.Close()
	trials, err := b.DryRun(ctx, j.Operation, j.Selection, j.Force, limit)
	if err != nil {
		return err
	}
	v := dryRunView{Events: j.Expected, Trials: inspect.Sum(trials)}
	err = a.answer(v, func(w io.Writer) {
		for _, t := range trials {
			printTrial(w, t)
			line(w, "", "")
		}
		line(w, "events", v.Events)
		line(w, "tried, each on its own", v.Tried)
		for _, outcome := range inspect.Outcomes {
			if n := v.Totals[outcome]; n > 0 {
				line(w, "  "+outcome, n)
			}
		}
		line(w, "rows", v.Rows)
	})
	if err == nil && v.Failing {
		return errSaid
	}
	return err
}
