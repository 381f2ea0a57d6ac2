// Package benchkit is what the benchmark programs have in common. Processes and figures come in; CPU times, the spread of
// rounds and a document's table go out. It never starts what it measures, and no service links it.
package benchkit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/pkg/run"
)

// Main runs a benchmark program until it has ended or is interrupted, and returns its exit code.
func Main(name string, command func(ctx context.Context, args []string, out io.Writer) error) int {
	ctx, stop := run.Signals(context.Background())
	err := command(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return run.ExitFailed
	}
	return run.ExitOK
}

// Tick is the unit of CPU times in /proc on Linux.
const Tick = 10 * time.Millisecond

// Stat reads fields of /proc/PID/stat, by their numbers in proc(5).
func Stat(pid int, fields ...int) (map[int]int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	out := map[int]int{}
	for _, n := range fields {
		if out[n], err = strconv.Atoi(f[n-3]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// CPU is the CPU time that a process has used.
func CPU(pid int) (time.Duration, error) {
	f, err := Stat(pid, 14, 15)
	return time.Duration(f[14]+f[15]) * Tick, err
}

// MachineCPU is the CPU time that all processes have used.
func MachineCPU() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	var sum int
	for i, f := range strings.Fields(line)[1:] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		if i != 3 && i != 4 && i < 8 { // idle, iowait, guests
			sum += n
		}
	}
	return time.Duration(sum) * Tick, nil
}

// Memory is a process's resident memory in MiB.
func Memory(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	pages, _ := strconv.Atoi(strings.Fields(string(b))[1])
	return pages * os.Getpagesize() >> 20
}

// Spread is the median, least and greatest of a figure over the rounds; zeros: there are none. It sorts v.
func Spread(v []float64) (median, least, greatest float64) {
	if len(v) == 0 {
		return 0, 0, 0
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2, v[0], v[len(v)-1]
}

// Report prints the table and the ratios, the latter as one line of JSON, and puts the table into a document, unless file
// is empty.
func Report(out io.Writer, file, mark, table string, ratios any) error {
	if file != "" {
		if err := replaceTable(file, mark, table); err != nil {
			return err
		}
	}
	line, err := json.Marshal(ratios)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n%s\n", table, line)
	return err
}

// replaceTable puts the table between its marks in a document.
func replaceTable(file, mark, table string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin, end := "<!-- "+mark+": made by make bench-"+mark+" -->\n", "<!-- end of "+mark+" -->"
	head, rest, ok := strings.Cut(string(b), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the table: %q … %q", file, begin, end)
	}
	return os.WriteFile(file, []byte(head+begin+"\n"+table+"\n"+end+tail), 0o644)
}
