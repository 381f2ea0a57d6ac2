package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// sizesQuery is documented in docs/growth.md.
//
//go:embed sizes.sql
var sizesQuery string

// watch prints the memory of the processor at each twentieth of the work, and returns the most that it took, in MiB.
func watch(ctx context.Context, o *options, out io.Writer, pid int) (peak int, err error) {
	fmt.Fprintf(out, "| events | seconds | events/s | RSS MiB | heap in use MiB | buffered MiB |\n| ---: | ---: | ---: | ---: | ---: | ---: |\n")
	began, moved := time.Now(), time.Now()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	last, told := 0, 0
	for {
		select {
		case <-ctx.Done():
			return peak, ctx.Err()
		case <-tick.C:
		}
		rss, err := residentMiB(pid)
		if err != nil {
			return peak, err
		}
		peak = max(peak, rss)
		m, err := metrics(ctx)
		if err != nil && time.Since(began) > o.patience {
			return peak, err
		}
		done := int(m["catchment_processor_events_total"])
		if done > last {
			last, moved = done, time.Now()
		} else if time.Since(moved) > o.patience {
			return peak, fmt.Errorf("no progress for %s at %d events", o.patience, done)
		}
		if step := done * 20 / o.events; step > told {
			told = step
			spent := time.Since(began).Seconds()
			fmt.Fprintf(out, "| %d | %.0f | %.0f | %d | %.0f | %.0f |\n", done, spent, float64(done)/spent, rss,
				m["go_memstats_heap_inuse_bytes"]/(1<<20), m["catchment_processor_buffered_bytes"]/(1<<20))
		}
		if done >= o.events {
			fmt.Fprintf(out, "\nMost memory: %d MiB.\n\n", peak)
			return peak, nil
		}
	}
}

// residentMiB is a process's VmHWM, which no sampling misses, reset at each call.
func residentMiB(pid int) (int, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				return 0, err
			}
			// 5: the mark begins again at what is resident now; not possible everywhere, and then the mark only rises.
			_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o200)
			return kib >> 10, nil
		}
	}
	return 0, errors.Join(lines.Err(), errors.New("the processor has ended"))
}

// metrics adds up each metric's samples.
func metrics(ctx context.Context) (map[string]float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+opsAddr+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	sum := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		end := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || end < 0 {
			continue
		}
		name, _, _ := strings.Cut(line[:end], "{")
		if v, err := strconv.ParseFloat(line[end+1:], 64); err == nil {
			sum[name] += v
		}
	}
	return sum, lines.Err()
}

// sizes prints what the tables take.
func sizes(ctx context.Context, db *pgx.Conn, out io.Writer, events int) error {
	rows, err := db.Query(ctx, sizesQuery)
	if err != nil {
		return fmt.Errorf("sizes of the tables: %w", err)
	}
	fmt.Fprintf(out, "| table | MiB per million events | of it indexes |\n| --- | ---: | ---: |\n")
	var name string
	var table, index int64
	scale := func(n int64) float64 { return float64(n) / (1 << 20) * 1e6 / float64(events) }
	if _, err := pgx.ForEachRow(rows, []any{&name, &table, &index}, func() error {
		fmt.Fprintf(out, "| `%s` | %.0f | %.0f |\n", name, scale(table+index), scale(index))
		return nil
	}); err != nil {
		return fmt.Errorf("sizes of the tables: %w", err)
	}
	return nil
}
