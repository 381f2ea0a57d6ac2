package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/pkg/benchkit"
)

func (r *row) perSecond() float64 { return float64(r.events) / r.took.Seconds() }

// each is CPU in µs for an event.
func (r *row) each(cpu time.Duration) float64 {
	return float64(cpu.Microseconds()) / float64(r.events)
}

func postgresCPU(r *row) float64 { return r.each(r.postgres) }

func clientCPU(r *row) float64 { return r.each(r.client) }

var figures = []struct {
	title  string
	format string
	of     func(*row) float64
}{
	{"events/s", "%.0f", (*row).perSecond},
	{"Postgres CPU µs", "%.1f", postgresCPU},
	{"program's CPU µs", "%.1f", clientCPU},
	{"RSS MiB", "%.0f", func(r *row) float64 { return float64(r.memory) }},
	{"foreign cores", "%.2f", func(r *row) float64 { return math.Max(0, r.foreign.Seconds()/r.took.Seconds()) }},
}

// spread is the median, least and greatest of a figure over the rounds.
func spread(rows []row, contestant string, of func(*row) float64) (median, least, greatest float64) {
	var v []float64
	for i := range rows {
		if rows[i].contestant == contestant {
			v = append(v, of(&rows[i]))
		}
	}
	return benchkit.Spread(v)
}

func markdown(rows []row, rounds, events int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Median (least–greatest) of %d rounds in random order; %d events each, the first quarter unmeasured.\n\n| who |", rounds, events)
	rule := "\n| --- |"
	for _, f := range figures {
		fmt.Fprintf(&b, " %s |", f.title)
		rule += " ---: |"
	}
	b.WriteString(rule + "\n")
	for _, who := range []string{catchmentName, publishedName, statementName, lz4Name, bentoName, oneByOneName, perEventName} {
		if m, _, _ := spread(rows, who, (*row).perSecond); m == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s |", who)
		for _, f := range figures {
			m, lo, hi := spread(rows, who, f.of)
			fmt.Fprintf(&b, " "+f.format+" ("+f.format+"–"+f.format+") |", m, lo, hi)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// ratios are medians of Catchment by medians of another, in the same run.
func ratios(rows []row) map[string]float64 {
	all := map[string]float64{}
	for name, r := range map[string]struct {
		who string
		of  func(*row) float64
	}{
		"rate_vs_statement": {statementName, (*row).perSecond}, "postgres_cpu_vs_statement": {statementName, postgresCPU},
		"rate_vs_statement_lz4": {lz4Name, (*row).perSecond}, "postgres_cpu_vs_statement_lz4": {lz4Name, postgresCPU},
		"processor_cpu_vs_bento": {bentoName, clientCPU}, "rate_vs_bento": {bentoName, (*row).perSecond},
		"rate_vs_event_a_transaction": {perEventName, (*row).perSecond}, "rate_vs_statement_an_event": {oneByOneName, (*row).perSecond},
	} {
		ours, _, _ := spread(rows, catchmentName, r.of)
		theirs, _, _ := spread(rows, r.who, r.of)
		if ours > 0 && theirs > 0 {
			all[name] = math.Round(100*ours/theirs) / 100
		}
	}
	return all
}
