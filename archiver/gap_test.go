package archiver

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/internal/objstore"
	"github.com/catchment-dev/catchment/pkg/config"
)

// overtake lets Kafka forget what lies before an offset of partition 0.
func (r *rig) overtake(offset int64) {
	r.Helper()
	var gone kadm.Offsets
	gone.Add(kadm.Offset{Topic: r.topic, Partition: 0, At: offset})
	_, err := kadm.NewClient(r.client).DeleteRecords(r.Context(), gone)
	require.NoError(r, err)
}

// An admitted gap lets a halted partition go on, in an archiver that runs, and the archive is whole but for it.
func TestAdmittedGapIsGoneBehind(t *testing.T) {
	r := newRig(t, 1)
	signer, _, err := note.GenerateKey(nil, "example.com/archive")
	require.NoError(t, err)
	r.cfg.Archive.CheckpointKey = config.NewSecret(signer)
	r.cfg.Archive.CheckpointCopy = "file://" + t.TempDir()
	loss := func() (*Loss, error) { return Overtaken(t.Context(), &r.cfg, r.topic, 0) }
	_, err = loss()
	require.ErrorIs(t, err, ErrNotOvertaken)
	require.ErrorContains(t, err, "has not begun")

	a := r.start(nil)
	r.produce(10)
	r.waitArchived(10)
	_, err = loss()
	require.ErrorIs(t, err, ErrNotOvertaken)
	require.ErrorContains(t, err, "goes on at offset 10, Kafka begins at 0")
	a.stop(r)
	r.produce(20)
	r.overtake(15)
	a = r.start(nil)
	a.haltedWith(r, "offsets 10 to 14")

	l, err := loss()
	require.NoError(t, err)
	require.Equal(t, []int64{10, 14}, []int64{l.First, l.Last})
	require.True(t, l.Signed())
	for _, wrong := range []string{"", " ", "two\nlines", strings.Repeat("x", 1001)} {
		_, err := l.Admit(t.Context(), "ada", wrong)
		require.Error(t, err)
	}
	gap, err := l.Admit(t.Context(), "ada", "retention was a day")
	require.NoError(t, err)
	require.Equal(t, "retention was a day", gap.Reason)
	_, err = loss()
	require.ErrorIs(t, err, ErrNotOvertaken)

	require.Eventually(t, func() bool { return r.archived() == 25 }, patience, watchInterval/100)
	require.Eventually(t, func() bool { return a.Ready() == nil }, patience, watchInterval/100)
	r.produce(5)
	r.waitArchived(30)
	a.stop(r)
	second, err := archive.OpenCopy(t.Context(), r.cfg.Archive)
	require.NoError(t, err)
	key, err := archive.VerifierOf(signer)
	require.NoError(t, err)
	report, err := archive.Verify(t.Context(), r.store, archive.Checks{Keys: []archive.Verifier{key}, Copy: second})
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	require.Len(t, report.Gaps, 1)
	require.EqualValues(t, 30, report.Records)
	require.EqualValues(t, 35, r.committed())
}

// A segment whose checkpoint was never written is no loss, although Kafka has forgotten its records.
func TestGapLeavesWhatIsStored(t *testing.T) {
	r := newRig(t, 1)
	var dying atomic.Bool
	ctx, die := context.WithCancel(t.Context())
	a := r.start(&fault{r.store, func(_ context.Context, key string, create func() error) error {
		if dying.Load() && isCheckpoint(key) {
			die()
			return fmt.Errorf("%s: killed", key)
		}
		return create()
	}})
	r.produce(10)
	r.waitArchived(10)
	dying.Store(true)
	r.produce(7)
	<-ctx.Done()
	a.cancel()
	r.produce(5)
	r.overtake(20)
	l, err := Overtaken(t.Context(), &r.cfg, r.topic, 0)
	require.NoError(t, err)
	require.Equal(t, []int64{17, 19}, []int64{l.First, l.Last})
	dying.Store(false)
}

// Nothing is committed while the second place is away, and every checkpoint is there when it is back.
func TestSecondPlaceOfCheckpoints(t *testing.T) {
	r := newRig(t, 2)
	r.cfg.Archive.CheckpointCopy = "file://" + t.TempDir()
	a := r.start(nil)
	r.produce(20)
	r.judge()
	a.stop(r)
	second, err := archive.OpenCopy(t.Context(), r.cfg.Archive)
	require.NoError(t, err)

	var down atomic.Bool
	down.Store(true)
	refused := make(chan struct{}, 100)
	r.second = &fault{second, func(_ context.Context, key string, create func() error) error {
		if down.Load() && isCheckpoint(key) {
			select {
			case refused <- struct{}{}:
			default:
			}
			return fmt.Errorf("%s: %w", key, errFault)
		}
		return create()
	}}
	a = r.start(nil)
	before := r.committed()
	r.produce(20)
	<-refused
	<-refused
	require.Equal(t, before, r.committed())
	down.Store(false)
	r.waitArchived(40)
	r.judge()
	a.stop(r)
	report, err := archive.Verify(t.Context(), r.store, archive.Checks{Copy: second})
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	require.Equal(t, checkpointKeys(t, r.store), checkpointKeys(t, second))
}

func checkpointKeys(t *testing.T, s objstore.Store) []string {
	t.Helper()
	var keys []string
	for key, err := range s.List(t.Context(), "checkpoints/", "") {
		require.NoError(t, err)
		keys = append(keys, key)
	}
	return slices.Clip(keys)
}
