//go:build mutant

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove"
	"github.com/catchment-dev/catchment/pkg/mutant"
	"github.com/catchment-dev/catchment/pkg/run"
)

// proveMutants adds the command that runs broken builds.
func proveMutants(a *app, to *cobra.Command, f *proveFlags) {
	cmd := &cobra.Command{
		Use:   "mutants [NAME]...",
		Short: "Break the programs on purpose, and see whether the judge notices",
		Long: `Run the whole system with each of the mutations in turn, under the faults that it cannot bear, until the judge has caught
it; and before that without any, under the faults of all, where nothing may be found. It needs programs that were built
with the tag mutant. The last line is JSON; the exit code is 0 only when every one was caught.`,
		RunE: func(cmd *cobra.Command, names []string) error { return a.mutants(cmd.Context(), f, names) },
	}
	fs := cmd.Flags()
	for _, name := range []string{"dir", "seed", "kafka", "java", "postgres", "versitygw", "programs"} {
		fs.AddFlag(to.Flags().Lookup(name))
	}
	to.AddCommand(cmd)
}

func (a *app) mutants(ctx context.Context, f *proveFlags, names []string) error {
	cases := prove.Cases()
	for _, n := range names {
		if !slices.Contains(mutant.All(), mutant.Mutant(n)) {
			return fmt.Errorf("%w: there is no mutation %q: expected one of %v", run.ErrUsage, n, mutant.All())
		}
	}
	if len(names) > 0 {
		cases = slices.DeleteFunc(cases, func(c prove.Case) bool { return !slices.Contains(names, string(c.Mutant)) })
	}
	if err := findPrograms(&f.Programs, f.programs); err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	if err := proveDir(&f.Dir); err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	f.Version, f.Say = run.Version, a.sayer()
	caught, sound := 0, true
	err := prove.Mutants(ctx, f.Options, cases, func(c prove.Catch) {
		printCatch(a.out, c)
		switch {
		case c.Mutant == "":
			sound = sound && c.Caught
		case c.Caught:
			caught++
		}
	})
	if err != nil {
		return fmt.Errorf("no verdict: %w; see %s", err, f.Dir)
	}
	line, err := json.Marshal(struct {
		Mutants int `json:"mutants"`
		Caught  int `json:"caught"`
	}{len(cases), caught})
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s\n", line)
	if caught < len(cases) || !sound {
		return errSaid
	}
	return nil
}

func printCatch(w io.Writer, c prove.Catch) {
	name, said := string(c.Mutant), "NOT CAUGHT"
	switch {
	case name == "" && c.Caught:
		name, said = "sound", "is sound"
	case name == "":
		name, said = "sound", "WRONGLY ACCUSED"
	case c.Caught:
		said = "caught"
	}
	fmt.Fprintf(w, "%-6s %-15s try %d, %3.0f s  %-14s %s\n", name, said, c.Tries, c.Took.Seconds(), c.Check, clean(c.Found))
}
