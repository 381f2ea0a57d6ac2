// Package event is the format in which webhooks travel through Catchment. A Delivery comes in and a Kafka record
// goes out, or the other way round; golden files and a fuzz test hold both directions together. It never looks
// into a body, and it is the only place that names a record header.
package event

import (
	"slices"
	"strings"
	"time"
)

// Delivery is one request that was verified and enqueued: one Kafka record. Times are UTC; the record keeps
// nanoseconds. A zero Time means that the provider does not say when the event happened.
type Delivery struct {
	Source     string    // the configured endpoint's name
	Provider   string    // the verification preset's name
	ID         string    // the event ID, or the delivery key of a delivery that carries several events
	Type       string    // the provider's own event type; empty when it has none
	Time       time.Time // when the provider says that it happened
	ReceivedAt time.Time // when the ingress had read the request
	DeliveryID string    // UUIDv7, made at receipt
	SecretID   string    // which secret verified it
	RemoteAddr string    // the sender's address, without the port
	Method     string    // the request's method
	Path       string    // the request's path, still escaped
	Query      string    // the raw query, without the question mark
	SignedURL  string    // the URL that the signature covers, for schemes that sign it
	Verdict    Verdict   // what the ingress found out about it

	ContentType string   // the Content-Type header, as sent
	TraceParent string   // W3C trace context
	TraceState  string   // W3C trace context
	Headers     []Header // the request's headers; several values of a name keep their order
	Body        []byte   // exactly the bytes received
}

// Header is one value of one request header. Name is in lower case.
type Header struct{ Name, Value string }

// HeaderMap returns the headers as a map from lower-case name to the values in order.
func (d *Delivery) HeaderMap() map[string][]string {
	m := make(map[string][]string, len(d.Headers))
	one := make([]string, len(d.Headers)) // most names have one value: room for all in one allocation
	for i, h := range d.Headers {
		if values, ok := m[h.Name]; ok {
			m[h.Name] = append(values, h.Value)
			continue
		}
		one[i] = h.Value
		m[h.Name] = one[i : i+1 : i+1]
	}
	return m
}

// Verdict is a comma-separated list of flags, sorted, each from the Flag constants.
type Verdict string

// The flags of a Verdict.
const (
	FlagVerified   = "verified"    // the scheme's check of authenticity passed
	FlagUnverified = "unverified"  // the source's scheme has no check (provider none)
	FlagIDDigest   = "id-digest"   // no event ID was found: the ID is the body's digest
	FlagIDUnsigned = "id-unsigned" // the ID stands in a header that the signature does not cover
	FlagNoType     = "no-type"     // the delivery names no event type
	FlagBatch      = "batch"       // the delivery may carry several events: the ID is its key
	FlagWeak       = "weak"        // the check proves less than a signature over the whole body

	FlagReplaySuspect = "replay-suspect" // the same body came lately under another ID, which the signature does not cover
	FlagSchemaInvalid = "schema-invalid" // the body is not what the source's JSON Schema describes
)

// NewVerdict joins flags.
func NewVerdict(flags ...string) Verdict {
	slices.Sort(flags)
	return Verdict(strings.Join(slices.Compact(flags), ","))
}

// With returns the verdict with one more flag.
func (v Verdict) With(flag string) Verdict {
	if v == "" {
		return Verdict(flag)
	}
	return NewVerdict(append(strings.Split(string(v), ","), flag)...)
}

// Has says whether flag is in the list.
func (v Verdict) Has(flag string) bool {
	for f := range strings.SplitSeq(string(v), ",") {
		if f == flag {
			return true
		}
	}
	return false
}

// Event is what an operation gets: one event of a delivery, with the place of its record.
type Event struct {
	Source, Provider, ID, Type string
	Time, ReceivedAt           time.Time
	DeliveryID                 string
	Index                      int // the event's place in its delivery, from 0
	SecretID, ContentType      string
	Headers                    map[string][]string // lower-case name to values
	Body                       []byte              // the event's exact bytes
	Position                   Position            // of the delivery's record
}

// Position is where a record lies in Kafka.
type Position struct {
	Topic       string
	TopicID     [16]byte
	Partition   int32
	Offset      int64
	LeaderEpoch int32
}
