package archive_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
)

// worn is a store whose disk does not give out some objects, or any.
type worn struct {
	memory
	keys []string
	all  bool
}

var errWorn = errors.New("input/output error")

func (w worn) Read(ctx context.Context, key string, offset, length int64) ([]byte, error) {
	if w.all || slices.Contains(w.keys, key) {
		return nil, errWorn
	}
	return w.memory.Read(ctx, key, offset, length)
}

// An object that cannot be read is a fault as others are, and hides none of the others. A store that fails is no fault.
func TestVerifyGoesOnBehindWhatCannotBeRead(t *testing.T) {
	v := newVault(t)
	segments, checkpoints := v.store.keys("events/"), v.store.keys(v.chains[0].Checkpoints())
	checks := archive.Checks{Keys: []archive.Verifier{v.key.Verifier()}, Copy: v.second}
	gone := v.store.keys(layout.AllStarts())[1]
	delete(v.store, segments[len(segments)-1])
	for what, keys := range map[string][]string{
		"a segment": segments[:1], "two in a row": segments[:2], "a checkpoint": checkpoints[1:2], "a start": {gone},
	} {
		t.Run(what, func(t *testing.T) {
			r, err := archive.Verify(t.Context(), worn{memory: v.store, keys: keys}, checks)
			require.NoError(t, err)
			var unreadable []string
			missing := false
			for _, p := range r.Problems {
				if p.Kind == archive.Unreadable {
					require.Contains(t, p.What, errWorn.Error())
					unreadable = append(unreadable, p.Key)
				}
				missing = missing || p.Kind == archive.Missing && p.Key == segments[len(segments)-1]
				require.NotEqual(t, archive.Changed, p.Kind, "nothing was changed: %s", p)
			}
			require.ElementsMatch(t, keys, unreadable)
			require.True(t, missing, "the other fault is named too: %v", r.Problems)
		})
	}
	_, err := archive.Verify(t.Context(), worn{memory: v.store, all: true}, checks)
	require.ErrorIs(t, err, errWorn)
}
