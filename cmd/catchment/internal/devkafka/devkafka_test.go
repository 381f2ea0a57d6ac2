package devkafka

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/proctest"
)

const (
	topic = "catchment.events"
	other = "catchment.results"
)

func freePort(t *testing.T) int {
	t.Helper()
	_, text, err := net.SplitHostPort(proctest.FreeAddress(t))
	require.NoError(t, err)
	port, err := strconv.Atoi(text)
	require.NoError(t, err)
	return port
}

func open(t *testing.T, dir string, port int) *Broker {
	t.Helper()
	b, err := Start(t.Context(), Options{Dir: dir, Port: port, Retention: time.Hour, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	return b
}

func connect(t *testing.T, port int, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(fmt.Sprintf("127.0.0.1:%d", port)))...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func produce(t *testing.T, cl *kgo.Client, n int) {
	t.Helper()
	for i := range n {
		require.NoError(t, cl.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: fmt.Appendf(nil, "record %d", i)}).FirstErr())
	}
}

func TestStateOutlivesARestart(t *testing.T) {
	dir, port := filepath.Join(t.TempDir(), "kafka"), freePort(t)
	b := open(t, dir, port)
	cl := connect(t, port)
	adm := kadm.NewClient(cl)
	created, err := adm.CreateTopic(t.Context(), 1, 1, nil, topic)
	require.NoError(t, err)
	produce(t, cl, 5)
	require.NoError(t, adm.CommitAllOffsets(t.Context(), "g", kadm.OffsetsFromRecords(kgo.Record{Topic: topic, Offset: 2})))
	cl.Close()
	b.Close()

	// A kill in the middle of a write leaves a part of a batch that nobody was told about.
	segment := filepath.Join(dir, "partitions", topic+"-0", "0.dat")
	f, err := os.OpenFile(segment, os.O_APPEND|os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.Write([]byte("\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x01\x00torn"))
	require.NoError(t, err)
	require.NoError(t, f.Close())

	b = open(t, dir, port)
	defer b.Close()
	cl = connect(t, port)
	adm = kadm.NewClient(cl)
	topics, err := adm.ListTopics(t.Context(), topic)
	require.NoError(t, err)
	require.Equal(t, created.ID, topics[topic].ID)
	ends, err := adm.ListEndOffsets(t.Context(), topic)
	require.NoError(t, err)
	end, _ := ends.Lookup(topic, 0)
	require.EqualValues(t, 5, end.Offset)
	offsets, err := adm.FetchOffsets(t.Context(), "g")
	require.NoError(t, err)
	at, _ := offsets.Lookup(topic, 0)
	require.EqualValues(t, 3, at.At)
	produce(t, cl, 1)
}

func TestTrim(t *testing.T) {
	for name, tc := range map[string]struct {
		committed map[string]int64 // group → offset
		before    time.Duration    // from now
		want      int64            // the first offset that is left of 0…4
	}{
		"nobody reads":          {nil, time.Hour, 0},
		"read elsewhere only":   {map[string]int64{"": 5}, time.Hour, 0},
		"all done, all old":     {map[string]int64{"a": 5, "b": 5}, time.Hour, 4},
		"one group is behind":   {map[string]int64{"a": 5, "b": 2}, time.Hour, 2},
		"all done, nothing old": {map[string]int64{"a": 5}, -time.Hour, 0},
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			b := open(t, filepath.Join(t.TempDir(), "kafka"), port)
			defer b.Close()
			cl := connect(t, port)
			adm := kadm.NewClient(cl)
			_, err := adm.CreateTopics(t.Context(), 1, 1, nil, topic, other)
			require.NoError(t, err)
			produce(t, cl, 5)
			for group, at := range tc.committed {
				offsets := kadm.Offsets{}
				if group == "" {
					group = "of another topic"
					offsets.AddOffset(other, 0, at, -1)
				} else {
					offsets.AddOffset(topic, 0, at, -1)
				}
				require.NoError(t, adm.CommitAllOffsets(t.Context(), group, offsets))
			}
			require.NoError(t, trim(t.Context(), adm, time.Now().Add(tc.before)))
			starts, err := adm.ListStartOffsets(t.Context(), topic)
			require.NoError(t, err)
			first, _ := starts.Lookup(topic, 0)
			require.Equal(t, tc.want, first.Offset)
		})
	}
}

func TestGuardFollowsTheNewestFiles(t *testing.T) {
	dir := t.TempDir()
	part := filepath.Join(dir, "partitions", topic+"-0")
	require.NoError(t, os.MkdirAll(part, 0o755))
	for _, name := range []string{"0.dat", "0.idx", "99.dat", "99.idx", "100.dat", "100.idx", "snapshot.json"} {
		require.NoError(t, os.WriteFile(filepath.Join(part, name), []byte("x"), 0o600))
	}
	g := newGuard(dir)
	defer g.close()
	require.NoError(t, g.check())
	require.Len(t, g.files, 2)
	require.Contains(t, g.files, filepath.Join(part, "100.dat"))
	require.Contains(t, g.files, filepath.Join(part, "100.idx"))

	require.NoError(t, g.files[filepath.Join(part, "100.dat")].Close())
	require.NoError(t, os.WriteFile(filepath.Join(part, "100.dat"), []byte("longer"), 0o600))
	failed := make(chan error, 1)
	g.run(t.Context(), func(err error) { failed <- err })
	require.ErrorContains(t, <-failed, "the disk refused data")
}

func TestAFailedWriteStopsTheBroker(t *testing.T) {
	b := &Broker{failed: make(chan error, 1)}
	l := &brokerLog{log: slog.New(slog.DiscardHandler), fail: b.fail}
	l.Logf(kfake.LogLevelWarn, "partition %s-%d segment %d: truncating %d corrupt bytes", topic, 0, 0, 7)
	l.Logf(kfake.LogLevelInfo, "persist is a fine word")
	select {
	case err := <-b.Failed():
		require.NoError(t, err)
	default:
	}
	for range 2 {
		l.Logf(kfake.LogLevelWarn, "persist batch %s-%d: %v", topic, 0, context.DeadlineExceeded)
	}
	require.ErrorContains(t, <-b.Failed(), "could not write to the disk")
}
