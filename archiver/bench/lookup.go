package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/sample"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
)

const (
	filteredName = "look-up, bloom filters"
	plainName    = "look-up, none"
	archiveFiles = 10
)

// lookUps has DuckDB find events by their IDs, in two archives that differ in their bloom filters only.
func (b *bench) lookUps(ctx context.Context) error {
	ids, err := b.archives()
	if err != nil {
		return err
	}
	asked := map[string]any{"views": filepath.Join(b.o.root, "schemas", "views", "duckdb.sql"), "ids": ids, "rounds": b.o.rounds, "archives": map[string]string{
		filteredName: filepath.Join(b.dir, filteredName), plainName: filepath.Join(b.dir, plainName),
	}}
	input, err := json.Marshal(asked)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.o.python, filepath.Join(b.o.root, "archiver", "bench", "lookup.py"))
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("look-ups: %w", err)
	}
	var took []struct {
		Archive         string
		Present, Absent float64 // ms
	}
	if err := json.Unmarshal(out, &took); err != nil {
		return fmt.Errorf("look-ups: %w", err)
	}
	for _, t := range took {
		size, err := sizeOf(filepath.Join(b.dir, t.Archive))
		if err != nil {
			return err
		}
		b.rows = append(b.rows, figures{contests: t.Archive, present: t.Present, absent: t.Absent, size: float64(size) / float64(b.o.found)})
	}
	return nil
}

// archives writes the events into ten segments, with bloom filters and without, and returns some of their IDs.
func (b *bench) archives() (ids []string, err error) {
	each := b.o.found / archiveFiles
	for n := range archiveFiles {
		first := n * each
		records, err := sample.Records(each, first, start)
		if err != nil {
			return nil, err
		}
		builders := map[string]*segment.Builder{
			filteredName: segment.NewBuilder(partition, int64(first), "bench"),
			plainName:    segment.NewBuilder(partition, int64(first), "bench", parquet.BloomFilters()),
		}
		for name, w := range builders {
			for _, r := range records {
				r.Topic, r.Partition = partition.Topic, partition.Number
				if err := w.Append(row.From(r, partition.TopicID), 0, row.RecordSize(r)); err != nil {
					return nil, err
				}
			}
			s, err := w.Finish("")
			if err != nil {
				return nil, err
			}
			file := filepath.Join(b.dir, name, filepath.FromSlash(s.Key(layout.Events)))
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				return nil, err
			}
			if err := os.WriteFile(file, s.Body, 0o600); err != nil {
				return nil, err
			}
		}
		for i := range 6 {
			ids = append(ids, string(records[(i*each)/6+each/12].Key))
		}
	}
	return ids, nil
}

func sizeOf(dir string) (size int64, err error) {
	found, err := filepath.Glob(filepath.Join(dir, "events", "*", "*.parquet"))
	if err != nil {
		return 0, err
	}
	for _, file := range found {
		info, err := os.Stat(file)
		if err != nil {
			return 0, err
		}
		size += info.Size()
	}
	if size == 0 {
		return 0, fmt.Errorf("nothing in %s", strings.TrimSuffix(dir, "/"))
	}
	return size, nil
}
