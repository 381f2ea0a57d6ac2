package estate

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	servicePatience = 90 * time.Second
	serviceStop     = 60 * time.Second
)

// Service is one instance of a service.
type Service struct {
	*Process
	Role   string // ingress, processor or archiver
	Config string // its catchment.yaml

	ops    string
	text   string // of its catchment.yaml, as it should be
	client *http.Client
}

// startServices starts all instances and waits until they are ready.
func (e *Estate) startServices(ctx context.Context) error {
	programs := map[string]string{"ingress": e.o.Programs.Ingress, "processor": e.o.Programs.Processor, "archiver": e.o.Programs.Archiver}
	groups := map[string]*[Instances]*Service{"ingress": &e.Ingress, "processor": &e.Processor, "archiver": &e.Archiver}
	for _, what := range []string{"ingress", "processor", "archiver"} {
		for i := range Instances {
			s, err := e.newService(ctx, what, i, programs[what])
			if err != nil {
				return err
			}
			groups[what][i] = s
			if err := s.Start(); err != nil {
				return err
			}
			// The first one makes topics and tables.
			if i == 0 {
				if err := s.WaitReady(ctx); err != nil {
					return err
				}
			}
		}
	}
	for _, s := range e.Services() {
		if err := s.WaitReady(ctx); err != nil {
			return err
		}
	}
	e.samples = newSampler(context.WithoutCancel(ctx), e)
	return nil
}

// newService makes an instance, with links of its own to all that it speaks with.
func (e *Estate) newService(ctx context.Context, what string, i int, program string) (*Service, error) {
	name := what + "-" + strconv.Itoa(i+1)
	ops, err := e.freePort(ctx)
	if err != nil {
		return nil, err
	}
	listen, err := e.freePort(ctx)
	if err != nil {
		return nil, err
	}
	if what == "ingress" {
		if _, err := e.link(ctx, "providers→"+name, local(listen)); err != nil {
			return nil, err
		}
	}
	level := "info"
	if what == "ingress" {
		level = "debug" // it then logs where each acknowledged record is
	}
	store := e.Store[i].Address()
	if what == "archiver" {
		k, err := e.link(ctx, name+"→store", store)
		if err != nil {
			return nil, err
		}
		store = k.Address()
	}
	var brokers []string
	for id := 1; id <= Brokers; id++ {
		brokers = append(brokers, e.Link(name+"→"+brokerName(id)).Address())
	}
	text := fmt.Sprintf(configuration, strings.Join(brokers, ", "), Topic, Results, e.o.Parts, e.Postgres.URL(name), archiveURL(store), e.o.Key,
		local(listen), local(ops), local(ops), e.o.Sessions, local(ops), e.o.Segment, e.o.Sessions, level, e.o.Sources)
	config := filepath.Join(e.o.Dir, "config", name+".yaml")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return &Service{
		Role: what, Config: config, ops: local(ops), text: text, client: &http.Client{Timeout: 2 * time.Second},
		Process: &Process{
			Name: name, program: program, args: []string{"--config", config}, starts: e.starts, log: e.logFile(name), deathsig: kill,
			env: append([]string{"AWS_ACCESS_KEY_ID=" + AccessKey, "AWS_SECRET_ACCESS_KEY=" + SecretKey}, e.o.Env...),
		},
	}, nil
}

// Processor and archiver groups, as they are configured by default.
const (
	ProcessorGroup      = "catchment-processor"
	ArchiverGroup       = "catchment-archiver"
	ArchiverResultGroup = "catchment-archiver-results"
)

const configuration = `kafka: {brokers: [%s], topic: %s, results_topic: %s, partitions: %d}
postgres: {url: "%s", max_conns: 12}
archive: {url: "%s", checkpoint_key: "%s"}
ingress:
  listen: "%s"
  ops_listen: "%s"
  limits: {requests: 4096}
processor: {ops_listen: "%s", session_timeout: %s}
archiver: {ops_listen: "%s", segment_age: %s, session_timeout: %s}
telemetry: {log_level: %s}
%s`

// Get asks a path of the service's own listener.
func (s *Service) Get(ctx context.Context, path string) (int, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.ops+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// WaitReady waits until the service says that it is ready.
func (s *Service) WaitReady(ctx context.Context) error {
	err := Await(ctx, servicePatience, 50*time.Millisecond, s.Name, func(ctx context.Context) error {
		if !s.Running() {
			return errEnded
		}
		status, body, err := s.Get(ctx, "/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("not ready: %s", strings.TrimSpace(string(body)))
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, s.logEnd())
	}
	return nil
}

// Stop asks it to end, and waits until it has.
func (s *Service) Stop(ctx context.Context) error { return s.End(ctx, syscall.SIGTERM, serviceStop) }

// Misconfigure replaces a text of its configuration, for its next start; "" for both restores it.
func (s *Service) Misconfigure(old, wrong string) error {
	text := s.text
	if old != "" {
		text = strings.ReplaceAll(text, old, wrong)
		if text == s.text {
			return fmt.Errorf("%s: its configuration has no %q", s.Name, old)
		}
	}
	return os.WriteFile(s.Config, []byte(text), 0o600)
}

// Metrics are the service's, each with its labels as they are written there.
func (s *Service) Metrics(ctx context.Context) (map[string]float64, error) {
	status, body, err := s.Get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("%s: metrics: status %d", s.Name, status)
	}
	found := map[string]float64{}
	for lines := bufio.NewScanner(strings.NewReader(string(body))); lines.Scan(); {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if strings.HasPrefix(line, "#") || at < 0 {
			continue
		}
		if v, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			found[line[:at]] = v
		}
	}
	return found, nil
}

// Sum adds up the series of a metric.
func Sum(metrics map[string]float64, name string) float64 {
	total := metrics[name]
	for series, v := range metrics {
		if strings.HasPrefix(series, name+"{") {
			total += v
		}
	}
	return total
}
