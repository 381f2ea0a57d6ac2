package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/estate"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/nemesis"
	"github.com/catchment-dev/catchment/pkg/run"
)

// proveFlags are the flags of prove, as they are written.
type proveFlags struct {
	prove.Options
	faults   []string
	programs string
	list     bool
	target   targetFlags
}

func newProve(a *app) *cobra.Command {
	var f proveFlags
	cmd := &cobra.Command{
		Use:   "prove",
		Short: "Break the whole system on purpose, and judge whether it kept its promises",
		Long: `Run three Kafka brokers, two Postgres servers, an S3 server and two of each service as processes on this machine, send
them signed webhooks as providers do, break them and the links between them by a seeded schedule, let them come to rest,
read everything back with readers of its own, and judge it: nothing lost, doubled, invented or gone backwards. The last
line is JSON; the exit code is 0 only for a valid run in which every check is OK.

It needs Java and Kafka's jars (--kafka), Postgres' programs and versitygw. Nothing of it is left behind but the folder.

With --target it does the same to a system that is there already, such as your staging: ` + "`catchment prove cast DIR`" + ` makes
the providers that its configuration must have, --dir DIR is the folder of the run, and only what --allow names is broken.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.list {
				return a.listFaults()
			}
			if len(f.target.urls) > 0 {
				return a.proveTarget(cmd.Context(), &f, cmd.Flags().Changed)
			}
			if cmd.Flags().Changed("allow") || cmd.Flags().Changed("key") {
				return fmt.Errorf("%w: --allow and --key are for a run with --target", run.ErrUsage)
			}
			return a.prove(cmd.Context(), &f, cmd.Flags().Changed("seed"))
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.Dir, "dir", "", "`folder` of the run, which must not exist (default: a new one for temporary files)")
	fs.Uint64Var(&f.Seed, "seed", 0, "the same seed makes the same events and the same schedule of faults (default: a random one)")
	fs.Int64Var(&f.Events, "events", 200_000, "how many events are acknowledged at least")
	fs.Float64Var(&f.Rate, "rate", 1000, "new events a second at most; 0: as fast as they are taken")
	fs.IntVar(&f.Senders, "senders", 400, "requests in flight at most")
	fs.IntVar(&f.Options.Faults, "count", 60, "how many faults at least")
	fs.IntVar(&f.Together, "together", nemesis.Triples, "how many faults come at the same time at most")
	fs.DurationVar(&f.Duration, "duration", 0, "how long faults go on at least")
	fs.StringSliceVar(&f.faults, "faults", nil, "only these `kinds`, or with -name all but these (default: all; --list names them)")
	fs.DurationVar(&f.Drain, "drain", 3*time.Minute, "how long the system may take to come to rest")
	fs.BoolVar(&f.Keep, "keep", false, "keep the data of brokers and servers")
	fs.BoolVar(&f.list, "list", false, "list the kinds of faults, and end")
	fs.StringVar(&f.programs, "programs", "", "`folder` of the services' programs (default: that of this program)")
	fs.StringVar(&f.Programs.Kafka, "kafka", "", "`folder` of Kafka's jars (default: that which scripts/kafka-cluster.sh fills)")
	fs.StringVar(&f.Programs.Java, "java", "java", "the `program` that runs them")
	fs.StringVar(&f.Programs.Postgres, "postgres", "", "`folder` of Postgres' programs (default: PATH, or where distributions put them)")
	fs.StringVar(&f.Programs.S3, "versitygw", "", "the S3 server's `program` (default: PATH, or where scripts/tools.sh puts it)")
	f.target.register(cmd)
	cmd.AddCommand(newProveCast(a), newProveJudge(a), &cobra.Command{
		Use:   "table DIR",
		Short: "Print what a run has shown as Markdown",
		Args:  exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := prove.Table(a.out, args[0]); err != nil {
				return fmt.Errorf("%w: %w", run.ErrUsage, err)
			}
			return nil
		},
	})
	proveMutants(a, cmd, &f)
	return cmd
}

func (a *app) listFaults() error {
	kinds := nemesis.Kinds()
	return a.answer(kinds, func(w io.Writer) {
		for _, k := range kinds {
			line(w, fmt.Sprintf("%-34s %s", k.Name, k.What))
		}
	})
}

func (a *app) prove(ctx context.Context, f *proveFlags, seeded bool) error {
	var err error
	if f.Kinds, err = nemesis.Choose(f.faults); err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	if f.Together < 1 {
		return fmt.Errorf("%w: --together is %d: at least 1 was expected", run.ErrUsage, f.Together)
	}
	if !seeded {
		f.Seed = rand.Uint64()
	}
	if err := findPrograms(&f.Programs, f.programs); err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	if err := proveDir(&f.Dir); err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	f.Version, f.Say = run.Version, a.sayer()
	f.Say("seed %d, %d kinds of faults, at least %d faults and %d events; the plan:", f.Seed, len(f.Kinds), f.Options.Faults, f.Events)
	printPlan(a.err, nemesis.Schedule(f.Seed, f.Kinds, f.Together), f.Options.Faults)
	v, err := prove.Run(ctx, f.Options)
	if err != nil {
		return fmt.Errorf("no verdict: %w; see %s", err, f.Dir)
	}
	f.Say("%s", f.Dir)
	return a.sentence(v)
}

// sayer tells of a run's progress on standard error, each time with the seconds since it was made.
func (a *app) sayer() func(format string, args ...any) {
	began := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(a.err, "%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

func printPlan(w io.Writer, plan iter.Seq[nemesis.Slot], faults int) {
	n := 0
	for slot := range plan {
		if n >= faults {
			return
		}
		n += len(slot)
		fmt.Fprintf(w, "          %s\n", slot)
	}
}

// proveDir makes the run's folder. Postgres may run as another user, who must be able to enter it.
func proveDir(dir *string) error {
	if *dir == "" {
		made, err := os.MkdirTemp("", "catchment-prove-")
		if err != nil {
			return err
		}
		*dir = made
	}
	abs, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	*dir = abs
	if err := os.MkdirAll(abs, 0o755); err != nil {
		return err
	}
	if inside, err := os.ReadDir(abs); err != nil || len(inside) > 0 {
		return errors.Join(err, fmt.Errorf("%s is not empty", abs))
	}
	return os.Chmod(abs, 0o755)
}

// findPrograms fills in where the programs are that the flags do not name.
func findPrograms(p *estate.Programs, dir string) error {
	if dir == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		dir = filepath.Dir(self)
	}
	var errs []error
	for name, path := range map[string]*string{"ingress": &p.Ingress, "processor": &p.Processor, "archiver": &p.Archiver} {
		*path = filepath.Join(dir, "catchment-"+name)
		if _, err := os.Stat(*path); err != nil {
			errs = append(errs, fmt.Errorf("%w: `make build` makes it, --programs says where it is", err))
		}
	}
	cache, _ := os.UserCacheDir()
	errs = append(errs,
		find(&p.Kafka, "--kafka", "kafka_2.13-*.jar", filepath.Join(cache, "kafka-*", "libs")),
		find(&p.Postgres, "--postgres", "initdb", filepath.Join("/usr/lib/postgresql", "*", "bin"), "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin"),
	)
	if p.S3 == "" {
		at := ""
		errs = append(errs, find(&at, "--versitygw", "versitygw", filepath.Join(cache, "catchment", "bin")))
		p.S3 = filepath.Join(at, "versitygw")
	}
	java, err := exec.LookPath(p.Java)
	if err != nil {
		errs = append(errs, err)
	}
	p.Java = java
	return errors.Join(errs...)
}

// find looks for the folder that holds a file: where a flag says, on PATH, or in the usual places, the newest.
func find(dir *string, flag, file string, places ...string) error {
	if *dir != "" {
		return nil
	}
	if p, err := exec.LookPath(file); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			p = real // beside which all the programs are
		}
		*dir = filepath.Dir(p)
		return nil
	}
	var found []string
	for _, place := range places {
		f, _ := filepath.Glob(filepath.Join(place, file))
		found = append(found, f...)
	}
	if len(found) == 0 {
		return fmt.Errorf("there is no %s in %s: %s says where it is", file, strings.Join(places, " or "), flag)
	}
	sort.Strings(found)
	*dir = filepath.Dir(found[len(found)-1])
	return nil
}
