package segment

import (
	"slices"
	"sync"
)

// output is a file's bytes while it grows. A growing slice would be copied over and over into memory that is new each time: for
// each byte of a file, three of garbage.
type output struct {
	chunks []*chunk
	size   int // bytes written
}

type chunk [256 << 10]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// Write never fails.
func (o *output) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		at := o.size % len(chunk{})
		if at == 0 {
			o.chunks = append(o.chunks, chunks.Get().(*chunk)) //nolint:forcetypeassert // the pool holds nothing else
		}
		n := copy(o.chunks[len(o.chunks)-1][at:], rest)
		rest, o.size = rest[n:], o.size+n
	}
	return len(p), nil
}

// bytes returns all that was written, and leaves the output empty.
func (o *output) bytes() []byte {
	all := slices.Grow([]byte(nil), o.size)
	for _, c := range o.chunks {
		all = append(all, c[:min(len(c), o.size-len(all))]...)
		chunks.Put(c)
	}
	*o = output{}
	return all
}
