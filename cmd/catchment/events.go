package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// tailInterval is how often tail looks for new events.
const tailInterval = 300 * time.Millisecond

// listPage is how many events are read and printed at once.
const listPage = 500

// eventFlags select events.
type eventFlags struct {
	source, status, since, until string
	entity                       string
	types                        []string
	limit                        int
}

func newEvents(a *app) *cobra.Command {
	var f eventFlags
	list := &cobra.Command{
		Use:   "list",
		Short: "List what was received, the last stored first",
		Args:  exactly(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.listEvents(cmd.Context(), f) },
	}
	f.register(list)
	list.Flags().IntVar(&f.limit, "limit", 0, "how many at most; 0: all")
	list.Flags().StringVar(&f.entity, "entity", "", "that an operation had for this entity: of very many, the last 100,000")
	list.Flags().StringVar(&f.until, "until", "", "received before this `time`: RFC 3339, or a duration ago such as 1h or 7d")

	var tailed eventFlags
	tail := &cobra.Command{
		Use:   "tail",
		Short: "Print events as they are stored, until Ctrl-C",
		Args:  exactly(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.tailEvents(cmd.Context(), tailed) },
	}
	tailed.register(tail)

	var source string
	show := &cobra.Command{
		Use:   "show ID",
		Short: "Tell the whole way of one event: received, verified, in Kafka, Postgres and the archive, and what was done",
		Args:  exactly(1),
		RunE:  func(cmd *cobra.Command, args []string) error { return a.showEvent(cmd.Context(), source, args[0]) },
	}
	show.Flags().StringVar(&source, "source", "", "the event's source, when several have an event of this ID")
	return group("events", "See what was received and what became of it", list, show, tail)
}

func (f *eventFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.source, "source", "", "of this source")
	cmd.Flags().StringSliceVar(&f.types, "type", nil, "of this type, which may end in *; may be repeated")
	cmd.Flags().StringVar(&f.status, "status", "", "one of "+strings.Join(inspect.Statuses, ", "))
	cmd.Flags().StringVar(&f.since, "since", "", "received since this `time`: RFC 3339, or a duration ago such as 1h or 7d")
}

func (f eventFlags) filter(now time.Time) (inspect.Filter, error) {
	since, err := config.ParseMoment(f.since, now)
	if err != nil {
		return inspect.Filter{}, fmt.Errorf("%w: --since: %w", run.ErrUsage, err)
	}
	until, err := config.ParseMoment(f.until, now)
	if err != nil {
		return inspect.Filter{}, fmt.Errorf("%w: --until: %w", run.ErrUsage, err)
	}
	if f.status != "" && !slices.Contains(inspect.Statuses, f.status) {
		return inspect.Filter{}, fmt.Errorf("%w: --status is %q: expected one of %s", run.ErrUsage, f.status, strings.Join(inspect.Statuses, ", "))
	}
	return inspect.Filter{Source: f.source, Types: f.types, Status: f.status, Entity: f.entity, Since: since, Until: until}, nil
}

// database connects to the configuration's database.
func (a *app) database(ctx context.Context, cfg *settings.File) (*pgxpool.Pool, error) {
	db, err := inspect.Open(ctx, cfg.Postgres)
	if errors.Is(err, inspect.ErrNoSchema) {
		return nil, fmt.Errorf("%w: start the processor or `catchment up` once, or run `catchment migrate`", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the database of %s does not answer (is `catchment up` running?): %w", a.config, err)
	}
	return db, nil
}

// onDatabase calls f with the configuration's database.
func (a *app) onDatabase(ctx context.Context, f func(*pgxpool.Pool, *settings.File) error, need ...settings.Section) error {
	cfg, err := a.load(append(need, settings.NeedPostgres)...)
	if err != nil {
		return err
	}
	db, err := a.database(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	return f(db, cfg)
}

// eventView is an event as JSON: what Postgres has of it, with readable digests.
type eventView struct {
	inspect.Event
	BodySHA256 string `json:"body_sha256"`
	TopicID    string `json:"topic_id"`
}

func viewOf(e inspect.Event) eventView {
	return eventView{e, hex.EncodeToString(e.BodySHA256), hex.EncodeToString(e.TopicID[:])}
}

func (a *app) listEvents(ctx context.Context, f eventFlags) error {
	filter, err := f.filter(time.Now())
	if err != nil {
		return err
	}
	if f.limit < 0 {
		return fmt.Errorf("%w: --limit must not be negative", run.ErrUsage)
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, _ *settings.File) error { return a.printEvents(ctx, db, filter, f.limit) })
}

func (a *app) printEvents(ctx context.Context, db *pgxpool.Pool, filter inspect.Filter, limit int) error {
	list := a.newList("RECEIVED", "SOURCE", "EVENT", "TYPE", "STATUS", "DELIVERIES", "PARTITION/OFFSET")
	for left := limit; ; {
		filter.Limit = listPage
		if limit > 0 {
			filter.Limit = min(listPage, left)
		}
		found, err := inspect.Events(ctx, db, filter)
		if err != nil {
			return err
		}
		for _, e := range found {
			list.add(viewOf(e), stamp(e.ReceivedAt), e.Source, e.ID, e.Type, e.Status, e.Deliveries, fmt.Sprintf("%d/%d", e.Partition, e.Offset))
		}
		if err := list.flush(); err != nil {
			return err
		}
		left -= len(found)
		if len(found) < filter.Limit || limit > 0 && left == 0 {
			return list.end()
		}
		filter.Before = found[len(found)-1].Cursor
	}
}

func (a *app) tailEvents(ctx context.Context, f eventFlags) error {
	filter, err := f.filter(time.Now())
	if err != nil {
		return err
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, _ *settings.File) error { return a.follow(ctx, db, filter) })
}

func (a *app) follow(ctx context.Context, db *pgxpool.Pool, filter inspect.Filter) error {
	tail, err := inspect.Tail(ctx, db, filter)
	if err != nil {
		return err
	}
	tick := time.NewTicker(tailInterval)
	defer tick.Stop()
	for {
		found, err := tail.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		for _, e := range found {
			if err := a.printTailed(e); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// printTailed prints one event in one line, in either form.
func (a *app) printTailed(e inspect.Event) error {
	if a.output == "json" {
		return json.NewEncoder(a.out).Encode(viewOf(e))
	}
	_, err := fmt.Fprintf(a.out, "%s  %-20s  %-32s  %-32s  %s\n", stamp(e.ReceivedAt), clean(e.Source), clean(e.ID), clean(e.Type), e.Status)
	return err
}

// wayView is the whole way of one event.
type wayView struct {
	eventView
	Headers     map[string][]string  `json:"headers"`
	Results     []resultView         `json:"results"`
	Waiting     []inspect.Retry      `json:"waiting"`
	DeadLetters []inspect.DeadLetter `json:"dead_letters"`
	Deliveries  []deliveryView       `json:"all_deliveries"`
}

// resultView is one attempt of one operation.
type resultView struct {
	inspect.Result
	Definition string          `json:"definition_sha256"`
	Returned   json.RawMessage `json:"returned,omitempty"`
	Duration   string          `json:"duration"`
}

// deliveryView is one delivery of the event: the first, a duplicate, or a conflict (the same ID with other bytes).
type deliveryView struct {
	Kind       string       `json:"kind"`
	DeliveryID string       `json:"delivery_id"`
	ReceivedAt time.Time    `json:"received_at"`
	Topic      string       `json:"topic"`
	TopicID    string       `json:"topic_id"`
	Partition  int32        `json:"partition"`
	Offset     int64        `json:"offset"`
	BodySHA256 string       `json:"body_sha256,omitempty"`
	Archive    *archiveView `json:"archive"` // null: not yet, see archive_note
	Note       string       `json:"archive_note,omitempty"`
}

// archiveView is where a delivery lies in the archive.
type archiveView struct {
	Segment string `json:"segment"`
	Row     int64  `json:"row"`
}

func (a *app) showEvent(ctx context.Context, source, id string) error {
	return a.onDatabase(ctx, func(db *pgxpool.Pool, cfg *settings.File) error { return a.printWay(ctx, db, cfg, source, id) }, settings.NeedArchive)
}

func (a *app) printWay(ctx context.Context, db *pgxpool.Pool, cfg *settings.File, source, id string) (err error) {
	if source == "" {
		if source, err = sourceOf(ctx, db, id); err != nil {
			return err
		}
	}
	d, err := inspect.Show(ctx, db, source, id)
	if errors.Is(err, inspect.ErrNoEvent) && !errors.Is(err, inspect.ErrBodyGone) {
		return fmt.Errorf("source %q has no event %q: it was not received, or is not processed yet (`catchment status`)", source, id)
	}
	if err != nil {
		return err
	}
	w := wayOf(d)
	locate(ctx, cfg, w.Deliveries)
	return a.answer(w, func(out io.Writer) { w.print(out) })
}

// sourceOf finds the one source that has an event of the ID.
func sourceOf(ctx context.Context, db *pgxpool.Pool, id string) (string, error) {
	sources, err := inspect.Sources(ctx, db, id)
	if err != nil {
		return "", err
	}
	switch len(sources) {
	case 0:
		return "", fmt.Errorf("no source has an event %q: it was not received, or is not processed yet (`catchment status`)", id)
	case 1:
		return sources[0], nil
	}
	return "", fmt.Errorf("%w: several sources have an event %q: name one of %s with --source", run.ErrUsage, id, strings.Join(sources, ", "))
}

func wayOf(d *inspect.Detail) *wayView {
	w := &wayView{
		eventView: viewOf(d.Stored), Headers: d.Headers, Waiting: orEmpty(d.Waiting), DeadLetters: orEmpty(d.DeadLetters), Results: []resultView{},
	}
	for _, r := range d.Results {
		v := resultView{Result: r, Definition: hex.EncodeToString(r.Definition), Duration: r.Duration.String()}
		if r.Returned != nil && json.Valid([]byte(*r.Returned)) {
			v.Returned = json.RawMessage(*r.Returned)
		}
		w.Results = append(w.Results, v)
	}
	w.Deliveries = append(w.Deliveries, deliveryView{
		Kind: "first", DeliveryID: d.DeliveryID, ReceivedAt: d.ReceivedAt, Topic: d.Topic, TopicID: hex.EncodeToString(d.TopicID[:]),
		Partition: d.Partition, Offset: d.Offset, BodySHA256: hex.EncodeToString(d.BodySHA256),
	})
	add := func(kind string, more []inspect.Delivery) {
		for _, m := range more {
			w.Deliveries = append(w.Deliveries, deliveryView{
				Kind: kind, DeliveryID: m.DeliveryID, ReceivedAt: m.ReceivedAt, Topic: m.Topic, TopicID: hex.EncodeToString(m.TopicID[:]),
				Partition: m.Partition, Offset: m.Offset, BodySHA256: hex.EncodeToString(m.BodySHA256),
			})
		}
	}
	add("duplicate", d.Duplicates)
	add("conflict", d.Conflicts)
	return w
}

func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// locate finds the deliveries in the archive.
func locate(ctx context.Context, cfg *settings.File, deliveries []deliveryView) {
	store, err := archive.Open(ctx, cfg.Archive)
	for i := range deliveries {
		d := &deliveries[i]
		if err != nil {
			d.Note = err.Error()
			continue
		}
		at := event.Position{Topic: d.Topic, Partition: d.Partition, Offset: d.Offset}
		if _, decodeErr := hex.Decode(at.TopicID[:], []byte(d.TopicID)); decodeErr != nil {
			d.Note = decodeErr.Error()
			continue
		}
		place, locateErr := archive.Locate(ctx, store, at)
		switch {
		case errors.Is(locateErr, archive.ErrNotFound):
			d.Note = fmt.Sprintf("not yet: a segment is closed after %s at the latest", cfg.Archiver.SegmentAge)
		case locateErr != nil:
			d.Note = locateErr.Error()
		default:
			d.Archive = &archiveView{place.Key, place.Row}
		}
	}
}

// print tells the way in order.
func (v *wayView) print(w io.Writer) {
	line(w, "event", v.ID)
	line(w, "source", v.Source+" ("+v.Provider+")")
	line(w, "type", v.Type)
	if v.Time != nil {
		line(w, "happened", stamp(*v.Time))
	}
	line(w, "received", stamp(v.ReceivedAt))
	line(w, "verified by", "secret "+clean(v.SecretID)+" ("+clean(v.Verdict)+")")
	line(w, "body", fmt.Sprintf("%d bytes of %s, SHA-256 %s", v.BodySize, clean(v.ContentType), v.BodySHA256))
	line(w, "stored", stamp(v.StoredAt))
	line(w, "status", v.Status)
	if v.Note != "" {
		line(w, "note", v.Note)
	}
	for _, d := range v.Deliveries {
		line(w, d.Kind+" delivery", fmt.Sprintf("%s, received %s", d.DeliveryID, stamp(d.ReceivedAt)))
		line(w, "  Kafka", fmt.Sprintf("%s, partition %d, offset %d", d.Topic, d.Partition, d.Offset))
		if d.Archive != nil {
			line(w, "  archive", fmt.Sprintf("%s, row %d", d.Archive.Segment, d.Archive.Row))
		} else {
			line(w, "  archive", d.Note)
		}
	}
	for _, r := range v.Results {
		text := fmt.Sprintf("%s at attempt %d, %s, took %s", r.Outcome, r.Number, stamp(r.StartedAt), r.Duration)
		if r.RowsAffected != nil {
			text += fmt.Sprintf(", %d rows", *r.RowsAffected)
		}
		if r.Entity != nil {
			text += ", entity " + *r.Entity
		}
		if r.Error != nil {
			text += ": " + *r.Error
		}
		line(w, "operation "+r.Operation, text)
	}
	for _, r := range v.Waiting {
		line(w, "operation "+r.Operation, fmt.Sprintf("attempt %d is due at %s: %s", r.Attempt, stamp(r.DueAt), r.Error))
	}
	for _, l := range v.DeadLetters {
		line(w, "dead letter", fmt.Sprintf("%s after %d attempts: %s", l.Reason, l.Attempts, l.Error))
	}
}
