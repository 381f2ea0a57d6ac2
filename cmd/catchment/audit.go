package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/audit"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// auditMargin is how much longer than a segment stays open something may be pending.
const auditMargin = 5 * time.Minute

// auditFaults is how many faults are named, unless another number is asked for.
const auditFaults = 100

// auditFlags say what is audited.
type auditFlags struct {
	since, until string
	partitions   []int32
	pendingAfter time.Duration
	bodies       bool
	limit        int
}

func newAudit(a *app) *cobra.Command {
	var f auditFlags
	c := &cobra.Command{
		Use:   "audit",
		Short: "Prove that every delivery is accounted for in Postgres and in the archive; exit code 1 when one is not",
		Long: "Holds the archive, Kafka and Postgres against each other: every offset has left its identity, repetition, conflict or dead letter\n" +
			"with the same digest and lies in exactly one segment, and nothing is stored that was not received. It only reads, while everything\n" +
			"runs; what only waits its turn is pending, and no fault. See docs/audit.md.",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.audit(cmd.Context(), f) },
	}
	c.Flags().StringVar(&f.since, "since", "", "what Kafka took since this `time`: RFC 3339, or a duration ago such as 36h or 7d")
	c.Flags().StringVar(&f.until, "until", "", "what Kafka took before this `time`")
	c.Flags().Int32SliceVar(&f.partitions, "partition", nil, "only this partition; may be repeated")
	c.Flags().DurationVar(&f.pendingAfter, "pending-after", 0, "from this age on, what is not processed or archived is a fault (default: archiver.segment_age and 5m)")
	c.Flags().BoolVar(&f.bodies, "bodies", false, "recompute the digests of the archived bodies, which reads all of them")
	c.Flags().IntVar(&f.limit, "limit", auditFaults, "how many faults are named at most; all are counted")
	return c
}

func (f auditFlags) options(now time.Time, cfg *settings.File) (audit.Options, error) {
	o := audit.Options{Partitions: f.partitions, PendingAfter: f.pendingAfter, Bodies: f.bodies, Limit: f.limit}
	var err error
	if o.Since, err = config.ParseMoment(f.since, now); err != nil {
		return o, fmt.Errorf("%w: --since: %w", run.ErrUsage, err)
	}
	if o.Until, err = config.ParseMoment(f.until, now); err != nil {
		return o, fmt.Errorf("%w: --until: %w", run.ErrUsage, err)
	}
	if !o.Until.IsZero() && !o.Since.Before(o.Until) {
		return o, fmt.Errorf("%w: --until %s is not after --since %s", run.ErrUsage, stamp(o.Until), stamp(o.Since))
	}
	if f.limit < 1 {
		return o, fmt.Errorf("%w: --limit is %d: expected 1 or more", run.ErrUsage, f.limit)
	}
	if o.PendingAfter == 0 {
		o.PendingAfter = cfg.Archiver.SegmentAge + auditMargin
	}
	return o, nil
}

func (a *app) audit(ctx context.Context, f auditFlags) error {
	return a.onDatabase(ctx, func(db *pgxpool.Pool, cfg *settings.File) error {
		o, err := f.options(time.Now(), cfg)
		if err != nil {
			return err
		}
		r, err := runAudit(ctx, cfg, db, o)
		if err != nil {
			return fmt.Errorf("the audit could not be finished, and says nothing: %w", err)
		}
		if err := a.answer(r, func(w io.Writer) { printAudit(w, r) }); err != nil {
			return err
		}
		if !r.OK {
			return errSaid
		}
		return nil
	}, settings.NeedKafka, settings.NeedArchive, settings.NeedArchiver, settings.NeedProcessor)
}

// runAudit audits with the configuration's archive and Kafka.
func runAudit(ctx context.Context, cfg *settings.File, db *pgxpool.Pool, o audit.Options) (*audit.Report, error) {
	store, err := archive.Open(ctx, cfg.Archive)
	if err != nil {
		return nil, err
	}
	cl, err := kafkaClient(cfg)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	return audit.Run(ctx, cfg, db, store, cl, o)
}

func printAudit(w io.Writer, r *audit.Report) {
	line(w, "PARTITION", "NEXT", "ARCHIVED TO", "LOG END", "ARCHIVED", "IN KAFKA", "IDENTITIES", "REPEATS", "CONFLICTS", "DEAD LETTERS", "PENDING", "OLDEST", "FAULTS")
	for _, p := range r.Partitions {
		name, next, end := fmt.Sprintf("%s/%d", p.Topic, p.Partition), any("-"), any(p.LogEnd)
		if p.Gone {
			name, end = fmt.Sprintf("%s (%.8s)/%d", p.Topic, p.TopicID, p.Partition), "gone"
		}
		if p.Next != nil {
			next = *p.Next
		}
		line(w, name, next, p.ArchiveTo, end, p.Archived, p.InKafka, p.Identities, p.Repeats, p.Conflicts, p.DeadLetters, p.Pending, p.Oldest, p.Counts.Faults)
	}
	t := r.Total
	line(w, "total", "", "", "", t.Archived, t.InKafka, t.Identities, t.Repeats, t.Conflicts, t.DeadLetters, t.Pending, "", t.Faults)
	if t.Markers > 0 {
		fmt.Fprintf(w, "%d records are Kafka's own markers, which leave nothing.\n", t.Markers)
	}
	if t.Forgotten > 0 {
		fmt.Fprintf(w, "%d events are older than a retention of processor.*: their rows may be gone.\n", t.Forgotten)
	}
	if t.Sealed > 0 {
		fmt.Fprintf(w, "%d records of several events or of none are erased, or sealed and no keys are configured: what they hold is not known.\n", t.Sealed)
	}
	if t.Admitted > 0 {
		fmt.Fprintf(w, "%d offsets are in gaps that were admitted (`catchment archive gap`): what is stored of them cannot be held against the archive.\n", t.Admitted)
	}
	for _, u := range r.Unchecked {
		fmt.Fprintf(w, "not looked at: %s\n", clean(u))
	}
	for _, f := range r.Faults {
		printFault(w, &f)
	}
	if r.Unnamed > 0 {
		fmt.Fprintf(w, "and %d more (--limit names more):", r.Unnamed)
		for _, k := range slices.Sorted(maps.Keys(r.Kinds)) {
			fmt.Fprintf(w, " %s %d,", k, r.Kinds[k])
		}
		fmt.Fprintln(w, " in all")
	}
	if r.OK {
		fmt.Fprintf(w, "whole: every delivery up to %s is accounted for (%s)\n", stamp(r.At), r.Took)
	} else {
		fmt.Fprintf(w, "NOT whole: %d faults (%s)\n", t.Faults, r.Took)
	}
}

func printFault(w io.Writer, f *audit.Fault) {
	fmt.Fprintf(w, "FAULT %s:", f.Kind)
	if f.EventID != "" {
		fmt.Fprintf(w, " event %s of source %s,", clean(f.EventID), clean(f.Source))
	}
	if f.Operation != "" {
		fmt.Fprintf(w, " operation %s,", clean(f.Operation))
	}
	if f.Partition != nil {
		name := f.Topic
		if name == "" {
			name = "topic " + f.TopicID
		}
		fmt.Fprintf(w, " %s partition %d", clean(name), *f.Partition)
	}
	switch {
	case f.LastOffset != nil && f.Offset != nil && *f.LastOffset > *f.Offset:
		fmt.Fprintf(w, " offsets %d to %d,", *f.Offset, *f.LastOffset)
	case f.Offset != nil:
		fmt.Fprintf(w, " offset %d,", *f.Offset)
	}
	if f.Object != "" {
		fmt.Fprintf(w, " %s:", clean(f.Object))
	}
	fmt.Fprintf(w, " %s\n      → %s\n", clean(f.Found), f.Do)
}
