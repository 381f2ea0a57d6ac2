package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/control"
)

// eraseFlags say what is erased.
type eraseFlags struct {
	source, since, until, event string
	dry, yes                    bool
}

func newErase(a *app) *cobra.Command {
	var f eraseFlags
	var act actFlags
	c := &cobra.Command{
		Use:   "erase --source NAME (--since DAY --until DAY | --event ID) --reason TEXT",
		Short: "Erase what was received from a source: bodies and headers in Postgres, and the keys of the archive",
		Long: "Remove bodies, headers and what operations returned from Postgres, and destroy the keys under which the archive keeps the same\n" +
			"days. Identities, digests and outcomes stay, so that nothing takes effect twice and audit and verify hold. The archive forgets\n" +
			"whole days, and only what was encrypted (archive.encryption); --event erases one event in Postgres alone. It may be\n" +
			"interrupted and run again. Nothing can be brought back. See docs/erasure.md.",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.erase(cmd.Context(), f, act.act()) },
	}
	c.Flags().StringVar(&f.source, "source", "", "of this source; _ for records that name none")
	c.Flags().StringVar(&f.since, "since", "", "from the beginning of this UTC `day`, such as 2026-11-01")
	c.Flags().StringVar(&f.until, "until", "", "to before the beginning of this UTC `day`, which is not erased")
	c.Flags().StringVar(&f.event, "event", "", "only the event of this `ID`, in Postgres only")
	c.Flags().BoolVar(&f.dry, "dry-run", false, "only say what would be erased")
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask")
	act.register(c)
	return c
}

// selection holds the flags against what can be erased.
func (f *eraseFlags) selection(now time.Time) (control.Erasure, error) {
	e := control.Erasure{Source: f.source, EventID: f.event}
	wrong := func(format string, args ...any) (control.Erasure, error) {
		return e, fmt.Errorf("%w: "+format, append([]any{run.ErrUsage}, args...)...)
	}
	if f.source == "" {
		return wrong("--source is missing: what is erased is of one source")
	}
	if f.event != "" {
		if f.since != "" || f.until != "" {
			return wrong("expected either --event or --since and --until")
		}
		return e, nil
	}
	for _, m := range []struct {
		flag, text string
		into       *time.Time
	}{{"--since", f.since, &e.Since}, {"--until", f.until, &e.Until}} {
		t, err := time.Parse(time.DateOnly, m.text)
		if err != nil {
			return wrong("%s is %q: expected a day such as 2026-11-01: the archive forgets whole days", m.flag, m.text)
		}
		*m.into = t
	}
	if !e.Since.Before(e.Until) {
		return wrong("expected --since before --until, which is the first day that stays")
	}
	if today := now.UTC().Truncate(24 * time.Hour); e.Until.After(today) {
		return wrong("--until is %s: expected %s or earlier: a day that is not over cannot be erased; --event erases one event in Postgres at any time", f.until, today.Format(time.DateOnly))
	}
	return e, nil
}

// eraseView is what was or would be erased.
type eraseView struct {
	control.Erasure
	DryRun    bool           `json:"dry_run"`
	Postgres  control.Erased `json:"postgres"`
	Keys      []string       `json:"destroyed_keys"` // of the archive
	Earlier   []string       `json:"destroyed_earlier"`
	Archive   string         `json:"archive"`
	Note      string         `json:"note,omitempty"` // that nothing was found, and why that may be
	Elsewhere []string       `json:"elsewhere"`      // what holds copies that nobody here can remove
}

func (a *app) erase(ctx context.Context, f eraseFlags, act control.Act) error {
	e, err := f.selection(time.Now())
	if err == nil && act.Reason == "" && !f.dry {
		err = fmt.Errorf("%w: --reason is missing: it is kept in catchment.actions, and beside the archive", run.ErrUsage)
	}
	if err != nil {
		return err
	}
	return a.onDatabase(ctx, func(db *pgxpool.Pool, cfg *settings.File) error { return a.eraseFrom(ctx, db, cfg, e, f, act) }, settings.NeedArchive)
}

func (a *app) eraseFrom(ctx context.Context, db *pgxpool.Pool, cfg *settings.File, e control.Erasure, f eraseFlags, act control.Act) error {
	v := &eraseView{Erasure: e, DryRun: f.dry, Keys: []string{}, Earlier: []string{}, Elsewhere: elsewhere(cfg)}
	ring, err := keys.Open(ctx, cfg.Archive)
	if err != nil {
		return err
	}
	there, err := v.lookUp(ctx, ring, e)
	if err != nil {
		return err
	}
	if v.Postgres, err = control.CountErasable(ctx, db, e); err != nil {
		return err
	}
	v.nothing(cfg)
	if f.dry {
		return a.answer(v, v.print)
	}
	if err := a.confirm(f.yes, v.question()); err != nil {
		return err
	}
	id, err := control.BeginErasure(ctx, db, e, v.Keys, act)
	if err != nil {
		return err
	}
	for _, key := range there {
		if err := ring.Destroy(ctx, keys.Erasure{ID: key, At: time.Now(), Actor: act.Actor, Reason: act.Reason}); err != nil {
			return fmt.Errorf("%w; run the same command again", err)
		}
	}
	if v.Postgres, err = control.Erase(ctx, db, id, e); err != nil {
		return fmt.Errorf("%w; run the same command again", err)
	}
	return a.answer(v, v.print)
}

// lookUp finds the keys of the archive, and says what becomes of it.
func (v *eraseView) lookUp(ctx context.Context, ring *keys.Ring, e control.Erasure) ([]keys.ID, error) {
	switch {
	case e.EventID != "":
		v.Archive = "still holds this event: it can only forget whole days of a source, with --since and --until"
		return nil, nil
	case ring == nil:
		v.Archive = "still holds bodies and headers in the clear: archive.encryption is not configured, and what was written without it cannot be erased"
		return nil, nil
	}
	if keeps, err := ring.KeepsVersions(ctx); err != nil {
		return nil, fmt.Errorf("the keys of the archive: %w", err)
	} else if keeps {
		return nil, errors.New("the bucket of archive.encryption.keys_url has or had versioning: a key that is deleted there can be brought back, so nothing would be erased; " +
			"copy the keys into a bucket that never had it, name that in archive.encryption.keys_url, and remove the old bucket with all versions")
	}
	there, destroyed, err := ring.List(ctx, e.Source, e.Since, e.Until)
	if err != nil {
		return nil, err
	}
	for _, id := range there {
		v.Keys = append(v.Keys, id.String())
	}
	for _, d := range destroyed {
		v.Earlier = append(v.Earlier, fmt.Sprintf("%s, on %s by %s: %s", d.ID, stamp(d.At), d.Actor, d.Reason))
	}
	v.Archive = "what was encrypted cannot be read any more; what was archived before archive.encryption was configured is still there in the clear"
	if v.DryRun {
		v.Archive = "what was encrypted could not be read any more; what was archived before archive.encryption was configured would still be there in the clear"
	}
	return there, nil
}

// nothing notes that there is nothing to erase: a wrong name looks the same as what was erased before.
func (v *eraseView) nothing(cfg *settings.File) {
	p := v.Postgres
	if p.Events+p.Conflicts+p.DeadLetters+p.Results > 0 || len(v.Keys)+len(v.Earlier) > 0 {
		return
	}
	v.Note = "nothing was found"
	if _, known := cfg.Sources[v.Source]; !known && v.Source != keys.NoSource {
		v.Note += ", and the configuration has no source of that name: is it right?"
	}
}

func (v *eraseView) question() string {
	what := fmt.Sprintf("event %q of source %s", v.EventID, v.Source)
	if v.EventID == "" {
		what = fmt.Sprintf("what was received from source %s from %s to before %s", v.Source, v.Since.Format(time.DateOnly), v.Until.Format(time.DateOnly))
	}
	if v.Note != "" {
		what += " (" + v.Note + ")"
	}
	return fmt.Sprintf("Erase %s for ever: %d events (%d of them are not done with, and will not be), %d conflicts, %d dead records, %d results, %d days of the archive?",
		what, v.Postgres.Events, v.Postgres.Unfinished, v.Postgres.Conflicts, v.Postgres.DeadLetters, v.Postgres.Results, len(v.Keys))
}

// elsewhere lists what else holds copies. docs/erasure.md says what to do about each.
func elsewhere(cfg *settings.File) []string {
	topic := cfg.Kafka.Topic
	if results := cfg.Kafka.Results(); results != "" {
		topic += " and " + results
	}
	list := []string{
		fmt.Sprintf("Kafka: topics %s until their retention ends, with replicas, mirrors and tiered storage; what is processed or archived from there later needs another erasure", topic),
		"Postgres: backups, archived WAL, replicas that lag, and rows that VACUUM has not removed yet",
		"copies, versions and backups of the archive's keys and of the archive; segments that were written without encryption",
		"your own tables: what operations wrote into them",
		"topics to which operations publish, and the rows of catchment.outbox on their way there",
		"the provider itself, and whoever else it sent the same to",
	}
	return list
}

func (v *eraseView) print(w io.Writer) {
	did := "erased"
	if v.DryRun {
		did = "would be erased"
	}
	line(w, "source", v.Source)
	if v.EventID != "" {
		line(w, "event", v.EventID)
	} else {
		line(w, "days", fmt.Sprintf("from %s to before %s, UTC", v.Since.Format(time.DateOnly), v.Until.Format(time.DateOnly)))
	}
	line(w, "events", fmt.Sprintf("%d %s, %d of them not done with", v.Postgres.Events, did, v.Postgres.Unfinished))
	line(w, "conflicts", fmt.Sprintf("%d %s", v.Postgres.Conflicts, did))
	line(w, "dead records", fmt.Sprintf("%d %s", v.Postgres.DeadLetters, did))
	line(w, "results", fmt.Sprintf("what %d attempts returned, or their errors, %s", v.Postgres.Results, did))
	line(w, "keys", fmt.Sprintf("%d %s: %s", len(v.Keys), did, strings.Join(v.Keys, ", ")))
	for _, d := range v.Earlier {
		line(w, "destroyed earlier", d)
	}
	line(w, "archive", v.Archive)
	if v.Note != "" {
		line(w, "note", v.Note)
	}
	for _, where := range v.Elsewhere {
		line(w, "also there", where)
	}
	line(w, "logs", "hold no bodies and no headers")
}
