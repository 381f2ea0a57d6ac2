package processor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// Load reads catchment.yaml as settings.Load does, and tells what is wrong with the operations' expressions and
// parameters together with everything else. No database is asked.
func Load(path string, need ...settings.Section) (*settings.File, error) {
	cfg, errs, err := LoadPartly(path, need...)
	if err == nil {
		err = errs.Err()
	}
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// LoadPartly is Load for who can do with a part of the file: it returns what is right, and what is wrong besides.
func LoadPartly(path string, need ...settings.Section) (*settings.File, config.Errors, error) {
	cfg, errs, err := settings.LoadPartly(path, true, need...)
	if err != nil {
		return nil, nil, err
	}
	_, more := compile(cfg)
	errs = append(errs, untold(more, errs)...)
	errs.Sort()
	return cfg, errs, nil
}

// untold leaves out the errors about a value when there is one already about it, about a part of it, or about what it
// is a part of: one mistake is told once.
func untold(errs, known config.Errors) config.Errors {
	within := func(path, outer string) bool {
		return path == outer || strings.HasPrefix(path, outer+".") || strings.HasPrefix(path, outer+"[")
	}
	return slices.DeleteFunc(errs, func(e config.Error) bool {
		return slices.ContainsFunc(known, func(k config.Error) bool {
			return k.Path != "" && (within(e.Path, k.Path) || within(k.Path, e.Path))
		})
	})
}

// CheckStatements prepares the operations' statements, and asks for the rights of the role. The error says that the database
// could not be asked.
func CheckStatements(ctx context.Context, cfg *settings.File) (config.Errors, error) {
	ops, _ := compile(cfg)
	db, err := store.Open(ctx, cfg.Postgres, "catchment-check")
	if err != nil {
		return nil, err
	}
	defer db.Close()
	errs, err := describe(ctx, cfg, db, ops)
	if err != nil {
		return errs, err
	}
	err = db.CheckRights(ctx)
	if err == nil {
		err = db.CheckUpkeep(ctx, upkeepOf(cfg.Processor))
	}
	if lacking := (*store.RightsError)(nil); errors.As(err, &lacking) {
		return append(errs, cfg.Errorf("postgres.url", "%v", lacking)), nil
	}
	return errs, err
}

func describe(ctx context.Context, cfg *settings.File, db *store.Store, ops []*operation) (config.Errors, error) {
	var errs config.Errors
	for _, op := range ops {
		for j, st := range op.statements {
			if st.Forbidden() != "" || st.Number != "" {
				continue // told already
			}
			err := db.Describe(ctx, st)
			var wrong *store.StatementError
			switch {
			case errors.As(err, &wrong):
				errs = append(errs, cfg.Errorf(op.sqlPath(j), "expected SQL that Postgres prepares: %v", wrong))
			case err != nil:
				return errs, fmt.Errorf("check %s: %w", op.sqlPath(j), err)
			}
		}
	}
	return errs, nil
}
