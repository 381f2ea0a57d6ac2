package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/catchment-dev/catchment/archiver"
	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

func newArchive(a *app) *cobra.Command {
	return group("archive", "Make, prove, list and read the archive", newArchiveEnsure(a), newArchiveVerify(a), newArchiveList(a), newArchiveCat(a), newArchiveGap(a))
}

// openArchive loads the configuration and opens the store.
func (a *app) openArchive(ctx context.Context, need ...settings.Section) (*settings.File, archive.Store, error) {
	cfg, err := a.load(append(need, settings.NeedArchive)...)
	if err != nil {
		return nil, nil, err
	}
	s, err := archive.Open(ctx, cfg.Archive)
	return cfg, s, err
}

// ensureView is what `archive ensure` answers.
type ensureView struct {
	Archive string   `json:"archive"`
	Made    []string `json:"made"`
}

func newArchiveEnsure(a *app) *cobra.Command {
	var patience time.Duration
	c := &cobra.Command{
		Use:   "ensure",
		Short: "Make the archive's bucket or folder when it does not exist, and prove that it takes an object only once",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.load(settings.NeedArchive)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), patience)
			defer cancel()
			made, err := archive.Ensure(ctx, cfg.Archive)
			if err != nil {
				return err
			}
			return a.answer(ensureView{cfg.Archive.URL, append([]string{}, made...)}, func(w io.Writer) {
				for _, url := range made {
					line(w, "made", url)
				}
				line(w, "archive", cfg.Archive.URL+" takes an object only once")
			})
		},
	}
	c.Flags().DurationVar(&patience, "timeout", time.Minute, "how long to wait for the store")
	return c
}

// verifyFlags are what `archive verify` looks at.
type verifyFlags struct {
	keys, saved      []string
	copy, since      string
	noCopy, unsigned bool
	secrets, strict  bool
	fetchedKeys      string
}

func newArchiveVerify(a *app) *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify",
		Short: "Prove that nothing in the archive was altered, removed, repeated or put in; exit code 1 when it cannot",
		Long: "Read the whole archive, without Kafka and Postgres: each chain of segments from its start to its end, every digest, the Merkle\n" +
			"root over every segment's rows, the checkpoints and their signatures, and what stands outside the chains. It goes on after a\n" +
			"fault and names all. With archive.checkpoint_copy, or --checkpoint, it also finds that a chain's end was cut off.\n\n" +
			"Exit code 0: all is as it was archived, but for gaps that somebody has admitted. 1: something is not, or could not be read.",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.verifyArchive(cmd.Context(), f) },
	}
	c.Flags().StringArrayVar(&f.keys, "key", nil, "a verifier key (name+hash+key), or `file`:PATH of one, beside archive.checkpoint_key's; may be repeated")
	c.Flags().BoolVar(&f.unsigned, "allow-unsigned", false, "checkpoints before the first signed one of their chain may be unsigned: the key came later")
	c.Flags().StringVar(&f.copy, "copy", "", "`URL` of the second place of the checkpoints (default: archive.checkpoint_copy)")
	c.Flags().BoolVar(&f.noCopy, "no-copy", false, "do not look at the second place")
	c.Flags().StringArrayVar(&f.saved, "checkpoint", nil, "`file` with a checkpoint that was kept elsewhere: it must be in the archive; may be repeated")
	c.Flags().StringVar(&f.since, "since", "", "read segments from this `day` on only (a date, a time, or a duration ago); older ones may have been removed")
	c.Flags().BoolVar(&f.secrets, "secrets", false, "verify the providers' own signatures again, with the configuration's sources and secrets")
	c.Flags().StringVar(&f.fetchedKeys, "keys", "", "with --secrets: `file` with the keys that schemes would fetch, as for `catchment verify`")
	c.Flags().BoolVar(&f.strict, "strict", false, "with --secrets: a delivery whose source or secret is not configured any more, or that is encrypted while archive.encryption is not configured, is a fault")
	return c
}

// verifyView is what `archive verify` answers.
type verifyView struct {
	OK bool `json:"ok"`
	archive.Counts
	Problems   []archive.Problem  `json:"problems"`
	Gaps       []gapView          `json:"admitted_gaps"`
	Pending    []string           `json:"pending_segments"`
	NotRead    int64              `json:"segments_not_read"`
	Unsigned   int64              `json:"unsigned_checkpoints"`
	Unchecked  int64              `json:"unchecked_signatures"`
	Chains     []archive.ChainTip `json:"chains"`
	Signatures *reverifyView      `json:"provider_signatures,omitempty"`
}

// gapView is an admitted gap.
type gapView struct {
	Partition string    `json:"partition"`
	First     int64     `json:"first_offset"`
	Last      int64     `json:"last_offset"`
	Time      time.Time `json:"time"`
	Actor     string    `json:"actor"`
	Reason    string    `json:"reason"`
}

func viewOfGap(g *archive.Gap) gapView {
	return gapView{g.Partition.String(), g.First, g.Last, g.Time, g.Actor, g.Reason}
}

func (a *app) verifyArchive(ctx context.Context, f verifyFlags) error {
	cfg, store, err := a.openArchive(ctx)
	if err != nil {
		return err
	}
	checks, err := f.checks(ctx, cfg)
	if err != nil {
		return err
	}
	var again *reverifier
	if f.secrets {
		if again, err = a.newReverifier(ctx, f); err != nil {
			return err
		}
		checks.Visit = again.visit
	}
	shown := a.newReading()
	checks.Progress = shown.tell
	r, err := archive.Verify(ctx, store, checks)
	shown.end()
	if err != nil {
		return fmt.Errorf("the archive could not be read to its end: %w", err)
	}
	v := verifyView{
		Counts: r.Counts, Problems: orEmpty(r.Problems), Gaps: []gapView{}, Pending: []string{}, NotRead: r.NotRead,
		Unsigned: r.Unsigned, Unchecked: r.Unchecked, Chains: orEmpty(r.Tips),
	}
	for _, g := range r.Gaps {
		v.Gaps = append(v.Gaps, viewOfGap(g))
	}
	for _, p := range r.Pending {
		v.Pending = append(v.Pending, p.Key)
	}
	if again != nil {
		v.Signatures = again.view()
		v.Problems = append(v.Problems, again.problems...)
	}
	begun := len(v.Chains) > 0
	v.OK = len(v.Problems) == 0 && begun
	if err := a.answer(v, func(w io.Writer) { v.print(w) }); err != nil {
		return err
	}
	if !begun && len(v.Problems) == 0 {
		return fmt.Errorf("nothing was verified, for there is no archive at %s: no chain has begun there. Expected the place that the archiver writes to; one that was deleted as a whole looks the same", cfg.Archive.URL)
	}
	if !v.OK {
		fmt.Fprintf(a.err, "catchment: %d faults: the archive is not what was archived\n", len(v.Problems))
		return errSaid
	}
	return nil
}

func (f verifyFlags) checks(ctx context.Context, cfg *settings.File) (c archive.Checks, err error) {
	usage := func(flag string, err error) error { return fmt.Errorf("%w: %s: %w", run.ErrUsage, flag, err) }
	c.AtOnce, c.Unsigned = 2, f.unsigned
	if c.Since, err = config.ParseMoment(f.since, time.Now()); err != nil {
		return c, usage("--since", err)
	}
	c.Since = c.Since.UTC().Truncate(24 * time.Hour)
	own, err := archive.VerifierOf(cfg.Archive.CheckpointKey.Reveal())
	if err != nil {
		return c, fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	if own != nil {
		c.Keys = append(c.Keys, own)
	}
	for _, text := range f.keys {
		if path, ok := strings.CutPrefix(text, "file:"); ok {
			b, err := settings.ReadSecret(path)
			if err != nil {
				return c, usage("--key", err)
			}
			text = string(b)
		}
		k, err := archive.NewVerifier(text)
		if err != nil {
			return c, usage("--key", err)
		}
		if !slices.ContainsFunc(c.Keys, func(o archive.Verifier) bool { return o.Name() == k.Name() && o.KeyHash() == k.KeyHash() }) {
			c.Keys = append(c.Keys, k)
		}
	}
	place := cfg.Archive
	if f.copy != "" {
		place.CheckpointCopy, place.Index = f.copy, config.NewIndex("--copy")
	}
	if !f.noCopy {
		if c.Copy, err = archive.OpenCopy(ctx, place); err != nil {
			return c, fmt.Errorf("%w: %w", run.ErrUsage, err)
		}
	}
	c.Saved = map[string][]byte{}
	for _, path := range f.saved {
		object, err := settings.ReadSecret(path)
		if err != nil {
			return c, usage("--checkpoint", err)
		}
		key, err := archive.ParseSaved(object)
		if err != nil {
			return c, usage("--checkpoint "+path, err)
		}
		c.Saved[key] = object
	}
	return c, nil
}

func (v *verifyView) print(w io.Writer) {
	for _, p := range v.Problems {
		line(w, p.Kind, p.Key, p.What)
	}
	for _, g := range v.Gaps {
		line(w, "admitted gap", fmt.Sprintf("%s, offsets %d to %d", g.Partition, g.First, g.Last), fmt.Sprintf("%s, %s: %s", stamp(g.Time), g.Actor, g.Reason))
	}
	for _, key := range v.Pending {
		line(w, "pending", key, "whole, and its checkpoint is not written yet")
	}
	line(w, "read", fmt.Sprintf("%d chains, %d checkpoints, %d segments, %d records, %d bytes", len(v.Chains), v.Checkpoints, v.Segments, v.Records, v.Bytes), "")
	note := func(n int64, what string) {
		if n > 0 {
			line(w, "note", fmt.Sprintf(what, n), "")
		}
	}
	note(v.NotRead, "%d segments are older than --since and were not read")
	note(v.Unsigned, "%d checkpoints are not signed: whoever can write to the store could have written them")
	note(v.Unchecked, "%d signatures of checkpoints were not checked: give their key with --key")
	if v.Signatures != nil {
		v.Signatures.print(w)
	}
	if v.OK {
		line(w, "whole", "nothing was altered, removed, repeated or put in", "")
	}
}

// reading tells how far a long reading is: in place on a terminal, in a line now and then elsewhere.
type reading struct {
	w        io.Writer
	terminal bool
	shown    time.Time
}

const (
	progressOnTerminal = 200 * time.Millisecond
	progressInLog      = 30 * time.Second
)

func (a *app) newReading() *reading {
	f, ok := a.err.(*os.File)
	return &reading{w: a.err, terminal: ok && term.IsTerminal(int(f.Fd())), shown: time.Now()}
}

func (p *reading) tell(c archive.Counts) {
	wait := progressInLog
	if p.terminal {
		wait = progressOnTerminal
	}
	if time.Since(p.shown) < wait {
		return
	}
	p.shown = time.Now()
	text := fmt.Sprintf("read %d segments, %d records, %d MiB", c.Segments, c.Records, c.Bytes>>20)
	if p.terminal {
		fmt.Fprintf(p.w, "\r\033[K%s", text)
		return
	}
	fmt.Fprintln(p.w, text)
}

func (p *reading) end() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\033[K")
	}
}

// rangeFlags select segments by their days.
type rangeFlags struct{ since, until string }

func (f *rangeFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.since, "since", "", "in segments of this `day` and later: a date, RFC 3339, or a duration ago such as 7d")
	c.Flags().StringVar(&f.until, "until", "", "in segments of this `day` and earlier")
}

func (f *rangeFlags) parse() (in archive.Range, err error) {
	if in.Since, err = config.ParseMoment(f.since, time.Now()); err != nil {
		return in, fmt.Errorf("%w: --since: %w", run.ErrUsage, err)
	}
	if in.Until, err = config.ParseMoment(f.until, time.Now()); err != nil {
		return in, fmt.Errorf("%w: --until: %w", run.ErrUsage, err)
	}
	return in, nil
}

func newArchiveGap(a *app) *cobra.Command {
	var act actFlags
	var topic string
	var partition int32
	var yes bool
	c := &cobra.Command{
		Use:   "gap --reason TEXT --partition N",
		Short: "Admit that offsets are lost, where Kafka's retention has overtaken the archive, and let the partition go on",
		Long: "Where Kafka has deleted records that were never archived, the archiver halts the partition. This writes a gap into its chain, for\n" +
			"ever: which offsets are lost, who says so, when and why, signed with archive.checkpoint_key. The archiver goes on behind it\n" +
			"within seconds. It is refused when Kafka still has what the archive wants next.",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.admitGap(cmd.Context(), topic, partition, act, yes)
		},
	}
	act.register(c)
	c.Flags().Lookup("reason").Usage = "why, for ever in the archive (required)"
	c.Flags().StringVar(&topic, "topic", "", "the topic (default: kafka.topic)")
	c.Flags().Int32Var(&partition, "partition", -1, "the halted partition (required)")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) admitGap(ctx context.Context, topic string, partition int32, who actFlags, yes bool) error {
	if strings.TrimSpace(who.reason) == "" || partition < 0 {
		return fmt.Errorf("%w: expected --partition N and --reason TEXT: both stay in the archive for ever", run.ErrUsage)
	}
	cfg, err := a.load(settings.NeedKafka, settings.NeedArchive)
	if err != nil {
		return err
	}
	if topic == "" {
		topic = cfg.Kafka.Topic
	}
	loss, err := archiver.Overtaken(ctx, cfg, topic, partition)
	if errors.Is(err, archiver.ErrNotOvertaken) {
		return fmt.Errorf("nothing is lost: %w", err)
	}
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Write into %s for ever that offsets %d to %d (%d records at most) are lost?", loss.Partition(), loss.First, loss.Last, loss.Last-loss.First+1)
	if !loss.Signed() {
		question = "There is no archive.checkpoint_key: the gap will not be signed. " + question
	}
	if err := a.confirm(yes, question); err != nil {
		return err
	}
	act := who.act()
	gap, err := loss.Admit(ctx, act.Actor, act.Reason)
	if err != nil {
		return err
	}
	return a.answer(viewOfGap(gap), func(w io.Writer) {
		line(w, "written", loss.Key())
		line(w, "lost", fmt.Sprintf("offsets %d to %d of %s", gap.First, gap.Last, gap.Partition))
		line(w, "admitted", fmt.Sprintf("%s, %s: %s", stamp(gap.Time), gap.Actor, gap.Reason))
	})
}

// listedView is a segment, or what is missing between two.
type listedView struct {
	Key       string   `json:"key"` // empty: there is none
	Kind      string   `json:"kind"`
	Topic     string   `json:"topic"`
	TopicID   string   `json:"topic_id"`
	Partition int32    `json:"partition"`
	Day       string   `json:"day"`
	First     int64    `json:"first_offset"`
	Last      int64    `json:"last_offset"`
	Count     int64    `json:"count"`
	Size      int64    `json:"size"`
	State     string   `json:"state"`
	Gap       *gapView `json:"admitted_gap,omitempty"`
}

func newArchiveList(a *app) *cobra.Command {
	var in rangeFlags
	var topic string
	var partitions []int32
	c := &cobra.Command{
		Use:   "ls",
		Short: "List the segments: offsets, size, day, and whether a checkpoint seals them; and what is missing between them",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.listArchive(cmd.Context(), in, topic, partitions)
		},
	}
	in.register(c)
	c.Flags().StringVar(&topic, "topic", "", "of this topic (default: all, deliveries first)")
	c.Flags().Int32SliceVar(&partitions, "partition", nil, "of this partition; may be repeated")
	return c
}

func (a *app) listArchive(ctx context.Context, f rangeFlags, topic string, partitions []int32) error {
	in, err := f.parse()
	if err != nil {
		return err
	}
	_, store, err := a.openArchive(ctx)
	if err != nil {
		return err
	}
	wanted := func(p archive.Partition) bool {
		return (topic == "" || p.Topic == topic) && (len(partitions) == 0 || slices.Contains(partitions, p.Number))
	}
	list := a.newList("PARTITION", "FIRST", "LAST", "COUNT", "SIZE", "DAY", "STATE", "KEY")
	n := 0
	for _, kind := range []archive.Kind{archive.Events, archive.Results} {
		for l, err := range archive.Contents(ctx, store, kind, in, wanted) {
			if err != nil {
				return errors.Join(list.end(), err)
			}
			v := viewOfListed(l)
			list.add(v, v.Partition, v.First, v.Last, v.Count, v.Size, v.Day, v.State, v.Key)
			if n++; n%listPage == 0 {
				if err := list.flush(); err != nil {
					return err
				}
			}
		}
	}
	return list.end()
}

func viewOfListed(l archive.Listed) listedView {
	v := listedView{
		Key: l.Key, Kind: l.Kind.String(), Topic: l.Partition.Topic, TopicID: fmt.Sprintf("%x", l.Partition.TopicID), Partition: l.Partition.Number,
		First: l.First, Last: l.Last, Count: l.Last - l.First + 1, Size: l.Size, State: "sealed",
	}
	if l.Key != "" {
		v.Day = l.Day.Format(time.DateOnly)
	}
	switch {
	case l.Gap != nil:
		g := viewOfGap(l.Gap)
		v.Gap, v.State = &g, "lost: "+g.Reason
	case l.Key == "":
		v.State = "missing"
	case !l.Sealed:
		v.State = "not sealed"
	}
	return v
}
