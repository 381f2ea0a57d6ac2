package prove

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/judge"
)

// Table writes what a run has shown as Markdown: its figures, the faults by kind, and what had a limit in time.
func Table(w io.Writer, dir string) error {
	var run folder.Run
	var facts folder.Facts
	var v judge.Verdict
	for name, into := range map[string]any{folder.RunFile: &run, folder.FactsFile: &facts, folder.VerdictFile: &v} {
		if err := folder.Read(dir, name, into); err != nil {
			return err
		}
	}
	kinds := map[string]int{}
	for f, err := range folder.Each[folder.Fault](dir, folder.FaultsFile, nil) {
		if err != nil {
			return err
		}
		if f.Phase == "begin" && f.Error == "" {
			kinds[f.Kind]++
		}
	}
	var versions []string
	for _, name := range slices.Sorted(maps.Keys(run.Versions)) {
		versions = append(versions, name+" "+run.Versions[name])
	}
	row := func(name string, value any) { fmt.Fprintf(w, "| %s | %v |\n", name, value) }
	fmt.Fprintf(w, "| figure | of the run |\n| --- | --- |\n")
	row("seed", v.Seed)
	row("began, took", run.Started.UTC().Format(time.DateOnly)+", "+run.Stopped.Sub(run.Started).Round(time.Second).String())
	row("versions", strings.Join(versions, ", "))
	row("events sent, in requests", fmt.Sprintf("%d, %d", v.Events, v.Attempts))
	row("acknowledged, unknown, rejected", fmt.Sprintf("%d, %d, %d", v.Acked, v.Unknown, v.Rejected))
	row("faults, kinds", fmt.Sprintf("%d, %d", v.Faults, v.Kinds))
	row("lost, doubled, invented, gone backwards", fmt.Sprintf("%d, %d, %d, %d", v.Lost, v.Doubled, v.Invented, v.Regressed))
	row("valid; checks that failed", fmt.Sprintf("%t; %v", v.Valid, v.Failed()))
	for _, name := range slices.Sorted(maps.Keys(v.Counters)) {
		row(strings.ReplaceAll(name, "_", " "), v.Counters[name])
	}
	timings(w, facts.Timings)
	fmt.Fprintf(w, "\n| fault | times |\n| --- | --- |\n")
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		row("`"+kind+"`", kinds[kind])
	}
	return nil
}

// timings are the figures of what had a limit, by name.
func timings(w io.Writer, all []folder.Timing) {
	byName, bounds := map[string][]float64{}, map[string]float64{}
	for _, t := range all {
		byName[t.Name] = append(byName[t.Name], t.Seconds)
		bounds[t.Name] = t.Bound
	}
	fmt.Fprintf(w, "\n| from, to | measured | median | longest | limit |\n| --- | --- | --- | --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		seconds := byName[name]
		slices.Sort(seconds)
		limit := "-"
		if b := bounds[name]; b > 0 {
			limit = fmt.Sprintf("%.0f s", b)
		}
		fmt.Fprintf(w, "| %s | %d times | %.1f s | %.1f s | %s |\n", name, len(seconds), seconds[int(math.Ceil(float64(len(seconds))/2))-1], seconds[len(seconds)-1], limit)
	}
}
