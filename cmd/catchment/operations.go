package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/control"
	"github.com/catchment-dev/catchment/processor/inspect"
)

func newOperations(a *app) *cobra.Command {
	list := &cobra.Command{
		Use:   "list",
		Short: "List the operations, how they stand, and what they have done",
		Args:  exactly(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.listOperations(cmd.Context()) },
	}
	var source, event string
	try := &cobra.Command{
		Use:   "try NAME --event ID",
		Short: "Run an operation for a stored event, show values and rows, and take it back",
		Long: "Run an operation of the configuration for a stored event in a transaction that is rolled back, and show what it binds, how its\n" +
			"version compares, and the rows that it would change. Exit code 1 when the attempt would fail. Sequences move on all the same.",
		Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.tryOperation(cmd.Context(), args[0], source, event)
		},
	}
	try.Flags().StringVar(&event, "event", "", "the event's `ID`")
	try.Flags().StringVar(&source, "source", "", "the event's source, when several have an event of this ID")
	return group("operations", "See what is done for events; try, pause and resume it", list, try, newSwitch(a, true), newSwitch(a, false))
}

func newSwitch(a *app, pause bool) *cobra.Command {
	var act actFlags
	c := &cobra.Command{
		Use:   "resume NAME",
		Short: "End a pause: what has waited is run",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.switchOperation(cmd.Context(), args[0], pause, act.act())
		},
	}
	if pause {
		c.Use, c.Short = "pause NAME", "Let an operation's attempts wait; the other operations go on"
	}
	act.register(c)
	return c
}

func (a *app) listOperations(ctx context.Context) error {
	return a.onDatabase(ctx, func(db *pgxpool.Pool, cfg *settings.File) error {
		states, err := inspect.Operations(ctx, db)
		if err != nil {
			return err
		}
		views := inspect.ViewOperations(cfg, states, openCircuits(ctx, cfg))
		return a.answer(views, func(w io.Writer) {
			line(w, "OPERATION", "STATE", "ON", "SUCCEEDED", "SUPERSEDED", "FAILED", "DEAD", "DEFERRED", "WAITING", "NEXT", "DEAD LETTERS")
			for _, v := range views {
				next := time.Time{}
				if v.NextDue != nil {
					next = *v.NextDue
				}
				made := func(outcome string) string {
					if v.Estimated {
						return fmt.Sprintf("~%d", v.Outcomes[outcome])
					}
					return strconv.FormatInt(v.Outcomes[outcome], 10)
				}
				line(w, v.Name, v.State, v.On, made("succeeded"), made("superseded"), made("failed"), made("dead"), made("deferred"), v.Pending, stamp(next), v.DeadLetters)
			}
		})
	}, settings.NeedOperations, settings.NeedProcessor, settings.NeedIngress)
}

var openCircuit = regexp.MustCompile(`(?m)^catchment_processor_circuit_open\{operation="([^"]*)"\} 1$`)

// openCircuits asks the processor that can be reached from here which operations' circuits are open; each process has its own.
// Under `up` it answers at the ingress's address.
func openCircuits(ctx context.Context, cfg *settings.File) map[string]bool {
	open := map[string]bool{}
	for _, address := range []string{cfg.Processor.OpsListen, cfg.Ingress.OpsListen} {
		m, err := scrape(ctx, address)
		if err != nil {
			continue
		}
		for _, found := range openCircuit.FindAllSubmatch(m, -1) {
			open[string(found[1])] = true
		}
	}
	return open
}

// bench is where operations of the configuration are tried.
func (a *app) bench(ctx context.Context, cfg *settings.File) (*processor.Bench, error) {
	b, err := processor.OpenBench(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("the operations cannot be tried: %w", err)
	}
	return b, nil
}

func (a *app) tryOperation(ctx context.Context, name, source, event string) error {
	if event == "" {
		return fmt.Errorf("%w: say which event with --event ID (`catchment events list`)", run.ErrUsage)
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, cfg *settings.File) (err error) {
		b, err := a.bench(ctx, cfg)
		if err != nil {
			return err
		}
		defer b.Close()
		if err := b.Operation(name); err != nil {
			return fmt.Errorf("%w: %w", run.ErrUsage, err)
		}
		if source == "" {
			if source, err = sourceOf(ctx, db, event); err != nil {
				return err
			}
		}
		t, err := b.Try(ctx, name, source, event)
		if errors.Is(err, inspect.ErrNoEvent) {
			return fmt.Errorf("source %q has no event %q: it was not received, or is not processed yet, or its body was removed", source, event)
		}
		if err != nil {
			return err
		}
		if err := a.answer(t, func(w io.Writer) { printTrial(w, t) }); err != nil {
			return err
		}
		if t.Error != "" {
			return errSaid
		}
		return nil
	}, settings.NeedOperations)
}

func printTrial(w io.Writer, t *processor.Trial) {
	line(w, "operation", t.Operation)
	line(w, "event", t.EventID+" of "+t.Source+", "+clean(t.Type))
	if !t.Applies {
		line(w, "does not apply", t.Why)
		return
	}
	line(w, "would be", t.Outcome)
	if t.Effect {
		line(w, "but", "it has had its effect already: the processor would not run it again")
	}
	if t.Entity != nil {
		line(w, "entity", *t.Entity)
	}
	if t.Version != nil {
		line(w, "version", *t.Version)
	}
	line(w, "decision", t.Decision)
	for _, name := range slices.Sorted(maps.Keys(t.Params)) {
		text := "NULL"
		if v := t.Params[name]; v != nil {
			text = fmt.Sprint(v)
		}
		line(w, "@"+name, text)
	}
	for i, s := range t.Changes {
		line(w, fmt.Sprintf("statement %d", i+1), fmt.Sprintf("%d rows", s.Rows))
		if len(s.Seen) > 0 {
			line(w, "  rows", string(s.Seen))
		}
	}
	if t.Error != "" {
		line(w, "error", t.Error)
	}
	line(w, "", "nothing of this has stayed")
}

func (a *app) switchOperation(ctx context.Context, name string, pause bool, act control.Act) error {
	return a.onDatabase(ctx, func(db *pgxpool.Pool, cfg *settings.File) error {
		if pause {
			if err := a.known(ctx, db, cfg, name); err != nil {
				return err
			}
		}
		do, text, same := control.Resume, "resumed", "was not paused"
		if pause {
			do, text, same = control.Pause, "paused", "was paused already"
		}
		changed, err := do(ctx, db, name, act)
		if err != nil {
			return err
		}
		if !changed {
			text = same
		}
		return a.answer(map[string]any{"operation": name, "changed": changed, "paused": pause}, func(w io.Writer) { line(w, name, text) })
	}, settings.NeedOperations)
}

// known wants an operation that is configured or has been.
func (a *app) known(ctx context.Context, db *pgxpool.Pool, cfg *settings.File, name string) error {
	var names []string
	for _, op := range cfg.Operations {
		names = append(names, op.Name)
	}
	if slices.Contains(names, name) {
		return nil
	}
	states, err := inspect.Operations(ctx, db)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(states, func(s inspect.OperationState) bool { return s.Operation == name }) {
		return nil
	}
	return fmt.Errorf("%w: there is no operation %q: expected one of %s", run.ErrUsage, name, strings.Join(names, ", "))
}
