package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	"github.com/catchment-dev/catchment/ingress"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor/inspect"
)

const (
	opsTimeout   = 3 * time.Second
	metricsLimit = 16 << 20
)

// sourceView is one endpoint and what came of it.
type sourceView struct {
	Name     string         `json:"name"`
	Provider string         `json:"provider"`
	URL      string         `json:"url"`
	Secrets  int            `json:"secrets"`
	Outcomes map[string]int `json:"outcomes"` // requests since the ingress started, by how they ended
	Last     *eventView     `json:"last_event"`

	LastAccepted *ingress.Moment `json:"last_accepted"` // since the ingress started
	LastRefused  *ingress.Moment `json:"last_refused"`
}

func newSources(a *app) *cobra.Command {
	return group("sources", "See the endpoints",
		&cobra.Command{
			Use:   "list",
			Short: "List the endpoints, their last events, and how requests to them ended",
			Long: "List the endpoints with the last event of each, and what the ingress accepted and refused last, with the reason, and how\n" +
				"requests ended since it started. What the ingress or the database would say is left out when they do not answer.",
			Args: exactly(0),
			RunE: func(cmd *cobra.Command, _ []string) error { return a.listSources(cmd.Context()) },
		})
}

func (a *app) listSources(ctx context.Context) error {
	cfg, err := a.load(settings.NeedSources, settings.NeedIngress, settings.NeedPostgres)
	if err != nil {
		return err
	}
	outcomes, err := requestOutcomes(ctx, cfg.Ingress.OpsListen)
	if err != nil {
		fmt.Fprintf(a.err, "catchment: the ingress does not answer, its counts are left out: %v\n", err)
	}
	histories, err := requestHistories(ctx, cfg.Ingress.OpsListen)
	if err != nil && outcomes != nil {
		fmt.Fprintf(a.err, "catchment: what the ingress accepted and refused last is left out: %v\n", err)
	}
	views := []sourceView{}
	for _, name := range slices.Sorted(maps.Keys(cfg.Sources)) {
		s := cfg.Sources[name]
		views = append(views, sourceView{
			Name: name, Provider: s.Provider, URL: webhooksURL(cfg) + name, Secrets: len(s.Secrets), Outcomes: outcomes[name],
			LastAccepted: histories[name].LastAccepted, LastRefused: histories[name].LastRefused,
		})
	}
	if err := a.lastEvents(ctx, cfg, views); err != nil {
		fmt.Fprintf(a.err, "catchment: the last events are left out: %v\n", err)
	}
	return a.answer(views, func(w io.Writer) {
		line(w, "SOURCE", "PROVIDER", "SECRETS", "LAST EVENT", "RECEIVED", "LAST ACCEPTED", "LAST REFUSED", "REASON", "REQUESTS")
		for _, v := range views {
			id, at := "", time.Time{}
			if v.Last != nil {
				id, at = v.Last.ID, v.Last.ReceivedAt
			}
			accepted, _ := shownMoment(v.LastAccepted)
			refused, reason := shownMoment(v.LastRefused)
			line(w, v.Name, v.Provider, v.Secrets, clean(id), stamp(at), accepted, refused, reason, counted(v.Outcomes))
		}
	})
}

func (a *app) lastEvents(ctx context.Context, cfg *settings.File, views []sourceView) error {
	db, err := a.database(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	for i := range views {
		last, err := inspect.Events(ctx, db, inspect.Filter{Source: views[i].Name, Limit: 1})
		if err != nil {
			return err
		}
		if len(last) > 0 {
			v := viewOf(last[0])
			views[i].Last = &v
		}
	}
	return nil
}

// shownMoment is the time of a request, and how it ended and why.
func shownMoment(m *ingress.Moment) (at, reason string) {
	if m == nil {
		return stamp(time.Time{}), ""
	}
	if m.Reason == "" {
		return stamp(m.At), m.Outcome
	}
	return stamp(m.At), m.Outcome + ": " + clean(m.Reason)
}

// requestHistories asks the ingress for the last acceptance and the last refusal of each source.
func requestHistories(ctx context.Context, opsListen string) (map[string]ingress.SourceHistory, error) {
	ctx, cancel := context.WithTimeout(ctx, opsTimeout)
	defer cancel()
	body, status, err := run.Get(ctx, run.BaseURL(opsListen)+"/sources", metricsLimit)
	if err != nil {
		return nil, err
	}
	if status != 200 {
		return nil, fmt.Errorf("%s/sources answers %d", run.BaseURL(opsListen), status)
	}
	var list []ingress.SourceHistory
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("read %s/sources: %w", run.BaseURL(opsListen), err)
	}
	histories := make(map[string]ingress.SourceHistory, len(list))
	for _, h := range list {
		histories[h.Source] = h
	}
	return histories, nil
}

// counted lists what is not zero: "accepted 10, unauthenticated 2".
func counted(outcomes map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(outcomes)) {
		if n := outcomes[name]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", name, n))
		}
	}
	return strings.Join(parts, ", ")
}

// requestOutcomes asks the ingress how requests ended, by source and outcome.
func requestOutcomes(ctx context.Context, opsListen string) (map[string]map[string]int, error) {
	body, err := scrape(ctx, opsListen)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("read the ingress's metrics: %w", err)
	}
	outcomes := map[string]map[string]int{}
	for _, m := range families["catchment_ingress_requests_total"].GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		if outcomes[labels["source"]] == nil {
			outcomes[labels["source"]] = map[string]int{}
		}
		outcomes[labels["source"]][labels["outcome"]] += int(m.GetCounter().GetValue())
	}
	return outcomes, nil
}

// scrape returns a service's metrics.
func scrape(ctx context.Context, opsListen string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, opsTimeout)
	defer cancel()
	body, status, err := run.Get(ctx, run.BaseURL(opsListen)+"/metrics", metricsLimit)
	if err != nil {
		return nil, err
	}
	if status != 200 {
		return nil, fmt.Errorf("%s/metrics answers %d", run.BaseURL(opsListen), status)
	}
	return body, nil
}
