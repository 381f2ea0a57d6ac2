package segment

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/row"
)

// Row groups end after so many rows or so many bytes, whatever comes first: readers look up one event by decoding one
// row group, and a writer holds one in memory.
const (
	rowGroupRows  = 25_000
	rowGroupBytes = 16 << 20
)

// pageBytes is about the size of a page before compression. Larger ones compress better (1 MiB: 5 %), but each column of
// each open segment holds memory for one.
const pageBytes = 256 << 10

// batchRows are encoded at once, a column after the other.
const batchRows = 64

// bloomBits is the bloom filter's bits for each event ID: about one wrong "maybe" in a hundred.
const bloomBits = 10

// Builder takes rows and makes a segment. It is not safe for concurrent use.
type Builder struct {
	info    Info
	out     *output
	writer  *parquet.GenericWriter[any]
	tree    tree
	batch   []parquet.Row // rows that are not yet in a page: at most batchRows and about pageBytes
	batched int64         // bytes of the batch
	opened  time.Time     // wall clock, of the first row
	rows    int64
	raw     int64 // bytes of all rows
	pending int64 // bytes of the rows of the row group that is not yet encoded
	grouped int64 // rows of that row group
}

// NewBuilder returns an empty builder for rows from offset first on. More options come after the segment's own: for
// measuring what those are worth.
func NewBuilder(p layout.Partition, first int64, writer string, more ...parquet.WriterOption) *Builder {
	out := &output{}
	return &Builder{
		info: Info{Partition: p, First: first, Last: first - 1, LeaderEpoch: -1, Writer: writer, SchemaVersion: row.SchemaVersion},
		out:  out,
		writer: parquet.NewGenericWriter[any](out, append([]parquet.WriterOption{
			row.Schema(),
			parquet.Compression(&compression),
			parquet.PageBufferSize(pageBytes),
			parquet.DataPageStatistics(false), // the page index has them
			parquet.MaxRowsPerRowGroup(rowGroupRows + 1),
			parquet.BloomFilters(parquet.SplitBlockFilter(bloomBits, row.EventIDColumn)),
			parquet.CreatedBy("catchment", "v1", ""),
			unbounded{},
		}, more...)...),
	}
}

// unbounded leaves out the statistics of columns where they only take room.
type unbounded struct{}

func (unbounded) ConfigureWriter(c *parquet.WriterConfig) {
	c.SkipPageBounds = append(c.SkipPageBounds, row.Unbounded...)
	c.SkipPageStatistics = append(c.SkipPageStatistics, row.Unbounded...)
}

// Append adds the row with the next offset. size is about how much memory it takes. A row with another offset is an
// error: the builder keeps what it had.
func (b *Builder) Append(w *row.Row, leaderEpoch int32, size int64) error {
	if w.Offset != b.Next() {
		return fmt.Errorf("segment from offset %d: expected offset %d, found %d", b.info.First, b.Next(), w.Offset)
	}
	b.batch = slices.Grow(b.batch, 1)[:len(b.batch)+1] // with the memory of a row that was there before
	last := &b.batch[len(b.batch)-1]
	*last = w.AppendTo((*last)[:0])
	if b.batched += size; len(b.batch) == batchRows || b.batched >= pageBytes {
		if err := b.write(); err != nil {
			return err
		}
	}
	b.tree.addRow(w)
	if b.rows == 0 {
		b.info.Day, b.opened = w.KafkaTimestamp, time.Now()
	}
	b.info.Last, b.info.LeaderEpoch = w.Offset, leaderEpoch
	b.rows++
	b.grouped++
	b.raw += size
	b.pending += size
	if b.grouped >= rowGroupRows || b.pending >= rowGroupBytes {
		if err := b.write(); err != nil {
			return err
		}
		if err := b.writer.Flush(); err != nil {
			return fmt.Errorf("encode a row group: %w", err)
		}
		b.grouped, b.pending = 0, 0
	}
	return nil
}

// write encodes the batch.
func (b *Builder) write() error {
	if _, err := b.writer.WriteRows(b.batch); err != nil {
		return fmt.Errorf("encode rows up to offset %d: %w", b.Next(), err)
	}
	for _, values := range b.batch {
		clear(values) // the records' memory is not held any longer
	}
	b.batch, b.batched = b.batch[:0], 0
	return nil
}

// Next is the offset that the builder wants next.
func (b *Builder) Next() int64 { return b.info.Last + 1 }

// Rows is the number of rows so far.
func (b *Builder) Rows() int64 { return b.rows }

// Raw is the size of the rows so far, in bytes before compression.
func (b *Builder) Raw() int64 { return b.raw }

// Memory is about how much memory the builder holds, in bytes.
func (b *Builder) Memory() int64 { return b.pending + int64(b.out.size) }

// Day is the broker's timestamp of the first row.
func (b *Builder) Day() time.Time { return b.info.Day }

// Opened is when the first row came, by the wall clock.
func (b *Builder) Opened() time.Time { return b.opened }

// Finish closes the file; previous is the hash of the segment before, or empty. The builder cannot be used after.
func (b *Builder) Finish(previous string) (*Segment, error) {
	if b.rows == 0 {
		return nil, fmt.Errorf("segment from offset %d has no rows", b.info.First)
	}
	if err := b.write(); err != nil {
		return nil, err
	}
	b.info.Previous, b.info.Root = previous, b.tree.root()
	for k, v := range b.info.metadata() {
		b.writer.SetKeyValueMetadata(k, v)
	}
	if err := b.writer.Close(); err != nil {
		return nil, fmt.Errorf("encode the footer: %w", err)
	}
	body := b.out.bytes()
	return &Segment{Info: b.info, Body: body, SHA256: sha256.Sum256(body)}, nil
}

// Rest returns a builder with the rows of s from offset from on: what is left of it when another's segment covers the
// rows before.
func Rest(s *Segment, from int64) (*Builder, error) {
	b := NewBuilder(s.Partition, from, s.Writer)
	f, err := OpenBytes(s.Body)
	if err != nil {
		return nil, err
	}
	for w, err := range f.Rows(from) {
		if err == nil {
			err = b.Append(w, s.LeaderEpoch, w.Size())
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}
