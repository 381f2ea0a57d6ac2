package audit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/inspect"
)

const (
	pageRecords = 4000 // of which the identities are looked up at once
	pageParts   = 5000
)

// What a record may wait for.
const (
	processing = "processing"
	archiving  = "archiving"
)

// partition reads and judges one partition.
func (a *auditor) partition(ctx context.Context, pl *plan) error {
	pl.desk = &desk{rules: a.rules, part: pl.part, next: max(pl.next, 0), tally: a.tally, report: a.faults.add}
	if err := a.choose(ctx, pl); err != nil {
		return err
	}
	if err := a.strangers(ctx, pl.part.TopicID, pl.part.Number, 0); err != nil {
		return err
	}
	if err := a.segments(ctx, pl); err != nil {
		return err
	}
	a.position(pl)
	return a.leftover(ctx, pl, 1<<62)
}

// choose finds the checkpoints of the time that is audited, and where the chain ends.
func (a *auditor) choose(ctx context.Context, pl *plan) error {
	all := pl.chain.Checkpoints
	pl.from, pl.to, pl.whole = 0, len(all), a.Since.IsZero()
	var failed error
	day := func(i int) time.Time {
		at, err := a.day(ctx, pl, all[i])
		failed = errors.Join(failed, err)
		return at
	}
	if !a.Since.IsZero() {
		since := earlier(a.Since).UTC().Truncate(24 * time.Hour)
		pl.from = sort.Search(len(all), func(i int) bool { return !day(i).Before(since) })
	}
	if !a.Until.IsZero() {
		until := a.Until.Add(slack)
		pl.to = max(pl.from, sort.Search(len(all), func(i int) bool { return day(i).After(until) }))
	}
	if failed != nil {
		return failed
	}
	if err := a.tip(ctx, pl); err != nil {
		return err
	}
	if pl.log != nil && pl.log.start > max(pl.end, 0) && len(all) > 0 {
		if err := a.again(ctx, pl); err != nil {
			return err
		}
	}
	a.span(pl)
	a.lost(pl)
	return nil
}

// day is when the object of a chain that begins at an offset is from; the zero time: it cannot be read, which is told later.
func (a *auditor) day(ctx context.Context, pl *plan, first int64) (time.Time, error) {
	l, err := archive.ReadLink(ctx, a.store, pl.part, first)
	switch {
	case errors.Is(err, archive.ErrNoObject), errors.Is(err, archive.ErrMalformed):
		return time.Time{}, nil
	case err != nil:
		return time.Time{}, err
	case l.Gap != nil:
		return l.Gap.Time, nil
	}
	_, at, err := archive.About(l.Checkpoint)
	return at, err
}

// tip finds the end of the chain.
func (a *auditor) tip(ctx context.Context, pl *plan) error {
	for _, first := range slices.Backward(pl.chain.Checkpoints) {
		l, err := archive.ReadLink(ctx, a.store, pl.part, first)
		switch {
		case errors.Is(err, archive.ErrNoObject), errors.Is(err, archive.ErrMalformed):
			continue
		case err != nil:
			return err
		}
		pl.end = endOf(l)
		return nil
	}
	return nil
}

func endOf(l archive.Link) int64 {
	if l.Gap != nil {
		return l.Gap.Last + 1
	}
	return l.Checkpoint.Last + 1
}

// lost finds what is neither archived nor in Kafka.
func (a *auditor) lost(pl *plan) {
	to, found := pl.next, "they were processed and are not archived, and Kafka no longer has this topic"
	if pl.log != nil {
		to, found = pl.log.start, "they are not archived, and Kafka has removed them"
	}
	from := max(pl.end, 0)
	if from >= to || !pl.whole && pl.log == nil {
		return
	}
	pl.holes = append(pl.holes, span{from, to})
	pl.desk.fault(at(Lost, pl.part, from, found).upto(to))
}

// again looks for what was archived since, as Kafka no longer has what lies behind the end.
func (a *auditor) again(ctx context.Context, pl *plan) error {
	for l, err := range archive.Links(ctx, a.store, pl.part, pl.end) {
		if err != nil {
			return err
		}
		if end := endOf(l); end > pl.end {
			pl.more = append(pl.more, l)
			pl.end = end
		}
	}
	return nil
}

// span says what is read of Kafka: what is not archived up to the position, and the first record that is pending.
func (a *auditor) span(pl *plan) {
	if pl.log == nil || !a.Until.IsZero() && a.Until.Add(slack).Before(a.snap.At) && pl.to < len(pl.chain.Checkpoints) {
		return
	}
	from := max(pl.end, pl.log.start)
	to := min(pl.log.end, max(pl.next, from)+1)
	if from < to {
		pl.fetch = span{from, to}
	}
}

// chunk is some records of a partition, in order, or what came up between them.
type chunk struct {
	records  []Record
	archived bool
	begin    *archive.Checkpoint // a segment begins
	broken   *broken
	gap      *archive.Gap
	object   string // an object of the chain that cannot be read, and why
	err      error
}

// broken is a segment that cannot be read from an offset on.
type broken struct {
	*archive.Checkpoint
	from int64
	err  error
}

// records yields what is read of a partition, in order: from the archive, then from Kafka.
func (a *auditor) records(ctx context.Context, pl *plan) iter.Seq2[chunk, error] {
	return func(yield func(chunk, error) bool) {
		for l, err := range a.links(ctx, pl) {
			switch {
			case l.Checkpoint != nil:
				err = a.segment(ctx, l.Checkpoint, yield)
			case l.Gap != nil && !yield(chunk{gap: l.Gap}, nil):
				err = errStopped
			case errors.Is(err, archive.ErrMalformed):
				if err = nil; !yield(chunk{object: l.key, err: l.err}, nil) {
					err = errStopped
				}
			}
			if errors.Is(err, errStopped) {
				return
			}
			if err != nil {
				yield(chunk{}, err)
				return
			}
		}
		if pl.fetch.from < pl.fetch.to {
			a.enqueued(ctx, pl, yield)
		}
	}
}

// enqueued yields what is read from Kafka.
func (a *auditor) enqueued(ctx context.Context, pl *plan, yield func(chunk, error) bool) {
	var c chunk
	for r, err := range fetch(ctx, a.cfg.Kafka, pl.part, pl.fetch.from, pl.fetch.to) { //nolint:contextcheck // an expression has a deadline of its own
		if err != nil {
			yield(chunk{}, err)
			return
		}
		c.records = append(c.records, a.fromKafka(pl, r))
		if len(c.records) >= pageRecords {
			if !yield(c, nil) {
				return
			}
			c = chunk{}
		}
	}
	if len(c.records) > 0 {
		yield(c, nil)
	}
}

// link is an object of a chain, or one that cannot be read.
type link struct {
	archive.Link
	key string
	err error
}

// links yields the objects of the chain that are to be read, in order. Those that are malformed come with their error.
func (a *auditor) links(ctx context.Context, pl *plan) iter.Seq2[link, error] {
	return func(yield func(link, error) bool) {
		for _, first := range pl.chain.Checkpoints[pl.from:pl.to] {
			l, err := archive.ReadLink(ctx, a.store, pl.part, first)
			if errors.Is(err, archive.ErrNoObject) {
				continue // it was listed a moment ago, and the hole is told
			}
			more := yield(link{l, archive.CheckpointKey(pl.part, first), err}, err)
			if !more || err != nil && !errors.Is(err, archive.ErrMalformed) {
				return
			}
		}
		for _, l := range pl.more {
			if !yield(link{Link: l}, nil) {
				return
			}
		}
	}
}

// segment yields the records of a segment. The error is the store's, or errStopped.
func (a *auditor) segment(ctx context.Context, cp *archive.Checkpoint, yield func(chunk, error) bool) error {
	if !yield(chunk{begin: cp}, nil) {
		return errStopped
	}
	read := cp.First
	for briefs, err := range a.briefs(ctx, cp) {
		switch {
		case errors.Is(err, archive.ErrNoObject), errors.Is(err, archive.ErrDamaged):
			if !yield(chunk{broken: &broken{cp, read, err}}, nil) {
				return errStopped
			}
			return nil
		case err != nil:
			return err
		}
		c := chunk{archived: true, records: make([]Record, len(briefs))}
		for i := range briefs {
			if c.records[i], err = a.fromArchive(ctx, &briefs[i]); err != nil {
				return err
			}
		}
		read += int64(len(briefs))
		if !yield(c, nil) {
			return errStopped
		}
	}
	return nil
}

// errBody says that a body is not the one of its digest.
var errBody = fmt.Errorf("%w: a body is not the one of its digest", archive.ErrDamaged)

// briefs reads a segment in short, or, with Bodies, as a whole.
func (a *auditor) briefs(ctx context.Context, cp *archive.Checkpoint) iter.Seq2[[]archive.Brief, error] {
	if !a.Bodies {
		return archive.Briefs(ctx, a.store, cp)
	}
	return func(yield func([]archive.Brief, error) bool) {
		var some []archive.Brief
		for w, err := range archive.Rows(ctx, a.store, cp) {
			if err == nil && w.BodyKeyID == "" && sha256.Sum256(w.Body) != w.BodySHA256 {
				err = fmt.Errorf("%s: offset %d: %w", cp.Segment, w.Offset, errBody)
			}
			if err != nil {
				if len(some) == 0 || yield(some, nil) {
					yield(nil, err)
				}
				return
			}
			if some = append(some, archive.BriefOfRow(w)); len(some) >= pageRecords/8 {
				if !yield(some, nil) {
					return
				}
				some = nil
			}
		}
		if len(some) > 0 {
			yield(some, nil)
		}
	}
}

// fromArchive says what an archived record must have left.
func (a *auditor) fromArchive(ctx context.Context, b *archive.Brief) (Record, error) {
	rec := Record{Offset: b.Offset, At: b.KafkaTimestamp, Source: b.Source, ID: b.EventID, DeliveryID: parseDelivery(b.DeliveryID)}
	if b.Whole == nil {
		rec.Parts = []processor.Part{{Source: b.Source, ID: b.EventID, SHA256: b.BodySHA256}}
		return rec, nil
	}
	if rec.Control = b.Whole.IsControl(); rec.Control {
		return rec, nil
	}
	err := a.ring.Unseal(ctx, b.Whole)
	if erased, ok := errors.AsType[*keys.ErasedError](err); ok || errors.Is(err, keys.ErrNoRing) {
		rec.Sealed = err
		if ok {
			rec.Sealed = erased
		}
		return rec, nil
	}
	if err != nil {
		return rec, fmt.Errorf("partition %d, offset %d: %w", b.Whole.Partition, b.Offset, err)
	}
	rec.Parts, rec.Why = a.reader.Parts(b.Whole.Record()) //nolint:contextcheck // an expression has a deadline of its own
	return rec, nil
}

// fromKafka says what a record must have left.
func (a *auditor) fromKafka(pl *plan, r *kgo.Record) Record {
	b := archive.BriefOf(r, pl.part.TopicID)
	rec := Record{Offset: b.Offset, At: b.KafkaTimestamp, Source: b.Source, ID: b.EventID, DeliveryID: parseDelivery(b.DeliveryID), Control: r.Attrs.IsControl()}
	if !rec.Control {
		rec.Parts, rec.Why = a.reader.Parts(r)
	}
	return rec
}

// segments reads and judges the records, and whether their segments are a run without a gap.
func (a *auditor) segments(ctx context.Context, pl *plan) error {
	next, err := a.start(ctx, pl)
	if err != nil {
		return err
	}
	for c, err := range ahead(ctx, a.records(ctx, pl)) {
		switch {
		case err != nil:
			return err
		case c.begin != nil:
			pl.begin(c.begin, next)
		case c.broken != nil:
			pl.broken(c.broken)
			next = c.broken.Last + 1
		case c.gap != nil:
			pl.gap(c.gap, next)
			next = c.gap.Last + 1
		case c.object != "":
			pl.desk.fault(of(DamagedSegment, pl.part, c.err.Error()).object(c.object))
		default:
			c.records = slices.DeleteFunc(c.records, func(r Record) bool { return r.Offset < next }) // in two segments, which is told
			if len(c.records) == 0 {
				continue
			}
			next = c.records[len(c.records)-1].Offset + 1
			if err := a.judge(ctx, pl, c); err != nil {
				return err
			}
		}
	}
	for _, stray := range pl.chain.Strays {
		if _, ok := slices.BinarySearch(pl.chain.Checkpoints, stray.First); !ok && stray.First < pl.end && !within(pl.holes, stray.First) {
			pl.desk.fault(at(DoubledSegment, pl.part, stray.First, "no checkpoint names this segment, and its offsets lie in others").object(stray.Key))
		}
	}
	return nil
}

// start is the offset at which the archive must begin; -1: it is not known, or not read from its beginning.
func (a *auditor) start(ctx context.Context, pl *plan) (int64, error) {
	if !pl.whole || pl.end < 0 {
		return -1, nil
	}
	first, err := archive.Start(ctx, a.store, pl.part)
	switch {
	case errors.Is(err, archive.ErrNoObject):
		return -1, nil // `archive verify` tells
	case errors.Is(err, archive.ErrMalformed):
		pl.desk.fault(of(DamagedSegment, pl.part, err.Error()))
		return -1, nil
	case err != nil:
		return -1, err
	case first > 0:
		pl.holes = append(pl.holes, span{0, first})
		a.unchecked = append(a.unchecked, fmt.Sprintf("partition %d: what lies before offset %d was never archived: the archiver began there", pl.part.Number, first))
	}
	return first, nil
}

// begin looks at a segment's place in the chain.
func (pl *plan) begin(cp *archive.Checkpoint, next int64) {
	i, _ := slices.BinarySearch(pl.chain.Checkpoints, cp.First)
	if day, ok := pl.chain.Listed(i); ok {
		pl.other(archive.Key(pl.part, day, cp.First), cp)
	}
	for _, stray := range pl.chain.Strays {
		if stray.First == cp.First {
			pl.other(stray.Key, cp)
		}
	}
	pl.hole(next, cp.First)
	if cp.First < next {
		pl.desk.fault(at(DoubledSegment, pl.part, cp.First, "its first offsets lie in the segment before as well").upto(next).object(cp.Segment))
	}
}

// gap notes offsets of which somebody has said that they are lost.
func (pl *plan) gap(g *archive.Gap, next int64) {
	pl.hole(next, g.First)
	pl.holes = append(pl.holes, span{g.First, g.Last + 1})
	pl.desk.counts.Admitted += g.Last + 1 - g.First
}

// hole reports offsets between two objects of the chain that lie in none.
func (pl *plan) hole(next, first int64) {
	if next < 0 || first <= next {
		return
	}
	pl.holes = append(pl.holes, span{next, first})
	found, key := "the segment and its checkpoint are not there", archive.CheckpointKey(pl.part, next)
	for _, stray := range pl.chain.Strays {
		if stray.First >= next && stray.First < first {
			found, key = "the checkpoint of segment "+stray.Key+" is not there", archive.CheckpointKey(pl.part, stray.First)
			break
		}
	}
	pl.desk.fault(at(MissingCheckpoint, pl.part, next, found).upto(first).object(key))
}

// other reports a segment of the same offset that is not the checkpoint's.
func (pl *plan) other(key string, cp *archive.Checkpoint) {
	if key != cp.Segment {
		pl.desk.fault(at(DoubledSegment, pl.part, cp.First, "the checkpoint of this offset names "+cp.Segment).object(key))
	}
}

// broken reports a segment that cannot be read.
func (pl *plan) broken(b *broken) {
	kind := DamagedSegment
	switch {
	case errors.Is(b.err, errBody):
		kind = AlteredBody
	case errors.Is(b.err, archive.ErrNoObject):
		kind = MissingSegment
	}
	pl.holes = append(pl.holes, span{b.from, b.Last + 1})
	pl.desk.fault(at(kind, pl.part, b.from, b.err.Error()).upto(b.Last + 1).object(b.Segment))
}

// judge judges a chunk, a page after the other.
func (a *auditor) judge(ctx context.Context, pl *plan, c chunk) error {
	for len(c.records) > 0 {
		n, parts := 0, 0
		for n < len(c.records) && n < pageRecords && (n == 0 || parts+len(c.records[n].Parts) <= pageParts) {
			parts += len(c.records[n].Parts)
			n++
		}
		if err := a.page(ctx, pl, c.records[:n], c.archived, parts); err != nil {
			return err
		}
		c.records = c.records[n:]
	}
	return nil
}

func (a *auditor) page(ctx context.Context, pl *plan, records []Record, archived bool, parts int) error {
	keys := make([]inspect.Key, 0, parts)
	for i := range records {
		for _, p := range records[i].Parts {
			keys = append(keys, inspect.Key{Source: p.Source, ID: p.ID})
		}
	}
	ids, err := a.snap.Identities(ctx, keys)
	if err != nil {
		return err
	}
	for i := range records {
		rec := &records[i]
		if err := a.leftover(ctx, pl, rec.Offset); err != nil {
			return err
		}
		traces, err := a.traces.before(ctx, pl.part.TopicID, pl.part.Number, rec.Offset+1)
		if err != nil {
			return err
		}
		a.count(pl, rec, archived)
		pl.desk.record(rec, ids[:len(rec.Parts)], traces)
		ids = ids[len(rec.Parts):]
	}
	return nil
}

// count counts a record by where it lies, and notes how old the oldest one is that is pending.
func (a *auditor) count(pl *plan, rec *Record, archived bool) {
	switch {
	case !archived:
		a.waits(pl, archiving, rec.At)
		if a.judged(rec.At) {
			pl.desk.counts.InKafka++
		}
	case a.judged(rec.At):
		pl.desk.counts.Archived++
	}
	if rec.Offset >= pl.next {
		a.waits(pl, processing, rec.At)
	}
	if pl.read.to == 0 {
		pl.read.from = rec.Offset
	}
	pl.read.to = rec.Offset + 1
}

func (a *auditor) waits(pl *plan, what string, at time.Time) {
	if !a.Until.IsZero() && !at.Before(a.Until) {
		return
	}
	if old, ok := pl.late[what]; !ok || at.Before(old) {
		pl.late[what] = at
	}
}

// leftover reports the traces before an offset that no record was read for.
func (a *auditor) leftover(ctx context.Context, pl *plan, offset int64) error {
	traces, err := a.traces.before(ctx, pl.part.TopicID, pl.part.Number, offset)
	if err != nil {
		return err
	}
	traces = slices.DeleteFunc(traces, func(t inspect.Trace) bool {
		outside := !pl.whole && (t.Offset < pl.read.from || pl.read.to == 0) || !a.Until.IsZero() && t.Offset >= pl.read.to
		return outside || within(pl.holes, t.Offset) || pl.desk.behind && t.Offset >= pl.next
	})
	pl.desk.invented(traces, "there is no record at this place, in the archive or in Kafka")
	return nil
}

// ahead reads some chunks ahead while those before are judged.
func ahead(ctx context.Context, chunks iter.Seq2[chunk, error]) iter.Seq2[chunk, error] {
	type one struct {
		chunk
		err error
	}
	return func(yield func(chunk, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		queue := make(chan one, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer close(queue)
			for c, err := range chunks {
				select {
				case queue <- one{c, err}:
				case <-ctx.Done():
					return
				}
			}
		}()
		defer func() { cancel(); <-done }()
		for c := range queue {
			if !yield(c.chunk, c.err) || c.err != nil {
				return
			}
		}
	}
}

// position judges where processor and archiver stand.
func (a *auditor) position(pl *plan) {
	next := max(pl.next, 0)
	end := max(pl.end, 0)
	if pl.log == nil {
		if _, waits := pl.late[processing]; waits {
			pl.desk.fault(at(NotProcessed, pl.part, next, "they were not processed before the topic was deleted, or they are another cluster's, which needs an archive.url of its own; the archive has them").upto(end))
		}
		return
	}
	log := *pl.log
	if pl.next > log.end {
		pl.desk.fault(at(Position, pl.part, pl.next, fmt.Sprintf("the processor's position; Kafka's log ends at %d: it was cut, or the position moved", log.end)))
	}
	if pl.end > log.end {
		pl.desk.fault(at(CutLog, pl.part, log.end, fmt.Sprintf("Kafka's log ends here, the archive at %d", pl.end)))
	}
	if pl.next >= 0 && pl.next < log.start {
		pl.desk.fault(at(Halted, pl.part, pl.next, "Kafka has removed them before they were processed").upto(log.start))
	}
	pl.desk.counts.Pending = max(0, log.end-max(log.start, min(next, end)))
	for _, w := range []struct {
		what, kind string
		from       int64
	}{{processing, NotProcessed, next}, {archiving, NotArchived, max(end, log.start)}} {
		since, waits := pl.late[w.what]
		if age := a.snap.At.Sub(since); waits && age >= a.PendingAfter {
			pl.desk.fault(at(w.kind, pl.part, w.from, fmt.Sprintf("the oldest waits for %s, longer than %s", age.Round(time.Second), a.PendingAfter)).upto(log.end))
		}
	}
}
