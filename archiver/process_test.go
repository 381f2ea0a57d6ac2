package archiver

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/proctest"
	"github.com/catchment-dev/catchment/pkg/s3test"
)

func TestMain(m *testing.M) { proctest.Main(m, 1) }

// process is the archiver as a program of its own, with the rig's configuration and the store at url.
func (r *rig) process(url string) *proctest.Process {
	r.Helper()
	return r.processOf(proctest.Build(r, "./cmd/archiver"), url)
}

func (r *rig) processOf(program, url string) *proctest.Process {
	r.Helper()
	ops := proctest.FreeAddress(r)
	type object = map[string]any
	c := r.cfg.Archiver
	text, err := json.Marshal(object{ // JSON is YAML
		"kafka":   object{"brokers": r.cfg.Kafka.Brokers, "topic": r.topic, "results_topic": "off"},
		"archive": object{"url": url},
		"archiver": object{
			"ops_listen": ops, "group": c.Group, "segment_bytes": int(c.SegmentBytes), "segment_age": c.SegmentAge.String(),
			"buffer_bytes": int(c.BufferBytes), "drain_timeout": c.DrainTimeout.String(), "session_timeout": c.Session.String(),
		},
	})
	require.NoError(r, err)
	return proctest.New(r.T, program, ops, text)
}

// inBucket gives the rig a bucket in place of its folder. nil: there is no S3 server, and the report says so.
func (r *rig) inBucket() *s3test.Bucket {
	r.Helper()
	bucket := s3test.New(r)
	if bucket == nil {
		return nil
	}
	r.cfg.Archive.URL = bucket.URL
	var err error
	r.store, err = archive.Open(r.Context(), r.cfg.Archive)
	require.NoError(r, err)
	return bucket
}

// everyRow reads all segments as a reader's pattern finds them: each record of the topic is in one row.
func (r *rig) everyRow() {
	r.Helper()
	seen := map[place]bool{}
	for s, err := range archive.Segments(r.Context(), r.store) {
		require.NoError(r, err)
		for w, err := range archive.Records(r.Context(), r.store, s.Key) {
			require.NoError(r, err)
			at := place{w.Partition, w.Offset}
			require.False(r, seen[at], "%v is in two rows", at)
			seen[at] = true
		}
	}
	require.Len(r, seen, int(r.made))
}

// noUploads wants no unfinished upload in the bucket.
func noUploads(t *testing.T, b *s3test.Bucket) {
	t.Helper()
	out, err := b.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &b.Name})
	require.NoError(t, err)
	require.Empty(t, out.Uploads)
}

// eventually waits for a condition.
func (r *rig) eventually(condition func() bool, what string) {
	r.Helper()
	require.Eventually(r, condition, patience, 5*time.Millisecond, what)
}
