package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/ingress"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
	"github.com/catchment-dev/catchment/processor"
	"github.com/catchment-dev/catchment/processor/console"
)

func newConsole(a *app) *cobra.Command {
	c := &cobra.Command{
		Use:   "console",
		Short: "Serve the web console alone, on console.listen",
		Long: "Serve the web console alone: what was received, its way, what was done, dead letters, replay, sources, audit. Unlike the\n" +
			"processor's own, it also reads the archive and asks the services. It needs users or a proxy in the section console of\n" +
			"the configuration. See docs/console.md.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: there is no command %q; `%s --help` lists them", run.ErrUsage, args[0], cmd.CommandPath())
			}
			return a.serveConsole(cmd.Context())
		},
	}
	c.AddCommand(&cobra.Command{
		Use:   "hash-password",
		Short: "Read a password and print what stands for it in console.users",
		Args:  exactly(0),
		RunE:  func(*cobra.Command, []string) error { return a.hashPassword() },
	})
	return c
}

// consoleNeeds are the sections that the console shows something of.
var consoleNeeds = []settings.Section{
	settings.NeedConsole, settings.NeedPostgres, settings.NeedKafka, settings.NeedArchive, settings.NeedIngress, settings.NeedProcessor,
	settings.NeedArchiver, settings.NeedOperations, settings.NeedTelemetry,
}

func (a *app) serveConsole(ctx context.Context) error {
	cfg, err := processor.Load(a.config, consoleNeeds...)
	if err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	log := telemetry.Logger(cfg.Telemetry, a.err)
	c, err := console.New(ctx, cfg, log, "", a.outside(cfg))
	if err != nil {
		return err
	}
	if c == nil {
		return fmt.Errorf("%w: nobody could use the console: give it users or a proxy in the section console of %s; `catchment console hash-password` makes what a user needs",
			run.ErrUsage, a.config)
	}
	ops, err := telemetry.NewOps(cfg.Console.Listen, "console.listen", telemetry.Handler(telemetry.Registry(), c.Ready, c.Pages()))
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "the console is at http://%s/console/\n", ops.Addr())
	return run.Group(ctx, ops, c)
}

// outside is what the console shows and has done by the tool's own means.
func (a *app) outside(cfg *settings.File) console.Outside {
	return console.Outside{
		Locate: locator(cfg),
		DryRun: processor.DryRuns(cfg, slog.New(slog.DiscardHandler)),
		Checks: func(ctx context.Context) (out []console.Check) {
			for _, c := range a.checks(ctx, cfg) {
				out = append(out, console.Check(c))
			}
			return out
		},
		Requests:     func(ctx context.Context) (map[string]console.Requests, error) { return requests(ctx, cfg) },
		OpenCircuits: func(ctx context.Context) map[string]bool { return openCircuits(ctx, cfg) },
		Audit: func(ctx context.Context, since, until time.Time) (*console.Audit, error) {
			return a.consoleAudit(ctx, cfg, since, until)
		},
	}
}

// requests asks the ingress what became of requests, by source.
func requests(ctx context.Context, cfg *settings.File) (map[string]console.Requests, error) {
	outcomes, err := requestOutcomes(ctx, cfg.Ingress.OpsListen)
	if err != nil {
		return nil, err
	}
	histories, err := requestHistories(ctx, cfg.Ingress.OpsListen)
	if err != nil {
		return nil, err
	}
	moment := func(m *ingress.Moment) *console.Request {
		if m == nil {
			return nil
		}
		return &console.Request{At: m.At, Outcome: m.Outcome, Reason: m.Reason, SecretID: m.SecretID}
	}
	out := map[string]console.Requests{}
	for name := range cfg.Sources {
		h := histories[name]
		out[name] = console.Requests{Outcomes: outcomes[name], LastAccepted: moment(h.LastAccepted), LastRefused: moment(h.LastRefused)}
	}
	return out, nil
}

// consoleAudit is `catchment audit`, with its report as text.
func (a *app) consoleAudit(ctx context.Context, cfg *settings.File, since, until time.Time) (*console.Audit, error) {
	o, err := auditFlags{limit: auditFaults}.options(time.Now(), cfg)
	if err != nil {
		return nil, err
	}
	o.Since, o.Until = since, until
	db, err := a.database(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	r, err := runAudit(ctx, cfg, db, o)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	to := &app{out: &text, output: "table"}
	if err := to.answer(r, func(w io.Writer) { printAudit(w, r) }); err != nil {
		return nil, err
	}
	return &console.Audit{At: r.At, Faults: r.Total.Faults, Text: text.String()}, nil
}

// locator finds deliveries in the configured archive.
func locator(cfg *settings.File) func(context.Context, event.Position) (console.Place, error) {
	return func(ctx context.Context, at event.Position) (console.Place, error) {
		store, err := archive.Open(ctx, cfg.Archive)
		if err != nil {
			return console.Place{}, err
		}
		place, err := archive.Locate(ctx, store, at)
		if errors.Is(err, archive.ErrNotFound) {
			return console.Place{}, console.ErrNotArchived
		}
		if err != nil {
			return console.Place{}, err
		}
		return console.Place{Segment: place.Key, Row: place.Row, InKafka: place.Record.KafkaTimestamp}, nil
	}
}

// console is that of `up`: open to whoever comes from this machine, unless it has users or a proxy, or listens elsewhere.
func (n *node) console(ctx context.Context, log *slog.Logger) (*console.Console, error) {
	local := ""
	if loopback(n.cfg.Ingress.OpsListen) {
		local = (&actFlags{}).act().Actor
	}
	a := &app{config: n.cfg.Path, out: io.Discard, err: io.Discard}
	return console.New(ctx, n.cfg, log, local, a.outside(n.cfg))
}

// loopback says whether only this machine can reach a listening address.
func loopback(listen string) bool {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// hashPassword reads a password, from the terminal without showing it, else from standard input, and prints its hash.
func (a *app) hashPassword() error {
	var password string
	if fd := int(os.Stdin.Fd()); a.in == nil && term.IsTerminal(fd) {
		fmt.Fprint(a.err, "Password: ")
		typed, err := term.ReadPassword(fd)
		fmt.Fprintln(a.err)
		if err != nil {
			return fmt.Errorf("read the password: %w", err)
		}
		password = string(typed)
	} else {
		in := a.in
		if in == nil {
			in = os.Stdin
		}
		typed, err := bufio.NewReader(in).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read the password: %w", err)
		}
		password = strings.TrimRight(typed, "\r\n")
	}
	hash, err := console.HashPassword(password)
	if err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	return a.answer(map[string]string{"password": hash}, func(w io.Writer) { fmt.Fprintln(w, hash) })
}
