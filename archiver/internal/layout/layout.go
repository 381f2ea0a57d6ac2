// Package layout maps a place in Kafka to the names of objects in the archive, and back. A topic, its ID, a partition
// and an offset come in and a key goes out, or the other way round. It must never touch a store, and a key that it
// once made must be made the same way for ever.
package layout

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Kind is what a topic's records are. Segments of one kind have a prefix of their own, so that a reader's pattern finds
// nothing else.
type Kind uint8

// The kinds of records.
const (
	Events  Kind = iota // deliveries
	Results             // of operations
)

// Kinds are all of them.
func Kinds() []Kind { return []Kind{Events, Results} }

// Prefix is that of all segments of the kind.
func (k Kind) Prefix() string {
	if k == Results {
		return "results/"
	}
	return "events/"
}

// String is the kind's name in messages.
func (k Kind) String() string { return strings.TrimSuffix(k.Prefix(), "/") }

const (
	date            = "date="
	checkpoints     = "checkpoints/"
	starts          = "starts/"
	suffix          = ".parquet"
	dateForm        = time.DateOnly
	offsetDigits    = 20
	partitionDigits = 5
	idDigits        = 32
)

// Partition names one partition of one incarnation of a topic: a topic that was deleted and made again has another
// ID. Its segments are one chain.
type Partition struct {
	Topic   string
	TopicID [16]byte
	Number  int32
}

// String is {topic}-{topic ID, 32 hex digits}-{partition, 5 digits}.
func (p Partition) String() string {
	return fmt.Sprintf("%s-%x-%0*d", p.Topic, p.TopicID, partitionDigits, p.Number)
}

// Segment says which segment it is: of what kind, where it begins, and on which day.
type Segment struct {
	Kind      Kind
	Partition Partition
	Day       time.Time // of the broker's timestamp of the first record
	First     int64     // offset of the first record
}

// Key is where the segment lies.
func (s Segment) Key() string {
	return fmt.Sprintf("%s%s-%0*d%s", s.Kind.Day(s.Day), s.Partition, offsetDigits, s.First, suffix)
}

// Checkpoint is the key of the checkpoint of the segment that begins at offset first.
func (p Partition) Checkpoint(first int64) string {
	return fmt.Sprintf("%s%0*d", p.Checkpoints(), offsetDigits, first)
}

// Checkpoints is the prefix of the partition's checkpoints; in byte order they are in the order of their offsets.
func (p Partition) Checkpoints() string { return checkpoints + p.String() + "/" }

// Start is the key of the object that says where the partition's chain begins.
func (p Partition) Start() string { return starts + p.String() }

// AllStarts is the prefix of the starts of all partitions.
func AllStarts() string { return starts }

// ParseStart is the inverse of Partition.Start.
func ParseStart(key string) (Partition, error) {
	name, ok := strings.CutPrefix(key, starts)
	p, err := ParsePartition(name)
	if !ok || err != nil {
		return p, fmt.Errorf("%q is not a chain's start", key)
	}
	return p, nil
}

// AllCheckpoints is the prefix of the checkpoints of all partitions.
func AllCheckpoints() string { return checkpoints }

// Day is the prefix of all segments of the kind whose first record is of the given day.
func (k Kind) Day(day time.Time) string { return k.Prefix() + date + day.UTC().Format(dateForm) + "/" }

// ParseSegment is the inverse of Segment.Key. The day is midnight UTC.
func ParseSegment(key string) (s Segment, err error) {
	wrong := func(why error) (Segment, error) {
		if why != nil {
			return Segment{}, fmt.Errorf("%q is not a segment's key: %w", key, why)
		}
		return Segment{}, fmt.Errorf("%q is not a segment's key", key)
	}
	if strings.HasPrefix(key, Results.Prefix()) {
		s.Kind = Results
	}
	rest, ok := strings.CutPrefix(key, s.Kind.Prefix()+date)
	day, name, slash := strings.Cut(rest, "/")
	name, ends := strings.CutSuffix(name, suffix)
	if !ok || !slash || !ends || len(name) < offsetDigits+1 || name[len(name)-offsetDigits-1] != '-' {
		return wrong(nil)
	}
	if s.Day, err = time.Parse(dateForm, day); err != nil {
		return wrong(err)
	}
	if s.First, err = digits(name[len(name)-offsetDigits:]); err != nil {
		return wrong(err)
	}
	if s.Partition, err = ParsePartition(name[:len(name)-offsetDigits-1]); err != nil {
		return wrong(err)
	}
	return s, nil
}

// ParseCheckpoint is the inverse of Partition.Checkpoint.
func ParseCheckpoint(key string) (p Partition, first int64, err error) {
	rest, ok := strings.CutPrefix(key, checkpoints)
	name, offset, slash := strings.Cut(rest, "/")
	if !ok || !slash || len(offset) != offsetDigits {
		return p, 0, fmt.Errorf("%q is not a checkpoint's key", key)
	}
	if first, err = digits(offset); err == nil {
		p, err = ParsePartition(name)
	}
	if err != nil {
		return p, 0, fmt.Errorf("%q is not a checkpoint's key: %w", key, err)
	}
	return p, first, nil
}

// ParsePartition is the inverse of Partition.String.
func ParsePartition(name string) (p Partition, err error) {
	const tail = 1 + idDigits + 1 + partitionDigits
	at := len(name) - tail
	if at < 1 || name[at] != '-' || name[at+1+idDigits] != '-' {
		return p, fmt.Errorf("%q is not {topic}-{topic ID}-{partition}", name)
	}
	id := name[at+1 : at+1+idDigits]
	if n, err := hex.Decode(p.TopicID[:], []byte(id)); err != nil || n != len(p.TopicID) || strings.ToLower(id) != id {
		return p, fmt.Errorf("%q is not {topic}-{topic ID}-{partition}", name)
	}
	n, err := digits(name[at+1+idDigits+1:])
	if err != nil {
		return p, err
	}
	p.Topic, p.Number = name[:at], int32(n)
	return p, nil
}

// digits reads a number without a sign.
func digits(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, err
	}
	return int64(n), nil
}
