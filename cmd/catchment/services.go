package main

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/catchment-dev/catchment/archiver"
	"github.com/catchment-dev/catchment/ingress"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
)

// service is one of the parts that `up` runs in one process, and that are deployed apart.
type service struct {
	name string
	make func(*settings.File, *slog.Logger, prometheus.Registerer) (run.Service, error)
}

// services is the whole system, in the order of its start. It stops in the reverse order: first nothing new comes
// in, then what came in is archived and processed as far as the time allows; the rest waits in Kafka.
var services = []service{
	{"processor", func(f *settings.File, l *slog.Logger, r prometheus.Registerer) (run.Service, error) {
		return processor.New(f, l, r)
	}},
	{"archiver", func(f *settings.File, l *slog.Logger, r prometheus.Registerer) (run.Service, error) {
		return archiver.New(f, l, r)
	}},
	{"ingress", func(f *settings.File, l *slog.Logger, r prometheus.Registerer) (run.Service, error) {
		return ingress.New(f, l, r)
	}},
}

// makeServices constructs them all.
func makeServices(f *settings.File, log *slog.Logger, reg prometheus.Registerer) ([]run.Service, error) {
	made := make([]run.Service, 0, len(services))
	for _, s := range services {
		one, err := s.make(f, log, reg)
		if err != nil {
			return nil, err
		}
		made = append(made, one)
	}
	return made, nil
}
