package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/parquet-go/parquet-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/archiver/internal/sample"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const (
	archiverName = "catchment-archiver"
	bentoName    = "bento"
	partitions   = 12
	chunk        = 20_000 // events that are in memory at once
	patience     = 10 * time.Minute
)

// jobs fill a topic, and bring it into files of a folder each.
func (b *bench) jobs(ctx context.Context) ([]contestant, error) {
	topic := fmt.Sprintf("bench.%d", time.Now().UnixNano())
	raw, err := b.produce(ctx, topic)
	if err != nil {
		return nil, err
	}
	all := []contestant{{archiverName, func(ctx context.Context, f *figures) error {
		dir := filepath.Join(b.dir, uuid.NewString())
		config := filepath.Join(b.dir, "catchment.yaml")
		text := fmt.Sprintf("kafka: {brokers: [%s], topic: %s, results_topic: 'off'}\narchive: {url: \"file://%s\"}\narchiver: {ops_listen: \"127.0.0.1:0\", group: %q, segment_age: 5s}\n",
			strings.ReplaceAll(b.o.brokers, ",", ", "), topic, dir, "g-"+uuid.NewString())
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return err
		}
		return b.program(ctx, f, raw, dir, nil, b.o.archiver, "--config", config)
	}}}
	if b.o.bento != "" {
		all = append(all, contestant{bentoName, func(ctx context.Context, f *figures) error {
			dir := filepath.Join(b.dir, uuid.NewString())
			env := []string{"BROKERS=" + b.o.brokers, "TOPIC=" + topic, "GROUP=g-" + uuid.NewString(), "DIR=" + dir}
			return b.program(ctx, f, raw, dir, env, b.o.bento, "-c", filepath.Join(b.o.root, "archiver", "bench", "bento.yaml"))
		}})
	}
	return all, nil
}

func (b *bench) produce(ctx context.Context, topic string) (raw int64, err error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(b.o.brokers, ",")...), kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(5*time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression())) // as the ingress writes
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	cfg := settings.Kafka{Topic: topic, Partitions: partitions, ReplicationFactor: 1, MinInsyncReplicas: 1, Retention: 7 * 24 * time.Hour}
	if err := kafka.EnsureTopic(ctx, cl, cfg, topic, 1<<20); err != nil {
		return 0, err
	}
	for from := 0; from < b.o.events; from += chunk {
		records, err := sample.Records(min(chunk, b.o.events-from), from, start)
		if err != nil {
			return 0, err
		}
		for _, r := range records {
			raw += row.RecordSize(r)
			r.Timestamp = time.Time{} // the broker's; else a segment would end at each chunk's day
		}
		if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return 0, err
		}
	}
	return raw, nil
}

// program runs a program from its start until all events lie in the folder.
func (b *bench) program(ctx context.Context, f *figures, raw int64, dir string, env []string, path string, args ...string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	log, err := os.Create(filepath.Join(b.dir, "log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	machine, err := begin(os.Getpid())
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	m := machine
	m.pid, m.cpu = cmd.Process.Pid, 0
	seen := &files{dir: dir, rows: map[string]int64{}}
	for deadline := time.Now().Add(patience); ; <-time.After(50 * time.Millisecond) {
		rows, bytes, err := seen.look()
		switch {
		case err != nil:
			return err
		case rows > int64(b.o.events):
			return fmt.Errorf("%d rows of %d events", rows, b.o.events)
		case rows == int64(b.o.events):
			f.size = float64(bytes) / float64(rows)
			f.memory, err = most(cmd.Process.Pid)
			return errors.Join(err, m.end(f, b.o.events, raw))
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(deadline):
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("%d rows of %d events after %s: %.4000s", rows, b.o.events, patience, said)
		}
	}
}

// most is the most memory that a process has had resident, in MiB.
func most(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	return float64(kib) / 1024, err
}

// files counts the rows of a folder's finished Parquet files; each is opened once.
type files struct {
	dir   string
	rows  map[string]int64
	bytes int64
}

func (s *files) look() (rows, bytes int64, err error) {
	err = filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && (d.IsDir() || filepath.Ext(path) != ".parquet" || s.rows[path] > 0) {
			return nil // a temporary file that is gone, or nothing new
		}
		if err != nil {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		size, err := d.Info()
		if err != nil {
			return err
		}
		if p, err := parquet.OpenFile(file, size.Size(), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true)); err == nil {
			s.rows[path] = p.NumRows()
			s.bytes += size.Size()
		}
		return nil // one that is still being written has no footer yet
	})
	for _, n := range s.rows {
		rows += n
	}
	return rows, s.bytes, err
}
