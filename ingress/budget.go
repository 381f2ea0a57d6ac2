package ingress

import (
	"errors"
	"io"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// budget bounds the bytes that requests hold at once: those that are being read and those for which Kafka
// has not answered yet, also after their sender got a 503.
type budget struct {
	limit int64
	used  atomic.Int64
	gauge prometheus.Gauge
}

func (b *budget) take(n int64) bool {
	if used := b.used.Add(n); used > b.limit {
		b.used.Add(-n)
		return false
	}
	b.gauge.Add(float64(n))
	return true
}

func (b *budget) give(n int64) {
	b.used.Add(-n)
	b.gauge.Sub(float64(n))
}

// hold is what one request has of the budget.
type hold struct {
	of    *budget
	bytes int64
	given atomic.Bool
}

// release gives it back, once.
func (h *hold) release() {
	if !h.given.Swap(true) {
		h.of.give(h.bytes)
	}
}

var (
	errTooLarge = errors.New("body is larger than max_body")
	errNoRoom   = errors.New("in_flight_bytes is used up")
)

// requestOverhead is what a request is charged beside its body, for its headers and all that is made of them: without
// it a flood of small bodies would hold many times what it counts.
const requestOverhead = 4 << 10

// firstChunk is what a sender gets on its word alone; more only as its bytes arrive.
const firstChunk = 64 << 10

// read reads a body of at most limit bytes. length is the Content-Length, or -1. The bytes are taken from the
// budget as the buffer grows; held is what the caller must give back, whatever the error. A small body comes to lie in
// space, where that is large enough; it is charged for all of it.
func (b *budget) read(r io.Reader, length, limit int64, space []byte) (body []byte, held int64, err error) {
	if length > limit {
		return nil, 0, errTooLarge
	}
	size := min(limit, firstChunk)
	if length >= 0 {
		size = min(length, size)
	}
	for buf := []byte(nil); ; size = min(limit, 2*size) {
		if length >= 0 {
			size = min(size, length)
		}
		// One byte more than fits, so that the end of the body is seen without another round.
		fits := buf == nil && int64(cap(space)) > size
		charge := size + 1 + requestOverhead
		if fits {
			charge = int64(cap(space)) + requestOverhead
		}
		if !b.take(charge - held) {
			return nil, held, errNoRoom
		}
		held = charge
		if fits {
			buf = space[: 0 : size+1]
		} else {
			grown := make([]byte, len(buf), size+1)
			copy(grown, buf)
			buf = grown
		}
		for len(buf) < cap(buf) {
			n, err := r.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+n]
			switch {
			case err == io.EOF: // io.Reader returns io.EOF itself
				if length >= 0 && int64(len(buf)) != length {
					return nil, held, io.ErrUnexpectedEOF
				}
				return buf, held, nil
			case err != nil:
				return nil, held, err
			}
		}
		if int64(len(buf)) > limit || length >= 0 && int64(len(buf)) > length {
			return nil, held, errTooLarge
		}
	}
}
