package prove

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/collect"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/estate"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/judge"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/workload"
)

// Target is a system that somebody else runs, with the sources and operations of a cast in its configuration.
type Target struct {
	URLs         []string  // of the ingress, without /webhooks
	Kafka        []kgo.Opt // how to reach it
	Topic        string    // of the deliveries
	Results      string    // topic; empty: none
	Processor    string    // groups
	Archiver     string    //
	ResultsGroup string    //
	DatabaseURL  string    //
	Archive      string    // as in archive.url
	Verifier     string    // key of its checkpoints; empty: signatures are not looked at
	Faults       []Command // all that may be done to it
	Confidential []string  // texts that may stand in no log, beside the cast's
}

// Command is a fault that the system's owner allows, as commands of a shell.
type Command struct {
	Name  string        `yaml:"name" required:"true" doc:"what the run calls it"`
	Begin string        `yaml:"begin" required:"true" doc:"the shell's command that makes it"`
	End   string        `yaml:"end" doc:"the shell's command that undoes it, also where the first one failed; empty: it undoes itself"`
	Lasts time.Duration `yaml:"lasts" default:"5s" doc:"how long it lasts"`
	NoAck bool          `yaml:"no_ack" doc:"while it lasts nothing can be acknowledged: a 200 would be a lie"`
}

// commandTime is what one command of a fault may take.
const commandTime = 2 * time.Minute

// commandsLog has what the faults' commands wrote.
const commandsLog = "commands.log"

// RunTarget makes a trial of a system that runs already, whose cast is in Options.Dir, and returns its verdict. The error says
// that there is none.
func RunTarget(ctx context.Context, o Options, target Target) (*judge.Verdict, error) {
	t := &trial{Options: o}
	var err error
	if t.cast, err = workload.LoadCast(o.Dir); err != nil {
		return nil, fmt.Errorf("there is no cast; catchment prove cast makes one: %w", err)
	}
	if folder.Exists(o.Dir, folder.JournalFile) {
		return nil, fmt.Errorf("%s has been used: each run wants a cast of its own, or what it finds is that of another", o.Dir)
	}
	client, err := kgo.NewClient(target.Kafka...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	seen := &estate.Observer{Kafka: kadm.NewClient(client), DatabaseURL: target.DatabaseURL, Topic: target.Topic, Sources: t.cast.Names()}
	if err := t.prepared(ctx, target, seen); err != nil {
		return nil, err
	}
	t.run = folder.Run{
		Started: time.Now(), Topic: target.Topic, ResultsTopic: target.Results, ProcessorGroup: target.Processor, Shared: true,
		Versions: map[string]string{"catchment": t.Version, "go": runtime.Version()},
		Options: map[string]string{
			"target": strings.Join(target.URLs, " "), "events": strconv.FormatInt(t.Events, 10), "faults": strconv.Itoa(t.Faults),
			"duration": t.Duration.String(), "rate": fmt.Sprint(t.Rate),
		},
		Must: []string{folder.ForgeriesSent, folder.ConflictsSent, folder.PoisonSent},
	}
	t.cast.Describe(&t.run, t.Seed)
	if err := t.against(ctx, target, seen); err != nil {
		return nil, err
	}
	return judged(o.Dir)
}

// prepared says what the system lacks of what a run needs. Nothing is sent but requests that no source takes.
func (t *trial) prepared(ctx context.Context, target Target, seen *estate.Observer) error {
	if len(target.URLs) == 0 {
		return errors.New("there is no URL of an ingress")
	}
	var errs []error
	there, err := seen.Tables(ctx)
	if err == nil && !there {
		err = fmt.Errorf("the tables of %s are not there", workload.TablesFile)
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("the database: %w", err))
	}
	for _, topic := range []string{target.Topic, target.Results} {
		if topic != "" {
			_, err := seen.Ends(ctx, topic)
			errs = append(errs, err)
		}
	}
	client := &http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	for _, url := range target.URLs {
		for _, source := range t.cast.Names() {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(url, "/")+"/webhooks/"+source, strings.NewReader("{}"))
			if err != nil {
				return err
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := client.Do(req)
			if err != nil {
				errs = append(errs, err)
				break
			}
			_ = resp.Body.Close()
			switch {
			case resp.StatusCode == http.StatusNotFound:
				errs = append(errs, fmt.Errorf("%s does not know the source %s of %s", url, source, workload.SourcesFile))
			case resp.StatusCode < 400 || resp.StatusCode >= 500:
				errs = append(errs, fmt.Errorf("%s answers %d to a request for %s that nobody has signed: expected a refusal", url, resp.StatusCode, source))
			}
		}
	}
	return errors.Join(errs...)
}

// against goes through the phases.
func (t *trial) against(ctx context.Context, target Target, seen *estate.Observer) error {
	before, err := seen.Position(ctx)
	if err != nil {
		return err
	}
	failed := t.conduct(ctx, target.URLs, []phase{
		{"warm-up", func(ctx context.Context) error {
			return estate.Await(ctx, 2*time.Minute, 500*time.Millisecond, "the first events", func(ctx context.Context) error {
				done, err := seen.Position(ctx)
				if err == nil && done < before+min(100, t.Events) {
					err = fmt.Errorf("%d deliveries are processed", done-before)
				}
				return err
			})
		}},
		{"faults", func(ctx context.Context) error { return t.allowed(ctx, target.Faults) }},
		lastRequests,
		{"quiesce", func(ctx context.Context) error {
			return t.quiesce(ctx, seen, names{target.Topic, target.Results, target.Archiver, target.ResultsGroup})
		}},
		{"read", func(ctx context.Context) error {
			return collect.Run(ctx, collect.Options{
				Dir: t.Dir, Kafka: target.Kafka, Topic: target.Topic, ResultsTopic: target.Results, ProcessorGroup: target.Processor,
				DatabaseURL: target.DatabaseURL, Archive: target.Archive, Verifier: target.Verifier, Sources: t.cast.Names(),
			})
		}},
	})
	return errors.Join(failed, t.writeDown(target.Confidential...))
}

// allowed makes the faults that the owner allows, one after the other, in the seed's order: each comes once before one comes again.
func (t *trial) allowed(ctx context.Context, faults []Command) error {
	lines, err := folder.Create(t.Dir, folder.FaultsFile)
	if err != nil {
		return err
	}
	defer func() { _ = lines.Close() }()
	until := time.Now().Add(t.Duration)
	r := rand.New(rand.NewPCG(t.Seed, 0x7461726765740000))
	var deck []Command
	failed := 0
	for n := 1; len(faults) > 0 && (n <= t.Faults || time.Now().Before(until)); n++ {
		if len(deck) == 0 {
			deck = slices.Clone(faults)
			r.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
		}
		f := deck[0]
		deck = deck[1:]
		if err := t.command(ctx, n, f, func(l folder.Fault) { _ = lines.Write(l); _ = lines.Flush() }); err != nil {
			failed++
			t.Say("%s: %v; see %s", f.Name, err, filepath.Join(t.Dir, commandsLog))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := t.settled(ctx); err != nil {
			return fmt.Errorf("after %s: %w", f.Name, err)
		}
		if failed == n && n >= len(faults) {
			return errors.New("none of the faults could be made")
		}
	}
	if err := estate.Pause(ctx, time.Until(until)); err != nil {
		return err
	}
	return t.enough(ctx)
}

// command makes one fault and undoes it, whatever happens in between.
func (t *trial) command(ctx context.Context, n int, f Command, note func(folder.Fault)) error {
	t.Say("%s, %s", f.Name, f.Lasts)
	line := folder.Fault{Number: n, Kind: f.Name, Phase: "begin", NoAck: f.NoAck}
	err := t.shell(ctx, f.Begin)
	line.At = time.Now()
	if err != nil {
		line.Error = err.Error()
	}
	note(line)
	if err == nil {
		_ = estate.Pause(ctx, f.Lasts)
	}
	line.At, line.Phase, line.Error = time.Now(), "end", ""
	note(line)
	if f.End != "" {
		err = errors.Join(err, t.shell(context.WithoutCancel(ctx), f.End))
	}
	return err
}

// shell runs a command; what it writes goes to the run's folder.
func (t *trial) shell(ctx context.Context, text string) error {
	out, err := os.OpenFile(filepath.Join(t.Dir, commandsLog), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", text) //nolint:gosec // the owner's own command
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	_, _ = fmt.Fprintf(out, "%s $ %s\n", time.Now().UTC().Format(time.RFC3339), text)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%q: %w", text, err)
	}
	return nil
}
