// Package telemetry shows what a program does. Log lines, counters and health come in; JSON lines, /metrics,
// /livez and /readyz go out. It never carries a secret or a body, and keeps no global state.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// Logger returns a logger that writes lines to w.
func Logger(t settings.Telemetry, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(t.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	o := &slog.HandlerOptions{Level: level}
	if t.LogFormat == "text" {
		return slog.New(slog.NewTextHandler(w, o))
	}
	return slog.New(slog.NewJSONHandler(w, o))
}

// Registry returns a registry with the Go runtime's and the process's metrics, and catchment_build_info.
func Registry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "catchment_build_info", Help: "What is running; the value is always 1.",
		ConstLabels: prometheus.Labels{"version": run.Version, "revision": revision()},
	})
	info.Set(1)
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return reg
}

func revision() string {
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, s := range bi.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}

// Handler serves /livez, /readyz and /metrics. extra adds more paths; nil adds none.
func Handler(reg *prometheus.Registry, ready func() error, extra map[string]http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, ready()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg, EnableOpenMetrics: true}))
	for path, h := range extra {
		mux.Handle(path, h)
	}
	return mux
}

func answer(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "not ready: "+strings.ReplaceAll(err.Error(), "\n", "; ")+"\n")
		return
	}
	_, _ = io.WriteString(w, "ok\n")
}

// Ops is the operations listener as a service: it is listening once NewOps has returned.
type Ops struct {
	l       net.Listener
	handler http.Handler
}

// NewOps listens on addr. A busy port is a clear error that names the key of the configuration.
func NewOps(addr, key string, h http.Handler) (*Ops, error) {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for operations on %s (set %s to another address): %w", addr, key, err)
	}
	return &Ops{l, h}, nil
}

// Name returns "operations".
func (o *Ops) Name() string { return "operations" }

// Addr returns the address that is listened on.
func (o *Ops) Addr() string { return o.l.Addr().String() }

// Ready is always nil.
func (o *Ops) Ready() error { return nil }

// Run serves until ctx ends.
func (o *Ops) Run(ctx context.Context) error {
	srv := &http.Server{Handler: o.handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(o.l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve operations: %w", err)
	}
	return nil
}

// Pages are what the services have to show on the operations listener besides health and metrics, by pattern: those of
// each that has a method Pages.
func Pages(services ...run.Service) map[string]http.Handler {
	all := map[string]http.Handler{}
	for _, s := range services {
		if p, ok := s.(interface {
			Pages() map[string]http.Handler
		}); ok {
			maps.Copy(all, p.Pages())
		}
	}
	return all
}

// Serve runs a service of its own process: its operations listener first, so that health can be asked while it
// starts, and last to stop.
func Serve(ctx context.Context, cfg *settings.File, log *slog.Logger, s run.Service, reg *prometheus.Registry, opsListen, key string) error {
	Watch(reg, cfg, s)
	flush, err := Tracing(cfg, "catchment-"+strings.TrimPrefix(s.Name(), "catchment-"), log, s) //nolint:contextcheck // spans are sent also after ctx has ended
	if err != nil {
		return err
	}
	defer flush()
	ops, err := NewOps(opsListen, key, Handler(reg, s.Ready, Pages(s)))
	if err != nil {
		return err
	}
	return run.Group(ctx, ops, s)
}
