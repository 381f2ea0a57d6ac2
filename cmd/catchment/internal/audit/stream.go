package audit

import (
	"bytes"
	"cmp"
	"context"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// rows is inspect.Rows, or a test's.
type rows[T any] interface {
	Next(ctx context.Context) (T, bool, error)
}

// stream hands out traces in the order of their places.
type stream struct {
	rows rows[inspect.Trace]
	head *inspect.Trace
	over bool
}

// before takes the traces of places before the offset of a partition, which are all that were not taken yet.
func (s *stream) before(ctx context.Context, topicID [16]byte, partition int32, offset int64) (out []inspect.Trace, err error) {
	for {
		if s.head == nil && !s.over {
			t, ok, err := s.rows.Next(ctx)
			if err != nil {
				return nil, err
			}
			if s.over = !ok; ok {
				s.head = &t
			}
		}
		if s.head == nil || comparePlace(s.head.TopicID, s.head.Partition, s.head.Offset, topicID, partition, offset) >= 0 {
			return out, nil
		}
		out = append(out, *s.head)
		s.head = nil
	}
}

func comparePlace(aID [16]byte, aPartition int32, aOffset int64, bID [16]byte, bPartition int32, bOffset int64) int {
	return cmp.Or(bytes.Compare(aID[:], bID[:]), cmp.Compare(aPartition, bPartition), cmp.Compare(aOffset, bOffset))
}

func comparePartitions(a, b archive.Partition) int {
	return comparePlace(a.TopicID, a.Number, 0, b.TopicID, b.Number, 0)
}

// span is a run of offsets: from, and before to.
type span struct{ from, to int64 }

func within(spans []span, offset int64) bool {
	for _, s := range spans {
		if offset >= s.from && offset < s.to {
			return true
		}
	}
	return false
}
