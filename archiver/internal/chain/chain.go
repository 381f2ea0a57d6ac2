// Package chain is the archive of one partition as a chain of segments. A finished segment comes in and lies in the
// store with its checkpoint, unless another archiver's was first: then that one is adopted. It must never leave a gap
// or an overlap, and never go on where the store and the records disagree.
package chain

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/catchment-dev/catchment/archiver/internal/checkpoint"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
	"github.com/catchment-dev/catchment/pkg/mutant"
)

// ErrConflict is wrapped by errors that no retry can heal: the store holds something else than Kafka. All other errors
// are the store's and pass.
var ErrConflict = errors.New("the archive and Kafka disagree")

// errUnsigned keeps who has no key from a signed chain: an unsigned checkpoint in it looks as if a forger had written it, for ever.
var errUnsigned = errors.New("it is signed, and no archive.checkpoint_key is configured here: the chain goes on where there is one")

// Chain is the chain of one partition. Calls must not overlap.
type Chain struct {
	Store     objstore.Store
	Kind      layout.Kind // of its records
	Partition layout.Partition
	Key       *checkpoint.Key // may be nil
	Copy      objstore.Store  // a second place for checkpoints and gaps; may be nil
}

// Tip is where a chain ends.
type Tip struct {
	Next        int64     // offset of the record that comes next
	LeaderEpoch int32     // of the last record; -1 when unknown
	Segment     string    // SHA-256 of the last segment; empty when there is none
	Checkpoint  string    // SHA-256 of the last checkpoint; empty when there is none
	Day         time.Time // of the last segment; zero when there is none
}

// listWindow is how many offsets before Kafka's commit the listing begins. It grows until it finds a checkpoint.
const listWindow = 1 << 16

// Locate finds the chain's end in the store. committed is Kafka's offset, or negative: it only saves listing. ok is
// false when the chain has not begun.
func (c *Chain) Locate(ctx context.Context, committed int64) (tip Tip, ok bool, err error) {
	copied, err := c.lastCopied(ctx, committed) // before the store is asked: it may only have more
	if err != nil {
		return Tip{}, false, err
	}
	key, err := c.last(ctx, c.Store, committed)
	if err != nil {
		return Tip{}, false, err
	}
	if key < copied {
		return Tip{}, false, fmt.Errorf("%w: the second place has %s, which the archive does not have any more: it was rolled back", ErrConflict, copied)
	}
	if key == "" {
		return c.readStart(ctx)
	}
	object, err := c.Store.Read(ctx, key, 0, -1)
	if err != nil {
		return Tip{}, false, err
	}
	tip, _, err = c.tipAt(key, object)
	if err == nil {
		err = c.catchUp(ctx, copied, key, object)
	}
	return tip, err == nil, err
}

// last is the last key among the chain's checkpoints in a store; "" when there is none.
func (c *Chain) last(ctx context.Context, store objstore.Store, committed int64) (string, error) {
	prefix := c.Partition.Checkpoints()
	for window := int64(listWindow); ; window *= 16 {
		after := ""
		if window > 0 && window < committed {
			after = c.Partition.Checkpoint(committed - window)
		}
		last := ""
		for key, err := range store.List(ctx, prefix, after) {
			if err != nil {
				return "", err
			}
			last = key
		}
		if last != "" || after == "" {
			return last, nil
		}
	}
}

// tipAt reads a checkpoint or a gap, holds it against its key, and says where the chain goes on behind it.
func (c *Chain) tipAt(key string, object []byte) (Tip, checkpoint.Link, error) {
	l, err := checkpoint.ParseLink(object)
	if err == nil {
		err = c.Key.Check(object)
	}
	if err == nil && c.Key == nil && checkpoint.IsSigned(object) {
		err = errUnsigned
	}
	var tip Tip
	var p layout.Partition
	var first int64
	switch {
	case err != nil:
	case l.Gap != nil:
		p, first = l.Gap.Partition, l.Gap.First
		tip = Tip{Next: l.Gap.Last + 1, LeaderEpoch: -1, Segment: l.Gap.Segment}
	default:
		p, first = l.Checkpoint.Partition, l.Checkpoint.First
		tip = Tip{Next: l.Checkpoint.Last + 1, LeaderEpoch: l.Checkpoint.LeaderEpoch, Segment: l.Checkpoint.SHA256}
		var is layout.Segment
		is, err = layout.ParseSegment(l.Checkpoint.Segment)
		tip.Day = is.Day
	}
	if err == nil && (p != c.Partition || p.Checkpoint(first) != key) {
		err = errors.New("it is of another place")
	}
	if err != nil {
		return Tip{}, l, fmt.Errorf("%w: %s: %w", ErrConflict, key, err)
	}
	tip.Checkpoint = checkpoint.Hash(object)
	return tip, l, nil
}

const startTitle = "catchment archive start v1"

// Begin fixes where the chain begins, once for all archivers: without that, two that start while Kafka's retention
// moves the log's start would begin at two places. It returns the tip that counts, which may be another's.
func (c *Chain) Begin(ctx context.Context, first int64) (Tip, error) {
	err := c.Store.Create(ctx, c.Partition.Start(), []byte(startText(c.Partition, first)))
	if err != nil && !errors.Is(err, objstore.ErrExists) {
		return Tip{}, err
	}
	tip, ok, err := c.readStart(ctx)
	if err == nil && !ok {
		err = fmt.Errorf("%s: %w", c.Partition.Start(), objstore.ErrNotFound)
	}
	return tip, err
}

func (c *Chain) readStart(ctx context.Context) (Tip, bool, error) {
	object, err := c.Store.Read(ctx, c.Partition.Start(), 0, -1)
	if errors.Is(err, objstore.ErrNotFound) {
		return Tip{}, false, nil
	}
	if err != nil {
		return Tip{}, false, err
	}
	first, err := ParseStart(c.Partition, object)
	if err != nil {
		return Tip{}, false, fmt.Errorf("%w: %s: %w", ErrConflict, c.Partition.Start(), err)
	}
	return Tip{Next: first, LeaderEpoch: -1}, true, nil
}

func startText(p layout.Partition, first int64) string {
	return fmt.Sprintf("%s\npartition %s\nfirst %d\n", startTitle, p, first)
}

// ParseStart reads the object that says at which offset a partition's chain begins.
func ParseStart(p layout.Partition, object []byte) (first int64, err error) {
	head := strings.TrimSuffix(startText(p, 0), "0\n")
	number, _ := strings.CutPrefix(string(object), head)
	first, err = strconv.ParseInt(strings.TrimSuffix(number, "\n"), 10, 64)
	if err != nil || startText(p, first) != string(object) {
		return 0, errors.New("it is malformed")
	}
	return first, nil
}

// Added is what became of a segment.
type Added struct {
	Tip     Tip
	Adopted bool // another archiver's segment stands there; the own rows from Tip.Next on are still to be archived
}

// Add stores a segment that begins at the tip, and its checkpoint. After an error that is no ErrConflict, call it again
// with the same segment: that is safe however far the last call came.
func (c *Chain) Add(ctx context.Context, tip Tip, s *segment.Segment) (Added, error) {
	if s.First != tip.Next || s.Previous != tip.Segment {
		return Added{}, fmt.Errorf("segment %s does not follow the chain's end at offset %d", s.Key(c.Kind), tip.Next)
	}
	if mutant.On(mutant.M11) {
		if _, err := c.seal(ctx, tip, s); err != nil {
			return Added{}, err
		}
	}
	err := c.Store.Create(ctx, s.Key(c.Kind), s.Body)
	if err == nil {
		tip, err := c.seal(ctx, tip, s)
		return Added{Tip: tip}, err
	}
	if !errors.Is(err, objstore.ErrExists) {
		return Added{}, err
	}
	winner, err := c.adopt(ctx, tip, s.Key(c.Kind), s)
	if err != nil {
		return Added{}, err
	}
	after, err := c.seal(ctx, tip, winner)
	return Added{after, winner.SHA256 != s.SHA256}, err
}

// Resume adopts a segment at the tip that was stored without its checkpoint, if there is one. It looks for it from the
// tip's day on, at most searchDays back. ok says whether it found one.
func (c *Chain) Resume(ctx context.Context, tip Tip, now time.Time) (after Tip, ok bool, err error) {
	const searchDays = 400
	tomorrow := now.UTC().AddDate(0, 0, 1)
	for day := tomorrow; day.After(tomorrow.AddDate(0, 0, -searchDays)) && !day.Before(tip.Day); day = day.AddDate(0, 0, -1) {
		key := layout.Segment{Kind: c.Kind, Partition: c.Partition, Day: day, First: tip.Next}.Key()
		_, err := c.Store.Size(ctx, key)
		if errors.Is(err, objstore.ErrNotFound) {
			continue
		}
		if err != nil {
			return tip, false, err
		}
		s, err := c.adopt(ctx, tip, key, nil)
		if err != nil {
			return tip, false, err
		}
		after, err = c.seal(ctx, tip, s)
		return after, err == nil, err
	}
	return tip, false, nil
}

// CatchUp resumes until the tip is at the offset or behind it, or no further segment was stored without its checkpoint.
func (c *Chain) CatchUp(ctx context.Context, tip Tip, offset int64) (Tip, error) {
	for found := true; found && tip.Next < offset; {
		var err error
		if tip, found, err = c.Resume(ctx, tip, time.Now()); err != nil {
			return tip, err
		}
	}
	return tip, nil
}

// adopt reads the segment that stands at key, and makes sure that it is whole, follows the tip, and holds the same
// records as own, which may be nil.
func (c *Chain) adopt(ctx context.Context, tip Tip, key string, own *segment.Segment) (*segment.Segment, error) {
	body, err := c.Store.Read(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	if own != nil && sum == own.SHA256 {
		return own, nil // an earlier call had succeeded, and only its answer was lost
	}
	f, err := segment.OpenBytes(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrConflict, key, err)
	}
	if f.Partition != c.Partition || f.First != tip.Next || f.Previous != tip.Segment {
		return nil, fmt.Errorf("%w: %s does not follow the chain's end at offset %d", ErrConflict, key, tip.Next)
	}
	same, stop := compare(own)
	defer stop()
	if err := f.Verify(same); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrConflict, key, err)
	}
	if f.Key(c.Kind) != key {
		return nil, fmt.Errorf("%w: %s is of another day", ErrConflict, key)
	}
	return &segment.Segment{Info: f.Info, Body: body, SHA256: sum}, nil
}

// compare returns a function that holds rows, in order, against those of own.
func compare(own *segment.Segment) (same func(*row.Row) error, stop func()) {
	if own == nil {
		return nil, func() {}
	}
	f, err := segment.OpenBytes(own.Body)
	if err != nil {
		return func(*row.Row) error { return err }, func() {}
	}
	next, stop := iter.Pull2(f.Rows(f.First))
	return func(theirs *row.Row) error {
		ours, err, more := next()
		if !more {
			return nil // they hold more than we do
		}
		if err != nil {
			return err
		}
		if !ours.SameRecord(theirs) {
			return fmt.Errorf("offset %d holds another record", theirs.Offset)
		}
		return nil
	}, stop
}

// seal writes the segment's checkpoint, or makes sure that the one that is there says the same.
func (c *Chain) seal(ctx context.Context, tip Tip, s *segment.Segment) (Tip, error) {
	cp := &checkpoint.Checkpoint{
		Partition: c.Partition, Segment: s.Key(c.Kind), First: s.First, Last: s.Last, LeaderEpoch: s.LeaderEpoch,
		Size: int64(len(s.Body)), SHA256: hex.EncodeToString(s.SHA256[:]), Root: hex.EncodeToString(s.Root[:]),
		Previous: tip.Checkpoint,
	}
	object, err := c.Key.Object(cp)
	if err != nil {
		return Tip{}, err
	}
	after, there, err := c.put(ctx, c.Partition.Checkpoint(s.First), object)
	if err == nil && (there.Checkpoint == nil || *there.Checkpoint != *cp) {
		err = fmt.Errorf("%w: %s is of another segment", ErrConflict, c.Partition.Checkpoint(s.First))
	}
	return after, err
}

// put creates a checkpoint or a gap, in the second place as well, and returns what stands there now: another's may
// have been first.
func (c *Chain) put(ctx context.Context, key string, object []byte) (Tip, checkpoint.Link, error) {
	err := c.Store.Create(ctx, key, object)
	if errors.Is(err, objstore.ErrExists) {
		object, err = c.Store.Read(ctx, key, 0, -1)
	}
	if err != nil {
		return Tip{}, checkpoint.Link{}, err
	}
	tip, there, err := c.tipAt(key, object)
	if err == nil {
		err = c.copy(ctx, key, object)
	}
	return tip, there, err
}

// Admit writes a gap at the tip: the offsets to last are lost. It returns the gap that stands there, which may be of an
// earlier call, and the tip behind it.
func (c *Chain) Admit(ctx context.Context, tip Tip, last int64, actor, reason string, now time.Time) (*checkpoint.Gap, Tip, error) {
	gap := &checkpoint.Gap{
		Partition: c.Partition, First: tip.Next, Last: last, Time: now.UTC().Truncate(time.Second), Actor: actor, Reason: reason,
		Segment: tip.Segment, Previous: tip.Checkpoint,
	}
	object, err := c.Key.Object(gap)
	if err != nil {
		return nil, Tip{}, err
	}
	key := c.Partition.Checkpoint(gap.First)
	after, there, err := c.put(ctx, key, object)
	if err == nil && there.Gap == nil {
		err = fmt.Errorf("%w: %s is a segment's: the archiver has found the records", ErrConflict, key)
	}
	return there.Gap, after, err
}
