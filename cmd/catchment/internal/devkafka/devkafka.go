// Package devkafka runs the Kafka broker of `catchment up`: one node in this process, on files. A folder and a port
// come in, and a broker on loopback goes out that has every acknowledged record on the disk. It never pretends to be
// replicated, and it stops rather than go on acknowledging when the disk has refused a write.
//
// The broker is franz-go's kfake. What it keeps over a kill -9: records (CRC-checked; a torn tail was never
// acknowledged and is cut off), topics with their IDs and settings, the cluster ID, committed offsets, producer IDs.
// What it does not do by itself is done here: see guard.go and retention.go.
package devkafka

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Options say what to run, and where.
type Options struct {
	Dir       string        // the data folder
	Port      int           // on 127.0.0.1
	Retention time.Duration // records older than this, which every consumer group has done with, are removed
	Log       *slog.Logger
}

// Broker is a running broker.
type Broker struct {
	cluster *kfake.Cluster
	guard   *guard
	failed  chan error
	once    sync.Once
	stop    context.CancelFunc
	work    sync.WaitGroup
}

// Start loads what the folder holds and serves it until Close, however long ctx lasts.
func Start(ctx context.Context, o Options) (*Broker, error) {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("kafka data folder: %w", err)
	}
	b := &Broker{failed: make(chan error, 1)}
	cluster, err := kfake.NewCluster(
		kfake.Ports(o.Port),                       // one node: three would share these files and only look like replicas
		kfake.ClusterID("catchment-"+rand.Text()), // of a new folder; an old one keeps its own
		kfake.DataDir(o.Dir),
		kfake.ListenFn(listen),
		kfake.SyncWrites(),
		kfake.WithLogger(&brokerLog{log: o.Log, fail: b.fail}),
		kfake.BrokerConfigs(map[string]string{
			"log.segment.bytes":          strconv.Itoa(32 << 20),
			"log.cleaner.backoff.ms":     strconv.FormatInt((10 * 365 * 24 * time.Hour).Milliseconds(), 10), // see retention.go
			"message.max.bytes":          strconv.Itoa(32 << 20),
			"default.replication.factor": "1",
		}),
	)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d of kafka.brokers in catchment.yaml is used by another program: stop that, or change the port there (%w)", o.Port, err)
	}
	if err != nil {
		return nil, fmt.Errorf("embedded Kafka: %w", err)
	}
	b.cluster = cluster
	client, err := kgo.NewClient(kgo.SeedBrokers(net.JoinHostPort("127.0.0.1", strconv.Itoa(o.Port))), kgo.ClientID("catchment-up"))
	if err != nil {
		cluster.Close()
		return nil, fmt.Errorf("embedded Kafka: %w", err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.stop = func() { cancel(); client.Close() }
	b.guard = newGuard(o.Dir)
	b.work.Go(func() { b.guard.run(ctx, b.fail) })
	b.work.Go(func() { keepRetention(ctx, kadm.NewClient(client), o.Retention, o.Log) })
	return b, nil
}

// listen waits a little for a port that an earlier run has not let go of yet.
func listen(network, address string) (net.Listener, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(3 * time.Second); ; <-tick.C {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), network, address)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			return l, err
		}
	}
}

// Failed reports once when the broker can no longer promise that what it acknowledges is on the disk.
func (b *Broker) Failed() <-chan error { return b.failed }

func (b *Broker) fail(err error) { b.once.Do(func() { b.failed <- err }) }

// Close stops serving and writes the state that makes the next start quick.
func (b *Broker) Close() {
	b.stop()
	b.cluster.Close()
	b.work.Wait()
	b.guard.close()
}

// brokerLog takes the broker's log lines. A line that says that something could not be written is a failure: the
// broker itself would go on.
type brokerLog struct {
	log  *slog.Logger
	fail func(error)
}

// Logf implements kfake.Logger.
func (l *brokerLog) Logf(level kfake.LogLevel, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch {
	case level > kfake.LogLevelWarn:
	case strings.HasPrefix(text, "persist ") || strings.HasPrefix(text, "compact ") || strings.HasPrefix(text, "rebuildSegments "):
		l.fail(fmt.Errorf("embedded Kafka could not write to the disk: %s", text))
	case strings.Contains(text, "truncating") && strings.Contains(text, "corrupt"), strings.Contains(text, "discarding"):
		l.log.Warn("embedded Kafka: cut off what a killed run had not finished writing", slog.String("detail", text))
	default:
		l.log.Warn("embedded Kafka", slog.String("detail", text))
	}
}
