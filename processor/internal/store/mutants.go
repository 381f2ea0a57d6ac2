package store

import (
	"context"
	"strings"

	"github.com/google/uuid"

	"github.com/catchment-dev/catchment/pkg/mutant"
)

// What the mutations need; only builds with the tag mutant link it.

// MutantMoveFirst moves the position and commits that, before the batch is written.
func MutantMoveFirst(ctx context.Context, t *Tx, p Partition, owner uuid.UUID, expected int64, next Position) error {
	tag, err := t.tx.Exec(ctx, `UPDATE catchment.progress SET next_offset = $3, leader_epoch = $4, updated_at = now()
		WHERE topic_id = $1 AND partition = $2 AND owner = $5 AND next_offset = $6`, p.TopicID, p.Partition, next.Next, next.LeaderEpoch, owner, expected)
	if err != nil {
		return &OwnError{"move", err}
	}
	if tag.RowsAffected() != 1 {
		return ErrMoved
	}
	return mutantCommit(ctx, t)
}

// mutantCommit commits what there is, and goes on in another transaction.
func mutantCommit(ctx context.Context, t *Tx) error {
	for _, sql := range []string{"commit", "begin"} {
		if _, err := t.tx.Exec(ctx, sql); err != nil {
			return &OwnError{sql, err}
		}
	}
	t.timeout = -1 // the settings ended with the transaction
	return nil
}

func mutantAllNew(fresh []bool) {
	for i := range fresh {
		fresh[i] = true
	}
}

// mutantIdentities knows an event by its ID, whatever its source; or only within the minute in which it came.
func mutantIdentities(sql string) string {
	if mutant.On(mutant.M7) {
		const list = "AS t(s, e, h, d)"
		return strings.Replace(sql, list, list+" WHERE NOT EXISTS (SELECT FROM catchment.identities i WHERE i.event_id = e)", 1)
	}
	return strings.Replace(sql, "DO NOTHING", `(source, event_id) DO UPDATE SET first_seen_at = now()
		WHERE date_trunc('minute', identities.first_seen_at) <> date_trunc('minute', now())`, 1)
}

func mutantUnfenced(sql string) string {
	return strings.Replace(sql, "owner = $5", "$5::uuid IS NOT NULL", 1)
}
