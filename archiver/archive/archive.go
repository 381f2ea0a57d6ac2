// Package archive reads what the archiver has written. A store comes in; segments, places of records and the records
// themselves go out. It must never write, and never call whole what it has not read.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/catchment-dev/catchment/archiver/internal/checkpoint"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/segment"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// The archive's words, for those who read it.
type (
	// Store is where the archive lies.
	Store = objstore.Store
	// Kind is what the records of a topic are: deliveries or results.
	Kind = layout.Kind
	// Partition names one partition of one incarnation of a topic.
	Partition = layout.Partition
	// Record is one archived Kafka record.
	Record = row.Row
	// Header is one request header of a Record.
	Header = row.Header
	// Attribute is what of a Record has no column.
	Attribute = row.Attribute
	// Checkpoint says what one segment is.
	Checkpoint = checkpoint.Checkpoint
	// Gap says that a run of offsets is lost, who says so and why.
	Gap = checkpoint.Gap
	// Link is a Checkpoint, or a Gap in the place of one.
	Link = checkpoint.Link
)

// The kinds of records.
const (
	Events  = layout.Events
	Results = layout.Results
)

// ErrNotFound says that the archive does not hold what was asked for, or not yet.
var ErrNotFound = errors.New("not in the archive")

// Open returns the archive's store. It does not connect.
func Open(ctx context.Context, a settings.Archive) (Store, error) {
	s, err := objstore.Open(ctx, a.URL)
	if err != nil {
		return nil, a.Errorf("url", "%v", err)
	}
	return s, nil
}

// Ensure makes the place of the archive, and that of the second checkpoints where there is one, if it does not exist yet,
// and proves that each takes an object only once. It returns the URLs of what it made. The error says so of a
// store that replaces objects.
func Ensure(ctx context.Context, a settings.Archive) (made []string, err error) {
	places := []struct{ key, url string }{{"url", a.URL}, {"checkpoint_copy", a.CheckpointCopy}}
	for _, p := range places {
		if p.url == "" {
			continue
		}
		s, err := objstore.OpenForgetful(ctx, p.url)
		if err != nil {
			return made, a.Errorf(p.key, "%v", err)
		}
		created, err := s.Make(ctx)
		if err == nil {
			err = objstore.Probe(ctx, s)
		}
		if err != nil {
			return made, fmt.Errorf("archive.%s: %w", p.key, err)
		}
		if created {
			made = append(made, p.url)
		}
	}
	return made, nil
}

// OpenCopy returns the second place of the archive's checkpoints, or nil when there is none. It does not connect.
func OpenCopy(ctx context.Context, a settings.Archive) (Store, error) {
	if a.CheckpointCopy == "" {
		return nil, nil
	}
	s, err := objstore.Open(ctx, a.CheckpointCopy)
	if err != nil {
		return nil, a.Errorf("checkpoint_copy", "%v", err)
	}
	return s, nil
}

// Segment is one segment by its key.
type Segment struct {
	Key       string
	Kind      Kind
	Partition Partition
	Day       time.Time // midnight UTC of the broker's day of the first record
	First     int64     // offset of the first record
}

// Segments yields all segments of deliveries, in byte order of their keys: by day, topic, partition and offset. Other
// keys beneath events/ are errors, after which it goes on.
func Segments(ctx context.Context, s Store) iter.Seq2[Segment, error] {
	return SegmentsOfKind(ctx, s, Events)
}

// SegmentsOfKind is Segments for records of one kind.
func SegmentsOfKind(ctx context.Context, s Store, kind Kind) iter.Seq2[Segment, error] {
	return segments(ctx, s, kind.Prefix())
}

// SegmentsOf is Segments for the segments that begin on one day.
func SegmentsOf(ctx context.Context, s Store, day time.Time) iter.Seq2[Segment, error] {
	return segments(ctx, s, Events.Day(day))
}

func segments(ctx context.Context, s Store, prefix string) iter.Seq2[Segment, error] {
	return func(yield func(Segment, error) bool) {
		for key, err := range s.List(ctx, prefix, "") {
			if err != nil {
				yield(Segment{}, err)
				return
			}
			is, err := layout.ParseSegment(key)
			if !yield(Segment{key, is.Kind, is.Partition, is.Day, is.First}, err) {
				return
			}
		}
	}
}

// Checkpoints yields the checkpoints of a partition's chain from the segment that holds offset from on, in order. It
// leaves gaps out.
func Checkpoints(ctx context.Context, s Store, p Partition, from int64) iter.Seq2[*Checkpoint, error] {
	return func(yield func(*Checkpoint, error) bool) {
		for l, err := range Links(ctx, s, p, from) {
			if (err != nil || l.Checkpoint != nil) && !yield(l.Checkpoint, err) {
				return
			}
		}
	}
}

// Links yields the objects of a partition's chain from the one that holds offset from on, in order. It stops after an
// error of the store.
func Links(ctx context.Context, s Store, p Partition, from int64) iter.Seq2[Link, error] {
	return func(yield func(Link, error) bool) {
		before, err := lastKey(ctx, s, p, from)
		if err != nil {
			yield(Link{}, err)
			return
		}
		if before != "" && !readLink(ctx, s, before, yield) {
			return
		}
		for key, err := range s.List(ctx, p.Checkpoints(), before) {
			if err != nil {
				yield(Link{}, err)
				return
			}
			if !readLink(ctx, s, key, yield) {
				return
			}
		}
	}
}

// lastKey is the greatest checkpoint key of a segment that begins at offset or before; "" when there is none.
func lastKey(ctx context.Context, s Store, p Partition, offset int64) (last string, err error) {
	limit := p.Checkpoint(offset)
	for window := int64(1 << 16); ; window *= 16 {
		after := ""
		if window > 0 && window < offset {
			after = p.Checkpoint(offset - window)
		}
		for key, err := range s.List(ctx, p.Checkpoints(), after) {
			if err != nil {
				return "", err
			}
			if key > limit {
				break
			}
			last = key
		}
		if last != "" || after == "" {
			return last, nil
		}
	}
}

func readLink(ctx context.Context, s Store, key string, yield func(Link, error) bool) bool {
	object, err := s.Read(ctx, key, 0, -1)
	if err != nil {
		return yield(Link{}, err)
	}
	l, err := checkpoint.ParseLink(object)
	if err != nil {
		return yield(Link{}, fmt.Errorf("%s: %w", key, err))
	}
	return yield(l, nil)
}

// Place is where a record lies.
type Place struct {
	Key    string // of the segment
	Row    int64  // from 0
	Record *Record
}

// Locate finds the record of a Kafka position; its leader epoch does not matter. The error wraps ErrNotFound when the
// position is not archived, or not yet.
func Locate(ctx context.Context, s Store, at event.Position) (Place, error) {
	p := Partition{Topic: at.Topic, TopicID: at.TopicID, Number: at.Partition}
	for cp, err := range Checkpoints(ctx, s, p, at.Offset) {
		if err != nil {
			return Place{}, err
		}
		if at.Offset < cp.First || at.Offset > cp.Last {
			break
		}
		f, err := segment.Open(newRemote(ctx, s, cp.Segment, cp.Size, blockSize), cp.Size)
		if err != nil {
			return Place{}, fmt.Errorf("%s: %w", cp.Segment, err)
		}
		for w, err := range f.Rows(at.Offset) {
			if err != nil {
				return Place{}, fmt.Errorf("%s: %w", cp.Segment, err)
			}
			return Place{cp.Segment, at.Offset - cp.First, w}, nil
		}
	}
	return Place{}, fmt.Errorf("%s offset %d: %w", p, at.Offset, ErrNotFound)
}

// Find yields the records with an event ID, of one source or of all when source is empty, in segments that begin on
// one of the days from since to until. It asks each segment's bloom filter and reads those that may hold the ID.
func Find(ctx context.Context, s Store, source, eventID string, since, until time.Time) iter.Seq2[Place, error] {
	return func(yield func(Place, error) bool) {
		for day := since.UTC().Truncate(24 * time.Hour); !day.After(until); day = day.AddDate(0, 0, 1) {
			for found, err := range SegmentsOf(ctx, s, day) {
				if err == nil {
					err = findIn(ctx, s, found.Key, source, eventID, yield)
				}
				if errors.Is(err, errStopped) || err != nil && !yield(Place{}, err) {
					return
				}
			}
		}
	}
}

// errStopped says that the caller has seen enough.
var errStopped = errors.New("stopped")

func findIn(ctx context.Context, s Store, key, source, eventID string, yield func(Place, error) bool) error {
	size, err := s.Size(ctx, key)
	if err != nil {
		return err
	}
	file := newRemote(ctx, s, key, size, blockSize)
	may, err := segment.MayHold(file, size, eventID)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	if !may {
		return nil
	}
	f, err := segment.Open(file, size)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	for w, err := range f.Rows(f.First) {
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if w.EventID == eventID && (source == "" || w.Source == source) && !yield(Place{key, w.Offset - f.First, w}, nil) {
			return errStopped
		}
	}
	return nil
}

// Records yields all records of a segment in order of their offsets.
func Records(ctx context.Context, s Store, key string) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		body, err := s.Read(ctx, key, 0, -1)
		if err != nil {
			yield(nil, err)
			return
		}
		f, err := segment.OpenBytes(body)
		if err != nil {
			yield(nil, fmt.Errorf("%s: %w", key, err))
			return
		}
		for w, err := range f.Rows(f.First) {
			if !yield(w, err) {
				return
			}
		}
	}
}

// From yields the records of a partition from an offset on, in order and without a hole, to the end of the archive. Each
// segment is what its checkpoint says. The error wraps ErrNotFound where the archive does not hold the next offset, and
// is a *LostError where a gap says that it never will; nothing is yielded behind it.
func From(ctx context.Context, s Store, p Partition, from int64) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		next := from
		for l, err := range Links(ctx, s, p, from) {
			if err != nil {
				yield(nil, err)
				return
			}
			if l.Gap != nil && l.Gap.First <= next && next <= l.Gap.Last {
				yield(nil, &LostError{l.Gap})
				return
			}
			cp := l.Checkpoint
			if cp == nil || cp.Last < next {
				continue
			}
			if cp.First > next {
				yield(nil, fmt.Errorf("%s offset %d: %w: the next segment begins at %d", p, next, ErrNotFound, cp.First))
				return
			}
			f, err := whole(ctx, s, cp)
			if err != nil {
				yield(nil, err)
				return
			}
			for w, err := range f.Rows(next) {
				if err == nil && w.Offset != next {
					err = fmt.Errorf("expected offset %d, found %d", next, w.Offset)
				}
				if err != nil {
					yield(nil, fmt.Errorf("%s: %w", cp.Segment, err))
					return
				}
				if !yield(w, nil) {
					return
				}
				next++
			}
		}
		if next == from {
			yield(nil, fmt.Errorf("%s offset %d: %w", p, from, ErrNotFound))
		}
	}
}

// LostError says that a gap in the archive was admitted: the offsets are lost.
type LostError struct{ Gap *Gap }

func (e *LostError) Error() string {
	return fmt.Sprintf("%s: offsets %d to %d are lost, as %s admitted on %s: %s",
		e.Gap.Partition, e.Gap.First, e.Gap.Last, e.Gap.Actor, e.Gap.Time.Format(time.DateOnly), e.Gap.Reason)
}

// Is makes a lost offset one that the archive does not hold.
func (e *LostError) Is(target error) bool { return target == ErrNotFound }

// whole reads a segment whose bytes are those of its checkpoint.
func whole(ctx context.Context, s Store, cp *Checkpoint) (*segment.File, error) {
	body, err := s.Read(ctx, cp.Segment, 0, -1)
	if err != nil {
		return nil, err
	}
	if int64(len(body)) != cp.Size || checkpoint.Hash(body) != cp.SHA256 {
		return nil, fmt.Errorf("%s: its bytes are not those of its checkpoint", cp.Segment)
	}
	f, err := segment.OpenBytes(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cp.Segment, err)
	}
	if f.Partition != cp.Partition || f.First != cp.First || f.Last != cp.Last {
		return nil, fmt.Errorf("%s: its footer does not say what its checkpoint says", cp.Segment)
	}
	return f, nil
}

// remote reads an object in blocks, so that Parquet's many small reads are few requests.
type remote struct {
	ctx    context.Context
	store  Store
	key    string
	size   int64
	block  int64 // bytes
	blocks map[int64][]byte
}

func newRemote(ctx context.Context, s Store, key string, size, block int64) *remote {
	return &remote{ctx, s, key, size, block, nil}
}

const (
	blockSize   = 256 << 10
	lookupBlock = 128 << 10 // holds a row group's bloom filter, mostly
	blocksKept  = 64
)

// ReadAt implements io.ReaderAt. It is not safe for concurrent use.
func (r *remote) ReadAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) && offset < r.size {
		block, err := r.read(offset / r.block)
		if err != nil {
			return n, err
		}
		copied := copy(p[n:], block[offset%r.block:])
		n += copied
		offset += int64(copied)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (r *remote) read(number int64) ([]byte, error) {
	if b, ok := r.blocks[number]; ok {
		return b, nil
	}
	b, err := r.store.Read(r.ctx, r.key, number*r.block, r.block)
	if err != nil {
		return nil, err
	}
	if want := min(r.block, r.size-number*r.block); int64(len(b)) != want {
		return nil, fmt.Errorf("%s: %w", r.key, io.ErrUnexpectedEOF)
	}
	if r.blocks == nil || len(r.blocks) >= blocksKept {
		r.blocks = map[int64][]byte{}
	}
	r.blocks[number] = b
	return b, nil
}
