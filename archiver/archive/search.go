package archive

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/catchment-dev/catchment/archiver/internal/checkpoint"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
)

// askedAtOnce is how many segments are asked at once. Each holds blocksKept blocks of its object at most.
const askedAtOnce = 16

// Range selects segments by the day of their first record. A zero time is no bound.
type Range struct{ Since, Until time.Time }

func (r Range) holds(s Segment) bool {
	return (r.Since.IsZero() || !s.Day.AddDate(0, 0, 1).Before(r.Since)) && (r.Until.IsZero() || !s.Day.After(r.Until))
}

// Search returns all deliveries with an event ID, of one source or of all when source is empty, the earliest first. It
// asks the bloom filters of all segments in the range, several at once. A segment that cannot be read is part of the
// error, beside what was found in the others.
func Search(ctx context.Context, s Store, source, eventID string, in Range) ([]Place, error) {
	var (
		mu    sync.Mutex
		found []Place
		wrong []error
	)
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(askedAtOnce)
	for at, err := range Segments(ctx, s) {
		if at.Key == "" {
			return nil, errors.Join(err, group.Wait())
		}
		if err != nil || !in.holds(at) {
			continue // what is no segment, verify tells
		}
		group.Go(func() error {
			places, err := lookup(inner, s, at, source, eventID)
			mu.Lock()
			defer mu.Unlock()
			found = append(found, places...)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%s: %w", at.Key, err))
			}
			return inner.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b Place) int {
		if c := a.Record.KafkaTimestamp.Compare(b.Record.KafkaTimestamp); c != 0 {
			return c
		}
		if a.Record.Partition != b.Record.Partition {
			return int(a.Record.Partition - b.Record.Partition)
		}
		return int(a.Record.Offset - b.Record.Offset)
	})
	return found, errors.Join(wrong...)
}

func lookup(ctx context.Context, s Store, at Segment, source, eventID string) (places []Place, err error) {
	defer func() {
		if broken := recover(); broken != nil { // a file that was made to break its reader
			err = fmt.Errorf("%w: %v", segment.ErrDamaged, broken)
		}
	}()
	cp, err := sealed(ctx, s, at)
	if err != nil {
		return nil, err
	}
	var size int64
	if cp != nil {
		size = cp.Size
	} else if size, err = s.Size(ctx, at.Key); err != nil {
		return nil, err
	}
	rows, err := segment.Lookup(newRemote(ctx, s, at.Key, size, lookupBlock), size, eventID)
	for _, w := range rows {
		if source == "" || w.Source == source {
			places = append(places, Place{at.Key, w.Offset - at.First, w})
		}
	}
	return places, err
}

// sealed returns a segment's checkpoint; nil when it has none, or one that is not its own.
func sealed(ctx context.Context, s Store, at Segment) (*Checkpoint, error) {
	object, err := s.Read(ctx, at.Partition.Checkpoint(at.First), 0, -1)
	if errors.Is(err, objstore.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := checkpoint.ParseLink(object)
	if err != nil || l.Checkpoint == nil || l.Checkpoint.Segment != at.Key {
		return nil, nil //nolint:nilerr // what is wrong with it, verify tells
	}
	return l.Checkpoint, nil
}

// Listed is a segment with what its checkpoint says, or with what it says itself when it has none. Where Key is empty it
// is a run of offsets that is not there: Gap says that this was admitted.
type Listed struct {
	Segment
	Last   int64
	Size   int64 // bytes
	Sealed bool  // a checkpoint says that it belongs to the archive
	Gap    *Gap
}

// Contents yields the segments of one kind in the range in byte order of their keys, that wanted says yes to, and between
// two of a partition what is missing.
func Contents(ctx context.Context, s Store, kind Kind, in Range, wanted func(Partition) bool) iter.Seq2[Listed, error] {
	return func(yield func(Listed, error) bool) {
		next := map[Partition]int64{}
		for batch, err := range batches(SegmentsOfKind(ctx, s, kind), func(at Segment) bool { return in.holds(at) && wanted(at.Partition) }) {
			if err != nil {
				yield(Listed{}, err)
				return
			}
			listed, err := describe(ctx, s, batch)
			if err != nil {
				yield(Listed{}, err)
				return
			}
			for _, l := range listed {
				if from, seen := next[l.Partition]; seen && from < l.First && !missing(ctx, s, l, from, yield) {
					return
				}
				next[l.Partition] = l.Last + 1
				if !yield(l, nil) {
					return
				}
			}
		}
	}
}

// batches yields wanted segments, some at a time. Keys that are no segment's are left out.
func batches(all iter.Seq2[Segment, error], wanted func(Segment) bool) iter.Seq2[[]Segment, error] {
	const size = 4 * askedAtOnce
	return func(yield func([]Segment, error) bool) {
		var batch []Segment
		for at, err := range all {
			if at.Key == "" {
				yield(nil, err)
				return
			}
			if err != nil || !wanted(at) {
				continue
			}
			if batch = append(batch, at); len(batch) == size {
				if !yield(batch, nil) {
					return
				}
				batch = nil
			}
		}
		if len(batch) > 0 {
			yield(batch, nil)
		}
	}
}

func describe(ctx context.Context, s Store, batch []Segment) ([]Listed, error) {
	out := make([]Listed, len(batch))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(askedAtOnce)
	for i, at := range batch {
		group.Go(func() error {
			cp, err := sealed(ctx, s, at)
			if err != nil {
				return err
			}
			if cp != nil {
				out[i] = Listed{Segment: at, Last: cp.Last, Size: cp.Size, Sealed: true}
				return nil
			}
			size, err := s.Size(ctx, at.Key)
			if err != nil {
				return err
			}
			out[i] = Listed{Segment: at, Last: at.First, Size: size}
			if f, err := segment.Open(newRemote(ctx, s, at.Key, size, blockSize), size); err == nil {
				out[i].Last = f.Last
			}
			return nil
		})
	}
	return out, group.Wait()
}

// missing yields what is missing before a segment: admitted gaps, and offsets that nothing speaks of.
func missing(ctx context.Context, s Store, before Listed, from int64, yield func(Listed, error) bool) bool {
	for from < before.First {
		lost := Listed{Segment: Segment{Kind: before.Kind, Partition: before.Partition, First: from}, Last: before.First - 1}
		object, err := s.Read(ctx, before.Partition.Checkpoint(from), 0, -1)
		if err == nil {
			if l, err := checkpoint.ParseLink(object); err == nil && l.Gap != nil {
				lost.Gap, lost.Last = l.Gap, l.Gap.Last
			}
		} else if !errors.Is(err, objstore.ErrNotFound) {
			return yield(Listed{}, err)
		}
		if !yield(lost, nil) {
			return false
		}
		from = lost.Last + 1
	}
	return true
}
