package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/catchment-dev/catchment/pkg/benchkit"
)

var columns = []struct {
	title, format string
	of            func(*figures) float64
}{
	{"CPU µs an event", "%.1f", func(f *figures) float64 { return f.cpu }},
	{"MB/s", "%.0f", func(f *figures) float64 { return f.rate }},
	{"bytes an event", "%.0f", func(f *figures) float64 { return f.size }},
	{"greatest RSS MiB", "%.0f", func(f *figures) float64 { return f.memory }},
	{"find one, ms", "%.1f", func(f *figures) float64 { return f.present }},
	{"find none, ms", "%.1f", func(f *figures) float64 { return f.absent }},
	{"foreign cores", "%.2f", func(f *figures) float64 { return f.foreign }},
}

// spread is the median, least and greatest of a figure over the rounds.
func (b *bench) spread(contestant string, of func(*figures) float64) (median, least, greatest float64) {
	var v []float64
	for i := range b.rows {
		if b.rows[i].contests == contestant {
			v = append(v, of(&b.rows[i]))
		}
	}
	return benchkit.Spread(v)
}

func (b *bench) markdown() string {
	var out strings.Builder
	fmt.Fprintf(&out, "Median (least–greatest) of %d rounds in random order; %d rows, %d events in a topic of %d partitions, %d archived events to find one in.\n\n| who |",
		b.o.rounds, b.o.rows, b.o.events, partitions, b.o.found)
	rule := "\n| --- |"
	for _, c := range columns {
		fmt.Fprintf(&out, " %s |", c.title)
		rule += " ---: |"
	}
	out.WriteString(rule + "\n")
	for _, who := range []string{linesName, segmentName, digestsName, recordsName, archiverName, bentoName, filteredName, plainName} {
		if !slices.ContainsFunc(b.rows, func(f figures) bool { return f.contests == who }) {
			continue // it had no turn
		}
		fmt.Fprintf(&out, "| %s |", who)
		for _, c := range columns {
			if m, lo, hi := b.spread(who, c.of); hi > 0 {
				fmt.Fprintf(&out, " "+c.format+" ("+c.format+"–"+c.format+") |", m, lo, hi)
			} else {
				out.WriteString(" |")
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

// ratios are of medians in the same run, and the archiver's memory.
func (b *bench) ratios() map[string]float64 {
	all := map[string]float64{}
	median := func(who string, column int) float64 {
		m, _, _ := b.spread(who, columns[column].of)
		return m
	}
	ratio := func(name string, column int, ours, theirs string) {
		if o, t := median(ours, column), median(theirs, column); o > 0 && t > 0 {
			all[name] = math.Round(1000*o/t) / 1000
		}
	}
	ratio("segment_cpu_vs_zstd", 0, segmentName, linesName)
	if lines := median(linesName, 0); lines > 0 {
		all["encode_cpu_vs_zstd"] = math.Round(1000*(median(segmentName, 0)-median(digestsName, 0))/lines) / 1000
	}
	ratio("records_cpu_vs_zstd", 0, recordsName, linesName)
	ratio("size_vs_zstd", 2, segmentName, linesName)
	ratio("job_cpu_vs_bento", 0, archiverName, bentoName)
	ratio("size_vs_bento", 2, archiverName, bentoName)
	ratio("find_one_without_filters_vs_with", 4, plainName, filteredName)
	ratio("find_none_without_filters_vs_with", 5, plainName, filteredName)
	ratio("filter_bytes", 2, filteredName, plainName)
	if m := median(archiverName, 3); m > 0 {
		all["archiver_rss_mib"], all["archiver_mb_per_second"] = math.Round(m), math.Round(median(archiverName, 1))
	}
	return all
}
