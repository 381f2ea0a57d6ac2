package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/collect"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/workload"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// targetFlags are the flags of a run against a system that is there already.
type targetFlags struct {
	urls     []string
	allow    string
	verifier string
}

func (f *targetFlags) register(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringArrayVar(&f.urls, "target", nil, "the `URL` of an ingress that runs already, with the sources of --dir's cast; --config is its system's configuration; may be repeated")
	fs.StringVar(&f.allow, "allow", "", "with --target: the YAML `file` of the faults that may be made there (default: none)")
	fs.StringVar(&f.verifier, "key", "", "with --target: the verifier key (name+hash+key) of the archive's checkpoints (default: that of archive.checkpoint_key)")
}

// The defaults of a run against a system that others use.
const (
	targetEvents = 10_000
	targetRate   = 100.0
)

// ofEstate are flags of the system that prove starts itself.
var ofEstate = []string{"faults", "together", "keep", "programs", "kafka", "java", "postgres", "versitygw"}

func newProveCast(a *app) *cobra.Command {
	secretsAt := ""
	cmd := &cobra.Command{
		Use:   "cast DIR",
		Short: "Make the providers of one run against a system that is there already",
		Long: `Make six providers with names and secrets that no other run has, and write into DIR what their system must know:

  sources.yaml  the sections sources and operations, for its catchment.yaml
  secrets/      the files that they name
  tables.sql    the tables that the operations write, for its database`,
		Args: exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			cast, err := workload.MakeCast(dir, secretsAt)
			if err != nil {
				return fmt.Errorf("%w: %w", run.ErrUsage, err)
			}
			fmt.Fprintf(a.out, "%s has %s, %s and the secrets of\n  %s\n", dir, workload.SourcesFile, workload.TablesFile, strings.Join(cast.Names(), "\n  "))
			return nil
		},
	}
	cmd.Flags().StringVar(&secretsAt, "secrets-at", "", "the `folder` in which ingress and tool will find the secrets' files (default: DIR/secrets)")
	return cmd
}

// allowed is the document of --allow.
type allowed struct {
	Faults []prove.Command `yaml:"faults" required:"true" doc:"what may be done"`
}

func (a *app) proveTarget(ctx context.Context, f *proveFlags, changed func(string) bool) error {
	for _, name := range ofEstate {
		if changed(name) {
			return fmt.Errorf("%w: --%s is of the system that prove starts itself, and --target is another", run.ErrUsage, name)
		}
	}
	if f.Dir == "" {
		return fmt.Errorf("%w: --dir is missing: the folder that `catchment prove cast` made", run.ErrUsage)
	}
	target, err := a.target(f)
	if err != nil {
		return err
	}
	if f.Dir, err = filepath.Abs(f.Dir); err != nil {
		return err
	}
	o := f.Options
	o.Version, o.Faults = run.Version, len(target.Faults)
	for name, usual := range map[string]func(){
		"seed":   func() { o.Seed = rand.Uint64() },
		"events": func() { o.Events = targetEvents },
		"rate":   func() { o.Rate = targetRate },
	} {
		if !changed(name) {
			usual()
		}
	}
	if changed("count") {
		o.Faults = f.Options.Faults
	}
	o.Say = a.sayer()
	o.Say("seed %d, at least %d events at %g a second, and %d faults of %d kinds", o.Seed, o.Events, o.Rate, o.Faults, len(target.Faults))
	v, err := prove.RunTarget(ctx, o, *target)
	if err != nil {
		return fmt.Errorf("no verdict: %w; see %s", err, f.Dir)
	}
	return a.sentence(v)
}

// target is the system that the configuration describes.
func (a *app) target(f *proveFlags) (*prove.Target, error) {
	cfg, err := a.load(settings.NeedKafka, settings.NeedPostgres, settings.NeedArchive, settings.NeedProcessor, settings.NeedArchiver)
	if err != nil {
		return nil, err
	}
	if cfg.Archive.Encryption != nil {
		return nil, fmt.Errorf("%w: %w", run.ErrUsage, cfg.Errorf("archive.encryption", "expected none: the readers of a run have no keys, and cannot see whether bodies are archived byte for byte"))
	}
	t := &prove.Target{
		URLs: f.target.urls, Topic: cfg.Kafka.Topic, Results: cfg.Kafka.Results(), Processor: cfg.Processor.Group, Archiver: cfg.Archiver.Group,
		ResultsGroup: cfg.Archiver.ResultsGroup(), DatabaseURL: cfg.Postgres.URL.Reveal(), Archive: cfg.Archive.URL, Verifier: f.target.verifier,
		Confidential: []string{cfg.Archive.CheckpointKey.Reveal()},
	}
	if t.Kafka, err = kafka.Options(cfg.Kafka, "catchment-prove"); err != nil {
		return nil, fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	if signer := cfg.Archive.CheckpointKey.Reveal(); signer != "" && t.Verifier == "" {
		if t.Verifier, err = collect.VerifierOf(signer); err != nil {
			return nil, fmt.Errorf("%w: %w", run.ErrUsage, cfg.Errorf("archive.checkpoint_key", "%v", err))
		}
	}
	if f.target.allow == "" {
		return t, nil
	}
	var doc allowed
	text, err := os.ReadFile(f.target.allow)
	if err == nil {
		literal := func(name string) (string, bool) { return "${" + name + "}", true } // is the shell's
		_, err = config.Parse(f.target.allow, text, &doc, config.Options{Lookup: literal})
	}
	if err == nil && len(doc.Faults) == 0 {
		err = errors.New("there are no faults in it")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: --allow: %w", run.ErrUsage, err)
	}
	t.Faults = doc.Faults
	return t, nil
}
