package store

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// array is a parameter of an array type in Postgres' binary form. Batches are written as arrays of some thousand elements,
// for each of which pgx would find out anew how to encode it.
type array interface {
	// size is about how many bytes the elements take.
	size() int
	// appendTo appends the elements, each behind its length.
	appendTo(buf []byte) []byte
	head() (elem uint32, n int, nulls bool)
}

// wrapArrays tells pgx about arrays.
func wrapArrays(value any) (pgtype.WrappedEncodePlanNextSetter, any, bool) {
	if _, ok := value.(array); !ok {
		return nil, nil, false
	}
	return arrayPlan{}, pgtype.FlatArray[any](nil), true // an array, that pgx may find a plan to follow
}

type arrayPlan struct{}

// SetNext is not needed: the plan encodes by itself.
func (arrayPlan) SetNext(pgtype.EncodePlan) {}

// Encode appends dimensions, whether there are nulls, the elements' type, their number and first index, and the elements.
func (arrayPlan) Encode(value any, buf []byte) ([]byte, error) {
	a, _ := value.(array)
	elem, n, nulls := a.head()
	buf = slices.Grow(buf, 20+a.size())
	hasNulls := uint32(0)
	if nulls {
		hasNulls = 1
	}
	for _, v := range []uint32{1, hasNulls, elem, uint32(n), 1} {
		buf = binary.BigEndian.AppendUint32(buf, v)
	}
	return a.appendTo(buf), nil
}

const null32 = math.MaxUint32 // the length of a null

// blobs is a bytea[]; nil is null. Its elements, megabytes of bodies, are copied only once.
type blobs [][]byte

func (b blobs) size() (n int) {
	for _, v := range b {
		n += 4 + len(v)
	}
	return n
}

func (b blobs) appendTo(buf []byte) []byte {
	for _, v := range b {
		if v == nil {
			buf = binary.BigEndian.AppendUint32(buf, null32)
			continue
		}
		buf = append(binary.BigEndian.AppendUint32(buf, uint32(len(v))), v...)
	}
	return buf
}

func (b blobs) head() (elem uint32, n int, nulls bool) {
	return pgtype.ByteaOID, len(b), slices.ContainsFunc(b, func(v []byte) bool { return v == nil })
}

// column is an array that is encoded while it is filled.
type column struct {
	elem  uint32
	n     int
	nulls bool
	buf   []byte
}

// columnOf makes room for n elements of about each bytes.
func columnOf(elem uint32, n, each int) *column {
	return &column{elem: elem, buf: make([]byte, 0, n*(4+each))}
}

// GoString keeps what is stored out of pgx's errors.
func (b blobs) GoString() string { return "bytea[]" }

// GoString keeps what is stored out of pgx's errors.
func (c *column) GoString() string { return "a column" }

func (c *column) size() int                              { return len(c.buf) }
func (c *column) appendTo(buf []byte) []byte             { return append(buf, c.buf...) }
func (c *column) head() (elem uint32, n int, nulls bool) { return c.elem, c.n, c.nulls }

func (c *column) null() {
	c.n, c.nulls, c.buf = c.n+1, true, binary.BigEndian.AppendUint32(c.buf, null32)
}

// begin appends the length of the next element.
func (c *column) begin(size int) {
	c.n, c.buf = c.n+1, binary.BigEndian.AppendUint32(c.buf, uint32(size))
}

func (c *column) text(s string) {
	c.begin(len(s))
	c.buf = append(c.buf, s...)
}

// some is text, or null for "".
func (c *column) some(s string) {
	if s == "" {
		c.null()
		return
	}
	c.text(s)
}

// maybe is text, or null for nil.
func (c *column) maybe(s *string) {
	if s == nil {
		c.null()
		return
	}
	c.text(*s)
}

// json is a jsonb; null where there is none.
func (c *column) json(b []byte) {
	if b == nil {
		c.null()
		return
	}
	c.begin(1 + len(b))
	c.buf = append(append(c.buf, 1), b...)
}

func (c *column) bytes(b []byte) {
	c.begin(len(b))
	c.buf = append(c.buf, b...)
}

// uuid is a UUID by its text form, which has been checked before; one that is wrong is Postgres' to refuse.
func (c *column) uuid(s string) {
	id, err := uuid.Parse(s)
	if err != nil {
		c.text(s)
		return
	}
	c.bytes(id[:])
}

func (c *column) int4(v int) {
	c.begin(4)
	c.buf = binary.BigEndian.AppendUint32(c.buf, uint32(int32(v)))
}

func (c *column) int8(v int64) {
	c.begin(8)
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(v))
}

// epoch is where Postgres' timestamps begin.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// instant is a timestamptz.
func (c *column) instant(t time.Time) {
	c.int8((t.Unix()-epoch.Unix())*1e6 + int64(t.Nanosecond())/1e3)
}

// time is instant; null for the zero time.
func (c *column) time(t time.Time) {
	if t.IsZero() {
		c.null()
		return
	}
	c.instant(t)
}

// interval is one of microseconds.
func (c *column) interval(d time.Duration) {
	c.begin(16)
	c.buf = binary.BigEndian.AppendUint64(c.buf, uint64(d.Microseconds()))
	c.buf = binary.BigEndian.AppendUint64(c.buf, 0) // days and months
}
