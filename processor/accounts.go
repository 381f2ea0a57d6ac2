package processor

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// Reader says of records what the processor makes of them, for those who hold it to account.
type Reader struct{ rd *reader }

// NewReader takes the sources' rules by which deliveries with several events are taken apart. The error is config.Errors.
func NewReader(cfg *settings.File) (*Reader, error) {
	rd, errs := newReader(cfg)
	if len(errs) > 0 {
		return nil, errs
	}
	return &Reader{rd}, nil
}

// Part is one event of a record.
type Part struct {
	Index      int // its place in its delivery, from 0
	Source, ID string
	SHA256     [32]byte // of its exact bytes
	Changes    bool     // its provider changes members of a body between retries: a repetition may have other bytes
}

// Parts gives a record's events, in order; none for a marker of Kafka's own. The error says why there is no event in it:
// then it is a dead letter.
func (r *Reader) Parts(rec *kgo.Record) ([]Part, error) {
	var parts []Part
	for _, it := range r.rd.read(store.Partition{Topic: rec.Topic, Partition: rec.Partition}, rec) {
		switch {
		case it.err != nil:
			return nil, it.err
		case !it.skip:
			p := Part{Index: it.ev.Index, Source: it.ev.Source, ID: it.ev.ID, Changes: changes(it.ev)}
			copy(p.SHA256[:], it.digest)
			parts = append(parts, p)
		}
	}
	return parts, nil
}
