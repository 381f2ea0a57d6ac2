package archive_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/internal/chain"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const perSegment = 10

var (
	topicID = [16]byte{7}
	dayOne  = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
)

// fill writes two partitions of three segments, one a day, beginning at offset 100.
func fill(t *testing.T) (archive.Store, string) {
	t.Helper()
	root := t.TempDir()
	store, err := archive.Open(t.Context(), settings.Archive{URL: "file://" + root})
	require.NoError(t, err)
	for number := range int32(2) {
		c := &chain.Chain{Store: store, Partition: layout.Partition{Topic: "events", TopicID: topicID, Number: number}}
		tip, err := c.Begin(t.Context(), 100)
		require.NoError(t, err)
		for day := range 3 {
			b := segment.NewBuilder(c.Partition, tip.Next, "writer")
			for range perSegment {
				r := event.Encode(&event.Delivery{
					Source: "stripe", ID: fmt.Sprintf("evt_%d_%d", number, b.Next()), DeliveryID: "0199a0b0-0000-7000-8000-000000000001",
					ReceivedAt: dayOne, Verdict: "verified", Type: "t", Body: fmt.Appendf(nil, "body %d", b.Next()),
				})
				r.Topic, r.Partition, r.Offset, r.Timestamp = "events", number, b.Next(), dayOne.AddDate(0, 0, day)
				require.NoError(t, b.Append(row.From(r, topicID), 0, 100))
			}
			s, err := b.Finish(tip.Segment)
			require.NoError(t, err)
			added, err := c.Add(t.Context(), tip, s)
			require.NoError(t, err)
			tip = added.Tip
		}
	}
	return store, root
}

func TestLocate(t *testing.T) {
	store, _ := fill(t)
	for _, offset := range []int64{100, 109, 110, 125, 129} {
		found, err := archive.Locate(t.Context(), store, event.Position{Topic: "events", TopicID: topicID, Partition: 1, Offset: offset})
		require.NoError(t, err)
		require.Equal(t, fmt.Sprintf("body %d", offset), string(found.Record.Body))
		require.Equal(t, (offset-100)%perSegment, found.Row)
		require.Contains(t, found.Key, fmt.Sprintf("-00001-%020d.parquet", offset-(offset-100)%perSegment))
	}
	for _, at := range []event.Position{
		{Topic: "events", TopicID: topicID, Partition: 1, Offset: 99},
		{Topic: "events", TopicID: topicID, Partition: 1, Offset: 130},
		{Topic: "events", TopicID: topicID, Partition: 2, Offset: 100},
		{Topic: "events", TopicID: [16]byte{8}, Partition: 1, Offset: 100},
	} {
		_, err := archive.Locate(t.Context(), store, at)
		require.ErrorIs(t, err, archive.ErrNotFound)
	}
}

func TestFind(t *testing.T) {
	store, _ := fill(t)
	count := func(source, id string, since, until time.Time) (n int) {
		for found, err := range archive.Find(t.Context(), store, source, id, since, until) {
			require.NoError(t, err)
			require.Equal(t, id, found.Record.EventID)
			n++
		}
		return n
	}
	end := dayOne.AddDate(0, 0, 2)
	require.Equal(t, 1, count("stripe", "evt_1_115", dayOne, end))
	require.Equal(t, 1, count("", "evt_0_115", dayOne, end))
	require.Zero(t, count("github", "evt_1_115", dayOne, end))
	require.Zero(t, count("", "evt_absent", dayOne, end))
	require.Zero(t, count("", "evt_1_115", dayOne, dayOne.Add(time.Hour)), "it is of the second day")
}

func TestListings(t *testing.T) {
	store, _ := fill(t)
	var keys []string
	var rows int
	for s, err := range archive.Segments(t.Context(), store) {
		require.NoError(t, err)
		keys = append(keys, s.Key)
		for w, err := range archive.Records(t.Context(), store, s.Key) {
			require.NoError(t, err)
			require.Equal(t, s.Partition.Number, w.Partition)
			rows++
		}
	}
	require.Len(t, keys, 6)
	require.IsIncreasing(t, keys)
	require.Equal(t, 6*perSegment, rows)
	var firsts []int64
	for cp, err := range archive.Checkpoints(t.Context(), store, archive.Partition{Topic: "events", TopicID: topicID}, 115) {
		require.NoError(t, err)
		firsts = append(firsts, cp.First)
	}
	require.Equal(t, []int64{110, 120}, firsts)
}

func TestCheckFindsDamage(t *testing.T) {
	const chainOne = "events-07000000000000000000000000000000-00001"
	second := "events/date=2026-11-02/" + chainOne + "-00000000000000000110.parquet"
	third := "events/date=2026-11-03/" + chainOne + "-00000000000000000120.parquet"
	change := func(t *testing.T, path string, f func([]byte) []byte) {
		t.Helper()
		body, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.WriteFile(path, f(body), 0o600))
	}
	for name, damage := range map[string]func(t *testing.T, root string){
		"a byte is changed": func(t *testing.T, root string) {
			t.Helper()
			change(t, filepath.Join(root, second), func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
		},
		"a segment is cut off": func(t *testing.T, root string) {
			t.Helper()
			change(t, filepath.Join(root, second), func(b []byte) []byte { return b[:len(b)-1] })
		},
		"a segment is gone": func(t *testing.T, root string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(root, second)))
		},
		"a checkpoint is gone": func(t *testing.T, root string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(root, "checkpoints", chainOne, "00000000000000000110")))
		},
		"the chain's head is gone": func(t *testing.T, root string) {
			t.Helper()
			require.NoError(t, os.Remove(filepath.Join(root, "checkpoints", chainOne, "00000000000000000100")))
			require.NoError(t, os.Remove(filepath.Join(root, "events/date=2026-11-01", chainOne+"-00000000000000000100.parquet")))
		},
		"two segments are swapped": func(t *testing.T, root string) {
			t.Helper()
			a, b := filepath.Join(root, second), filepath.Join(root, third)
			require.NoError(t, os.Rename(a, a+".x"))
			require.NoError(t, os.Rename(b, a))
			require.NoError(t, os.Rename(a+".x", b))
		},
		"a checkpoint is altered": func(t *testing.T, root string) {
			t.Helper()
			change(t, filepath.Join(root, "checkpoints", chainOne, "00000000000000000110"), func(b []byte) []byte {
				return []byte(strings.Replace(string(b), "epoch 0", "epoch 1", 1))
			})
		},
		"a segment stands twice": func(t *testing.T, root string) {
			t.Helper()
			body, err := os.ReadFile(filepath.Join(root, second))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(root, strings.Replace(second, "11-02", "11-03", 1)), body, 0o600))
		},
		"something else lies there": func(t *testing.T, root string) {
			t.Helper()
			require.NoError(t, os.WriteFile(filepath.Join(root, "events", "x.parquet"), nil, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			store, root := fill(t)
			rows := 0
			problems, err := archive.Check(t.Context(), store, func(*archive.Record) error { rows++; return nil })
			require.NoError(t, err)
			require.Empty(t, problems)
			require.Equal(t, 6*perSegment, rows)
			damage(t, root)
			problems, err = archive.Check(t.Context(), store, nil)
			require.NoError(t, err)
			require.NotEmpty(t, problems)
		})
	}
}

func TestCheckStopsWithTheVisitor(t *testing.T) {
	store, _ := fill(t)
	_, err := archive.Check(t.Context(), store, func(*archive.Record) error { return os.ErrClosed })
	require.ErrorIs(t, err, os.ErrClosed)
}
