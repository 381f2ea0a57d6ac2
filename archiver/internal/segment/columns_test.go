package segment

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/sample"
)

// varied is a field of the segments' schema, in which one column has another encoding.
type varied struct {
	parquet.Field
	fields []parquet.Field
	other  encoding.Encoding // nil: its own
}

func (v varied) Fields() []parquet.Field { return v.fields }

func (v varied) Encoding() encoding.Encoding {
	if v.other != nil {
		return v.other
	}
	return v.Field.Encoding()
}

type variedRoot struct {
	parquet.Node
	fields []parquet.Field
}

func (v variedRoot) Fields() []parquet.Field { return v.fields }

// withEncoding is the segments' schema with another encoding of the column at path.
func withEncoding(path []string, other encoding.Encoding) *parquet.Schema {
	var vary func(fields []parquet.Field, path []string) []parquet.Field
	vary = func(fields []parquet.Field, path []string) (out []parquet.Field) {
		for _, f := range fields {
			v := varied{Field: f, fields: f.Fields()}
			if len(path) > 0 && f.Name() == path[0] {
				v.fields = vary(f.Fields(), path[1:])
				if f.Leaf() {
					v.other = other
				}
			}
			out = append(out, v)
		}
		return out
	}
	return parquet.NewSchema("catchment", variedRoot{row.Schema(), vary(row.Schema().Fields(), path)})
}

// bounded is the segments' rule on which columns have bounds, with one column the other way round.
type bounded struct{ turned []string }

func (b bounded) ConfigureWriter(c *parquet.WriterConfig) {
	is := func(path []string) bool { return slices.Equal(path, b.turned) }
	if slices.ContainsFunc(row.Unbounded, is) {
		c.SkipPageBounds, c.SkipPageStatistics = slices.DeleteFunc(slices.Clone(row.Unbounded), is), nil
	} else {
		c.SkipPageBounds = append(slices.Clone(row.Unbounded), b.turned)
	}
}

const (
	columnRows  = 3_000
	columnFiles = 6 // over which the rows are spread where look-ups are counted
)

// columnSample has rows in the order in which the world sends them, with a value in every column: also in those that only some
// providers fill. Without their bodies, which are most of the work.
func columnSample(t *testing.T, bodies bool) []*row.Row {
	t.Helper()
	records, err := sample.Records(columnRows, 0, time.Unix(1_793_500_000, 0))
	require.NoError(t, err)
	rows, random := make([]*row.Row, len(records)), rand.New(rand.NewPCG(1, 2))
	for i, from := range random.Perm(len(records)) {
		in, r := records[i], records[from]
		r.Topic, r.Partition = partition.Topic, partition.Number
		w, place := row.From(r, partition.TopicID), row.From(in, partition.TopicID)
		w.Offset, w.KafkaTimestamp, w.ReceivedAt, w.DeliveryID = int64(i), in.Timestamp, place.ReceivedAt, place.DeliveryID
		w.EventTime = in.Timestamp.Add(-time.Duration(random.IntN(3000)) * time.Millisecond) // of GitHub and others in whole seconds
		if i%2 == 0 {
			w.EventTime = w.EventTime.Truncate(time.Second)
		}
		w.Query, w.BodyKeyID = fmt.Sprintf("tenant=%d", i%50), w.Source+"/2026-11-01/0"
		w.SignedURL = "https://hooks.example.com" + w.Path + "?" + w.Query
		if !bodies {
			w.Body = nil
		}
		rows[i] = w
	}
	return rows
}

// written is a segment of the rows.
func written(t *testing.T, rows []*row.Row, more ...parquet.WriterOption) *parquet.File {
	t.Helper()
	b := NewBuilder(partition, rows[0].Offset, "writer", more...)
	for _, w := range rows {
		require.NoError(t, b.Append(w, 0, w.Size()))
	}
	s, err := b.Finish("")
	require.NoError(t, err)
	f, err := parquet.OpenFile(bytes.NewReader(s.Body), int64(len(s.Body)))
	require.NoError(t, err)
	return f
}

// raw is how many bytes of a column a reader holds when it has decompressed them.
func raw(f *parquet.File, column int) (n int64) {
	for _, g := range f.Metadata().RowGroups {
		n += g.Columns[column].MetaData.TotalUncompressedSize
	}
	return n
}

// TestEncodingsPay turns the encoding of one column after the other. Without its dictionary or deltas a column has more bytes to be
// compressed and read, and the file is no smaller; with a dictionary, a column that has none makes the file larger.
func TestEncodingsPay(t *testing.T) {
	rows, whole := columnSample(t, false), columnSample(t, true)
	small, large := written(t, rows), written(t, whole)
	slack := large.Size() / 200 // event_time: plain is 0.2 % smaller, and has three times as much to be compressed
	t.Logf("%d rows: %d bytes, %d without bodies", columnRows, large.Size(), small.Size())
	for i, path := range row.Schema().Columns() {
		name := strings.Join(path, ".")
		leaf, ok := row.Schema().Lookup(path...)
		require.True(t, ok)
		own, others := leaf.Node.Encoding(), []encoding.Encoding{&parquet.Plain}
		if own == nil || own.Encoding() == parquet.Plain.Encoding() {
			own, others = &parquet.Plain, []encoding.Encoding{&parquet.RLEDictionary}
		}
		if own.Encoding() == parquet.DeltaBinaryPacked.Encoding() {
			others = append(others, &parquet.RLEDictionary)
		}
		for _, other := range others {
			if name == "body" { // see TestBodiesHaveNoDictionary
				continue
			}
			f := written(t, rows, withEncoding(path, other))
			more, moreRaw := f.Size()-small.Size(), raw(f, i)-raw(small, i)
			t.Logf("| %s | %s | %s | %d | %+d | %+d |", name, own, other, raw(small, i), moreRaw, more)
			require.Greater(t, more, -slack, "%s: the file would be smaller with %s", name, other)
			if own.Encoding() != parquet.Plain.Encoding() {
				require.Positive(t, moreRaw, "%s: %s would be as small", name, other)
			}
		}
	}
}

// TestBodiesHaveNoDictionary: one would be a single page with all bodies of a row group, which compresses better, as all larger pages
// do. But a writer would hold it in memory and search it, and whoever reads one body would have to read all.
func TestBodiesHaveNoDictionary(t *testing.T) {
	whole := columnSample(t, true)
	of := func(f *parquet.File) (pages int, bytes int64) {
		for i, path := range row.Schema().Columns() {
			if path[0] == "body" {
				index, err := f.RowGroups()[0].ColumnChunks()[i].OffsetIndex()
				require.NoError(t, err)
				return index.NumPages(), f.Size()
			}
		}
		return 0, 0
	}
	pages, bytes := of(written(t, whole))
	_, with := of(written(t, whole, withEncoding([]string{"body"}, &parquet.RLEDictionary)))
	_, larger := of(written(t, whole, parquet.PageBufferSize(rowGroupBytes)))
	t.Logf("%d bytes in %d pages; %d with a dictionary, %d with pages as large as row groups", bytes, pages, with, larger)
	require.Greater(t, pages, 10)
	require.Greater(t, float64(with), 0.85*float64(bytes))
}

// files are segments of the rows, one after the other.
func files(t *testing.T, rows []*row.Row, more ...parquet.WriterOption) (out []*parquet.File) {
	t.Helper()
	for some := range slices.Chunk(rows, columnRows/columnFiles) {
		out = append(out, written(t, some, more...))
	}
	return out
}

// bySource are segments with the rows of one source each.
func bySource(t *testing.T, rows []*row.Row) (out []*parquet.File) {
	t.Helper()
	of := map[string][]*row.Row{}
	for _, w := range rows {
		own := *w
		own.Offset = int64(len(of[w.Source]))
		of[w.Source] = append(of[w.Source], &own)
	}
	for _, source := range slices.Sorted(maps.Keys(of)) {
		out = append(out, written(t, of[source]))
	}
	return out
}

// excluded is the share of row groups that a reader leaves out for a value of a column, by bounds and by bloom filters.
func excluded(t *testing.T, files []*parquet.File, column int, values []parquet.Value) (byBounds, byFilter float64) {
	t.Helper()
	for _, f := range files {
		chunk, ok := f.RowGroups()[0].ColumnChunks()[column].(*parquet.FileColumnChunk)
		require.True(t, ok)
		least, most, bounds := chunk.Bounds()
		for _, v := range values {
			if bounds && (chunk.Type().Compare(v, least) < 0 || chunk.Type().Compare(v, most) > 0) {
				byBounds++
			}
			if filter := chunk.BloomFilter(); filter != nil {
				there, err := filter.Check(v)
				require.NoError(t, err)
				if !there {
					byFilter++
				}
			}
		}
	}
	n := float64(len(values) * len(files))
	return byBounds / n, byFilter / n
}

// valuesOf are some values of a column, spread over the rows.
func valuesOf(rows []*row.Row, column int) (out []parquet.Value) {
	for i := 0; i < len(rows); i += len(rows) / 100 {
		for _, v := range rows[i].AppendTo(nil) {
			if v.Column() == column && !v.IsNull() {
				out = append(out, v.Clone())
				break
			}
		}
	}
	return out
}

// TestStatisticsPay turns the bounds of one column after the other. Those that are there cost next to nothing; those that are not
// there would leave out no row group, and of bodies they would put two whole ones into the footer.
func TestStatisticsPay(t *testing.T) {
	rows := columnSample(t, false)
	const most = 200 // bytes of a row group's bounds of a column
	size, apart, sources := written(t, rows).Size(), files(t, rows), bySource(t, rows)
	for i, path := range row.Schema().Columns() {
		name, off := strings.Join(path, "."), slices.ContainsFunc(row.Unbounded, func(p []string) bool { return slices.Equal(p, path) })
		if name == "body" {
			continue
		}
		turned := written(t, rows, bounded{path}).Size() - size
		cost, in := -turned, apart
		if off {
			cost, in = turned, files(t, rows, bounded{path})
		}
		share, _ := excluded(t, in, i, valuesOf(rows, i))
		ofSources, _ := excluded(t, sources, i, valuesOf(rows, i))
		t.Logf("| %s | %v | %d | %.0f %% | %.0f %% |", name, !off, cost, 100*share, 100*ofSources)
		if off {
			require.Less(t, share, 0.05, "%s: bounds would leave out row groups", name)
		} else {
			require.Less(t, cost, int64(most), "%s: bounds cost too much", name)
		}
	}
	large := columnSample(t, true)[:2]
	large[0].Body, large[1].Body = bytes.Repeat([]byte("a"), 4<<20), bytes.Repeat([]byte("b"), 4<<20)
	with, without := written(t, large, bounded{[]string{"body"}}), written(t, large)
	t.Logf("two bodies of 4 MiB: %d bytes with their bounds, %d without", with.Size(), without.Size())
	require.Greater(t, with.Size(), without.Size())
}

// TestBloomFilterPays: by an event's ID a reader finds its row group by the filter and by nothing else. A delivery's ID is found by
// bounds, as they come in the order of time; what has few values has them in its dictionary.
func TestBloomFilterPays(t *testing.T) {
	whole := columnSample(t, true)
	with, without := written(t, whole).Size(), written(t, whole, parquet.BloomFilters()).Size()
	apart, shares := files(t, columnSample(t, false)), map[string][2]float64{}
	for i, path := range row.Schema().Columns() {
		byBounds, byFilter := excluded(t, apart, i, valuesOf(whole, i))
		shares[strings.Join(path, ".")] = [2]float64{byBounds, byFilter}
	}
	best := 1 - 1.0/columnFiles // all files but one
	t.Logf("the filter on event_id: %d bytes of %d, %.2f %%; of the files, at best %.1f %% are left out: for an event_id %.1f %% by the filter and %.1f %% by bounds, for a delivery_id %.1f %% by bounds",
		with-without, with, 100*float64(with-without)/float64(with), 100*best, 100*shares["event_id"][1], 100*shares["event_id"][0], 100*shares["delivery_id"][0])
	require.Less(t, with-without, with/100)
	require.Greater(t, shares["event_id"][1], best-0.05)
	require.Less(t, shares["event_id"][0], 0.1)
	require.Greater(t, shares["delivery_id"][0], best-0.05)
}
