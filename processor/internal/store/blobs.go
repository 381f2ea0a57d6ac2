package store

import (
	"encoding/binary"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"
)

// blobs is a bytea[] that is encoded in one piece: megabytes of bodies, for which pgx would make its buffer longer and
// longer and find out for each body anew how to encode it.
type blobs [][]byte

// wrapBlobs tells pgx about blobs.
func wrapBlobs(value any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	b, ok := value.(blobs)
	if !ok {
		return nil, nil, false
	}
	return blobsPlan{}, [][]byte(b), true
}

type blobsPlan struct{}

// SetNext is not needed: the plan encodes by itself.
func (blobsPlan) SetNext(pgtype.EncodePlan) {}

// Encode appends the array in Postgres' binary form: dimensions, whether there are nulls, the elements' type, length and
// first index, and then each element behind its length.
func (blobsPlan) Encode(value any, buf []byte) ([]byte, error) {
	b, _ := value.(blobs)
	size := 20
	for _, v := range b {
		size += 4 + len(v)
	}
	buf = slices.Grow(buf, size)
	for _, n := range []uint32{1, 0, pgtype.ByteaOID, uint32(len(b)), 1} {
		buf = binary.BigEndian.AppendUint32(buf, n)
	}
	for _, v := range b {
		buf = append(binary.BigEndian.AppendUint32(buf, uint32(len(v))), v...)
	}
	return buf, nil
}
