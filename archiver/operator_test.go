package archiver

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/mod/sumdb/note"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/s3test"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// An archive is copied from a folder to a bucket, and goes on there: one chain, of the same bytes.
func TestArchiveMovesToAnotherStore(t *testing.T) {
	r := newRig(t, 2)
	a := r.start(nil)
	r.produce(50)
	r.judge()
	a.stop(r)
	folder := r.store
	if r.inBucket() == nil {
		return // the report says so
	}
	for key, err := range folder.List(t.Context(), "", "") {
		require.NoError(t, err)
		body, err := folder.Read(t.Context(), key, 0, -1)
		require.NoError(t, err)
		require.NoError(t, r.store.Create(t.Context(), key, body))
	}
	p := r.process(r.cfg.Archive.URL)
	p.Start()
	r.produce(50)
	r.judge()
	r.everyRow()
	p.Stop()
}

// The topic gets more partitions, whose first records come before the archiver knows of them.
func TestPartitionsAreAdded(t *testing.T) {
	r := newRig(t, 2)
	a := r.start(nil)
	r.produce(20)
	r.judge()
	_, err := kadm.NewClient(r.client).UpdatePartitions(t.Context(), 4, r.topic)
	require.NoError(t, err)
	added := func() bool {
		r.client.ForceMetadataRefresh()
		r.produce(4)
		ends, err := kadm.NewClient(r.client).ListEndOffsets(t.Context(), r.topic)
		require.NoError(t, err)
		end, ok := ends.Lookup(r.topic, 3)
		return ok && end.Offset > 0
	}
	require.Eventually(t, added, patience, 200*time.Millisecond, "nothing comes into the new partitions")
	noticed := func() bool {
		for _, c := range a.consumers() {
			c.client.ForceMetadataRefresh() // it looks each minute
		}
		return len(a.allPartitions()) == 4
	}
	require.Eventually(t, noticed, patience, 200*time.Millisecond, "the new partitions are nobody's")
	r.judge()
	r.everyRow()
	a.stop(r)
}

// Two archivers of one group read different configurations, as while a change is rolled out: sizes, ages, and encryption. Each has partitions while the other has some, and goes on with the other's. They make one chain of each partition.
func TestTwoConfigurationsInOneArchive(t *testing.T) {
	r := newRig(t, 4)
	configs := []settings.File{r.cfg}
	r.cfg.Archiver.SegmentBytes, r.cfg.Archiver.SegmentAge = 16<<10, 20*time.Millisecond
	r.encrypt("file://" + t.TempDir())
	configs = append(configs, r.cfg)
	var archivers []*running
	for _, cfg := range configs {
		r.cfg = cfg
		archivers = append(archivers, r.start(nil))
	}
	meet := func() bool {
		a, b := archivers[0].partitions(), archivers[1].partitions()
		return a > 0 && b > 0 && a+b == 4
	}
	for round := range 4 {
		r.eventually(meet, "they do not share the partitions")
		r.produce(100)
		i := round % 2
		archivers[i].stop(r)
		r.produce(20)
		r.waitArchived(r.made) // by the other one alone
		r.cfg = configs[i]
		archivers[i] = r.start(nil)
	}
	r.eventually(meet, "they do not share the partitions")
	r.judge()
	r.everyRow()
	for _, a := range archivers {
		a.stop(r)
	}
	r.bothWrote()
}

// A key for checkpoints is rolled out. Where an archiver with it has signed, one without it does not go on: what it wrote there would
// look as if it were forged, for ever. It says so, and the next one with the key goes on. The signed chain is whole.
func TestKeyOfCheckpointsIsRolledOut(t *testing.T) {
	r := newRig(t, 1)
	signer, verifier, err := note.GenerateKey(nil, "example.com/archive")
	require.NoError(t, err)
	without := r.cfg
	old := r.start(nil)
	r.produce(20)
	r.judge()
	old.stop(r)
	r.cfg.Archive.CheckpointKey = config.NewSecret(signer)
	with := r.cfg
	a := r.start(nil)
	r.produce(20)
	r.waitArchived(40)
	a.stop(r)
	r.cfg = without
	old = r.start(nil)
	r.produce(20)
	old.haltedWith(r, "it is signed, and no archive.checkpoint_key is configured here")
	require.EqualValues(t, 40, r.archived())
	old.stop(r)
	r.cfg = with
	a = r.start(nil)
	r.judge()
	a.stop(r)
	key, err := archive.NewVerifier(verifier)
	require.NoError(t, err)
	report, err := archive.Verify(t.Context(), r.store, archive.Checks{Keys: []archive.Verifier{key}, Unsigned: true})
	require.NoError(t, err)
	require.Empty(t, report.Problems)
	require.Positive(t, report.Unsigned, "those from before the key came")
}

// bothWrote wants segments of both configurations in each partition.
func (r *rig) bothWrote() {
	r.Helper()
	plain, sealed := map[int32]int{}, map[int32]int{}
	for s, err := range archive.Segments(r.Context(), r.store) {
		require.NoError(r, err)
		for w, err := range archive.Records(r.Context(), r.store, s.Key) {
			require.NoError(r, err)
			if w.BodyKeyID == "" {
				plain[w.Partition]++
			} else {
				sealed[w.Partition]++
			}
		}
	}
	require.Len(r, plain, 4, "%v %v", plain, sealed)
	require.Len(r, sealed, 4, "%v %v", plain, sealed)
	r.Logf("rows by partition: %v in the clear, %v encrypted", plain, sealed)
}

// The folder becomes read-only, as a file system does after an error of its disk, and is writable again.
func TestReadOnlyStoreIsWaitedFor(t *testing.T) {
	r := newRig(t, 1)
	if !r.smallDisk("20m") {
		return // no file system can be mounted here, as the log says
	}
	dir := strings.TrimPrefix(r.cfg.Archive.URL, "file://")
	p := r.process(r.cfg.Archive.URL)
	p.Start()
	r.produce(20)
	r.judge()
	committed := r.committed()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	r.produce(20)
	r.eventually(func() bool { return p.Said("read-only file system") > 0 }, "nothing is said")
	require.Equal(t, committed, r.committed())
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, ""))
	r.judge()
	r.everyRow()
	p.Stop()
}

// The bucket is deleted under the archiver, and made again, empty. What Kafka still has is archived, and verify names what is gone.
func TestBucketIsDeletedUnderTheArchiver(t *testing.T) {
	r := newRig(t, 1)
	bucket := r.inBucket()
	if bucket == nil {
		return // the report says so
	}
	p := r.process(r.cfg.Archive.URL)
	p.Start()
	r.produce(20)
	r.judge()
	deleteBucket(t, bucket)
	r.produce(20)
	r.eventually(func() bool { return p.Said("there is no bucket") > 0 }, "nothing is said")
	require.EqualValues(t, 20, r.committed())
	_, err := bucket.Client().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &bucket.Name})
	require.NoError(t, err)
	r.waitArchived(20)
	problems, err := archive.Check(t.Context(), r.store, nil)
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(problems, func(p archive.Problem) bool {
		return p.Kind == archive.Missing && p.What == "the chain has no start"
	}), "%v", problems)
	p.Stop()
	p.Start()
	r.produce(20)
	r.waitArchived(40)
	p.Stop()
}

func deleteBucket(t *testing.T, b *s3test.Bucket) {
	t.Helper()
	cl := b.Client()
	out, err := cl.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &b.Name})
	require.NoError(t, err)
	for _, o := range out.Contents {
		_, err := cl.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &b.Name, Key: o.Key})
		require.NoError(t, err)
	}
	_, err = cl.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: &b.Name})
	require.NoError(t, err)
}
