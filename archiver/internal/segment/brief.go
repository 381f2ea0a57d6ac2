package segment

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/pkg/event"
)

// Brief is whose a record is and what digest it has, without its bytes.
type Brief struct {
	Offset              int64
	KafkaTimestamp      time.Time
	Source, EventID     string
	DeliveryID, Verdict string
	BodySHA256          [32]byte
	Whole               *row.Row // of what is not one plain event: several events, no delivery, a text that is not UTF-8
	odd                 bool
}

// BriefOf is a row in short.
func BriefOf(w *row.Row) Brief {
	b := Brief{
		Offset: w.Offset, KafkaTimestamp: w.KafkaTimestamp, Source: w.Source, EventID: w.EventID, DeliveryID: w.DeliveryID,
		Verdict: w.Verdict, BodySHA256: w.BodySHA256,
	}
	b.odd = slices.ContainsFunc(w.Attributes, func(a row.Attribute) bool { return row.IsArchives([]byte(a.Name)) })
	if b.settle(); b.odd {
		b.Whole = w
	}
	return b
}

// settle says whether the brief is not all there is to know.
func (b *Brief) settle() {
	b.odd = b.odd || event.Verdict(b.Verdict).Has(event.FlagBatch) || len(b.EventID) > longestID || len(b.Source) > longestID ||
		strings.Contains(b.EventID, "\x00") || strings.Contains(b.Source, "\x00")
}

// Briefs yields the rows in short, a row group at a time, in order of their offsets. It reads a few columns, and whole rows
// only where they are needed. It stops after an error.
func (f *File) Briefs() iter.Seq2[[]Brief, error] {
	return func(yield func([]Brief, error) bool) {
		next := f.First
		for _, group := range f.file.RowGroups() {
			briefs, err := f.briefs(group, next)
			if err != nil {
				yield(nil, fmt.Errorf("%w: %w", ErrDamaged, err))
				return
			}
			next += int64(len(briefs))
			if !yield(briefs, nil) {
				return
			}
		}
	}
}

// longestID is the longest event ID of a plain event, in bytes.
const longestID = 1024

func (f *File) briefs(group parquet.RowGroup, first int64) ([]Brief, error) {
	briefs := make([]Brief, group.NumRows())
	known := map[string]string{} // texts that are in many rows
	shared := func(v parquet.Value) string {
		b := v.ByteArray()
		s, ok := known[string(b)]
		if !ok {
			s = string(b)
			known[s] = s
		}
		return s
	}
	for _, c := range []struct {
		path []string
		set  func(*Brief, parquet.Value) error
	}{
		{[]string{"offset"}, func(b *Brief, v parquet.Value) error { b.Offset = v.Int64(); return nil }},
		{[]string{"kafka_timestamp"}, func(b *Brief, v parquet.Value) error { b.KafkaTimestamp = time.UnixMicro(v.Int64()).UTC(); return nil }},
		{[]string{"source"}, func(b *Brief, v parquet.Value) error { b.Source = shared(v); return nil }},
		{[]string{row.EventIDColumn}, func(b *Brief, v parquet.Value) error { b.EventID = string(v.ByteArray()); return nil }},
		{[]string{"delivery_id"}, func(b *Brief, v parquet.Value) error { b.DeliveryID = string(v.ByteArray()); return nil }},
		{[]string{"verdict"}, func(b *Brief, v parquet.Value) error { b.Verdict = shared(v); return nil }},
		{[]string{"body_sha256"}, func(b *Brief, v parquet.Value) error {
			if n := copy(b.BodySHA256[:], v.ByteArray()); n != len(b.BodySHA256) {
				return fmt.Errorf("body_sha256 has %d bytes", n)
			}
			return nil
		}},
		{[]string{"attributes", "key_value", "key"}, func(b *Brief, v parquet.Value) error { b.odd = b.odd || row.IsArchives(v.ByteArray()); return nil }},
	} {
		column, ok := f.file.Schema().Lookup(c.path...)
		if !ok {
			return nil, fmt.Errorf("no column %v", c.path)
		}
		if err := readColumn(group.ColumnChunks()[column.ColumnIndex], briefs, c.set); err != nil {
			return nil, fmt.Errorf("column %v: %w", c.path, err)
		}
	}
	for i := range briefs {
		b := &briefs[i]
		if b.Offset != first+int64(i) {
			return nil, fmt.Errorf("expected offset %d, found %d", first+int64(i), b.Offset)
		}
		b.settle()
	}
	return briefs, f.wholes(briefs)
}

// readColumn calls set for each value of a column that is not null, with the row that it is of.
func readColumn(chunk parquet.ColumnChunk, briefs []Brief, set func(*Brief, parquet.Value) error) (err error) {
	reader := parquet.NewColumnChunkValueReader(chunk)
	defer func() { err = errors.Join(err, reader.Close()) }()
	buffer := make([]parquet.Value, 1024)
	at := -1
	for {
		n, err := reader.ReadValues(buffer)
		for _, v := range buffer[:n] {
			if v.RepetitionLevel() == 0 {
				at++
			}
			if at < 0 || at >= len(briefs) {
				return fmt.Errorf("more values than the %d rows have", len(briefs))
			}
			if v.IsNull() {
				continue
			}
			if err := set(&briefs[at], v); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if at != len(briefs)-1 {
		return fmt.Errorf("%d values for %d rows", at+1, len(briefs))
	}
	return nil
}

// wholes reads the whole rows of those that are not one plain event.
func (f *File) wholes(briefs []Brief) error {
	odd := func(b Brief) bool { return b.odd }
	first := slices.IndexFunc(briefs, odd)
	if first < 0 {
		return nil
	}
	last := len(briefs) - 1
	for !briefs[last].odd {
		last--
	}
	for w, err := range f.Rows(briefs[first].Offset) {
		if err != nil {
			return err
		}
		if b := &briefs[w.Offset-briefs[0].Offset]; b.odd {
			b.Whole = w
		}
		if w.Offset == briefs[last].Offset {
			break
		}
	}
	return nil
}
