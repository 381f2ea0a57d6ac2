package archiver

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/s3test"
)

func result(t *testing.T, topic string, n int) *kgo.Record {
	t.Helper()
	r, err := event.EncodeResult(&event.Result{
		Source: "stripe", EventID: fmt.Sprintf("evt_%d", n), Operation: "order-status", Attempt: 1, Outcome: "succeeded",
		Returned: json.RawMessage(`[{"id":1}]`), StartedAt: time.Now().UTC(),
	})
	require.NoError(t, err)
	r.Topic = topic
	return r
}

// results returns the rows of all archived results, by their event IDs.
func (r *rig) results() map[string]*archive.Record {
	r.Helper()
	rows := map[string]*archive.Record{}
	for s, err := range archive.SegmentsOfKind(r.Context(), r.store, archive.Results) {
		require.NoError(r, err)
		for w, err := range archive.Records(r.Context(), r.store, s.Key) {
			require.NoError(r, err)
			require.Nil(r, rows[w.EventID], "archived twice")
			rows[w.EventID] = w
		}
	}
	return rows
}

func TestResultsAreArchivedBesideDeliveries(t *testing.T) {
	stores := map[string]string{"file": "file://" + t.TempDir()}
	if bucket := s3test.New(t); bucket != nil {
		stores["s3"] = bucket.URL
	}
	for name, url := range stores {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 2)
			r.cfg.Archive.URL = url
			r.cfg.Kafka.ResultsTopic = r.topic + ".results"
			var err error
			r.store, err = archive.Open(t.Context(), r.cfg.Archive)
			require.NoError(t, err)

			// Deliveries are archived, and the archiver is ready, before there is a topic of results.
			a := r.start(nil)
			r.produce(50)
			r.judge()
			require.NoError(t, a.Ready())

			_, err = kadm.NewClient(r.client).CreateTopic(t.Context(), 2, 3, nil, r.cfg.Kafka.ResultsTopic)
			require.NoError(t, err)
			sent := map[string]*kgo.Record{}
			for n := range 40 {
				record := result(t, r.cfg.Kafka.ResultsTopic, n)
				sent[string(record.Key)] = record
			}
			require.NoError(t, r.client.ProduceSync(t.Context(), slices.Collect(maps.Values(sent))...).FirstErr())
			require.Eventually(t, func() bool { return len(r.results()) == len(sent) }, patience, 20*time.Millisecond)
			for id, w := range r.results() {
				require.Equal(t, []string{"stripe", id, "catchment.result", "application/json"}, []string{w.Source, w.EventID, w.Type, w.ContentType})
				require.Equal(t, string(sent[id].Value), string(w.Body))
				require.Empty(t, w.Attribute("archive.undecodable"))
				for _, h := range sent[id].Headers {
					require.Equal(t, string(h.Value), w.Attribute(h.Key), h.Key)
				}
				require.Equal(t, r.cfg.Kafka.ResultsTopic, w.Topic)
				again := w.Record()
				require.Equal(t, string(sent[id].Key), string(again.Key))
				require.ElementsMatch(t, sent[id].Headers, again.Headers)
				got, err := archive.Locate(t.Context(), r.store, event.Position{Topic: w.Topic, TopicID: w.TopicID, Partition: w.Partition, Offset: w.Offset})
				require.NoError(t, err)
				require.True(t, strings.HasPrefix(got.Key, "results/date="), got.Key)
			}
			require.NoError(t, r.client.ProduceSync(t.Context(), &kgo.Record{Topic: r.cfg.Kafka.ResultsTopic, Value: []byte("no result")}).FirstErr())
			require.Eventually(t, func() bool { return r.results()[""] != nil }, patience, 20*time.Millisecond)
			require.Equal(t, "true", r.results()[""].Attribute("archive.undecodable"))

			problems, err := archive.Check(t.Context(), r.store, nil)
			require.NoError(t, err)
			require.Empty(t, problems)
			a.stop(r)
			offsets, err := kadm.NewClient(r.client).FetchOffsets(t.Context(), r.cfg.Archiver.ResultsGroup())
			require.NoError(t, err)
			var committed int64
			offsets.Each(func(o kadm.OffsetResponse) { committed += o.At })
			require.EqualValues(t, 41, committed)
			for s, err := range archive.Segments(t.Context(), r.store) {
				require.NoError(t, err)
				require.Equal(t, r.topic, s.Partition.Topic, "readers of deliveries find nothing else")
			}
		})
	}
}

// One topic's open segments fill the memory, and the other topic's records are waited for: they must be closed for it.
func TestTopicsShareMemory(t *testing.T) {
	r := newRig(t, 1)
	r.cfg.Kafka.ResultsTopic = r.cluster.Topic(t, 1)
	r.cfg.Archiver.SegmentAge, r.cfg.Archiver.BufferBytes = time.Hour, 64<<10
	a := r.start(nil)
	for n := range 60 { // stays below the limit
		require.NoError(t, r.client.ProduceSync(t.Context(), result(t, r.cfg.Kafka.ResultsTopic, n)).FirstErr())
	}
	require.Eventually(t, func() bool { return a.budget.load() > 16<<10 }, patience, 10*time.Millisecond)
	require.Empty(t, r.results())
	r.produce(200) // about 200 KiB
	require.Eventually(t, func() bool { return len(r.results()) == 60 && r.archived() > 0 }, patience, 20*time.Millisecond)
	a.stop(r)
	r.judge()
}

func TestHaltedResultsAreTold(t *testing.T) {
	r := newRig(t, 1)
	r.cfg.Kafka.ResultsTopic = r.cluster.Topic(t, 1)
	a := r.start(nil)
	require.NoError(t, r.client.ProduceSync(t.Context(), result(t, r.cfg.Kafka.ResultsTopic, 1)).FirstErr())
	require.Eventually(t, func() bool { return len(r.results()) == 1 }, patience, 20*time.Millisecond)
	a.stop(r)
	for n := range 9 {
		require.NoError(t, r.client.ProduceSync(t.Context(), result(t, r.cfg.Kafka.ResultsTopic, n+2)).FirstErr())
	}
	var gone kadm.Offsets
	gone.Add(kadm.Offset{Topic: r.cfg.Kafka.ResultsTopic, At: 5})
	_, err := kadm.NewClient(r.client).DeleteRecords(t.Context(), gone)
	require.NoError(t, err)
	a = r.start(nil)
	a.haltedWith(r, "partition 0 of "+r.cfg.Kafka.ResultsTopic+" is halted")
	r.produce(10)
	r.judge() // deliveries go on
}
