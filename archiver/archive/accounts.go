package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/chain"
	"github.com/catchment-dev/catchment/archiver/internal/checkpoint"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
)

// Brief is whose a record is and what digest it has, without its bytes. Whole is the record where that is not all: it is
// no delivery, may carry several events, or has an ID that no event can have.
type Brief = segment.Brief

// ErrNoObject says that the store has no such object.
var ErrNoObject = objstore.ErrNotFound

// ErrMalformed says that an object is not what the archiver writes there.
var ErrMalformed = checkpoint.ErrMalformed

// ErrDamaged says that an object is not a whole segment.
var ErrDamaged = segment.ErrDamaged

// BriefOf is the brief of a record that is still in Kafka.
func BriefOf(r *kgo.Record, topicID [16]byte) Brief { return segment.BriefOf(row.From(r, topicID)) }

// BriefOfRow is the brief of an archived record that was read as a whole.
func BriefOfRow(w *Record) Brief { return segment.BriefOf(w) }

// Briefs yields the records of a checkpoint's segment in short, some thousand at a time. It reads a few columns, and trusts
// what they say of the bodies: Check reads those. The error wraps ErrNoObject or ErrDamaged where the segment is not what
// the checkpoint says; nothing is yielded behind it.
func Briefs(ctx context.Context, s Store, cp *Checkpoint) iter.Seq2[[]Brief, error] {
	return func(yield func([]Brief, error) bool) {
		f, file, err := open(ctx, s, cp)
		if err != nil {
			yield(nil, fmt.Errorf("%s: %w", cp.Segment, err))
			return
		}
		for briefs, err := range f.Briefs() {
			if err != nil {
				yield(nil, fmt.Errorf("%s: %w", cp.Segment, file.cause(err)))
				return
			}
			if !yield(briefs, nil) {
				return
			}
		}
	}
}

// watched notes why an object could not be read, so that a store that does not answer is not taken for a damaged object.
type watched struct {
	remote
	failed error
}

// ReadAt implements io.ReaderAt.
func (w *watched) ReadAt(p []byte, offset int64) (int, error) {
	n, err := w.remote.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		w.failed = err
	}
	return n, err
}

func (w *watched) cause(err error) error {
	if w.failed != nil {
		return w.failed
	}
	return err
}

// open reads a segment's footer and holds it against the checkpoint.
func open(ctx context.Context, s Store, cp *Checkpoint) (*segment.File, *watched, error) {
	size, err := s.Size(ctx, cp.Segment)
	if err != nil {
		return nil, nil, err
	}
	if size != cp.Size {
		return nil, nil, fmt.Errorf("%w: it has %d bytes, its checkpoint says %d", ErrDamaged, size, cp.Size)
	}
	file := &watched{remote: *newRemote(ctx, s, cp.Segment, cp.Size, blockSize)}
	f, err := segment.Open(file, cp.Size)
	if err != nil {
		return nil, nil, file.cause(err)
	}
	if f.Partition != cp.Partition || f.First != cp.First || f.Last != cp.Last {
		return nil, nil, fmt.Errorf("%w: its footer does not say what its checkpoint says", ErrDamaged)
	}
	return f, file, nil
}

// Inventory is what lies in the archive, by its keys alone.
type Inventory struct {
	Chains map[Partition]*Chain
	Odd    []string // keys that no release writes
}

// Chain is what lies in the archive of one partition.
type Chain struct {
	Checkpoints []int64 // the first offsets of the segments that have one, in order
	// Strays are the keys of segments beyond those of the checkpoints: a second one of an offset, or one that no checkpoint
	// names. The last one may be a segment whose checkpoint is about to be written.
	Strays []Segment
	days   []int32 // of the segment that was listed for each checkpoint, in days since 1970; 0: none
}

// List lists the archive: the checkpoints of all kinds first, so that each of them has its segment. Segments are those of
// deliveries that begin on the days from since to until; the zero time is without a bound.
func List(ctx context.Context, s Store, since, until time.Time) (*Inventory, error) {
	inv := &Inventory{Chains: map[Partition]*Chain{}}
	for key, err := range s.List(ctx, layout.AllCheckpoints(), "") {
		if err != nil {
			return nil, fmt.Errorf("list the archive's checkpoints: %w", err)
		}
		p, first, err := layout.ParseCheckpoint(key)
		if err != nil {
			inv.Odd = append(inv.Odd, key)
			continue
		}
		c := inv.Chains[p]
		if c == nil {
			c = &Chain{}
			inv.Chains[p] = c
		}
		c.Checkpoints = append(c.Checkpoints, first)
	}
	for _, c := range inv.Chains {
		c.days = make([]int32, len(c.Checkpoints))
	}
	for found, err := range between(ctx, s, since, until) {
		switch {
		case err != nil && found.Key == "":
			return nil, fmt.Errorf("list the archive's segments: %w", err)
		case err != nil:
			inv.Odd = append(inv.Odd, found.Key)
			continue
		}
		c := inv.Chains[found.Partition]
		if c == nil {
			c = &Chain{}
			inv.Chains[found.Partition] = c
		}
		c.add(found)
	}
	return inv, nil
}

func (c *Chain) add(found Segment) {
	day := int32(found.Day.Unix() / 86400)
	i, ok := slices.BinarySearch(c.Checkpoints, found.First)
	if !ok || c.days[i] != 0 {
		c.Strays = append(c.Strays, found)
		return
	}
	c.days[i] = day
}

// Listed is the day of the segment that was listed first for the i-th checkpoint; false: none was.
func (c *Chain) Listed(i int) (time.Time, bool) {
	return time.Unix(int64(c.days[i])*86400, 0).UTC(), c.days[i] != 0
}

// Key is the key of a partition's segment.
func Key(p Partition, day time.Time, first int64) string {
	return layout.Segment{Kind: layout.Events, Partition: p, Day: day, First: first}.Key()
}

// CheckpointKey is the key of a segment's checkpoint.
func CheckpointKey(p Partition, first int64) string { return p.Checkpoint(first) }

// between is Segments for those that begin on the days from since to until.
func between(ctx context.Context, s Store, since, until time.Time) iter.Seq2[Segment, error] {
	if since.IsZero() && until.IsZero() {
		return Segments(ctx, s)
	}
	return func(yield func(Segment, error) bool) {
		stopped := false
		if since.IsZero() { // the days are not known: all are listed, in their order
			for found, err := range Segments(ctx, s) {
				if found.Day.After(until) || !yield(found, err) {
					return
				}
			}
			return
		}
		if until.IsZero() {
			until = time.Now().Add(24 * time.Hour) // clocks differ
		}
		for day := since.UTC().Truncate(24 * time.Hour); !day.After(until) && !stopped; day = day.AddDate(0, 0, 1) {
			for found, err := range SegmentsOf(ctx, s, day) {
				if !yield(found, err) {
					stopped = true
					break
				}
				if err != nil && found.Key == "" {
					return
				}
			}
		}
	}
}

// ReadLink reads the object of a partition's chain that begins at an offset. The error wraps ErrNoObject when there is none,
// and ErrMalformed when it is not what the archiver writes.
func ReadLink(ctx context.Context, s Store, p Partition, first int64) (Link, error) {
	var found Link
	var failed error
	readLink(ctx, s, p.Checkpoint(first), func(l Link, err error) bool { found, failed = l, err; return true })
	if failed != nil {
		return Link{}, failed
	}
	of, from := p, first
	if cp := found.Checkpoint; cp != nil {
		of, from = cp.Partition, cp.First
	} else if gap := found.Gap; gap != nil {
		of, from = gap.Partition, gap.First
	}
	if of != p || from != first {
		return Link{}, fmt.Errorf("%s: %w", p.Checkpoint(first), errOtherPlace)
	}
	return found, nil
}

var errOtherPlace = fmt.Errorf("%w: it is of another place", ErrMalformed)

// Rows yields the records of a checkpoint's segment as a whole, in order. It errs as Briefs does.
func Rows(ctx context.Context, s Store, cp *Checkpoint) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		f, file, err := open(ctx, s, cp)
		if err != nil {
			yield(nil, fmt.Errorf("%s: %w", cp.Segment, err))
			return
		}
		for w, err := range f.Rows(cp.First) {
			if err != nil {
				err = fmt.Errorf("%s: %w", cp.Segment, file.cause(err))
			}
			if !yield(w, err) {
				return
			}
		}
	}
}

// About reads the kind of a checkpoint's segment, and the day that it begins on, midnight UTC.
func About(cp *Checkpoint) (Kind, time.Time, error) {
	s, err := layout.ParseSegment(cp.Segment)
	return s.Kind, s.Day, err
}

// Start is the offset at which a partition's chain begins. The error wraps ErrNoObject when nothing says so, and
// ErrMalformed when it cannot be read.
func Start(ctx context.Context, s Store, p Partition) (int64, error) {
	object, err := s.Read(ctx, p.Start(), 0, -1)
	if err != nil {
		return 0, err
	}
	first, err := chain.ParseStart(p, object)
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %w", p.Start(), ErrMalformed, err)
	}
	return first, nil
}
