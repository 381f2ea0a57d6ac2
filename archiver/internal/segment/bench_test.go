package segment

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/sample"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/benchkit"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const events = 25_000

func benchmarkRecords(b *testing.B) (records []*kgo.Record, bytes int) {
	b.Helper()
	records, err := sample.Records(events, 0, time.Unix(1_793_500_000, 0))
	require.NoError(b, err)
	for _, r := range records {
		r.Topic, r.Partition = partition.Topic, partition.Number
		bytes += len(r.Value)
	}
	return records, bytes
}

// cpu is the CPU time of this process.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	used, err := benchkit.CPU(os.Getpid())
	require.NoError(b, err)
	return used
}

func report(b *testing.B, from time.Duration, raw, size int) {
	b.Helper()
	b.ReportMetric(float64((cpu(b)-from).Nanoseconds())/1e3/float64(b.N*events), "cpu-µs/event")
	b.ReportMetric(float64(raw)/float64(size), "ratio")
	b.ReportMetric(float64(size)/events, "B/event")
}

// BenchmarkWrite makes segments of 25,000 records of about 2 KiB: from Kafka's records to the file's bytes.
func BenchmarkWrite(b *testing.B) { benchmarkWrite(b, nil) }

// BenchmarkWriteSealed is BenchmarkWrite with archive.encryption.
func BenchmarkWriteSealed(b *testing.B) {
	ring, err := keys.Open(b.Context(), settings.Archive{Encryption: &settings.Encryption{
		KeysURL: "file://" + b.TempDir(), MasterKey: config.NewSecret(strings.Repeat("01", 32)),
	}})
	require.NoError(b, err)
	benchmarkWrite(b, ring)
}

func benchmarkWrite(b *testing.B, ring *keys.Ring) {
	b.Helper()
	records, raw := benchmarkRecords(b)
	var size int
	b.ReportAllocs()
	from := cpu(b)
	for b.Loop() {
		w := NewBuilder(partition, 0, "writer")
		for _, r := range records {
			sealed := row.From(r, partition.TopicID)
			require.NoError(b, ring.Seal(b.Context(), sealed))
			require.NoError(b, w.Append(sealed, 0, row.RecordSize(r)))
		}
		s, err := w.Finish("")
		require.NoError(b, err)
		size = len(s.Body)
	}
	report(b, from, raw, size)
}

// BenchmarkEncode is BenchmarkWrite without what is before the file: from rows to its bytes.
func BenchmarkEncode(b *testing.B) {
	records, raw := benchmarkRecords(b)
	rows := make([]*row.Row, len(records))
	for i, r := range records {
		rows[i] = row.From(r, partition.TopicID)
	}
	var size int
	b.ReportAllocs()
	from := cpu(b)
	for b.Loop() {
		w := NewBuilder(partition, 0, "writer")
		for i, r := range rows {
			require.NoError(b, w.Append(r, 0, row.RecordSize(records[i])))
		}
		s, err := w.Finish("")
		require.NoError(b, err)
		size = len(s.Body)
	}
	report(b, from, raw, size)
}

// BenchmarkDecode is what BenchmarkWrite does before: from a record to a row.
func BenchmarkDecode(b *testing.B) {
	records, raw := benchmarkRecords(b)
	b.ReportAllocs()
	from := cpu(b)
	for b.Loop() {
		for _, r := range records {
			row.From(r, partition.TopicID)
		}
	}
	report(b, from, raw, raw)
}

// BenchmarkLimit is what no archive beats by much: the same rows as lines of JSON, which are there already, compressed as
// one stream.
func BenchmarkLimit(b *testing.B) {
	records, raw := benchmarkRecords(b)
	var lines []byte
	for _, r := range records {
		line, err := sample.Line(row.From(r, partition.TopicID))
		require.NoError(b, err)
		lines = append(lines, line...)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	require.NoError(b, err)
	var out []byte
	from := cpu(b)
	for b.Loop() {
		out = encoder.EncodeAll(lines, out[:0])
	}
	report(b, from, raw, len(out))
}
