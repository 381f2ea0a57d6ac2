package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/sample"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
)

const (
	linesName   = "zstd of lines of JSON"
	segmentName = "rows to a segment"
	digestsName = "of that, the leaves' digests"
	recordsName = "records to a segment"
)

// start is when the first event came.
var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

var partition = layout.Partition{Topic: "catchment.events", TopicID: [16]byte{1}, Number: 3}

// encoders work on the same events in this process: their lines are there already, and so are their rows.
func (b *bench) encoders() ([]contestant, error) {
	records, err := sample.Records(b.o.rows, 0, start)
	if err != nil {
		return nil, err
	}
	var lines []byte
	var raw int64
	rows := make([]*row.Row, len(records))
	for i, r := range records {
		r.Topic, r.Partition = partition.Topic, partition.Number
		raw += row.RecordSize(r)
		rows[i] = row.From(r, partition.TopicID)
		line, err := sample.Line(rows[i])
		if err != nil {
			return nil, err
		}
		lines = append(lines, line...)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	out := encoder.EncodeAll(lines, nil)
	turn := func(encode func() (size int, err error)) func(context.Context, *figures) error {
		return func(_ context.Context, f *figures) error {
			runtime.GC() // what the one before has left
			m, err := begin(os.Getpid())
			if err != nil {
				return err
			}
			size, err := encode()
			if err != nil {
				return err
			}
			f.size = float64(size) / float64(len(records))
			return m.end(f, len(records), raw)
		}
	}
	return []contestant{
		{linesName, turn(func() (int, error) {
			out = encoder.EncodeAll(lines, out[:0])
			return len(out), nil
		})},
		{segmentName, turn(func() (int, error) { return build(records, func(i int) *row.Row { return rows[i] }) })},
		{digestsName, turn(func() (int, error) { return 0, digest(rows) })},
		{recordsName, turn(func() (int, error) {
			maker := row.Maker{}
			return build(records, func(i int) *row.Row { return maker.From(records[i], partition.TopicID) })
		})},
	}, nil
}

// digest hashes the rows as leaves of a segment's tree, and does nothing else.
func digest(rows []*row.Row) error {
	var leaf, sum []byte
	h := sha256.New()
	for _, w := range rows {
		h.Reset()
		h.Write([]byte{0})
		leaf = w.WriteLeaf(h, leaf)
		sum = h.Sum(sum[:0])
	}
	if len(sum) == 0 {
		return errors.New("no rows")
	}
	return nil
}

func build(records []*kgo.Record, at func(i int) *row.Row) (int, error) {
	w := segment.NewBuilder(partition, 0, "bench")
	for i, r := range records {
		if err := w.Append(at(i), 0, row.RecordSize(r)); err != nil {
			return 0, err
		}
	}
	s, err := w.Finish("")
	if err != nil {
		return 0, fmt.Errorf("segment: %w", err)
	}
	return len(s.Body), nil
}
