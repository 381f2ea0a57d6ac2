// Package run starts and stops services. Services and signals come in, an exit code goes out. It never lets a
// process live on when one of its services has failed, and stops them in the reverse order of their start.
package run

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/catchment-dev/catchment/pkg/config"
)

// Service is a part of a program that runs until its context ends.
type Service interface {
	// Name is how logs and errors call it.
	Name() string
	// Run works until ctx ends, then drains and returns nil. Any other return is a failure.
	Run(ctx context.Context) error
	// Ready is nil while the service can do its work; the error says why not.
	Ready() error
}

// Reloader is a service that reads again, while it works, what may change under it: Group asks it to at SIGHUP.
type Reloader interface {
	// Reload returns when it is done. What cannot be read leaves all as it was.
	Reload()
}

// Exit codes of every program.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2 // wrong flags or configuration
)

// ErrUsage marks errors that come from wrong flags or a wrong set-up, as config.Errors do: exit code 2.
var ErrUsage = errors.New("usage")

// Version is set at build time.
var Version = "dev"

// Main is the main function of a service: it takes --config and --version, runs until SIGINT or SIGTERM, and
// returns the exit code. A second signal ends the process at once. With `healthcheck` as the first argument it asks the
// service that runs beside it, whose operations listener has the address that ops reads from the configuration.
func Main(name string, args []string, stderr io.Writer, f func(ctx context.Context, configPath string) error, ops func(configPath string) (string, error)) int {
	if len(args) > 0 && args[0] == "healthcheck" {
		return healthcheck(name, args[1:], stderr, ops)
	}
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	path := configFlag(fs)
	version := fs.Bool("version", false, "print the version and exit")
	if code, ok := parse(fs, args, stderr); !ok {
		return code
	}
	if *version {
		fmt.Fprintf(stderr, "%s %s\n", name, Version)
		return ExitOK
	}
	ctx, stop := Signals(context.Background())
	defer stop()
	_, stopHangups := hangups() // what is meant to reload a service must not end it while it starts or drains
	defer stopHangups()
	err := f(ctx, *path)
	if err == nil {
		return ExitOK
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	var wrong config.Errors
	var one config.Error
	if errors.Is(err, ErrUsage) || errors.As(err, &wrong) || errors.As(err, &one) {
		return ExitUsage
	}
	return ExitFailed
}

func configFlag(fs *flag.FlagSet) *string {
	return fs.String("config", ConfigPath(), "configuration `file`; the environment's "+configVariable+" without it")
}

const configVariable = "CATCHMENT_CONFIG"

// ConfigPath is where every program looks for its configuration when it is not told: the environment's CATCHMENT_CONFIG,
// which images set, or else ./catchment.yaml.
func ConfigPath() string { return cmp.Or(os.Getenv(configVariable), "catchment.yaml") }

// parse takes flags alone; when not ok, the program ends with code.
func parse(fs *flag.FlagSet, args []string, stderr io.Writer) (code int, ok bool) {
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return ExitOK, false
		}
		return ExitUsage, false
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "%s: expected no arguments, found %q\n", fs.Name(), fs.Args())
		return ExitUsage, false
	}
	return ExitOK, true
}

// Signals returns a context that ends at the first SIGINT, SIGTERM or one of more. After it the signals have their
// default effect again, so that a second one ends the process.
func Signals(parent context.Context, more ...os.Signal) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(parent, append(more, os.Interrupt, syscall.SIGTERM)...)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Pause waits for d, and says whether it could: false when ctx has ended before.
func Pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hangups returns a channel that gets SIGHUP, which then does not end the process.
func hangups() (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}

// Group runs the services until ctx ends or one of them returns; at SIGHUP each Reloader reloads. It then stops them one after the other, the
// last one first, so that each can drain into those before it, and returns what went wrong.
func Group(ctx context.Context, services ...Service) error {
	type ending struct {
		i   int
		err error
	}
	ended := make(chan ending, len(services))
	cancels := make([]context.CancelFunc, len(services))
	for i, s := range services {
		var own context.Context
		own, cancels[i] = context.WithCancel(context.WithoutCancel(ctx))
		go func() { ended <- ending{i, s.Run(own)} }()
	}
	var errs []error
	done := make([]bool, len(services))
	note := func(e ending, stopped bool) {
		done[e.i] = true
		switch {
		case e.err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", services[e.i].Name(), e.err))
		case !stopped:
			errs = append(errs, fmt.Errorf("%s: ended by itself", services[e.i].Name()))
		}
	}
	hup, stopHup := hangups()
	defer stopHup()
	for working := true; working; {
		select {
		case <-hup:
			reload(services)
			continue
		case <-ctx.Done():
		case e := <-ended:
			note(e, false)
		}
		working = false
	}
	for i := len(services) - 1; i >= 0; i-- {
		cancels[i]()
		for !done[i] {
			e := <-ended
			note(e, e.i == i)
		}
	}
	return errors.Join(errs...)
}

func reload(services []Service) {
	for _, s := range services {
		if r, ok := s.(Reloader); ok {
			r.Reload()
		}
	}
}

// Ready joins what keeps the services from their work, or nil.
func Ready(services ...Service) error {
	var errs []error
	for _, s := range services {
		if err := s.Ready(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.Name(), err))
		}
	}
	return errors.Join(errs...)
}
