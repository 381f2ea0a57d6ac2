package store

import (
	"context"
	"encoding/binary"
	"io"
	"slices"
)

// rows are what COPY takes in binary form. Long values, megabytes of bodies, are not copied: they are sent from where they
// are. It reads itself out once.
type rows struct {
	column // the values of all rows, but for the long ones
	width  int
	long   []cut
	sent   int // of column.buf
	next   int // of long
	within int // of long[next]: how much of it is sent
}

// cut is a long value and its place among the others.
type cut struct {
	at    int
	value []byte
}

const (
	copyMark = "PGCOPY\n\xff\r\n\x00"
	shortest = 256 // bytes of a value that is not copied
)

// rowsOf makes room for n rows of width values, of about each bytes together, and so many long ones.
func rowsOf(n, width, each, long int) *rows {
	r := &rows{width: width, long: make([]cut, 0, long)}
	r.buf = slices.Grow(r.buf, len(copyMark)+8+n*(2+4*width+each)+2)
	r.buf = append(append(r.buf, copyMark...), 0, 0, 0, 0, 0, 0, 0, 0) // flags, length of the header's extension
	return r
}

// row begins the next row.
func (r *rows) row() { r.buf = binary.BigEndian.AppendUint16(r.buf, uint16(r.width)) }

// blob is a bytea; the bytes stay as they are until the rows are sent.
func (r *rows) blob(b []byte) {
	if len(b) < shortest {
		r.bytes(b)
		return
	}
	r.begin(len(b))
	r.long = append(r.long, cut{len(r.buf), b})
}

// Read is for COPY.
func (r *rows) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if r.next == len(r.long) {
			m := copy(p[n:], r.buf[r.sent:])
			if n, r.sent = n+m, r.sent+m; m == 0 {
				return n, io.EOF
			}
			continue
		}
		c := &r.long[r.next]
		m := copy(p[n:], r.buf[r.sent:c.at])
		n, r.sent = n+m, r.sent+m
		if r.sent < c.at {
			continue
		}
		m = copy(p[n:], c.value[r.within:])
		n, r.within = n+m, r.within+m
		if r.within == len(c.value) {
			r.next, r.within = r.next+1, 0
		}
	}
	return n, nil
}

// copyIn sends the rows. into is the COPY statement.
func (t *Tx) copyIn(ctx context.Context, what, into string, r *rows) error {
	r.buf = append(r.buf, 0xff, 0xff) // no further row
	if _, err := t.tx.Conn().PgConn().CopyFrom(ctx, r, into); err != nil {
		return &OwnError{what, err}
	}
	return nil
}
