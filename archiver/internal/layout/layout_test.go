package layout_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
)

var partition = layout.Partition{
	Topic:   "catchment.events",
	TopicID: [16]byte{0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x69, 0x78, 0x87, 0x96, 0xa5, 0xb4, 0xc3, 0xd2, 0xe1, 0xf0},
	Number:  7,
}

func ExampleSegment_Key() {
	// The date is the broker's, in UTC.
	east := time.FixedZone("", 9*3600)
	at := time.Date(2026, 11, 2, 3, 0, 0, 0, east)
	fmt.Println(layout.Segment{Kind: layout.Events, Partition: partition, Day: at, First: 1234}.Key())
	fmt.Println(partition.Checkpoint(1234))
	fmt.Println(partition.Start())
	// Output:
	// events/date=2026-11-01/catchment.events-0f1e2d3c4b5a69788796a5b4c3d2e1f0-00007-00000000000000001234.parquet
	// checkpoints/catchment.events-0f1e2d3c4b5a69788796a5b4c3d2e1f0-00007/00000000000000001234
	// starts/catchment.events-0f1e2d3c4b5a69788796a5b4c3d2e1f0-00007
}

func TestBothWays(t *testing.T) {
	for _, topic := range []string{"a", "catchment.events", "with-dashes-00001", "under_score"} {
		for _, first := range []int64{0, 1, math.MaxInt64} {
			p := partition
			p.Topic, p.Number = topic, 99999
			day := time.Date(2024, 2, 29, 0, 0, 0, 0, time.UTC)

			for _, kind := range layout.Kinds() {
				want := layout.Segment{Kind: kind, Partition: p, Day: day, First: first}
				late := want
				late.Day = day.Add(23 * time.Hour)
				got, err := layout.ParseSegment(late.Key())
				require.NoError(t, err)
				require.Equal(t, want, got)
				require.True(t, strings.HasPrefix(late.Key(), kind.Day(day)))
			}
			got, gotFirst, err := layout.ParseCheckpoint(p.Checkpoint(first))
			require.NoError(t, err)
			require.Equal(t, p, got)
			require.Equal(t, first, gotFirst)
		}
	}
}

func TestOtherKeysAreRefused(t *testing.T) {
	const id = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
	for _, key := range []string{
		"",
		"events/x",
		"events/date=2026-11-01/t-" + id + "-00007-1234.parquet",
		"events/date=2026-13-01/t-" + id + "-00007-00000000000000001234.parquet",
		"events/date=2026-11-01/t-" + id + "-00007-00000000000000001234",
		"events/date=2026-11-01/t-" + id + "-00007--0000000000000001234.parquet",
		"events/date=2026-11-01/t-0F1E2D3C4B5A69788796A5B4C3D2E1F0-00007-00000000000000001234.parquet",
		"events/date=2026-11-01/-" + id + "-00007-00000000000000001234.parquet",
		"events/date=2026-11-01/t-00007-00000000000000001234.parquet",
		"other/date=2026-11-01/t-" + id + "-00007-00000000000000001234.parquet",
		"results/events/date=2026-11-01/t-" + id + "-00007-00000000000000001234.parquet",
	} {
		_, err := layout.ParseSegment(key)
		require.Error(t, err, key)
	}
	for _, key := range []string{"", "checkpoints/t/1", "checkpoints/t-" + id + "-00007/1234", "checkpoints/t-" + id + "-00007"} {
		_, _, err := layout.ParseCheckpoint(key)
		require.Error(t, err, key)
	}
}

func TestOffsetsSortAsKeys(t *testing.T) {
	require.Less(t, partition.Checkpoint(9), partition.Checkpoint(10))
	require.Less(t, partition.Checkpoint(math.MaxInt64-1), partition.Checkpoint(math.MaxInt64))
}
