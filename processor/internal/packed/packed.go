// Package packed is how records lie in the outbox. Records without a topic come in and a compressed text of bytes goes
// out, or the other way round. It never reads what a record holds, and never makes more memory of bytes than it is told.
package packed

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"
)

// MaxBytes bounds what one Pack holds before compression, besides its last record.
const MaxBytes = 4 << 20

// maxUnpacked bounds what Unpack makes of bytes: MaxBytes and the largest record that a topic may allow.
const maxUnpacked = 64 << 20

const version = 1

// errForm says that bytes were not made by Pack.
var errForm = errors.New("not what Pack writes")

// The errors are those of wrong options, and these are right.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxMemory(maxUnpacked))
		return d
	})
)

// Pack writes records; a nil key or value stays nil.
func Pack(records []*kgo.Record) []byte {
	var b []byte
	for _, r := range records {
		b = appendBytes(b, r.Key)
		b = appendBytes(b, r.Value)
		b = binary.AppendUvarint(b, uint64(len(r.Headers)))
		for _, h := range r.Headers {
			b = appendBytes(b, []byte(h.Key))
			b = appendBytes(b, h.Value)
		}
	}
	return encoder().EncodeAll(b, []byte{version})
}

// Size is about what a record takes up before compression, in bytes.
func Size(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value) + 16
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value) + 4
	}
	return n
}

// Unpack reads what Pack wrote.
func Unpack(b []byte) ([]*kgo.Record, error) {
	if len(b) == 0 || b[0] != version {
		return nil, fmt.Errorf("%w: of another release", errForm)
	}
	raw, err := decoder().DecodeAll(b[1:], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errForm, err)
	}
	var records []*kgo.Record
	p := parser{rest: raw}
	for len(p.rest) > 0 && p.err == nil {
		r := &kgo.Record{Key: p.bytes(), Value: p.bytes()}
		for n := p.number(); n > 0 && p.err == nil; n-- {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: string(p.bytes()), Value: p.bytes()})
		}
		records = append(records, r)
	}
	if p.err != nil {
		return nil, p.err
	}
	return records, nil
}

// appendBytes writes the length plus one, so that 0 is nil, and the bytes.
func appendBytes(b, v []byte) []byte {
	if v == nil {
		return append(b, 0)
	}
	return append(binary.AppendUvarint(b, uint64(len(v))+1), v...)
}

type parser struct {
	rest []byte
	err  error
}

func (p *parser) number() uint64 {
	n, size := binary.Uvarint(p.rest)
	if p.err != nil || size <= 0 {
		p.err, p.rest = errForm, nil
		return 0
	}
	p.rest = p.rest[size:]
	return n
}

func (p *parser) bytes() []byte {
	n := p.number()
	if n == 0 {
		return nil
	}
	if n--; n > uint64(len(p.rest)) {
		p.err, p.rest = errForm, nil
		return nil
	}
	v := p.rest[:n:n]
	p.rest = p.rest[n:]
	return v
}
