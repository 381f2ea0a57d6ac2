package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// surroundings are the settings of a session that a statement of an operation can change, for what comes after it in the batch (SET
// LOCAL) or in the session (SET), most often within a function. The role comes first: it decides what may be set.
type surroundings struct{ names, values []string }

var kept = []string{"role", "search_path", "TimeZone", "DateStyle", "IntervalStyle", "lock_timeout", "session_replication_role", "row_security"}

// columns are the arguments of the statement that sets what differs.
func (s *surroundings) columns() (names, values []string) {
	if s == nil {
		return []string{}, []string{}
	}
	return s.names, s.values
}

// KeepSettings remembers the settings that a session has now. From here on each transaction begins with them, and our own
// statements behind those of operations have them too.
func (s *Store) KeepSettings(ctx context.Context) error {
	rows, err := s.pool.Query(ctx, `SELECT current_setting(n) FROM unnest($1::text[]) WITH ORDINALITY AS x(n, i) ORDER BY i`, kept)
	if err != nil {
		return fmt.Errorf("postgres: read settings: %w", err)
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("postgres: read settings: %w", err)
	}
	s.as.Store(&surroundings{kept, values})
	return nil
}

// restore sets what differs.
const restore = `SELECT count(set_config(n, v, true)) FROM unnest($1::text[], $2::text[]) AS s(n, v) WHERE current_setting(n) IS DISTINCT FROM v`

// queueRestore queues behind operations that settings are as they were before. reached is set when it is the restoring that
// fails, if something does. Nothing may be prepared before it has run: the operations' role may see none of our tables.
func (t *Tx) queueRestore(b *pgx.Batch, reached *bool) {
	if t.as == nil {
		return
	}
	b.Queue(restore, t.as.names, t.as.values).Fn = func(br pgx.BatchResults) error {
		*reached = true
		_, err := br.Exec()
		return err
	}
}

// restoreNow is for what runs outside of a batch: a handler.
func (t *Tx) restoreNow(ctx context.Context) error {
	if t.as == nil {
		return nil
	}
	if _, err := t.tx.Exec(ctx, restore, t.as.names, t.as.values); err != nil {
		return &OwnError{"restore settings", err}
	}
	return nil
}

// textArray is the text form of an array.
func textArray(list []string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, s := range list {
		if i > 0 {
			b.WriteByte(',')
		}
		quoteElement(&b, s)
	}
	b.WriteByte('}')
	return b.String()
}
