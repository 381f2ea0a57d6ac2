package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/judge"
	"github.com/catchment-dev/catchment/pkg/run"
)

func newProveJudge(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "judge DIR",
		Short: "Judge the folder of a run",
		Long: `Judge the folder of a run again, from its journal, dumps, facts and logs alone.

The last line is JSON; DIR/verdict.json has all that was found. The exit code is 1 unless the run is valid and
passes every check.`,
		Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			v, err := judge.Judge(args[0])
			if err != nil {
				return fmt.Errorf("%w: %w", run.ErrUsage, err)
			}
			if err := folder.Write(args[0], folder.VerdictFile, v); err != nil {
				return err
			}
			return a.sentence(v)
		},
	}
}

// sentence prints a verdict, and is an error unless the run passes.
func (a *app) sentence(v *judge.Verdict) error {
	if a.output == "table" {
		printVerdict(a.out, v)
	}
	fmt.Fprintln(a.out, v.Line())
	if !v.Passed() {
		return errSaid
	}
	return nil
}

func printVerdict(w io.Writer, v *judge.Verdict) {
	fmt.Fprintf(w, "%d events in %d requests: %d acknowledged, %d unknown, %d rejected; %d faults of %d kinds; seed %d\n",
		v.Events, v.Attempts, v.Acked, v.Unknown, v.Rejected, v.Faults, v.Kinds, v.Seed)
	for _, c := range v.Checks {
		said := "ok"
		if !c.OK {
			said = fmt.Sprintf("%d found", c.Count)
		}
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%2d  %-14s %-12s %s", c.Number, c.Name, said, c.Note), " "))
		for _, f := range c.Found {
			fmt.Fprintf(w, "      %s\n", clean(f))
		}
	}
	for _, reason := range v.Invalid {
		fmt.Fprintf(w, "not valid: %s\n", clean(reason))
	}
}
