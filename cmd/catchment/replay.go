package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/control"
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
		on, err := operationOn(cfg, f.operation)
		if err != nil {
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

func operationOn(cfg *settings.File, name string) (settings.On, error) {
	var names []string
	for _, op := range cfg.Operations {
		if op.Name == name {
			return op.On, nil
		}
		names = append(names, op.Name)
	}
	return settings.On{}, fmt.Errorf("%w: there is no operation %q in the configuration: expected one of %s", run.ErrUsage, name, strings.Join(names, ", "))
}

// dryRunView is what a replay would do, by its first events.
type dryRunView struct {
	Events  int64              `json:"events"` // that the replay would look at
	Tried   int                `json:"tried"`
	Totals  map[string]int     `json:"totals"` // of those tried, by outcome
	Rows    int64              `json:"rows_affected"`
	Results []*processor.Trial `json:"results"`
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
	v := dryRunView{Events: j.Expected, Tried: len(trials), Totals: map[string]int{}, Results: trials}
	bad := false
	for _, t := range trials {
		outcome := t.Outcome
		if !t.Applies {
			outcome = "does not apply"
		}
		v.Totals[outcome]++
		if t.Rows != nil {
			v.Rows += *t.Rows
		}
		bad = bad || t.Error != ""
	}
	err = a.answer(v, func(w io.Writer) {
		for _, t := range trials {
			printTrial(w, t)
			line(w, "", "")
		}
		line(w, "events", v.Events)
		line(w, "tried, each on its own", v.Tried)
		for _, outcome := range []string{"succeeded", "superseded", "failed", "dead", "does not apply"} {
			if n := v.Totals[outcome]; n > 0 {
				line(w, "  "+outcome, n)
			}
		}
		line(w, "rows", v.Rows)
	})
	if err == nil && bad {
		return errSaid
	}
	return err
}
