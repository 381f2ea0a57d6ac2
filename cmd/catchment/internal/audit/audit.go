// Package audit holds the archive, Kafka and Postgres against each other. A configuration, a database and a store come in;
// counts of what is accounted for, and each thing that is not, go out. It never writes, and never calls a fault what only
// waits its turn.
//
// The order of reading makes that so while everything runs. First a snapshot of Postgres, with the processor's positions:
// all of it is of one moment, so what lies below a position has left its rows in the snapshot, and no row in it is of a
// record behind its position. Then the archive's checkpoints, then its segments, then Kafka's ends: both only grow, so every
// record below a position is in one of them by then, and each checkpoint's segment is there. What lies behind a position,
// or behind the last checkpoint, is pending, and a fault only when it is too old. A segment at the end of its chain may be
// waiting for its checkpoint. Last come the records themselves, which do not change.
package audit

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// Options say what is audited.
type Options struct {
	Since, Until time.Time     // by the broker's time of the records; zero: no bound
	Partitions   []int32       // none: all. Identities are held against all records only where all are read
	PendingAfter time.Duration // from this age on, what is still to be processed or archived is a fault
	Bodies       bool          // recompute the digests of archived bodies
	Limit        int           // faults that are named at most
}

// Report is what an audit found.
type Report struct {
	OK         bool             `json:"ok"`
	At         time.Time        `json:"at"` // of the moment that was audited, by the database's clock
	Since      *time.Time       `json:"since,omitempty"`
	Until      *time.Time       `json:"until,omitempty"`
	Partitions []Partition      `json:"partitions"`
	Total      Counts           `json:"total"`
	Unchecked  []string         `json:"unchecked"` // what this run did not look at, and why
	Kinds      map[string]int64 `json:"kinds"`     // how many faults there are of each kind
	Faults     []Fault          `json:"faults"`    // those that are named
	Unnamed    int64            `json:"unnamed"`   // how many more there are
	Took       string           `json:"took"`
}

// Partition is how one partition of one incarnation of a topic stands.
type Partition struct {
	Topic     string `json:"topic"`
	TopicID   string `json:"topic_id"`
	Partition int32  `json:"partition"`
	Gone      bool   `json:"gone"`               // Kafka no longer has this incarnation
	Next      *int64 `json:"next_offset"`        // the processor's position; null: it has none
	ArchiveTo int64  `json:"archived_to"`        // the offset after the last archived one
	LogStart  int64  `json:"log_start"`          // Kafka's first offset
	LogEnd    int64  `json:"log_end"`            // the offset after Kafka's last one
	Oldest    string `json:"oldest_pending_for"` // how old the oldest pending record is; empty: none is pending
	Counts
}

// slack is how far the clocks of brokers, services and the database may be apart, with the time that a request takes.
const slack = time.Hour

// Run audits.
func Run(ctx context.Context, cfg *settings.File, db *pgxpool.Pool, store archive.Store, cl *kgo.Client, o Options) (*Report, error) {
	began := time.Now()
	reader, err := processor.NewReader(cfg)
	if err != nil {
		return nil, err
	}
	ring, err := keys.Open(ctx, cfg.Archive)
	if err != nil {
		return nil, err
	}
	snap, err := inspect.OpenSnapshot(ctx, db)
	if err != nil {
		return nil, err
	}
	defer snap.Close(ctx)
	a := &auditor{Options: o, cfg: cfg, snap: snap, store: store, reader: reader, ring: ring, faults: newFaults(o.Limit), tally: newTally(tallyBuckets), rules: rulesOf(cfg, o, snap.At)}
	if err := a.look(ctx, cl); err != nil {
		return nil, err
	}
	traces, err := snap.Traces(ctx, earlier(o.Since))
	if err != nil {
		return nil, err
	}
	a.traces = &stream{rows: traces}
	for _, pl := range a.plans {
		if err := a.partition(ctx, pl); err != nil {
			return nil, err
		}
	}
	if err := a.rest(ctx); err != nil {
		return nil, err
	}
	r := a.result()
	r.Took = time.Since(began).Round(time.Millisecond).String()
	return r, nil
}

func earlier(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.Add(-slack)
}

func rulesOf(cfg *settings.File, o Options, now time.Time) *rules {
	r := &rules{since: o.Since, until: o.Until, to: [16]byte(bytes.Repeat([]byte{0xff}, 16))}
	if !o.Since.IsZero() {
		r.from = [16]byte{}
		putMillis(&r.from, o.Since)
	}
	if !o.Until.IsZero() {
		r.to = [16]byte{}
		putMillis(&r.to, o.Until)
	}
	kept := func(age time.Duration) time.Time {
		if age == 0 {
			return time.Time{}
		}
		return now.Add(slack - age)
	}
	r.identitiesFrom, r.repeatsFrom = kept(cfg.Processor.IdentityRetention), kept(cfg.Processor.ResultsRetention)
	return r
}

// putMillis makes the least UUIDv7 of a time.
func putMillis(id *[16]byte, t time.Time) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(max(t.UnixMilli(), 0))<<16)
	copy(id[:6], b[:6])
}

// auditor is one run.
type auditor struct {
	Options
	*rules
	cfg    *settings.File
	snap   *inspect.Snapshot
	store  archive.Store
	reader *processor.Reader
	ring   *keys.Ring
	faults *faults
	tally  *tally
	traces *stream

	plans     []*plan
	odd       int64 // faults of no partition
	unchecked []string
}

// plan is what is read of one partition, and what was found.
type plan struct {
	part  archive.Partition
	chain *archive.Chain
	log   *bounds        // nil: Kafka does not have this incarnation
	next  int64          // the processor's position; -1: none
	whole bool           // from the first record on
	from  int            // index of the first checkpoint that is read
	to    int            // index after the last one
	more  []archive.Link // that were written meanwhile
	end   int64          // the offset after the last archived one; -1: nothing is archived
	fetch span           // of Kafka's log
	holes []span         // offsets whose records could not be read, which is told
	read  span           // offsets that were read
	desk  *desk
	late  map[string]time.Time // the oldest pending record, by what it waits for
}

// look lists what there is.
func (a *auditor) look(ctx context.Context, cl *kgo.Client) error {
	until := a.Until
	if !until.IsZero() {
		until = until.Add(slack)
	}
	inv, err := archive.List(ctx, a.store, earlier(a.Since), until)
	if err != nil {
		return err
	}
	for _, key := range inv.Odd {
		a.odd++
		a.faults.add(Fault{Kind: ForeignObject, Found: "a key that the archiver does not write"}.object(key))
	}
	positions := map[archive.Partition]int64{}
	topics := map[string]bool{a.cfg.Kafka.Topic: true}
	for _, p := range a.snap.Places {
		positions[archive.Partition{Topic: p.Topic, TopicID: p.TopicID, Number: p.Partition}] = p.NextOffset
		topics[p.Topic] = true
	}
	for p, c := range inv.Chains {
		deliveries := topics[p.Topic]
		if !deliveries {
			if deliveries, err = a.ofDeliveries(ctx, p, c); err != nil {
				return err
			}
		}
		if !deliveries {
			delete(inv.Chains, p)
		} else {
			topics[p.Topic] = true
		}
	}
	logs, err := logs(ctx, cl, slices.Sorted(maps.Keys(topics)))
	if err != nil {
		return err
	}
	plans := map[archive.Partition]*plan{}
	add := func(p archive.Partition) *plan {
		pl := plans[p]
		if pl == nil {
			pl = &plan{part: p, chain: &archive.Chain{}, next: -1, end: -1, late: map[string]time.Time{}}
			plans[p] = pl
		}
		return pl
	}
	for p, c := range inv.Chains {
		add(p).chain = c
	}
	for p, next := range positions {
		add(p).next = next
	}
	for p, b := range logs {
		if p.Topic == a.cfg.Kafka.Topic || plans[p] != nil {
			add(p).log = &b
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(plans), comparePartitions) {
		if len(a.Partitions) == 0 || slices.Contains(a.Partitions, p.Number) {
			a.plans = append(a.plans, plans[p])
		}
	}
	return nil
}

// ofDeliveries says whether a chain is one of deliveries: its last checkpoint tells.
func (a *auditor) ofDeliveries(ctx context.Context, p archive.Partition, c *archive.Chain) (bool, error) {
	for _, first := range slices.Backward(c.Checkpoints) {
		l, err := archive.ReadLink(ctx, a.store, p, first)
		if err != nil && !errors.Is(err, archive.ErrNoObject) && !errors.Is(err, archive.ErrMalformed) {
			return false, err
		}
		if l.Checkpoint != nil {
			kind, _, err := archive.About(l.Checkpoint)
			return kind == archive.Events, err
		}
	}
	return p.Topic != a.cfg.Kafka.Results(), nil // segments of results are not listed
}

// rest judges what is of no single partition.
func (a *auditor) rest(ctx context.Context) error {
	if len(a.Partitions) > 0 {
		a.unchecked = append(a.unchecked, "whether each identity is of a delivery: an identity does not say in which partition that is")
		return nil
	}
	last := archive.Partition{TopicID: [16]byte(bytes.Repeat([]byte{0xff}, 16)), Number: 1<<31 - 1}
	if err := a.strangers(ctx, last.TopicID, last.Number, 1<<62); err != nil {
		return err
	}
	if err := a.identities(ctx); err != nil {
		return err
	}
	return a.letters(ctx)
}

// strangers reports the traces of partitions that are not known, before a place.
func (a *auditor) strangers(ctx context.Context, topicID [16]byte, partition int32, offset int64) error {
	traces, err := a.traces.before(ctx, topicID, partition, offset)
	if err != nil {
		return err
	}
	for _, t := range traces {
		if !a.Since.IsZero() || !a.Until.IsZero() || len(a.Partitions) > 0 {
			continue // of partitions and days that are not read
		}
		a.odd++
		a.faults.add(at(InventedTrace, archive.Partition{TopicID: t.TopicID, Number: t.Partition}, t.Offset,
			fmt.Sprintf("a %s of a partition that is neither in the archive nor in Kafka", kindOf(t))).event(t.Source, t.ID))
	}
	return nil
}

// differentBuckets is in how many buckets of the tally identities are looked for by name.
const differentBuckets = 4096

// identities finds the identities that no record explains.
func (a *auditor) identities(ctx context.Context) error {
	if err := a.eachIdentity(ctx, func(i *inspect.StoredIdentity, mark uint64) { a.tally.add(mark) }); err != nil {
		return err
	}
	buckets := a.tally.different(differentBuckets)
	if len(buckets) == 0 {
		return nil
	}
	known, sealed := map[uint64]bool{}, map[[16]byte]bool{}
	for _, pl := range a.plans {
		for c, err := range a.records(ctx, pl) {
			if err != nil {
				return err
			}
			for i := range c.records {
				rec := &c.records[i]
				if rec.Sealed != nil {
					sealed[rec.DeliveryID] = true
				}
				for _, p := range rec.Parts {
					if m := a.tally.mark(p.Source, p.ID, rec.DeliveryID); buckets[a.tally.bucket(m)] {
						known[m] = true
					}
				}
			}
		}
	}
	var strange []inspect.StoredIdentity
	if err := a.eachIdentity(ctx, func(i *inspect.StoredIdentity, mark uint64) {
		if buckets[a.tally.bucket(mark)] && !known[mark] && !sealed[i.DeliveryID] {
			strange = append(strange, *i)
		}
	}); err != nil {
		return err
	}
	for _, i := range strange {
		if err := a.strange(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) eachIdentity(ctx context.Context, f func(i *inspect.StoredIdentity, mark uint64)) error {
	stored, err := a.snap.AllIdentities(ctx, a.from, a.to)
	if err != nil {
		return err
	}
	return stored.Each(ctx, func(i inspect.StoredIdentity) { f(&i, a.tally.mark(i.Source, i.ID, i.DeliveryID)) })
}

// strange reports an identity whose delivery was not read, unless it is known why it was not.
func (a *auditor) strange(ctx context.Context, i inspect.StoredIdentity) error {
	place, err := a.snap.PlaceOf(ctx, i)
	if err != nil {
		return err
	}
	f := Fault{Kind: InventedIdentity, Found: fmt.Sprintf("no record in the archive or in Kafka is its delivery %s", uuidText(i.DeliveryID))}
	for _, pl := range a.plans {
		if place == nil || pl.part.TopicID != place.TopicID || pl.part.Number != place.Partition {
			continue
		}
		if within(pl.holes, place.Offset) || pl.desk.behind && place.Offset >= pl.next {
			return nil
		}
		f = at(InventedIdentity, pl.part, place.Offset, f.Found+", which should be here")
		pl.desk.counts.Faults++
		a.odd--
	}
	a.odd++
	a.faults.add(f.event(i.Source, i.ID))
	return nil
}

// letters finds operations that gave up without a dead letter, and dead letters of events that are not there.
func (a *auditor) letters(ctx context.Context) error {
	report := func(lost *inspect.Rows[inspect.LostLetter], f Fault) error {
		return lost.Each(ctx, func(l inspect.LostLetter) {
			f.Operation = l.Operation
			a.odd++
			a.faults.add(f.event(l.Source, l.ID))
		})
	}
	lost, err := a.snap.WithoutLetter(ctx, a.from, a.to)
	if err != nil {
		return err
	}
	if err := report(lost, Fault{Kind: MissingLetter, Found: "the operation's last attempt is dead, and there is no dead letter"}); err != nil {
		return err
	}
	if a.cfg.Processor.IdentityRetention > 0 || !a.Since.IsZero() || !a.Until.IsZero() {
		return nil
	}
	if lost, err = a.snap.WithoutIdentity(ctx); err != nil {
		return err
	}
	return report(lost, Fault{Kind: InventedTrace, Found: "a dead letter of an event that has no identity"})
}

func (a *auditor) result() *Report {
	r := &Report{
		At: a.snap.At, Partitions: []Partition{}, Kinds: a.faults.kinds, Faults: a.faults.shown(), Unchecked: append([]string{}, a.unchecked...),
	}
	if r.Faults == nil {
		r.Faults = []Fault{}
	}
	for _, t := range []struct {
		from time.Time
		to   **time.Time
	}{{a.Since, &r.Since}, {a.Until, &r.Until}} {
		if !t.from.IsZero() {
			*t.to = &t.from
		}
	}
	for _, pl := range a.plans {
		p := Partition{
			Topic: pl.part.Topic, TopicID: hex.EncodeToString(pl.part.TopicID[:]), Partition: pl.part.Number, Gone: pl.log == nil,
			ArchiveTo: max(pl.end, 0), Counts: pl.desk.counts,
		}
		if pl.next >= 0 {
			p.Next = &pl.next
		}
		if pl.log != nil {
			p.LogStart, p.LogEnd = pl.log.start, pl.log.end
		}
		if len(pl.late) > 0 {
			oldest := slices.MinFunc(slices.Collect(maps.Values(pl.late)), time.Time.Compare)
			p.Oldest = max(a.snap.At.Sub(oldest).Round(time.Second), 0).String()
		}
		r.Partitions = append(r.Partitions, p)
		r.Total.add(&p.Counts)
	}
	r.Total.Faults += a.odd
	r.Unnamed = a.faults.total() - int64(len(r.Faults))
	r.OK = a.faults.total() == 0
	return r
}

func (c *Counts) add(o *Counts) {
	c.Archived += o.Archived
	c.InKafka += o.InKafka
	c.Identities += o.Identities
	c.Repeats += o.Repeats
	c.Conflicts += o.Conflicts
	c.DeadLetters += o.DeadLetters
	c.Markers += o.Markers
	c.Forgotten += o.Forgotten
	c.Admitted += o.Admitted
	c.Sealed += o.Sealed
	c.Pending += o.Pending
	c.Faults += o.Faults
}

// parseDelivery reads a delivery ID; the zero value: it is none.
func parseDelivery(text string) [16]byte {
	id, err := uuid.Parse(text)
	if err != nil {
		return [16]byte{}
	}
	return id
}

var errStopped = errors.New("stopped")
