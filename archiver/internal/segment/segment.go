// Package segment is the archive's object: a Parquet file of a gapless run of one partition's records, which says in
// its footer what it holds and what came before it. Rows come in and a file's bytes go out, or the other way round.
// It must never write a file with a gap, and never take one for whole whose rows and footer disagree.
package segment

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/pkg/mutant"
)

// Info is what a segment's footer says.
type Info struct {
	Partition     layout.Partition
	First, Last   int64     // offsets of the first and the last record
	Day           time.Time // the broker's timestamp of the first record
	LeaderEpoch   int32     // of the last record; -1 when unknown
	Writer        string    // UUID of the archiver process that wrote it
	Previous      string    // SHA-256 of the segment before, 64 hex digits; empty for the first of a chain
	Root          Hash      // RFC 6962 Merkle root over the rows' leaves
	SchemaVersion int32
}

// Count is the number of rows.
func (i *Info) Count() int64 { return i.Last - i.First + 1 }

// Key is where the segment lies in the store, when its records are of that kind.
func (i *Info) Key(kind layout.Kind) string {
	day := i.Day
	if mutant.On(mutant.M18) {
		day = mutant.Now()
	}
	return layout.Segment{Kind: kind, Partition: i.Partition, Day: day, First: i.First}.Key()
}

// Segment is a finished file.
type Segment struct {
	Info
	Body   []byte
	SHA256 Hash // of Body
}

// ErrDamaged is wrapped by the errors of Open and Verify: the bytes are not a whole segment.
var ErrDamaged = errors.New("segment is damaged")

// The footer's key-value metadata.
const (
	keyTopic     = "catchment.topic"
	keyTopicID   = "catchment.topic_id"
	keyPartition = "catchment.partition"
	keyFirst     = "catchment.first_offset"
	keyLast      = "catchment.last_offset"
	keyCount     = "catchment.count"
	keyEpoch     = "catchment.leader_epoch"
	keyWriter    = "catchment.writer"
	keyPrevious  = "catchment.previous_sha256"
	keyRoot      = "catchment.merkle_root"
	keyVersion   = "catchment.schema_version"
)

func (i *Info) metadata() map[string]string {
	return map[string]string{
		keyTopic:     i.Partition.Topic,
		keyTopicID:   hex.EncodeToString(i.Partition.TopicID[:]),
		keyPartition: strconv.FormatInt(int64(i.Partition.Number), 10),
		keyFirst:     strconv.FormatInt(i.First, 10),
		keyLast:      strconv.FormatInt(i.Last, 10),
		keyCount:     strconv.FormatInt(i.Count(), 10),
		keyEpoch:     strconv.FormatInt(int64(i.LeaderEpoch), 10),
		keyWriter:    i.Writer,
		keyPrevious:  i.Previous,
		keyRoot:      hex.EncodeToString(i.Root[:]),
		keyVersion:   strconv.FormatInt(int64(i.SchemaVersion), 10),
	}
}

// parseInfo reads the metadata. The day is not part of it: the rows have it.
func parseInfo(lookup func(string) (string, bool)) (Info, error) {
	var i Info
	var errs []error
	text := func(key string) string {
		v, ok := lookup(key)
		if !ok {
			errs = append(errs, fmt.Errorf("%s is missing", key))
		}
		return v
	}
	number := func(key string, bits int) int64 {
		n, err := strconv.ParseInt(text(key), 10, bits)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		return n
	}
	digest := func(key string, to []byte) {
		b, err := hex.DecodeString(text(key))
		if err != nil || len(b) != len(to) {
			errs = append(errs, fmt.Errorf("%s is not %d hex digits", key, 2*len(to)))
		}
		copy(to, b)
	}
	i.Partition.Topic = text(keyTopic)
	digest(keyTopicID, i.Partition.TopicID[:])
	i.Partition.Number = int32(number(keyPartition, 32))
	i.First, i.Last = number(keyFirst, 64), number(keyLast, 64)
	i.LeaderEpoch = int32(number(keyEpoch, 32))
	i.Writer = text(keyWriter)
	i.Previous = text(keyPrevious)
	digest(keyRoot, i.Root[:])
	i.SchemaVersion = int32(number(keyVersion, 32))
	if count := number(keyCount, 64); len(errs) == 0 && (count != i.Count() || count < 1) {
		errs = append(errs, fmt.Errorf("%d rows do not reach from offset %d to %d", count, i.First, i.Last))
	}
	return i, errors.Join(errs...)
}
