package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/control"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// letterFlags select dead letters.
type letterFlags struct {
	selectFlags
	operation, reason string
	letters           []int64
}

func (f *letterFlags) register(cmd *cobra.Command) {
	f.selectFlags.register(cmd, "that failed last")
	cmd.Flags().StringVar(&f.operation, "operation", "", "of this operation")
	cmd.Flags().StringVar(&f.reason, "failure", "", "that are dead for this reason, such as expression or undecodable")
	cmd.Flags().Int64SliceVar(&f.letters, "letter", nil, "this dead letter, by the ID that list shows; may be repeated")
}

func (f *letterFlags) selection(now time.Time) (control.Selection, error) {
	sel, err := f.selectFlags.selection(now)
	sel.Operation, sel.Reason, sel.Letters = f.operation, f.reason, f.letters
	return sel, err
}

func newDeadLetters(a *app) *cobra.Command {
	var f letterFlags
	var limit int
	var before int64
	list := &cobra.Command{
		Use:   "list",
		Short: "List what will not be tried again, the newest first",
		Args:  exactly(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.listLetters(cmd.Context(), f, before, limit) },
	}
	f.register(list)
	list.Flags().StringVar(&f.reason, "reason", "", "the same as --failure")
	list.Flags().IntVar(&limit, "limit", 50, "how many at most")
	list.Flags().Int64Var(&before, "before", 0, "for the next page: the last `ID` of the page before")

	var act actFlags
	var payload bool
	show := &cobra.Command{
		Use:   "show ID",
		Short: "Show one dead letter, by the ID that list shows",
		Args:  exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.showLetter(cmd.Context(), args[0], payload, act.act())
		},
	}
	show.Flags().BoolVar(&payload, "payload", false, "with key, headers and value of a record that could not be decoded; recorded in catchment.actions")
	act.register(show)

	var again letterFlags
	var who actFlags
	var rate float64
	var yes, wait bool
	redrive := &cobra.Command{
		Use:   "redrive",
		Short: "Try dead letters once more, in the processor",
		Long: "Try the selected dead letters once more, all of them when nothing is selected. The processor runs this as a job, and goes on\n" +
			"after a crash. What succeeds is no dead letter any more; what fails again stays, with one more attempt.",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.redrive(cmd.Context(), again, rate, yes, wait, who.act())
		},
	}
	again.register(redrive)
	who.register(redrive)
	registerJob(redrive, &rate, &yes, &wait)
	return group("dead-letters", "See what could not be done, and try it once more", list, show, redrive)
}

func registerJob(cmd *cobra.Command, rate *float64, yes, wait *bool) {
	cmd.Flags().Float64Var(rate, "rate", 0, "attempts a second at most; 0: no limit")
	cmd.Flags().BoolVar(yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(wait, "wait", false, "wait until it is over; exit code 1 when an attempt failed")
}

func (a *app) listLetters(ctx context.Context, f letterFlags, before int64, limit int) error {
	sel, err := f.selection(time.Now())
	if err != nil {
		return err
	}
	if limit < 1 {
		return fmt.Errorf("%w: --limit must be at least 1", run.ErrUsage)
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, _ *settings.File) error {
		letters, err := inspect.DeadLetters(ctx, db, sel, before, limit)
		if err != nil {
			return err
		}
		return a.answer(orEmpty(letters), func(w io.Writer) {
			line(w, "ID", "FAILED", "SOURCE", "EVENT", "OPERATION", "REASON", "ATTEMPTS", "ERROR")
			for _, l := range letters {
				line(w, l.ID, stamp(l.LastFailedAt), deref(l.Source), deref(l.EventID), deref(l.Operation), l.Reason, l.Attempts, l.Error)
			}
		})
	})
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// letterView is a dead letter, with its record when that was asked for.
type letterView struct {
	inspect.DeadLetter
	KeyBase64   *string      `json:"key_base64,omitempty"`
	Headers     []headerView `json:"headers,omitempty"`
	ValueBase64 *string      `json:"value_base64,omitempty"`
	ValueSize   int          `json:"value_size"`
}

type headerView struct {
	Name        string `json:"name"`
	ValueBase64 string `json:"value_base64"`
}

func (a *app) showLetter(ctx context.Context, text string, payload bool, act control.Act) error {
	id, err := number(text)
	if err != nil {
		return err
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, _ *settings.File) error {
		l, err := inspect.DeadLetterRecord(ctx, db, id)
		if errors.Is(err, inspect.ErrNoDeadLetter) {
			return fmt.Errorf("there is no dead letter %d: it was redriven with success, or never there (`catchment dead-letters list`)", id)
		}
		if err != nil {
			return err
		}
		v := letterView{DeadLetter: l.Letter, ValueSize: len(l.Value)}
		if payload {
			if err := control.Viewed(ctx, db, id, act); err != nil {
				return err
			}
			v.KeyBase64, v.ValueBase64 = inBase64(l.Key), inBase64(l.Value)
			for _, h := range l.Headers {
				v.Headers = append(v.Headers, headerView{h.Name, base64.StdEncoding.EncodeToString(h.Value)})
			}
		}
		return a.answer(v, func(w io.Writer) { v.print(w, l) })
	})
}

func inBase64(b []byte) *string {
	s := base64.StdEncoding.EncodeToString(b)
	return &s
}

func (v *letterView) print(w io.Writer, l *inspect.WholeDeadLetter) {
	line(w, "dead letter", v.ID)
	line(w, "source", deref(v.Source))
	line(w, "event", deref(v.EventID))
	line(w, "operation", deref(v.Operation))
	line(w, "reason", v.Reason)
	line(w, "error", v.Error)
	line(w, "attempts", v.Attempts)
	line(w, "failed first", stamp(v.FirstFailedAt))
	line(w, "failed last", stamp(v.LastFailedAt))
	line(w, "Kafka", fmt.Sprintf("%s, partition %d, offset %d", v.Topic, v.Partition, v.Offset))
	if v.Operation == nil {
		line(w, "record", fmt.Sprintf("%d bytes, %d headers", len(l.Value), len(l.Headers)))
	}
	if v.ValueBase64 == nil {
		return
	}
	line(w, "key", string(l.Key))
	for _, h := range l.Headers {
		line(w, "header "+h.Name, string(h.Value))
	}
	line(w, "value", string(l.Value))
}

func (a *app) redrive(ctx context.Context, f letterFlags, rate float64, yes, wait bool, act control.Act) error {
	sel, err := f.selection(time.Now())
	if err == nil {
		err = wrongRate(rate)
	}
	if err != nil {
		return err
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, _ *settings.File) error {
		if err := a.sayNoLetter(ctx, db, sel); err != nil {
			return err
		}
		j, err := control.NewRedrive(ctx, db, sel, rate, act)
		if err != nil {
			return err
		}
		return a.startJob(ctx, db, j, yes, wait, fmt.Sprintf("Try %d dead letters once more?", j.Expected))
	})
}

// sayNoLetter names those of the asked for events and letters that no dead letter fits; the others are tried.
func (a *app) sayNoLetter(ctx context.Context, db *pgxpool.Pool, sel control.Selection) error {
	look := func(one control.Selection, name string) error {
		letters, err := inspect.DeadLetters(ctx, db, one, 0, 1)
		if err == nil && len(letters) == 0 {
			fmt.Fprintf(a.err, "No dead letter %s fits.\n", name)
		}
		return err
	}
	for _, id := range sel.EventIDs {
		one := sel
		one.EventIDs = []string{id}
		if err := look(one, fmt.Sprintf("of event %q", id)); err != nil {
			return err
		}
	}
	for _, id := range sel.Letters {
		one := sel
		one.Letters = []int64{id}
		if err := look(one, fmt.Sprint(id)); err != nil {
			return err
		}
	}
	return nil
}
