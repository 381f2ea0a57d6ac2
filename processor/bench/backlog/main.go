// Command backlog shows what a backlog costs: memory of the processor while it works through a topic that was filled
// before, and the size of its tables afterwards. Brokers, a database server and the path of the program come in; figures
// go to standard output, in the form of tables. It fails when the memory goes beyond the bound, and never touches topics
// or databases that it did not make.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/benchkit"
)

type options struct {
	brokers, database, processor string
	events, partitions, size     int
	bound, replicas              int
	patience                     time.Duration
}

func main() { os.Exit(benchkit.Main("backlog", command)) }

func command(ctx context.Context, args []string, out io.Writer) (err error) {
	var o options
	fs := flag.NewFlagSet("backlog", flag.ContinueOnError)
	fs.StringVar(&o.brokers, "brokers", "", "host:port of brokers, by commas")
	fs.StringVar(&o.database, "database", "", "URL of a Postgres whose user may create databases")
	fs.StringVar(&o.processor, "processor", "bin/catchment-processor", "the program to measure")
	fs.IntVar(&o.events, "events", 1_000_000, "events in the topic")
	fs.IntVar(&o.partitions, "partitions", 12, "partitions of the topic")
	fs.IntVar(&o.size, "size", 2048, "bytes of a body")
	fs.IntVar(&o.replicas, "replicas", 3, "replicas of the topic's partitions: 1 where the disk cannot hold three")
	fs.IntVar(&o.bound, "bound", 512, "MiB that the processor may take")
	fs.DurationVar(&o.patience, "patience", 2*time.Minute, "how long the processor may make no progress")
	if err := fs.Parse(args); err != nil {
		return err
	}
	name := fmt.Sprintf("backlog_%d", os.Getpid())
	dir, err := os.MkdirTemp("", "catchment-backlog-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	admin, err := pgx.Connect(ctx, o.database)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() { _ = admin.Close(context.WithoutCancel(ctx)) }()
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		return fmt.Errorf("create database: %w", err)
	}
	defer func() {
		_, e := admin.Exec(context.WithoutCancel(ctx), "DROP DATABASE "+name+" WITH (FORCE)")
		err = errors.Join(err, e)
	}()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(o.brokers, ",")...), kgo.DefaultProduceTopic(name), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.MaxBufferedRecords(20_000), kgo.ProducerLinger(20*time.Millisecond))
	if err != nil {
		return fmt.Errorf("kafka: %w", err)
	}
	defer cl.Close()
	insync, logAppend := strconv.Itoa(max(1, o.replicas-1)), "LogAppendTime"
	for _, topic := range []string{name, name + ".results"} {
		if _, err := kadm.NewClient(cl).CreateTopic(ctx, int32(o.partitions), int16(o.replicas), map[string]*string{"min.insync.replicas": &insync, "message.timestamp.type": &logAppend}, topic); err != nil {
			return fmt.Errorf("create topic: %w", err)
		}
		defer func() {
			_, e := kadm.NewClient(cl).DeleteTopic(context.WithoutCancel(ctx), topic)
			err = errors.Join(err, e)
		}()
	}
	began := time.Now()
	if err := fill(ctx, cl, o.events, o.size); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d events of %d bytes in %d partitions, written in %s\n\n", o.events, o.size, o.partitions, time.Since(began).Round(time.Second))
	return work(ctx, &o, out, dir, name)
}

// work runs the processor until it has taken all events, and reports.
func work(ctx context.Context, o *options, out io.Writer, dir, name string) error {
	cfg, err := pgx.ParseConfig(o.database)
	if err != nil {
		return fmt.Errorf("postgres: %w", err)
	}
	cfg.Database = name
	db, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() { _ = db.Close(context.WithoutCancel(ctx)) }()
	if _, err := db.Exec(ctx, ordersTable); err != nil {
		return fmt.Errorf("create the table of orders: %w", err)
	}
	url, err := withDatabase(o.database, name)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "catchment.yaml")
	if err := os.WriteFile(file, []byte(configuration(o, name, url)), 0o600); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, o.processor, "--config", file)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the processor: %w", err)
	}
	peak, failed := watch(ctx, o, out, cmd.Process.Pid)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		failed = errors.Join(failed, err)
	}
	if err := cmd.Wait(); err != nil {
		failed = errors.Join(failed, fmt.Errorf("the processor: %w", err))
	}
	if failed != nil {
		return failed
	}
	if err := sizes(ctx, db, out, o.events); err != nil {
		return err
	}
	if peak > o.bound {
		return fmt.Errorf("the processor took %d MiB, more than %d", peak, o.bound)
	}
	return nil
}
