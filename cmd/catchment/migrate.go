package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
)

func newMigrate(a *app) *cobra.Command {
	var sql bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the database's schema catchment to this release's state",
		Long: "Bring the schema catchment of postgres.migrate_url (else postgres.url) to this release's state. Does nothing when it\n" +
			"is there already, and waits for another migration that is under way. The processor does the same at its start,\n" +
			"unless processor.migrate is false.",
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if sql {
				script, err := processor.MigrationScript()
				if err != nil {
					return err
				}
				if a.output == "json" {
					return a.answer(map[string]string{"sql": script}, nil)
				}
				_, err = io.WriteString(a.out, script)
				return err
			}
			cfg, err := a.load(settings.NeedPostgres)
			if err != nil {
				return err
			}
			url, err := processor.MigrateURL(cfg.Postgres)
			if err != nil {
				return fmt.Errorf("migrate: %w", err)
			}
			if err := processor.Migrate(cmd.Context(), url.Reveal()); err != nil {
				return fmt.Errorf("migrate: %w", err)
			}
			return a.answer(map[string]bool{"current": true}, func(w io.Writer) { line(w, "the schema is this release's") })
		},
	}
	cmd.Flags().BoolVar(&sql, "sql", false, "print the SQL for a new database instead, for those who apply it themselves")
	return cmd
}
