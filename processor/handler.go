package processor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	_ "time/tzdata" // expressions may name time zones, and an image may hold no other file

	"github.com/jackc/pgx/v5"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
	"github.com/catchment-dev/catchment/processor/console"
	"github.com/catchment-dev/catchment/processor/internal/store"
)

// HandlerFunc is an operation's code. What it does on tx is committed with the event, its result and the position, or not
// at all; it runs in a savepoint, and once in effect. It must not commit or roll back, must use ctx, which ends with the
// operation's timeout, and must not keep tx. What it does elsewhere is not taken back, and may happen again.
//
// An error is a failed attempt, which is made again later; an error that Dead made, or one of Postgres' that says that
// the data is wrong for good, is a dead letter. A panic is an error. Errors of the connection, deadlocks and the like,
// returned as they are or wrapped with %w, are nobody's failed attempt.
type HandlerFunc func(ctx context.Context, tx pgx.Tx, ev event.Event) (Result, error)

// Result is what catchment.results keeps of a handler's attempt.
type Result struct {
	Rows     int64 // rows_affected, for expect_rows too
	Returned any   // returned, as JSON; nil: null; at most 64 KiB
}

// Handler is a handler with the name under which operations of the configuration name it.
type Handler struct {
	name string
	run  HandlerFunc
}

// Handle gives a handler its name: an operation with `handler: NAME` runs it. It is handed to New or Main.
func Handle(name string, f HandlerFunc) Handler { return Handler{name, f} }

// Dead marks a handler's error as one that another attempt cannot repair: the event is a dead letter at once.
func Dead(err error) error { return store.Dead(err) }

// Main is the main function of the processor, with handlers or without: it takes --config and --version, runs until
// SIGINT or SIGTERM, and returns the exit code.
func Main(args []string, stderr io.Writer, handlers ...Handler) int {
	return run.Main("catchment-processor", args, stderr, func(ctx context.Context, path string) error {
		err := serve(ctx, path, handlers)
		if wrong := config.Errors(nil); errors.As(err, &wrong) {
			return fmt.Errorf("%w: %w", run.ErrUsage, err)
		}
		return err
	}, func(path string) (string, error) { return settings.OpsListen(path, settings.NeedProcessor) })
}

func serve(ctx context.Context, path string, handlers []Handler) error {
	cfg, err := Load(path, settings.NeedKafka, settings.NeedPostgres, settings.NeedProcessor, settings.NeedOperations, settings.NeedTelemetry, settings.NeedConsole)
	if err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	run.LimitMemory(atRest+4*int64(cfg.Processor.BufferBytes), gcPercent)
	reg := telemetry.Registry()
	log := telemetry.Logger(cfg.Telemetry, os.Stderr)
	s, err := New(cfg, log, reg, handlers...)
	if err != nil {
		return err
	}
	con, err := console.New(ctx, cfg, log, "", console.Outside{DryRun: DryRuns(cfg, log), OpenCircuits: s.openCircuits})
	if err != nil {
		return err
	}
	if con != nil {
		return telemetry.Serve(ctx, cfg, log, &attended{s, con}, reg, cfg.Processor.OpsListen, "processor.ops_listen")
	}
	return telemetry.Serve(ctx, cfg, log, s, reg, cfg.Processor.OpsListen, "processor.ops_listen")
}

// attended is the processor with its console.
type attended struct {
	*Service
	console *console.Console
}

// Run runs both. The console ends with the processor.
func (a *attended) Run(ctx context.Context) error {
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { _ = a.console.Run(own) }) // it has no other end than that of its context
	err := a.Service.Run(ctx)
	stop()
	wg.Wait()
	return err
}

// Pages are the console's.
func (a *attended) Pages() map[string]http.Handler { return a.console.Pages() }

// attach gives the operations their handlers.
func attach(cfg *settings.File, ops []*operation, handlers []Handler, log *slog.Logger) (errs config.Errors) {
	byName := map[string]HandlerFunc{}
	for _, h := range handlers {
		if _, twice := byName[h.name]; twice || h.run == nil {
			errs = append(errs, cfg.Errorf("operations", "handler %q: expected one function", h.name))
		}
		byName[h.name] = h.run
	}
	used := map[string]bool{}
	for _, op := range ops {
		name := op.spec.Handler
		if name == "" {
			continue
		}
		used[name] = true
		f := byName[name]
		if f == nil {
			errs = append(errs, cfg.Errorf(op.path+".handler", "this program has no handler %q: it has %q", name, slices.Sorted(maps.Keys(byName))))
			continue
		}
		op.handler = guarded(name, f, log)
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if !used[name] {
			log.Warn("no operation names this handler: it never runs", slog.String("handler", name))
		}
	}
	return errs
}

const maxReturned = 64 << 10 // bytes of a handler's Returned

// guarded makes a panic an error, whose text is for the attempt's result and not for the log, and a result what the store writes. The handler gets an event of its own: what it
// writes into it changes nothing.
func guarded(name string, f HandlerFunc, log *slog.Logger) func(context.Context, pgx.Tx, *event.Event) (int64, []byte, error) {
	return func(ctx context.Context, tx pgx.Tx, ev *event.Event) (rows int64, returned []byte, err error) {
		defer func() {
			if p := recover(); p != nil {
				log.Error("a handler panicked; the attempt has failed", slog.String("handler", name), slog.String("source", ev.Source),
					slog.String("event", ev.ID), slog.String("panic", run.Panicked(p)), slog.String("stack", string(debug.Stack())))
				err = fmt.Errorf("panic: %v", p)
			}
		}()
		own := *ev
		own.Body = bytes.Clone(ev.Body)
		own.Headers = make(map[string][]string, len(ev.Headers))
		for header, values := range ev.Headers {
			own.Headers[header] = slices.Clone(values)
		}
		r, err := f(ctx, tx, own)
		if err != nil || r.Returned == nil {
			return r.Rows, nil, err
		}
		if returned, err = json.Marshal(r.Returned); err != nil {
			return 0, nil, Dead(fmt.Errorf("returned: %w", err))
		}
		if len(returned) > maxReturned {
			return 0, nil, Dead(fmt.Errorf("returned: expected at most %d bytes of JSON, found %d", maxReturned, len(returned)))
		}
		return r.Rows, returned, nil
	}
}
