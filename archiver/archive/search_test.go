package archive_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/internal/chain"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/pkg/settings"
)

func TestSearch(t *testing.T) {
	store, root := fill(t)
	search := func(source, id string, in archive.Range) int {
		found, err := archive.Search(t.Context(), store, source, id, in)
		require.NoError(t, err)
		for _, at := range found {
			require.Equal(t, id, at.Record.EventID)
			require.Equal(t, at.Record.Offset, 100+10*((at.Record.Offset-100)/10)+at.Row)
			require.Equal(t, fmt.Sprintf("body %d", at.Record.Offset), string(at.Record.Body))
		}
		return len(found)
	}
	for offset := 100; offset < 130; offset++ {
		require.Equal(t, 1, search("", fmt.Sprintf("evt_1_%d", offset), archive.Range{}), offset)
	}
	require.Zero(t, search("github", "evt_1_115", archive.Range{}))
	require.Zero(t, search("", "evt_absent", archive.Range{}))
	second := archive.Range{Since: dayOne.AddDate(0, 0, 1).Add(time.Hour), Until: dayOne.AddDate(0, 0, 1).Add(2 * time.Hour)}
	require.Equal(t, 1, search("", "evt_1_115", second))
	require.Zero(t, search("", "evt_1_105", archive.Range{Since: dayOne.AddDate(0, 0, 2)}))
	require.Zero(t, search("", "evt_1_125", archive.Range{Until: dayOne.AddDate(0, 0, 1)}))

	// A damaged segment does not hide what the others hold.
	path := filepath.Join(root, "events", "date=2026-11-02", "events-07000000000000000000000000000000-00000-00000000000000000110.parquet")
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, []byte("PAR1 and no more"), 0o600))
	found, err := archive.Search(t.Context(), store, "", "evt_1_115", archive.Range{})
	require.ErrorContains(t, err, "-00000-00000000000000000110.parquet")
	require.Len(t, found, 1)
}

func TestSearchOverRowGroups(t *testing.T) {
	store := memory{}
	c := &chain.Chain{Store: store, Partition: layout.Partition{Topic: "events", TopicID: topicID}}
	tip, err := c.Begin(t.Context(), 0)
	require.NoError(t, err)
	const rows = 60_000 // three row groups
	b := segment.NewBuilder(c.Partition, 0, "writer")
	for i := range rows {
		id := fmt.Sprintf("evt_%d", i%(rows-1)) // the last one comes twice
		r := event.Encode(&event.Delivery{Source: "shop", ID: id, DeliveryID: "0199a0b0-0000-7000-8000-000000000001", ReceivedAt: dayOne, Verdict: "verified", Body: fmt.Appendf(nil, "%d", i)})
		r.Topic, r.Offset, r.Timestamp = "events", int64(i), dayOne
		require.NoError(t, b.Append(row.From(r, topicID), 0, 100))
	}
	s, err := b.Finish("")
	require.NoError(t, err)
	_, err = c.Add(t.Context(), tip, s)
	require.NoError(t, err)
	for _, i := range []int{0, 1, 24_999, 25_000, 25_001, 49_999, 50_000, rows - 2} {
		found, err := archive.Search(t.Context(), store, "shop", fmt.Sprintf("evt_%d", i), archive.Range{})
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), string(found[0].Record.Body))
		if i == 0 {
			require.Len(t, found, 2)
			require.EqualValues(t, rows-1, found[1].Row)
		} else {
			require.Len(t, found, 1)
		}
	}
}

// BenchmarkSearch looks for one event among a million of realistic size, in segments of the default size, on the file
// system and in S3.
func BenchmarkSearch(b *testing.B) {
	const events, partitions, segmentBytes = 1_000_000, 8, 64 << 20
	file, err := archive.Open(b.Context(), settings.Archive{URL: "file://" + b.TempDir()})
	require.NoError(b, err)
	bucket, err := archive.Open(b.Context(), settings.Archive{URL: s3test.New(b).URL})
	require.NoError(b, err)
	stripe, _ := provider.ByName("stripe")
	random := rand.New(rand.NewPCG(1, 2))
	segments, bytes := 0, int64(0)
	for number := range int32(partitions) {
		chains := []*chain.Chain{{Store: file}, {Store: bucket}}
		var tips [2]chain.Tip
		p := layout.Partition{Topic: "events", TopicID: topicID, Number: number}
		for i, c := range chains {
			c.Partition = p
			tips[i], err = c.Begin(b.Context(), 0)
			require.NoError(b, err)
		}
		var builder *segment.Builder
		closeSegment := func() {
			s, err := builder.Finish(tips[0].Segment)
			require.NoError(b, err)
			for i, c := range chains {
				added, err := c.Add(b.Context(), tips[i], s)
				require.NoError(b, err)
				tips[i] = added.Tip
			}
			segments, bytes, builder = segments+1, bytes+int64(len(s.Body)), nil
		}
		for i := range int64(events / partitions) {
			if builder == nil {
				builder = segment.NewBuilder(p, i, "writer")
			}
			sample := stripe.Sample(random, provider.SampleInput{Seq: int(i), Now: dayOne})
			require.True(b, json.Valid(sample.Body))
			r := event.Encode(&event.Delivery{
				Source: "stripe", Provider: "stripe", ID: fmt.Sprintf("evt_%d_%d", number, i), Type: sample.Type, DeliveryID: "0199a0b0-0000-7000-8000-000000000001",
				ReceivedAt: dayOne, Verdict: "verified", Method: "POST", Path: "/webhooks/stripe", Body: sample.Body,
				Headers: []event.Header{{Name: "stripe-signature", Value: fmt.Sprintf("t=1,v1=%x", random.Uint64())}, {Name: "content-type", Value: "application/json"}},
			})
			r.Topic, r.Partition, r.Offset, r.Timestamp = "events", number, i, dayOne
			require.NoError(b, builder.Append(row.From(r, topicID), 0, row.RecordSize(r)))
			if builder.Raw() >= segmentBytes {
				closeSegment()
			}
		}
		if builder != nil {
			closeSegment()
		}
	}
	b.Logf("%d events in %d segments, %d MiB", events, segments, bytes>>20)
	for name, store := range map[string]archive.Store{"file": file, "s3": bucket} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				number, i := random.IntN(partitions), random.IntN(events/partitions)
				found, err := archive.Search(b.Context(), store, "", fmt.Sprintf("evt_%d_%d", number, i), archive.Range{})
				require.NoError(b, err)
				require.Len(b, found, 1)
				require.EqualValues(b, i, found[0].Record.Offset)
			}
		})
		b.Run(name+"/absent", func(b *testing.B) {
			for b.Loop() {
				found, err := archive.Search(b.Context(), store, "", "evt_absent", archive.Range{})
				require.NoError(b, err)
				require.Empty(b, found)
			}
		})
	}
}
