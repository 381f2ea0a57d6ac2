package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/control"
	"github.com/catchment-dev/catchment/processor/inspect"
)

const (
	overtakenAgain = 10 // how often a backfill begins again because a processor took the partition over
	overtakenPause = 2 * time.Second
)

func newBackfill(a *app) *cobra.Command {
	var partitions []int32
	var across bool
	var skipErased bool
	var act actFlags
	c := &cobra.Command{
		Use:   "backfill",
		Short: "Take from the archive what Kafka has removed before it was processed, and let the halted partitions go on",
		Long: "Where Kafka's retention has overtaken the processor's position, the partition is halted. This takes the missing offsets from the\n" +
			"archive, through the same transactions as the processor's own; the processor then goes on by itself. It may be interrupted and\n" +
			"begun again. Exit code 1 when the archive does not hold an offset that is missing.",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.backfill(cmd.Context(), partitions, across, skipErased, act.act())
		},
	}
	c.Flags().BoolVar(&skipErased, "skip-erased", false, "what was erased from the archive becomes dead letters without a body, and the backfill goes on")
	c.Flags().Int32SliceVar(&partitions, "partition", nil, "only this partition; may be repeated")
	c.Flags().BoolVar(&across, "across-gaps", false, "go on behind offsets that are lost, as a gap in the archive says: their events will never be processed")
	act.register(c)
	return c
}

// filled is what was taken from the archive for one partition.
type filled struct {
	Partition int32 `json:"partition"`
	processor.Range
}

func (a *app) backfill(ctx context.Context, partitions []int32, across, skipErased bool, act control.Act) error {
	return a.onDatabase(ctx, func(db *pgxpool.Pool, cfg *settings.File) error {
		f, err := newFiller(ctx, cfg, db, act)
		if err != nil {
			return err
		}
		defer f.close()
		f.across = across
		f.skipErased = skipErased
		missing, err := f.missing(ctx)
		if err != nil {
			return err
		}
		ranges := []filled{}
		var failed error
		for _, p := range missing {
			if len(partitions) > 0 && !slices.Contains(partitions, p) {
				continue
			}
			r, err := f.fill(ctx, p)
			if r.Next > r.From {
				ranges = append(ranges, filled{p, r})
			}
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("partition %d: %w", p, err))
			}
		}
		if len(ranges) == 0 && failed == nil {
			fmt.Fprintln(a.err, "Nothing is missing: Kafka has every record behind the processor's positions.")
		}
		if err := a.answer(ranges, func(w io.Writer) {
			line(w, "PARTITION", "FROM", "NEXT", "RECORDS")
			for _, r := range ranges {
				line(w, r.Partition, r.From, r.Next, r.Next-r.From)
			}
		}); err != nil {
			return err
		}
		return failed
	}, settings.NeedKafka, settings.NeedArchive, settings.NeedOperations)
}

// filler takes missing offsets from the archive.
type filler struct {
	cfg     *settings.File
	db      *pgxpool.Pool
	cl      *kgo.Client
	topicID [16]byte
	store   archive.Store
	ring    *keys.Ring
	entry   *processor.Backfill
	act     control.Act
	across  bool // go on behind admitted gaps

	skipErased bool
}

func newFiller(ctx context.Context, cfg *settings.File, db *pgxpool.Pool, act control.Act) (*filler, error) {
	store, err := archive.Open(ctx, cfg.Archive)
	if err != nil {
		return nil, err
	}
	ring, err := keys.Open(ctx, cfg.Archive)
	if err != nil {
		return nil, err
	}
	cl, err := kafkaClient(cfg)
	if err != nil {
		return nil, err
	}
	tctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	id, err := kafka.TopicID(tctx, cl, cfg.Kafka.Topic)
	if err != nil {
		cl.Close()
		return nil, fmt.Errorf("%w; are the brokers %v reachable?", err, cfg.Kafka.Brokers)
	}
	entry, err := processor.OpenBackfill(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		cl.Close()
		return nil, fmt.Errorf("the operations cannot be run: %w", err)
	}
	return &filler{cfg: cfg, db: db, cl: cl, topicID: id, store: store, ring: ring, entry: entry, act: act}, nil
}

func (f *filler) close() {
	f.entry.Close()
	f.cl.Close()
}

// missing lists the partitions whose position lies before the log.
func (f *filler) missing(ctx context.Context) ([]int32, error) {
	places, err := inspect.Progress(ctx, f.db)
	if err != nil {
		return nil, err
	}
	var out []int32
	for _, p := range places {
		if p.TopicID != f.topicID {
			continue
		}
		start, err := f.start(ctx, p.Partition)
		if err != nil {
			return nil, err
		}
		if p.NextOffset < start {
			out = append(out, p.Partition)
		}
	}
	slices.Sort(out)
	return out, nil
}

// start is the first offset that Kafka still has.
func (f *filler) start(ctx context.Context, partition int32) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	starts, err := kadm.NewClient(f.cl).ListStartOffsets(ctx, f.cfg.Kafka.Topic)
	if err != nil {
		return 0, fmt.Errorf("offsets of topic %s: %w", f.cfg.Kafka.Topic, err)
	}
	start, ok := starts.Lookup(f.cfg.Kafka.Topic, partition)
	if !ok || start.Err != nil {
		return 0, fmt.Errorf("offsets of topic %s, partition %d: %w", f.cfg.Kafka.Topic, partition, errors.Join(start.Err, errors.New("no answer")))
	}
	return start.Offset, nil
}

func (f *filler) next(ctx context.Context, partition int32) (int64, error) {
	places, err := inspect.Progress(ctx, f.db)
	if err != nil {
		return 0, err
	}
	for _, p := range places {
		if p.TopicID == f.topicID && p.Partition == partition {
			return p.NextOffset, nil
		}
	}
	return 0, fmt.Errorf("the processor has no position of partition %d", partition)
}

// fill moves a partition's position into the log, which may move on meanwhile.
func (f *filler) fill(ctx context.Context, partition int32) (all processor.Range, err error) {
	for overtaken := 0; ; {
		next, err := f.next(ctx, partition)
		if err != nil {
			return all, err
		}
		start, err := f.start(ctx, partition)
		if err != nil || next >= start {
			return all, err
		}
		done, err := f.entry.Run(ctx, f.cfg.Kafka.Topic, f.topicID, partition, start, f.records(ctx, partition, next), f.act)
		if all.Next == all.From {
			all = done
		}
		all.Next = done.Next
		switch {
		case errors.Is(err, processor.ErrOvertaken) && overtaken < overtakenAgain:
			overtaken++
			if !run.Pause(ctx, overtakenPause) {
				return all, ctx.Err()
			}
		case isLost(err):
			return all, fmt.Errorf("%w; `catchment backfill --across-gaps` goes on behind them, and they are never processed", err)
		case errors.Is(err, archive.ErrNotFound):
			return all, fmt.Errorf("%w: Kafka begins at %d; wait until the archiver has stored it, or look for the segment with `catchment archive ls`", err, start)
		case err != nil:
			return all, err
		case done.Next < start:
			return all, fmt.Errorf("the archive ends at offset %d, and Kafka begins at %d: what lies between is in neither", done.Next-1, start)
		}
	}
}

func isLost(err error) bool {
	_, lost := errors.AsType[*archive.LostError](err)
	return lost
}

// records yields what the archive has of a partition, from an offset on. Across gaps, a lost offset is a record without
// anything in it.
func (f *filler) records(ctx context.Context, partition int32, from int64) iter.Seq2[processor.Archived, error] {
	p := archive.Partition{Topic: f.cfg.Kafka.Topic, TopicID: f.topicID, Number: partition}
	return func(yield func(processor.Archived, error) bool) {
		for next := from; ; {
			gap, stopped := f.segments(ctx, p, &next, next > from && f.across, yield)
			if stopped || gap == nil {
				return
			}
			for ; next <= gap.Last; next++ {
				lost := &kgo.Record{Topic: p.Topic, Partition: partition, Offset: next, LeaderEpoch: -1, Timestamp: gap.Time}
				if !yield(processor.Archived{Record: lost, Control: true}, nil) {
					return
				}
			}
		}
	}
}

// segments yields records to the archive's end, or to a gap that may be gone across.
func (f *filler) segments(ctx context.Context, p archive.Partition, next *int64, across bool, yield func(processor.Archived, error) bool) (gap *archive.Gap, stopped bool) {
	for w, err := range archive.From(ctx, f.store, p, *next) {
		if lost, ok := errors.AsType[*archive.LostError](err); ok && f.across {
			return lost.Gap, false
		}
		if errors.Is(err, archive.ErrNotFound) && across {
			return nil, false // the archive ends with the gap
		}
		if err != nil {
			yield(processor.Archived{}, err)
			return nil, true
		}
		offset := w.Offset
		r, err := f.archived(ctx, w)
		if !yield(r, err) || err != nil {
			return nil, true
		}
		*next = offset + 1
	}
	return nil, false
}

// archived makes a record of the archive plain.
func (f *filler) archived(ctx context.Context, w *archive.Record) (processor.Archived, error) {
	err := f.ring.Unseal(ctx, w)
	if _, erased := errors.AsType[*keys.ErasedError](err); erased {
		if !f.skipErased {
			return processor.Archived{}, fmt.Errorf("offset %d: %w; with --skip-erased it becomes a dead letter without a body, and the backfill goes on", w.Offset, err)
		}
		w.Body, w.Headers = nil, nil
		return processor.Archived{Record: w.Record(), Erased: true}, nil
	}
	if err != nil {
		return processor.Archived{}, fmt.Errorf("offset %d: %w", w.Offset, err)
	}
	_, decodable := w.Delivery()
	return processor.Archived{Record: w.Record(), Control: w.IsControl(), Undecodable: !decodable}, nil
}
