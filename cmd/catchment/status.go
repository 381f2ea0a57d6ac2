package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/inspect"
)

// What a check of `status` may find. Only atRisk makes the exit code 1.
const (
	fine      = "ok"
	attention = "attention" // no promise is at risk, but somebody should look, or it could not be asked
	atRisk    = "at risk"   // a promise is broken, will be when nothing is done, or nobody can say
)

// check is one line of `status`.
type check struct {
	Name  string `json:"name"`
	State string `json:"state"`
	Text  string `json:"text"`
}

// stuckAfter is how long a consumer may stand still in front of records.
const stuckAfter = 5 * time.Minute

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "One page on everything; exit code 1 when a promise is at risk",
		Args:  exactly(0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
}

func (a *app) status(ctx context.Context) error {
	cfg, err := a.load(settings.NeedKafka, settings.NeedPostgres, settings.NeedIngress, settings.NeedProcessor, settings.NeedArchiver, settings.NeedOperations)
	if err != nil {
		return err
	}
	checks := a.checks(ctx, cfg)
	ok := true
	for _, c := range checks {
		ok = ok && c.State != atRisk
	}
	err = a.answer(map[string]any{"ok": ok, "checks": checks}, func(w io.Writer) {
		for _, c := range checks {
			line(w, c.State, c.Name, c.Text)
		}
	})
	if err == nil && !ok {
		return errSaid
	}
	return err
}

// checks looks at everything.
func (a *app) checks(ctx context.Context, cfg *settings.File) []check {
	checks := serviceChecks(ctx, cfg)
	places, stored := a.storeChecks(ctx, cfg)
	checks = append(checks, kafkaChecks(ctx, cfg, places)...)
	return append(checks, stored...)
}

// serviceChecks asks the services whether they are ready. Under `up` all answer at the ingress's address.
func serviceChecks(ctx context.Context, cfg *settings.File) []check {
	services := []struct{ name, address string }{
		{"ingress", cfg.Ingress.OpsListen}, {"processor", cfg.Processor.OpsListen}, {"archiver", cfg.Archiver.OpsListen},
	}
	if m, err := scrape(ctx, cfg.Ingress.OpsListen); err == nil && bytes.Contains(m, []byte("catchment_archiver_")) {
		services = services[:1]
		services[0].name = "all services"
	}
	var checks []check
	for _, s := range services {
		ctx, cancel := context.WithTimeout(ctx, opsTimeout)
		h := run.Ask(ctx, s.address, false)
		cancel()
		c := check{Name: s.name, State: fine, Text: "ready"}
		switch {
		case h.Healthy:
		case bytes.HasPrefix([]byte(h.Detail), []byte("no answer")):
			c.State, c.Text = attention, fmt.Sprintf("%s at %s; is it running, and reachable from here?", h.Detail, s.address)
		default:
			c.State, c.Text = atRisk, h.Detail
		}
		checks = append(checks, c)
	}
	return checks
}

// storeChecks asks Postgres what is stored and what failed, and where the processor stands.
func (a *app) storeChecks(ctx context.Context, cfg *settings.File) ([]inspect.Position, []check) {
	unknown := func(err error) []check { return []check{{"Postgres", atRisk, err.Error()}} }
	db, err := a.database(ctx, cfg)
	if err != nil {
		return nil, unknown(err)
	}
	defer db.Close()
	s, err := inspect.Status(ctx, db)
	if err != nil {
		return nil, unknown(err)
	}
	text := fmt.Sprintf("%d events", s.Events)
	if !s.Exact {
		text = "about " + text
	}
	if s.LastStored != nil {
		text += ", the last stored at " + stamp(*s.LastStored)
	}
	checks := []check{{"Postgres", fine, text}}
	if s.DaysAhead < 1 {
		checks = append(checks, check{"partitions", atRisk, "catchment.bodies has no partition for tomorrow, and nothing can be stored then: run catchment migrate, see docs/growth.md"})
	}
	for _, c := range s.Unfinished {
		checks = append(checks, check{"operations", attention, fmt.Sprintf("%s events of %s are %s", many(c), c.Source, c.What)})
	}
	for _, c := range s.DeadLetters {
		checks = append(checks, check{"dead letters", attention, fmt.Sprintf("%s of %s: %s", many(c), c.Source, c.What)})
	}
	return s.Places, append(checks, workChecks(cfg, s)...)
}

// many is a count, which may be a bound or an estimate.
func many(c inspect.Count) string {
	if c.More {
		return fmt.Sprintf("%d or more", c.N)
	}
	return strconv.FormatInt(c.N, 10)
}

// workChecks tells what waits to be done, and what keeps it from being done.
func workChecks(cfg *settings.File, s *inspect.Summary) []check {
	var checks []check
	paused, configured := map[string]bool{}, map[string]bool{}
	for _, op := range cfg.Operations {
		configured[op.Name] = true
	}
	for _, p := range s.Paused {
		paused[p.Operation] = true
		text := fmt.Sprintf("%s is paused since %s by %s: %s", p.Operation, stamp(p.At), p.Actor, clean(p.Reason))
		checks = append(checks, check{"operations", attention, text + "; `catchment operations resume " + p.Operation + "`"})
	}
	for _, p := range s.Pending {
		c := check{"retries", fine, fmt.Sprintf("%d of %s are scheduled, the next at %s", p.N, p.Operation, stamp(p.Next))}
		switch {
		case paused[p.Operation]:
			c = check{"retries", attention, fmt.Sprintf("%d of %s wait until it is resumed", p.N, p.Operation)}
		case !configured[p.Operation]:
			c = check{"retries", attention, fmt.Sprintf("%d of %s wait for ever: the operation is not in this configuration", p.N, p.Operation)}
		}
		checks = append(checks, c)
	}
	for _, j := range s.Jobs {
		c := check{"jobs", fine, fmt.Sprintf("%s %d is %s: %d of %d", j.Kind, j.ID, j.State, j.Made(), j.Expected)}
		switch {
		case j.Note != "":
			c.State, c.Text = attention, c.Text+"; it stands because "+clean(j.Note)
		case paused[j.Operation]:
			c.State, c.Text = attention, c.Text+"; it waits until "+j.Operation+" is resumed"
		}
		checks = append(checks, c)
	}
	return checks
}

// kafkaChecks judges the topic and how far each consumer has come.
func kafkaChecks(ctx context.Context, cfg *settings.File, places []inspect.Position) []check {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	unknown := func(err error) []check { return []check{{"Kafka", atRisk, err.Error()}} }
	cl, err := kafkaClient(cfg)
	if err != nil {
		return unknown(err)
	}
	defer cl.Close()
	r, err := judgeTopic(ctx, cl, cfg)
	if err != nil {
		return unknown(err)
	}
	var checks []check
	for _, f := range r.Findings {
		c := check{"topic", atRisk, f.Check + ": " + f.Text}
		if f.Waived {
			c.State = attention
		}
		checks = append(checks, c)
	}
	if len(r.Findings) == 0 {
		checks = append(checks, check{"topic", fine, fmt.Sprintf("%s, %d partitions, safe", r.Topic, r.Partitions)})
	}
	log, err := logBounds(ctx, kadm.NewClient(cl), cfg.Kafka.Topic)
	if err != nil {
		return append(checks, unknown(err)...)
	}
	processor := positions{at: map[int32]int64{}}
	for _, p := range places {
		if fmt.Sprintf("%x", p.TopicID) == r.TopicID {
			processor.at[p.Partition] = p.NextOffset
			processor.moved = later(processor.moved, p.UpdatedAt)
		}
	}
	if processor.due, err = dueOffsets(ctx, kadm.NewClient(cl), cfg.Kafka.Topic, stuckAfter); err != nil {
		return append(checks, check{"processor", atRisk, err.Error()})
	}
	checks = append(checks, log.judge("processor", processor))
	checks = append(checks, archiverCheck(ctx, kadm.NewClient(cl), cfg, log))
	return append(checks, resultsCheck(ctx, kadm.NewClient(cl), cfg)...)
}

func archiverCheck(ctx context.Context, adm *kadm.Client, cfg *settings.File, log bounds) check {
	archiver, err := archivedTo(ctx, adm, cfg, cfg.Archiver.Group, cfg.Kafka.Topic)
	if err != nil {
		return check{"archiver", atRisk, err.Error()}
	}
	return log.judge("archiver", archiver)
}

// resultsCheck judges how far results are archived. There is nothing to say while nobody has published one.
func resultsCheck(ctx context.Context, adm *kadm.Client, cfg *settings.File) []check {
	const name = "archiver of results"
	topic := cfg.Kafka.Results()
	if topic == "" {
		return nil
	}
	log, err := logBounds(ctx, adm, topic)
	if err != nil || len(log) == 0 {
		return nil
	}
	archiver, err := archivedTo(ctx, adm, cfg, cfg.Archiver.ResultsGroup(), topic)
	if err != nil {
		return []check{{name, atRisk, err.Error()}}
	}
	for partition, l := range log { // an archive may begin later than its topic
		if _, begun := archiver.at[partition]; !begun {
			archiver.at[partition] = l.start
		}
	}
	return []check{log.judge(name, archiver)}
}

// archivedTo says how far a topic is archived, and how far it should be: a segment may be open for as long as segment_age.
func archivedTo(ctx context.Context, adm *kadm.Client, cfg *settings.File, group, topic string) (positions, error) {
	p, err := committed(ctx, adm, group, topic)
	if err == nil {
		p.due, err = dueOffsets(ctx, adm, topic, cfg.Archiver.SegmentAge+stuckAfter)
	}
	return p, err
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// bounds are the first and the next offset of each partition.
type bounds map[int32]struct{ start, end int64 }

// positions are the next offsets of a consumer.
type positions struct {
	at    map[int32]int64
	moved time.Time       // when it last moved; zero: not known
	due   map[int32]int64 // what lies before these offsets should have been read by now
}

func logBounds(ctx context.Context, adm *kadm.Client, topic string) (bounds, error) {
	starts, ends, err := kafka.LogBounds(ctx, adm, topic)
	if err != nil {
		return nil, err
	}
	b := bounds{}
	ends.Each(func(o kadm.ListedOffset) {
		if start, ok := starts.Lookup(o.Topic, o.Partition); ok && o.Err == nil && start.Err == nil {
			b[o.Partition] = struct{ start, end int64 }{start.Offset, o.Offset}
		}
	})
	return b, nil
}

func committed(ctx context.Context, adm *kadm.Client, group, topic string) (positions, error) {
	p := positions{at: map[int32]int64{}}
	offsets, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		return p, fmt.Errorf("offsets of consumer group %s: %w", group, err)
	}
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Topic == topic && o.Err == nil {
			p.at[o.Partition] = o.At
		}
	})
	return p, nil
}

// dueOffsets returns for each partition the offset before which all records are older than age.
func dueOffsets(ctx context.Context, adm *kadm.Client, topic string, age time.Duration) (map[int32]int64, error) {
	listed, err := adm.ListOffsetsAfterMilli(ctx, time.Now().Add(-age).UnixMilli(), topic)
	if err != nil {
		return nil, fmt.Errorf("offsets of topic %s by time: %w", topic, err)
	}
	due := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		if o.Err == nil {
			due[o.Partition] = o.Offset
		}
	})
	return due, nil
}

// judge says how far behind a consumer is, and whether Kafka has already removed what it has not read.
func (b bounds) judge(name string, p positions) check {
	var lag, lost, late int64
	for partition, log := range b {
		at := p.at[partition] // 0 when it has not begun
		if at < log.start {
			if at > 0 || log.start > 0 {
				lost += log.start - at
			}
			at = log.start
		}
		lag += max(0, log.end-at)
		late += max(0, min(log.end, p.due[partition])-at)
	}
	switch {
	case lost > 0:
		return check{name, atRisk, fmt.Sprintf("Kafka has removed %d records that it had not read: see docs/operations.md", lost)}
	case lag > 0 && !p.moved.IsZero() && time.Since(p.moved) > stuckAfter:
		return check{name, atRisk, fmt.Sprintf("%d records behind, and it has not moved since %s", lag, stamp(p.moved))}
	case late > 0 && p.moved.IsZero():
		return check{name, atRisk, fmt.Sprintf("%d records behind, and %d of them should have been read long ago: is it running?", lag, late)}
	case lag > 0:
		return check{name, fine, fmt.Sprintf("%d records behind", lag)}
	}
	return check{name, fine, "has read everything"}
}
