package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/devconf"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/devkafka"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/devpg"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
	"github.com/catchment-dev/catchment/processor"
)

const (
	defaultListen    = "127.0.0.1:8080"
	defaultOpsListen = "127.0.0.1:9090"
)

// upOptions are the flags of up. An empty address: what the configuration says.
type upOptions struct {
	dir       string
	listen    string
	opsListen string
}

func newUp(a *app) *cobra.Command {
	var o upOptions
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Run everything on this machine: ingress, processor, archiver, Kafka and Postgres",
		Long: `Run ingress, processor and archiver in one process, on an embedded Kafka and a local Postgres.

The first start writes DIR/catchment.yaml with development secrets; it is yours to change. Data goes to
DIR/catchment-data. Nothing that was answered with 200 is lost by a crash or a kill. This is a single node: it is
for development and small installations, and it does not survive the loss of its disk.

Ctrl-C drains and stops; a second Ctrl-C stops at once.`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("config") { // the folder may also be named by its file
				if filepath.Base(a.config) != devconf.File || cmd.Flags().Changed("dir") {
					return fmt.Errorf("%w: up reads DIR/%s: name the folder with --dir", run.ErrUsage, devconf.File)
				}
				o.dir = filepath.Dir(a.config)
			}
			if !cmd.Flags().Changed("listen") {
				o.listen = ""
			}
			if !cmd.Flags().Changed("ops-listen") {
				o.opsListen = ""
			}
			return up(cmd.Context(), o, a.out, a.err)
		},
	}
	cmd.Flags().StringVar(&o.dir, "dir", ".", "`folder` of the configuration and the data")
	cmd.Flags().StringVar(&o.listen, "listen", defaultListen, "`address` that takes webhooks; without the flag, ingress.listen of the configuration")
	cmd.Flags().StringVar(&o.opsListen, "ops-listen", defaultOpsListen, "`address` of health and metrics; without the flag, ingress.ops_listen of the configuration")
	return cmd
}

// node is a running `up`: what it has started so far, to be stopped in the reverse order.
type node struct {
	dir   string
	cfg   *settings.File
	first bool // the configuration was made by this start
	out   io.Writer
	say   func(format string, args ...any)
	log   *slog.Logger

	kafka    *devkafka.Broker
	mu       sync.Mutex
	postgres *devpg.Server
}

// up runs everything until ctx ends or a part fails for good.
func up(ctx context.Context, o upOptions, out, stderr io.Writer) (err error) {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	if err := firstStart(ctx, dir, o); err != nil {
		return err
	}
	unlock, err := lockFolder(ctx, dir)
	if err != nil {
		return err
	}
	defer unlock()
	n := &node{dir: dir, out: out, say: progress(stderr)}
	defer n.stopAtSecondSignal(ctx)()
	if err := n.configure(ctx, o); err != nil {
		return err
	}
	n.log = telemetry.Logger(n.cfg.Telemetry, stderr)
	defer func() {
		if err = errors.Join(err, n.stop(context.WithoutCancel(ctx))); err == nil {
			n.say("stopped")
		}
		err = diskFull(err, filepath.Join(dir, devconf.Data))
	}()
	err = n.startParts(ctx)
	if ctx.Err() != nil { // stopped while starting: what failed then has failed for that
		return nil
	}
	if err != nil {
		return err
	}
	return n.serve(ctx)
}

// firstStart makes the data folder. Where there is no configuration yet, the ports must be free before anything is
// written: a file with addresses of others would mislead send.
func firstStart(ctx context.Context, dir string, o upOptions) error {
	if _, err := os.Stat(filepath.Join(dir, devconf.File)); errors.Is(err, os.ErrNotExist) {
		listen, opsListen := o.addresses()
		if err := portsFree(ctx, listen, opsListen); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, devconf.Data), 0o755); err != nil {
		return fmt.Errorf("--dir: %w", err)
	}
	return nil
}

// addresses are those of the flags, or else the usual ones.
func (o upOptions) addresses() (listen, opsListen string) {
	return orElse(o.listen, defaultListen), orElse(o.opsListen, defaultOpsListen)
}

// diskFull adds to an error that a full disk has caused what to do about it. The broker and the database have it only
// as text.
func diskFull(err error, data string) error {
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), syscall.ENOSPC.Error()) {
		return err
	}
	return fmt.Errorf("%w\nthe disk is full: free space for %s and start again; what was answered with 200 is kept", err, data)
}

// progress returns a function that prints a line with the time since the start.
func progress(w io.Writer) func(format string, args ...any) {
	start, mu := time.Now(), sync.Mutex{}
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, "[%5.1f s] %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
	}
}

// configure reads the configuration, made first when there is none, and checks what can be known to fail.
func (n *node) configure(ctx context.Context, o upOptions) error {
	listen, opsListen := o.addresses()
	path := filepath.Join(n.dir, devconf.File)
	created, err := devconf.Create(ctx, n.dir, listen, opsListen)
	if err != nil {
		return err
	}
	if created {
		n.first = true
		n.say("wrote %s with secrets for development", path)
	}
	if err := n.restoreKey(path); err != nil {
		return err
	}
	if n.cfg, err = processor.Load(path, settings.Everything...); err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	c := n.cfg
	if o.listen != "" || c.Index.Pos("ingress.listen") == c.Index.Pos("ingress") && c.Ingress.Listen == ":8080" {
		c.Ingress.Listen = listen
	}
	if o.opsListen != "" {
		c.Ingress.OpsListen = opsListen
	}
	return portsFree(ctx, c.Ingress.Listen, c.Ingress.OpsListen)
}

// restoreKey makes the checkpoint key again when the data folder was removed: an archive that begins anew may have a
// new key. What else is wrong with the file is said when it is read for good.
func (n *node) restoreKey(path string) error {
	cfg, err := settings.Load(path, settings.NeedKafka)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	file, ok := strings.CutPrefix(cfg.Archive.CheckpointKey.Reveal(), "file:")
	archive, err := url.Parse(cfg.Archive.URL)
	if !ok || cfg.Abs(file) != devconf.KeyPath(n.dir) || err != nil || archive.Scheme != "file" {
		return nil //nolint:nilerr // see above
	}
	restored, err := devconf.RestoreKey(n.dir, filepath.FromSlash(archive.Path))
	if restored {
		n.say("the archive is empty and its checkpoint key is gone: made a new one, %s", devconf.KeyPath(n.dir))
	}
	return err
}

func portsFree(ctx context.Context, listen, opsListen string) error {
	if settings.SameAddress(listen, opsListen) {
		return fmt.Errorf("%w: webhooks and operations are both to be served on %s: give --ops-listen another address", run.ErrUsage, listen)
	}
	return errors.Join(
		portFree(ctx, listen, "choose another with --listen"),
		portFree(ctx, opsListen, "choose another with --ops-listen"))
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// portFree says clearly that an address cannot be listened on, before anything is started.
func portFree(ctx context.Context, address, advice string) error {
	var l net.Listener
	err := retry(ctx, syscall.EADDRINUSE, func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		return err
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program: stop that, or %s", address, advice)
	}
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w; %s", address, err, advice)
	}
	return l.Close()
}

// startParts starts the broker and the database that the configuration calls embedded.
func (n *node) startParts(ctx context.Context) error {
	data := filepath.Join(n.dir, devconf.Data)
	var parts errgroup.Group
	parts.Go(func() error {
		if !n.cfg.Kafka.Embedded {
			return nil
		}
		port, err := n.brokerPort(ctx)
		if err != nil {
			return err
		}
		n.kafka, err = devkafka.Start(ctx, devkafka.Options{
			Dir: filepath.Join(data, "kafka"), Port: port, Retention: n.cfg.Kafka.Retention, Log: n.log,
		})
		if err != nil {
			return err
		}
		return n.ensureTopic(ctx)
	})
	parts.Go(func() error {
		if !n.cfg.Postgres.Embedded {
			return nil
		}
		server, err := devpg.Start(ctx, devpg.Options{
			Dir: filepath.Join(data, "postgres"), URL: n.cfg.Postgres.URL.Reveal(), LogFile: filepath.Join(data, "postgres.log"),
			Progress: n.say,
		})
		n.mu.Lock()
		n.postgres = server
		n.mu.Unlock()
		return err
	})
	if err := parts.Wait(); err != nil {
		return err
	}
	return n.createOrders(ctx)
}

// ensureTopic makes the topics before anybody asks for it, so that a first start has nothing to complain of.
func (n *node) ensureTopic(ctx context.Context) error {
	cl, err := kafkaClient(n.cfg)
	if err != nil {
		return err
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	return ensureTopics(ctx, cl, n.cfg)
}

// brokerPort returns the port of the one broker that the configuration must name.
func (n *node) brokerPort(ctx context.Context) (int, error) {
	wrong := n.cfg.Errorf("kafka.brokers", "expected exactly one broker, 127.0.0.1:PORT, since kafka.embedded is true")
	if len(n.cfg.Kafka.Brokers) != 1 {
		return 0, fmt.Errorf("%w: %w", run.ErrUsage, wrong)
	}
	address := n.cfg.Kafka.Brokers[0]
	host, text, err := net.SplitHostPort(address)
	port, portErr := strconv.Atoi(text)
	if err != nil || portErr != nil || (host != "127.0.0.1" && host != "localhost") {
		return 0, fmt.Errorf("%w: %w", run.ErrUsage, wrong)
	}
	return port, portFree(ctx, net.JoinHostPort("127.0.0.1", text), "change the port in kafka.brokers in "+devconf.File)
}

// ordersTable is what the generated operation writes to.
const ordersTable = `CREATE TABLE IF NOT EXISTS orders (
	id text PRIMARY KEY, status text NOT NULL, amount bigint, currency text, updated_at timestamptz)`

// createOrders makes the example table, once: whoever drops it later does not get it back.
func (n *node) createOrders(ctx context.Context) error {
	if n.database() == nil || !devconf.TablePending(n.dir) {
		return nil
	}
	conn, err := pgx.Connect(ctx, n.cfg.Postgres.URL.Reveal())
	if err != nil {
		return fmt.Errorf("create the table orders: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, ordersTable); err != nil {
		return fmt.Errorf("create the table orders: %w", err)
	}
	return devconf.TableMade(n.dir)
}

// serve runs the services until ctx ends or one of the parts fails.
func (n *node) serve(ctx context.Context) error {
	reg := telemetry.Registry()
	made, err := makeServices(n.cfg, n.log, reg)
	if err != nil {
		return err
	}
	telemetry.Watch(reg, n.cfg, made...)
	flush, err := telemetry.Tracing(n.cfg, "catchment", n.log, made...) //nolint:contextcheck // spans are sent also after ctx has ended
	if err != nil {
		return err
	}
	defer flush()
	ready := func() error { return run.Ready(made...) }
	con, err := n.console(ctx, n.log)
	if err != nil {
		return err
	}
	if con != nil {
		made = append(made, con)
	}
	ops, err := telemetry.NewOps(
		n.cfg.Ingress.OpsListen, "--ops-listen", telemetry.Handler(reg, ready, telemetry.Pages(made...)))
	if err != nil {
		return err
	}
	stopped := ctx.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go n.watch(ctx, stopped, cancel)
	go n.announce(ctx, ready)
	err = run.Group(ctx, append([]run.Service{ops}, made...)...)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	return err
}

// watch ends everything when the broker or the database has failed for good. A closed stopped means that the user
// wants to stop, the end of ctx that the services have ended.
func (n *node) watch(ctx context.Context, stopped <-chan struct{}, cancel context.CancelCauseFunc) {
	var kafka, postgres <-chan error
	if n.kafka != nil {
		kafka = n.kafka.Failed()
	}
	if server := n.database(); server != nil {
		postgres = server.Failed()
	}
	select {
	case <-ctx.Done():
		select {
		case <-stopped: // both have ended: the first ends the second
		default:
			return
		}
		n.say("stopping: webhooks are refused now, what is in flight ends (Ctrl-C again: at once)")
	case err := <-kafka:
		cancel(err)
	case err := <-postgres:
		cancel(err)
	}
}

// announce waits until everything works, and says what can be done now.
func (n *node) announce(ctx context.Context, ready func() error) {
	tick, slow := time.NewTicker(50*time.Millisecond), time.NewTicker(10*time.Second)
	defer tick.Stop()
	defer slow.Stop()
	for ready() != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-slow.C:
			n.say("not ready yet: %v", ready())
		}
	}
	n.say("ready")
	fmt.Fprint(n.out, n.welcome())
}

// stop ends the database, then the broker.
func (n *node) stop(ctx context.Context) error {
	var err error
	if postgres := n.database(); postgres != nil {
		err = postgres.Stop(ctx)
	}
	if n.kafka != nil {
		n.kafka.Close()
	}
	return err
}

// stopAtSecondSignal ends the process at the second Ctrl-C or SIGTERM, without waiting for anything but the
// database, which is told to end at once. The next start finds everything that was acknowledged.
func (n *node) stopAtSecondSignal(ctx context.Context) (cancel func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for range 2 {
			select {
			case <-done:
				return
			case <-signals:
			}
		}
		n.say("stopping at once")
		if postgres := n.database(); postgres != nil {
			now, cancel := context.WithCancel(context.WithoutCancel(ctx))
			cancel()
			_ = postgres.Stop(now)
		}
		os.Exit(run.ExitFailed) //nolint:forbidigo // at once is what the second signal asks for
	}()
	return func() { signal.Stop(signals); close(done) }
}

func (n *node) database() *devpg.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.postgres
}
