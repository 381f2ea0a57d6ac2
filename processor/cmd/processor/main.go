// Command processor runs the processor service. A configuration file comes in, and the service and its operations
// endpoint run until a signal. It decides nothing itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
	"github.com/catchment-dev/catchment/processor"
)

func main() {
	os.Exit(run.Main("catchment-processor", os.Args[1:], os.Stderr, serve))
}

func serve(ctx context.Context, path string) error {
	cfg, err := processor.Load(path, settings.NeedKafka, settings.NeedPostgres, settings.NeedProcessor, settings.NeedOperations, settings.NeedTelemetry)
	if err != nil {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	reg := telemetry.Registry()
	s, err := processor.New(cfg, telemetry.Logger(cfg.Telemetry, os.Stderr), reg)
	if err == nil {
		err = telemetry.Serve(ctx, s, reg, cfg.Processor.OpsListen, "processor.ops_listen")
	}
	var wrong config.Errors
	if errors.As(err, &wrong) {
		return fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	return err
}
