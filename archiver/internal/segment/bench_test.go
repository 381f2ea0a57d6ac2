package segment

import (
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/row"
)

const events = 25_000

func benchmarkRecords() (records []*kgo.Record, bytes int) {
	random := rand.New(rand.NewPCG(1, 1))
	for i := range events {
		records = append(records, record(int64(i), random))
		bytes += len(records[i].Value)
	}
	return records, bytes
}

func report(b *testing.B, raw, size int) {
	b.Helper()
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1e3/float64(b.N*events), "µs/event")
	b.ReportMetric(float64(raw)/float64(size), "ratio")
}

// BenchmarkWrite makes segments of 25,000 records of about 2 KiB: from Kafka's records to the file's bytes.
func BenchmarkWrite(b *testing.B) {
	records, raw := benchmarkRecords()
	var size int
	b.ReportAllocs()
	for b.Loop() {
		w := NewBuilder(partition, 0, "writer")
		for _, r := range records {
			require.NoError(b, w.Append(row.From(r, partition.TopicID), 0, row.RecordSize(r)))
		}
		s, err := w.Finish("")
		require.NoError(b, err)
		size = len(s.Body)
	}
	report(b, raw, size)
}

// BenchmarkDecode is the part of BenchmarkWrite before the file: from a record to a row.
func BenchmarkDecode(b *testing.B) {
	records, raw := benchmarkRecords()
	b.ReportAllocs()
	for b.Loop() {
		for _, r := range records {
			row.From(r, partition.TopicID)
		}
	}
	report(b, raw, raw)
}

// BenchmarkLimit is what no archive beats by much: keys, headers and bodies as lines, compressed 500 at a time.
func BenchmarkLimit(b *testing.B) {
	records, raw := benchmarkRecords()
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(b, err)
	var lines, out []byte
	for b.Loop() {
		out = out[:0]
		for from := 0; from < len(records); from += 500 {
			lines = lines[:0]
			for _, r := range records[from:min(from+500, len(records))] {
				for _, h := range r.Headers {
					lines = append(append(append(append(lines, h.Key...), ':'), h.Value...), ',')
				}
				lines = append(append(lines, r.Value...), '\n')
			}
			out = encoder.EncodeAll(lines, out)
		}
	}
	report(b, raw, len(out))
}
