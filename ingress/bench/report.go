package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/pkg/benchkit"
)

func (r *row) perSecond() float64 { return float64(r.accepted) / r.seconds }

// each is CPU in µs for an accepted event.
func (r *row) each(cpu time.Duration) float64 {
	return float64(cpu.Microseconds()) / float64(r.accepted)
}

var figures = []struct {
	title  string
	format string
	of     func(*row) float64
}{
	{"accepted/s", "%.0f", (*row).perSecond},
	{"p50 ms", "%.1f", func(r *row) float64 { return float64(r.percentile(.50).Microseconds()) / 1000 }},
	{"p99 ms", "%.1f", func(r *row) float64 { return float64(r.percentile(.99).Microseconds()) / 1000 }},
	{"ingress CPU µs", "%.1f", func(r *row) float64 { return r.each(r.server) }},
	{"brokers' CPU µs", "%.1f", func(r *row) float64 { return r.each(r.brokers) }},
	{"RSS MiB", "%.0f", func(r *row) float64 { return float64(r.memory) }},
	{"foreign cores", "%.2f", func(r *row) float64 { return math.Max(0, r.foreign.Seconds()/r.seconds) }},
}

// spread is the median, least and greatest of a figure over the rounds.
func spread(rows []row, contestant, offer string, of func(*row) float64) (median, least, greatest float64) {
	var v []float64
	for i := range rows {
		if rows[i].contestant == contestant && rows[i].offer == offer {
			v = append(v, of(&rows[i]))
		}
	}
	return benchkit.Spread(v)
}

func names(rows []row) []string {
	var n []string
	for _, r := range rows {
		if !slices.Contains(n, r.contestant) {
			n = append(n, r.contestant)
		}
	}
	slices.SortFunc(n, func(a, b string) int { return cmp.Compare(place(a), place(b)) })
	return n
}

func place(contestant string) int {
	return slices.Index([]string{"catchment", "bare", "bento"}, contestant)
}

func markdown(rows []row, rounds int, window time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Median (least–greatest) of %d rounds of %s each, in random order.\n\n| load | who |", rounds, window)
	rule := "\n| --- | --- |"
	for _, f := range figures {
		fmt.Fprintf(&b, " %s |", f.title)
		rule += " ---: |"
	}
	b.WriteString(rule + "\n")
	for _, offer := range offers {
		for _, who := range names(rows) {
			fmt.Fprintf(&b, "| %s | %s |", offer.name, who)
			for _, f := range figures {
				m, lo, hi := spread(rows, who, offer.name, f.of)
				fmt.Fprintf(&b, " "+f.format+" ("+f.format+"–"+f.format+") |", m, lo, hi)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// ratios are medians of Catchment by medians of another, in the same run.
func ratios(rows []row) map[string]map[string]float64 {
	all := map[string]map[string]float64{}
	for _, who := range names(rows)[1:] {
		for _, offer := range offers {
			for title, of := range map[string]func(*row) float64{
				"ingress_cpu": func(r *row) float64 { return r.each(r.server) }, "broker_cpu": func(r *row) float64 { return r.each(r.brokers) }, "accepted_rate": (*row).perSecond,
			} {
				ours, _, _ := spread(rows, "catchment", offer.name, of)
				theirs, _, _ := spread(rows, who, offer.name, of)
				name := title + "_vs_" + who
				if all[name] == nil {
					all[name] = map[string]float64{}
				}
				all[name][offer.name] = math.Round(100*ours/theirs) / 100
			}
		}
	}
	return all
}
