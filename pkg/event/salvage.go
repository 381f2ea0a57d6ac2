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
	return new(Decoder).Salvage(r)
}

// Salvage returns what the function of that name returns. What it has returned before must be out of use.
func (x *Decoder) Salvage(r *kgo.Record) (d *Delivery, rest []kgo.RecordHeader, err error) {
	if d, rest, err = x.decode(r); err == nil {
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

// Restore makes a record of what Salvage has told of one that is no delivery: the headers that are known, and the rest.
// Their order may be another one. Decode refuses it as it refused the first one.
func Restore(d *Delivery, rest []kgo.RecordHeader, key []byte) *kgo.Record {
	typ := d.Type
	if typ == "" && d.Verdict.Has(FlagNoType) {
		typ = typeUnknown
	}
	r := &kgo.Record{Key: key, Value: d.Body}
	for _, h := range [...]Header{
		{headerID, d.ID},
		{headerType, typ},
		{headerContentType, d.ContentType},
		{headerTraceParent, d.TraceParent},
		{headerTraceState, d.TraceState},
		{headerDeliveryID, d.DeliveryID},
		{headerProvider, d.Provider},
		{headerSecretID, d.SecretID},
		{headerRemoteAddr, d.RemoteAddr},
		{headerMethod, d.Method},
		{headerPath, d.Path},
		{headerQuery, d.Query},
		{headerSignedURL, d.SignedURL},
		{headerVerdict, string(d.Verdict)},
	} {
		if h.Value != "" {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Name, Value: []byte(h.Value)})
		}
	}
	add := func(name, value string) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	if d.Source != "" {
		add(headerSource, prefixSource+d.Source)
	}
	if !d.Time.IsZero() {
		add(headerTime, string(appendTime(nil, d.Time)))
	}
	if !d.ReceivedAt.IsZero() {
		add(headerReceivedAt, string(appendTime(nil, d.ReceivedAt)))
	}
	for _, h := range d.Headers {
		add(prefixHTTP+h.Name, h.Value)
	}
	r.Headers = append(r.Headers, rest...)
	return r
}
