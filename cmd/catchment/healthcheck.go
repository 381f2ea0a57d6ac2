package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
)

func newHealthcheck(a *app) *cobra.Command {
	var name string
	var live bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask a service whether it is ready; for containers",
		Long:  "Ask a service's own listener whether it is ready, and exit with 1 when it is not. With `catchment up`, all\nservices answer at the ingress's address.",
		Args:  exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			address, err := a.opsAddress(name)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			h := run.Ask(ctx, address, live)
			if err := a.answer(h, func(w io.Writer) { line(w, h.URL, h.Detail) }); err != nil {
				return err
			}
			if !h.Healthy {
				return errSaid
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&name, "service", "ingress", "ingress, processor or archiver")
	cmd.Flags().BoolVar(&live, "live", false, "ask whether it is alive rather than ready")
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Second, "how long to wait for the answer")
	return cmd
}

// opsAddress returns where a service's operations listener is.
func (a *app) opsAddress(name string) (string, error) {
	service := settings.Section(name)
	if !slices.Contains([]settings.Section{settings.NeedIngress, settings.NeedProcessor, settings.NeedArchiver}, service) {
		return "", fmt.Errorf("%w: --service is %q: expected ingress, processor or archiver", run.ErrUsage, name)
	}
	address, err := settings.OpsListen(a.config, service)
	if err != nil {
		return "", fmt.Errorf("%w: %w", run.ErrUsage, err)
	}
	return address, nil
}
