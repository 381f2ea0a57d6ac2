// Command ingress runs the ingress alone. A configuration file comes in, deliveries go out to Kafka. It must never
// do more than the package that it runs.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"github.com/catchment-dev/catchment/ingress"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
)

func main() {
	ballast := roomForGarbage()
	code := run.Main("catchment-ingress", os.Args[1:], os.Stderr, func(ctx context.Context, path string) error {
		cfg, err := settings.Load(path, settings.NeedKafka, settings.NeedIngress, settings.NeedSources, settings.NeedTelemetry)
		if err != nil {
			return fmt.Errorf("%w: %w", run.ErrUsage, err)
		}
		reg := telemetry.Registry()
		log := telemetry.Logger(cfg.Telemetry, os.Stderr)
		s, err := ingress.New(cfg, log, reg)
		if err != nil {
			return err
		}
		return telemetry.Serve(ctx, cfg, log, s, reg, cfg.Ingress.OpsListen, "ingress.ops_listen")
	}, func(path string) (string, error) { return settings.OpsListen(path, settings.NeedIngress) })
	runtime.KeepAlive(ballast)
	os.Exit(code)
}

// roomForGarbage is memory that is never touched, and so takes none of the machine's: it makes the collector wait until
// there is as much more garbage. An ingress holds little and drops much, and with the usual target would collect all the
// time. Who sets GOGC or GOMEMLIMIT knows better.
func roomForGarbage() []byte {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return make([]byte, 32<<20)
}
