package processor

import "github.com/catchment-dev/catchment/processor/internal/store"

// MigrationScript returns the SQL that makes the schema catchment in a database without it, for those who do not let
// a program change their schema. Migrate then finds it current.
func MigrationScript() (string, error) { return store.Script() }
