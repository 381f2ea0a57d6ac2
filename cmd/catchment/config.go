package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/keys"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
)

// checkTimeout is how long the database is given to prepare the operations' statements.
const checkTimeout = 15 * time.Second

// configReport is what `config check` answers.
type configReport struct {
	File       string        `json:"file"`
	Sources    int           `json:"sources"`
	Operations int           `json:"operations"`
	SQL        string        `json:"sql"` // checked, or why not
	Errors     []configFault `json:"errors"`
}

type configFault struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path"`
	Message string `json:"message"`
}

func newConfig(a *app) *cobra.Command {
	var offline bool
	check := &cobra.Command{
		Use:   "check",
		Short: "Say everything that is wrong with the configuration; exit code 2 when something is",
		Long: "Check the whole configuration: keys, types, secrets and files, expressions, and the operations' SQL, which the\n" +
			"database is asked to prepare. Without the database, or with --offline, the SQL is not checked.",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.checkConfig(cmd.Context(), offline) },
	}
	check.Flags().BoolVar(&offline, "offline", false, "do not ask the database")
	schema := &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration, for editors",
		Args:  exactly(0),
		RunE: func(*cobra.Command, []string) error {
			e := json.NewEncoder(a.out)
			e.SetIndent("", "  ")
			return e.Encode(settings.Schema())
		},
	}
	return group("config", "Check the configuration", check, schema)
}

func (a *app) checkConfig(ctx context.Context, offline bool) error {
	r := configReport{File: a.config, SQL: "not checked: --offline", Errors: []configFault{}}
	cfg, wrong, err := processor.LoadPartly(a.config, settings.Everything...)
	switch {
	case errors.As(err, &wrong): // no YAML at all
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: there is no %s: name the file with --config", run.ErrUsage, a.config)
	case err != nil:
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	default:
		r.Sources, r.Operations = len(cfg.Sources), len(cfg.Operations)
		wrong = append(wrong, checkPlaces(ctx, cfg, wrong)...)
		wrong.Sort()
		if !offline {
			var statements config.Errors
			statements, r.SQL = checkStatements(ctx, cfg)
			wrong = append(wrong, statements...)
			wrong.Sort()
		}
	}
	for _, e := range wrong {
		r.Errors = append(r.Errors, configFault{e.File, e.Line, e.Col, e.Path, e.Msg})
	}
	if len(wrong) > 0 && a.output == "table" {
		return fmt.Errorf("%w: %w", run.ErrUsage, wrong)
	}
	if err := a.answer(r, func(w io.Writer) {
		line(w, "right", r.File)
		line(w, "sources", r.Sources)
		line(w, "operations", r.Operations)
		line(w, "SQL", r.SQL)
	}); err != nil {
		return err
	}
	return wrong.Err()
}

// checkPlaces opens the archive's places, which connects to nothing, and returns what is wrong besides what is known: a bucket's
// region may come from the environment or from a profile, where only the SDK finds it.
func checkPlaces(ctx context.Context, cfg *settings.File, known config.Errors) (wrong config.Errors) {
	if cfg.Archive.URL == "" {
		return nil
	}
	_, first := archive.Open(ctx, cfg.Archive)
	_, second := archive.OpenCopy(ctx, cfg.Archive)
	_, ring := keys.Open(ctx, cfg.Archive)
	for _, err := range []error{first, second, ring} {
		errs, _ := errors.AsType[config.Errors](err)
		for _, e := range errs {
			if !slices.ContainsFunc(known, func(k config.Error) bool { return k.Path == e.Path }) {
				wrong = append(wrong, e)
			}
		}
	}
	return wrong
}

// checkStatements has the database prepare the operations' SQL; the text says whether it did.
func checkStatements(ctx context.Context, cfg *settings.File) (wrong config.Errors, sql string) {
	if cfg.Postgres.URL.Empty() {
		return nil, "not checked: there is no postgres.url that could be used"
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	wrong, err := processor.CheckStatements(ctx, cfg)
	if err != nil {
		return wrong, "not checked: " + err.Error()
	}
	return wrong, "checked"
}
