package event

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Salvage reads as much of a record as it can, for the archive, which keeps every record. The headers that have no
// place in a Delivery come back in rest, in their order: unknown ones, doubled ones and malformed ones. For a record
// that Decode takes, the delivery is the same and err is nil; otherwise err is Decode's, and the delivery holds what
// is known. The delivery's body is the record's value itself.
func Salvage(r *kgo.Record) (d *Delivery, rest []kgo.RecordHeader, err error) {
	if d, rest, err = decode(r); err == nil {
		return d, rest, nil
	}
	d = &Delivery{Body: r.Value}
	var seen uint32
	for _, h := range r.Headers {
		k, v := h.Key, string(h.Value)
		if name, ok := strings.CutPrefix(k, prefixHTTP); ok {
			d.Headers = append(d.Headers, Header{name, v})
			continue
		}
		before, bit := *d, bitOf(k)
		if bit == 0 || seen&bit != 0 || k == headerSpecVersion || k == headerVersion || d.set(k, v) != nil {
			*d = before
			rest = append(rest, h)
			continue
		}
		seen |= bit
	}
	if d.Verdict.Has(FlagNoType) {
		d.Type = ""
	}
	return d, rest, err
}
