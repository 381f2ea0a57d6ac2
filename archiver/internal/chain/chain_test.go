package chain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/archiver/internal/checkpoint"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
)

var (
	partition = layout.Partition{Topic: "catchment.events", TopicID: [16]byte{9}, Number: 1}
	noon      = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
)

func newChain(t *testing.T) *Chain {
	t.Helper()
	store, err := objstore.Open(t.Context(), "file://"+t.TempDir())
	require.NoError(t, err)
	skey, _, err := note.GenerateKey(nil, "example.com/archive")
	require.NoError(t, err)
	key, err := checkpoint.NewKey(skey)
	require.NoError(t, err)
	return &Chain{Store: store, Partition: partition, Key: key}
}

// segmentOf returns a segment of the records from first to last. Two of one span have other bytes but the same records,
// unless their salts differ.
func segmentOf(t *testing.T, tip Tip, first, last int64, salt string) *segment.Segment {
	t.Helper()
	b := segment.NewBuilder(partition, first, fmt.Sprint(rand.Int64()))
	for offset := first; offset <= last; offset++ {
		r := &kgo.Record{
			Topic: partition.Topic, Partition: partition.Number, Offset: offset, Timestamp: noon.Add(time.Duration(offset) * time.Second),
			Value: fmt.Appendf(nil, "record %d %s", offset, salt),
		}
		require.NoError(t, b.Append(row.From(r, partition.TopicID), 3, 100))
	}
	s, err := b.Finish(tip.Segment)
	require.NoError(t, err)
	return s
}

func begin(t *testing.T, c *Chain) Tip {
	t.Helper()
	tip, err := c.Begin(t.Context(), 0)
	require.NoError(t, err)
	return tip
}

func TestChainGrowsAndIsFound(t *testing.T) {
	c := newChain(t)
	_, ok, err := c.Locate(t.Context(), -1)
	require.NoError(t, err)
	require.False(t, ok)

	tip, err := c.Begin(t.Context(), 100)
	require.NoError(t, err)
	require.EqualValues(t, 100, tip.Next)
	tip, err = c.Begin(t.Context(), 120)
	require.NoError(t, err)
	require.EqualValues(t, 100, tip.Next, "where a chain begins is decided once")

	for range 5 {
		s := segmentOf(t, tip, tip.Next, tip.Next+9, "")
		added, err := c.Add(t.Context(), tip, s)
		require.NoError(t, err)
		require.False(t, added.Adopted)
		again, err := c.Add(t.Context(), tip, s)
		require.NoError(t, err)
		require.Equal(t, added, again, "the answer was lost, and the same bytes came again")
		tip = added.Tip
		for _, committed := range []int64{-1, 0, tip.Next - 10, tip.Next, 1 << 40, 1<<62 + 1} {
			found, ok, err := c.Locate(t.Context(), committed)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, tip, found)
		}
	}
	require.EqualValues(t, 150, tip.Next)
	require.EqualValues(t, 3, tip.LeaderEpoch)
}

func TestAnothersSegmentIsAdopted(t *testing.T) {
	for name, last := range map[string]int64{"a shorter one": 4, "one of the same span": 9, "a longer one": 19} {
		for _, sealed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, sealed %v", name, sealed), func(t *testing.T) {
				c := newChain(t)
				tip := begin(t, c)
				theirs := segmentOf(t, tip, 0, last, "")
				if sealed {
					_, err := c.Add(t.Context(), tip, theirs)
					require.NoError(t, err)
				} else {
					require.NoError(t, c.Store.Create(t.Context(), theirs.Key(c.Kind), theirs.Body))
				}
				added, err := c.Add(t.Context(), tip, segmentOf(t, tip, 0, 9, ""))
				require.NoError(t, err)
				require.True(t, added.Adopted)
				require.EqualValues(t, last+1, added.Tip.Next)
				found, _, err := c.Locate(t.Context(), -1)
				require.NoError(t, err)
				require.Equal(t, added.Tip, found)
			})
		}
	}
}

func TestConflicts(t *testing.T) {
	for name, put := range map[string]func(t *testing.T, c *Chain, tip Tip, own *segment.Segment) error{
		"other records": func(t *testing.T, c *Chain, tip Tip, own *segment.Segment) error {
			t.Helper()
			return c.Store.Create(t.Context(), own.Key(c.Kind), segmentOf(t, tip, 0, 3, "other").Body)
		},
		"no segment": func(t *testing.T, c *Chain, _ Tip, own *segment.Segment) error {
			t.Helper()
			return c.Store.Create(t.Context(), own.Key(c.Kind), []byte("PAR1 or not"))
		},
		"half a segment": func(t *testing.T, c *Chain, _ Tip, own *segment.Segment) error {
			t.Helper()
			return c.Store.Create(t.Context(), own.Key(c.Kind), own.Body[:len(own.Body)/2])
		},
		"a segment of another chain": func(t *testing.T, c *Chain, tip Tip, own *segment.Segment) error {
			t.Helper()
			tip.Segment = "another"
			return c.Store.Create(t.Context(), own.Key(c.Kind), segmentOf(t, tip, 0, 3, "").Body)
		},
		"a checkpoint of another segment": func(t *testing.T, c *Chain, tip Tip, own *segment.Segment) error {
			t.Helper()
			elsewhere := newChain(t)
			_, err := elsewhere.Add(t.Context(), tip, segmentOf(t, tip, 0, 3, ""))
			require.NoError(t, err)
			object, err := elsewhere.Store.Read(t.Context(), partition.Checkpoint(0), 0, -1)
			require.NoError(t, err)
			return c.Store.Create(t.Context(), partition.Checkpoint(own.First), object)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newChain(t)
			tip := begin(t, c)
			own := segmentOf(t, tip, 0, 9, "")
			require.NoError(t, put(t, c, tip, own))
			_, err := c.Add(t.Context(), tip, own)
			require.ErrorIs(t, err, ErrConflict)
		})
	}
}

func TestForgedCheckpointIsRefused(t *testing.T) {
	c := newChain(t)
	cp := &checkpoint.Checkpoint{Partition: partition, Segment: layout.Segment{Partition: partition, Day: noon}.Key(), First: 0, Last: 99}
	object, err := c.Key.Object(cp)
	require.NoError(t, err)
	cp.Last = 9
	forged := append([]byte(cp.Text()), object[len(cp.Text())+1:]...) // another text under the old signature
	require.NoError(t, c.Store.Create(t.Context(), partition.Checkpoint(0), forged))
	_, _, err = c.Locate(t.Context(), -1)
	require.ErrorIs(t, err, ErrConflict)
}

func TestResumeFindsASegmentWithoutItsCheckpoint(t *testing.T) {
	c := newChain(t)
	tip := begin(t, c)
	_, ok, err := c.Resume(t.Context(), tip, noon)
	require.NoError(t, err)
	require.False(t, ok)
	s := segmentOf(t, tip, 0, 9, "")
	require.NoError(t, c.Store.Create(t.Context(), s.Key(c.Kind), s.Body))
	after, ok, err := c.Resume(t.Context(), tip, noon.AddDate(0, 0, 20))
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 10, after.Next)
	found, _, err := c.Locate(t.Context(), -1)
	require.NoError(t, err)
	require.Equal(t, after, found)
}

func TestStoreErrorsAreNoConflicts(t *testing.T) {
	c := newChain(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Add(ctx, Tip{}, segmentOf(t, Tip{}, 0, 1, ""))
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrConflict)
}

// The second place gets every checkpoint; what a crash kept from it is written when the chain is found again, and an
// archive that has less than it was rolled back.
func TestSecondPlace(t *testing.T) {
	c := newChain(t)
	second := newChain(t).Store
	keys := func(s objstore.Store) (keys []string) {
		for key, err := range s.List(t.Context(), c.Partition.Checkpoints(), "") {
			require.NoError(t, err)
			keys = append(keys, key)
		}
		return keys
	}
	add := func(tip Tip) Tip {
		added, err := c.Add(t.Context(), tip, segmentOf(t, tip, tip.Next, tip.Next+9, ""))
		require.NoError(t, err)
		return added.Tip
	}
	tip := add(add(begin(t, c)))
	c.Copy = second // set up later: the last one names those before
	again, ok, err := c.Locate(t.Context(), -1)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, tip, again)
	require.Equal(t, keys(c.Store)[1:], keys(second))

	c.Copy = nil // three crashes between the two places
	tip = add(add(add(tip)))
	c.Copy = second
	_, _, err = c.Locate(t.Context(), tip.Next)
	require.NoError(t, err)
	require.Equal(t, keys(c.Store)[1:], keys(second))

	c.Copy = &failing{Store: second}
	s := segmentOf(t, tip, tip.Next, tip.Next+9, "")
	_, err = c.Add(t.Context(), tip, s)
	require.ErrorIs(t, err, errAway, "nothing is archived while the second place is away")
	require.NotErrorIs(t, err, ErrConflict)
	c.Copy = second
	added, err := c.Add(t.Context(), tip, s)
	require.NoError(t, err)
	require.Equal(t, keys(c.Store)[1:], keys(second))
	last := keys(second)[len(keys(second))-1]
	here, err := c.Store.Read(t.Context(), last, 0, -1)
	require.NoError(t, err)
	there, err := second.Read(t.Context(), last, 0, -1)
	require.NoError(t, err)
	require.Equal(t, here, there)

	_, after, err := c.Admit(t.Context(), added.Tip, added.Tip.Next+4, "ada", "lost", noon)
	require.NoError(t, err)
	require.Equal(t, keys(c.Store)[1:], keys(second), "gaps as well")

	fresh := newChain(t) // the archive is as it was before
	fresh.Copy = second
	_, _, err = fresh.Locate(t.Context(), after.Next)
	require.ErrorIs(t, err, ErrConflict)
	require.ErrorContains(t, err, "rolled back")

	other := newChain(t) // another history
	other.Copy = second
	tip, err = other.Begin(t.Context(), 10)
	require.NoError(t, err)
	_, err = other.Add(t.Context(), tip, segmentOf(t, tip, 10, 12, "forged"))
	require.ErrorIs(t, err, ErrConflict)
}

var errAway = errors.New("away")

// failing is a store that takes nothing.
type failing struct{ objstore.Store }

func (*failing) Create(context.Context, string, []byte) error { return errAway }

func TestAdmittedGap(t *testing.T) {
	c := newChain(t)
	tip := begin(t, c)
	added, err := c.Add(t.Context(), tip, segmentOf(t, tip, 0, 9, ""))
	require.NoError(t, err)
	gap, after, err := c.Admit(t.Context(), added.Tip, 24, "ada", "lost", noon.Add(time.Millisecond))
	require.NoError(t, err)
	require.Equal(t, []int64{10, 24}, []int64{gap.First, gap.Last})
	require.Equal(t, Tip{Next: 25, LeaderEpoch: -1, Segment: added.Tip.Segment, Checkpoint: after.Checkpoint}, after)
	found, ok, err := c.Locate(t.Context(), -1)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, after, found)

	// Two people admit it at once: the first one's stands.
	theirs, again, err := c.Admit(t.Context(), added.Tip, 30, "bob", "too", noon)
	require.NoError(t, err)
	require.Equal(t, gap, theirs)
	require.Equal(t, after, again)

	// The next segment names the one before the gap.
	added, err = c.Add(t.Context(), after, segmentOf(t, after, 25, 29, ""))
	require.NoError(t, err)
	require.EqualValues(t, 30, added.Tip.Next)

	// A gap is no segment's checkpoint, and a segment's none of a gap.
	_, _, err = c.Admit(t.Context(), after, 40, "ada", "lost", noon)
	require.ErrorIs(t, err, ErrConflict)
	_, after, err = c.Admit(t.Context(), added.Tip, 40, "ada", "lost", noon)
	require.NoError(t, err)
	require.EqualValues(t, 41, after.Next)
	_, err = c.Add(t.Context(), added.Tip, segmentOf(t, added.Tip, 30, 35, ""))
	require.ErrorIs(t, err, ErrConflict)
}
