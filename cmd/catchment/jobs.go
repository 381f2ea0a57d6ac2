package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/control"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// jobInterval is how often a job that is waited for is looked at.
const jobInterval = 500 * time.Millisecond

func newJobs(a *app) *cobra.Command {
	var all bool
	var limit int
	var before int64
	list := &cobra.Command{
		Use:   "list",
		Short: "List redrives and replays, the newest first",
		Args:  exactly(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.listJobs(cmd.Context(), !all, before, limit) },
	}
	list.Flags().BoolVar(&all, "all", false, "also those that are over")
	list.Flags().IntVar(&limit, "limit", 50, "how many at most")
	list.Flags().Int64Var(&before, "before", 0, "for the next page: the last `ID` of the page before")
	var wait bool
	show := &cobra.Command{
		Use:   "show ID",
		Short: "Say how far a job is",
		Args:  exactly(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.showJob(cmd.Context(), args[0], wait) },
	}
	show.Flags().BoolVar(&wait, "wait", false, "wait until it is over; exit code 1 when an attempt failed")
	var act actFlags
	cancel := &cobra.Command{
		Use:   "cancel ID",
		Short: "End a job; what it has done stays",
		Args:  exactly(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.cancelJob(cmd.Context(), args[0], act.act()) },
	}
	act.register(cancel)
	return group("jobs", "See and end redrives and replays, which the processor runs", list, show, cancel)
}

func (a *app) listJobs(ctx context.Context, open bool, before int64, limit int) error {
	if limit < 1 {
		return fmt.Errorf("%w: --limit must be at least 1", run.ErrUsage)
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, _ *settings.File) error {
		jobs, err := inspect.Jobs(ctx, db, open, before, limit)
		if err != nil {
			return err
		}
		return a.answer(orEmpty(jobs), func(w io.Writer) {
			line(w, "JOB", "KIND", "OPERATION", "STATE", "DONE", "OF", "SUCCEEDED", "FAILED", "SKIPPED", "ASKED BY", "AT")
			for _, j := range jobs {
				line(w, j.ID, j.Kind, j.Operation, j.State, j.Made(), j.Expected, j.Succeeded+j.Superseded, j.Failed+j.Dead, j.Skipped, j.Actor, stamp(j.CreatedAt))
			}
		})
	})
}

func number(text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, fmt.Errorf("%w: %q is no ID: expected a number", run.ErrUsage, text)
	}
	return id, nil
}

func (a *app) showJob(ctx context.Context, text string, wait bool) error {
	id, err := number(text)
	if err != nil {
		return err
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, _ *settings.File) error {
		if wait {
			return a.waitForJob(ctx, db, id)
		}
		j, err := oneJob(ctx, db, id)
		if err != nil {
			return err
		}
		return a.printJob(j)
	})
}

func oneJob(ctx context.Context, db *pgxpool.Pool, id int64) (*inspect.Job, error) {
	j, err := inspect.OneJob(ctx, db, id)
	if errors.Is(err, inspect.ErrNoJob) {
		return nil, fmt.Errorf("there is no job %d: `catchment jobs list --all` lists them", id)
	}
	return j, err
}

func (a *app) printJob(j *inspect.Job) error {
	return a.answer(j, func(w io.Writer) {
		line(w, "job", j.ID)
		line(w, "kind", j.Kind)
		line(w, "operation", j.Operation)
		line(w, "state", j.State)
		line(w, "counted when asked", j.Expected)
		line(w, "succeeded", j.Succeeded)
		line(w, "superseded", j.Superseded)
		line(w, "failed", j.Failed)
		line(w, "dead", j.Dead)
		line(w, "skipped", j.Skipped)
		line(w, "asked by", j.Actor+" at "+stamp(j.CreatedAt))
		line(w, "reason", j.Reason)
		if j.Note != "" {
			line(w, "stands because", j.Note)
		}
		if j.FinishedAt != nil {
			line(w, "over", stamp(*j.FinishedAt))
		}
	})
}

// waitForJob shows how far a job is until it is over. What failed makes the exit code 1.
func (a *app) waitForJob(ctx context.Context, db *pgxpool.Pool, id int64) error {
	tick := time.NewTicker(jobInterval)
	defer tick.Stop()
	shown := ""
	for {
		j, err := oneJob(ctx, db, id)
		if err != nil {
			return err
		}
		if now := fmt.Sprintf("job %d: %s, %d of %d", j.ID, j.State, j.Made(), j.Expected); now != shown {
			fmt.Fprintln(a.err, now)
			shown = now
		}
		if j.State == control.Done || j.State == control.Cancelled {
			if err := a.printJob(j); err != nil {
				return err
			}
			if j.Failed+j.Dead > 0 || j.State == control.Cancelled {
				return fmt.Errorf("job %d: %s, %d attempts failed: `catchment dead-letters list`", j.ID, j.State, j.Failed+j.Dead)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("job %d goes on: `catchment jobs show %d`", id, id)
		case <-tick.C:
		}
	}
}

func (a *app) cancelJob(ctx context.Context, text string, act control.Act) error {
	id, err := number(text)
	if err != nil {
		return err
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, _ *settings.File) error {
		if _, err := oneJob(ctx, db, id); err != nil {
			return err
		}
		cancelled, err := control.Cancel(ctx, db, id, act)
		if err != nil {
			return err
		}
		j, err := oneJob(ctx, db, id)
		if err != nil {
			return err
		}
		if !cancelled {
			fmt.Fprintf(a.err, "job %d was over already\n", id)
		}
		return a.printJob(j)
	})
}

// startJob shows what a job would do, asks, and stores it.
func (a *app) startJob(ctx context.Context, db *pgxpool.Pool, j *control.Job, yes, wait bool, question string) error {
	if j.Expected == 0 {
		fmt.Fprintln(a.err, "There is nothing to do.")
		return a.answer(j, func(io.Writer) {})
	}
	if err := a.confirm(yes, question); err != nil {
		return err
	}
	if err := control.Start(ctx, db, j); err != nil {
		return err
	}
	if wait {
		return a.waitForJob(ctx, db, j.ID)
	}
	fmt.Fprintf(a.err, "The processor runs it as job %d: `catchment jobs show %d` says how far it is.\n", j.ID, j.ID)
	return a.answer(j, func(w io.Writer) { line(w, "job", j.ID) })
}
