// Command archiver runs the archiver alone. A configuration file comes in, segments go out. It must never do more
// than the package that it runs.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/catchment-dev/catchment/archiver"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/pkg/telemetry"
)

func main() {
	os.Exit(run.Main("catchment-archiver", os.Args[1:], os.Stderr, func(ctx context.Context, path string) error {
		cfg, err := settings.Load(path, settings.NeedKafka, settings.NeedArchive, settings.NeedArchiver, settings.NeedTelemetry)
		if err != nil {
			return fmt.Errorf("%w: %w", run.ErrUsage, err)
		}
		run.LimitMemory(besides+int64(cfg.Archiver.BufferBytes), garbage)
		reg := telemetry.Registry()
		log := telemetry.Logger(cfg.Telemetry, os.Stderr)
		s, err := archiver.New(cfg, log, reg)
		if err != nil {
			return fmt.Errorf("%w: %w", run.ErrUsage, err)
		}
		return telemetry.Serve(ctx, cfg, log, s, reg, cfg.Archiver.OpsListen, "archiver.ops_listen")
	}, func(path string) (string, error) { return settings.OpsListen(path, settings.NeedArchiver) }))
}

// besides is what the archiver needs on top of what is buffered: what is fetched, and what the program takes at rest. In bytes.
const besides = 128 << 20

// garbage may gather, in percent of what is in use: to look through what is in use more often costs more than the memory.
const garbage = 200
