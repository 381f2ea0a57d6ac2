package segment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/parquet-go/parquet-go"

	"github.com/catchment-dev/catchment/archiver/internal/row"
)

// File is a segment that is read.
type File struct {
	Info // without the day
	file *parquet.File
}

// Open reads the footer. The error wraps ErrDamaged when the bytes are not a segment.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f, err := parquet.OpenFile(r, size, parquet.SkipBloomFilters(true), parquet.SkipPageIndex(true))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	info, err := parseInfo(f.Lookup)
	if err != nil {
		return nil, fmt.Errorf("%w: footer: %w", ErrDamaged, err)
	}
	if f.NumRows() != info.Count() {
		return nil, fmt.Errorf("%w: %d rows, but the footer says %d", ErrDamaged, f.NumRows(), info.Count())
	}
	if info.SchemaVersion != row.SchemaVersion {
		return nil, fmt.Errorf("schema version %d was written by another release: this one reads version %d", info.SchemaVersion, row.SchemaVersion)
	}
	if !parquet.EqualNodes(f.Schema(), row.Schema()) {
		return nil, fmt.Errorf("%w: the columns are not those of schema version %d", ErrDamaged, info.SchemaVersion)
	}
	return &File{Info: info, file: f}, nil
}

// OpenBytes is Open for a file in memory.
func OpenBytes(body []byte) (*File, error) { return Open(bytes.NewReader(body), int64(len(body))) }

// Rows yields the rows from the one with offset from on, in order of their offsets. It stops after an error.
func (f *File) Rows(from int64) iter.Seq2[*row.Row, error] {
	return func(yield func(*row.Row, error) bool) {
		skip := max(from-f.First, 0)
		if skip >= f.Count() {
			return
		}
		reader := parquet.NewReader(f.file, row.Schema())
		defer func() { _ = reader.Close() }()
		if err := reader.SeekToRow(skip); err != nil {
			yield(nil, fmt.Errorf("%w: %w", ErrDamaged, err))
			return
		}
		buffer := make([]parquet.Row, 64)
		for want := f.First + skip; want <= f.Last; {
			n, err := reader.ReadRows(buffer)
			for _, values := range buffer[:n] {
				w, err := row.Parse(values)
				if err == nil && w.Offset != want {
					err = fmt.Errorf("expected offset %d, found %d", want, w.Offset)
				}
				if err != nil {
					yield(nil, fmt.Errorf("%w: %w", ErrDamaged, err))
					return
				}
				want++
				if !yield(w, nil) {
					return
				}
			}
			if err != nil && !errors.Is(err, io.EOF) || err != nil && want <= f.Last {
				yield(nil, fmt.Errorf("%w: %w", ErrDamaged, err))
				return
			}
		}
	}
}

// Verify reads all rows: their offsets are a gapless run, they are of the partition that the footer names, and the
// Merkle root over them is the footer's. It sets the day. each, which may be nil, is called for every row.
func (f *File) Verify(each func(*row.Row) error) error {
	var t tree
	var leaf []byte
	for w, err := range f.Rows(f.First) {
		if err != nil {
			return err
		}
		if w.Topic != f.Partition.Topic || w.TopicID != f.Partition.TopicID || w.Partition != f.Partition.Number {
			return fmt.Errorf("%w: offset %d is of another partition", ErrDamaged, w.Offset)
		}
		if t.size == 0 {
			f.Day = w.KafkaTimestamp
		}
		leaf = w.AppendLeaf(append(leaf[:0], leafPrefix))
		t.add(leaf)
		if each != nil {
			if err := each(w); err != nil {
				return err
			}
		}
	}
	if t.root() != f.Root {
		return fmt.Errorf("%w: the Merkle root over the rows is not the footer's", ErrDamaged)
	}
	return nil
}

// MayHold says whether the event ID can be in the segment, by its bloom filters. It reads those only.
func MayHold(r io.ReaderAt, size int64, eventID string) (bool, error) {
	f, err := parquet.OpenFile(r, size, parquet.SkipPageIndex(true))
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	column, ok := f.Schema().Lookup(row.EventIDColumn)
	if !ok {
		return false, fmt.Errorf("%w: no column %s", ErrDamaged, row.EventIDColumn)
	}
	for _, group := range f.RowGroups() {
		filter := group.ColumnChunks()[column.ColumnIndex].BloomFilter()
		if filter == nil {
			return true, nil
		}
		held, err := filter.Check(parquet.ValueOf(eventID))
		if err != nil {
			return false, fmt.Errorf("bloom filter: %w", err)
		}
		if held {
			return true, nil
		}
	}
	return false, nil
}
