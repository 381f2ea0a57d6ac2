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
	return open(r, size, parquet.SkipBloomFilters(true), parquet.SkipPageIndex(true))
}

func open(r io.ReaderAt, size int64, options ...parquet.FileOption) (*File, error) {
	f, err := parquet.OpenFile(r, size, options...)
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
		t.addRow(w)
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

// Lookup returns the rows with an event ID. It reads the footer and the bloom filters, of a row group that may hold the
// ID the column of IDs, and of rows that do the pages they lie on.
func Lookup(r io.ReaderAt, size int64, eventID string) ([]*row.Row, error) {
	f, err := open(r, size, parquet.SkipPageIndex(true))
	if err != nil {
		return nil, err
	}
	column, _ := f.file.Schema().Lookup(row.EventIDColumn)
	id := parquet.ValueOf(eventID)
	var found []int64
	before := int64(0)
	for _, group := range f.file.RowGroups() {
		chunk := group.ColumnChunks()[column.ColumnIndex]
		held := true
		if filter := chunk.BloomFilter(); filter != nil {
			if held, err = filter.Check(id); err != nil {
				return nil, fmt.Errorf("%w: bloom filter: %w", ErrDamaged, err)
			}
		}
		if held {
			numbers, err := rowsOf(chunk, eventID)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
			}
			for _, n := range numbers {
				found = append(found, before+n)
			}
		}
		before += group.NumRows()
	}
	if len(found) == 0 {
		return nil, nil
	}
	return pick(r, size, found)
}

// rowsOf are the numbers of a row group's rows whose event ID this is.
func rowsOf(chunk parquet.ColumnChunk, eventID string) (numbers []int64, err error) {
	pages := chunk.Pages()
	defer func() { err = errors.Join(err, pages.Close()) }()
	values := make([]parquet.Value, 1024)
	for number := int64(0); ; {
		page, err := pages.ReadPage()
		if errors.Is(err, io.EOF) {
			return numbers, nil
		}
		if err != nil {
			return nil, err
		}
		for in := page.Values(); ; {
			n, err := in.ReadValues(values)
			for i := range values[:n] {
				if !values[i].IsNull() && string(values[i].ByteArray()) == eventID {
					numbers = append(numbers, number)
				}
				number++
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
		}
		parquet.Release(page)
	}
}

// pick reads single rows by their numbers, which ascend.
func pick(r io.ReaderAt, size int64, numbers []int64) (rows []*row.Row, err error) {
	f, err := open(r, size, parquet.SkipBloomFilters(true)) // with the index that says on which page a row lies
	if err != nil {
		return nil, err
	}
	reader := parquet.NewReader(f.file, row.Schema())
	defer func() { err = errors.Join(err, reader.Close()) }()
	buffer := make([]parquet.Row, 1)
	for _, number := range numbers {
		if err := reader.SeekToRow(number); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if n, err := reader.ReadRows(buffer); n != 1 {
			return nil, fmt.Errorf("%w: row %d: %w", ErrDamaged, number, err)
		}
		w, err := row.Parse(buffer[0])
		if err == nil && w.Offset != f.First+number {
			err = fmt.Errorf("expected offset %d, found %d", f.First+number, w.Offset)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		rows = append(rows, w)
	}
	return rows, nil
}
