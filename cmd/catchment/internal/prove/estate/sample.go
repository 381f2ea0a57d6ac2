package estate

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const sampleEvery = time.Second

// Resource is one figure of one process.
type Resource struct {
	Process, Name  string
	Base, Max, End float64
}

// sampler asks all services once a second. Counters go on over restarts; what a process counted after it was asked for the
// last time and before it was killed is not in them.
type sampler struct {
	e    *Estate
	stop func()

	mu        sync.Mutex
	counters  map[string]float64 // by series, over all instances
	last      map[string]map[string]float64
	pids      map[string]int
	resources map[[2]string]*Resource
	epochs    map[int]int32
	leaders   int64
}

func newSampler(ctx context.Context, e *Estate) *sampler {
	ctx, cancel := context.WithCancel(ctx)
	s := &sampler{
		e: e, counters: map[string]float64{}, last: map[string]map[string]float64{}, pids: map[string]int{},
		resources: map[[2]string]*Resource{}, epochs: map[int]int32{},
	}
	var loops sync.WaitGroup
	run := func(f func(context.Context)) {
		loops.Go(func() {
			for Pause(ctx, sampleEvery) == nil {
				f(ctx)
			}
		})
	}
	run(s.services)
	run(s.partitions)
	s.stop = func() { cancel(); loops.Wait() }
	return s
}

func (s *sampler) services(ctx context.Context) {
	var all sync.WaitGroup
	for _, service := range s.e.Services() {
		all.Go(func() { s.one(ctx, service) })
	}
	all.Wait()
}

func (s *sampler) one(ctx context.Context, service *Service) {
	ctx, cancel := context.WithTimeout(ctx, sampleEvery)
	defer cancel()
	pid := service.Pid()
	if pid == 0 {
		return
	}
	metrics, err := service.Metrics(ctx)
	if err != nil || service.Pid() != pid {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last[service.Name]
	if s.pids[service.Name] != pid {
		last = nil // a new process counts from zero
	}
	for series, v := range metrics {
		if strings.Contains(series, "_total") {
			s.counters[series] += v - last[series]
		}
	}
	s.last[service.Name], s.pids[service.Name] = metrics, pid
	s.note(service.Name, "goroutines", metrics["go_goroutines"])
	s.note(service.Name, "rss_bytes", float64(memory(pid)))
	if open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
		s.note(service.Name, "fds", float64(len(open)))
	}
}

func (s *sampler) note(process, name string, v float64) {
	r := s.resources[[2]string{process, name}]
	if r == nil {
		r = &Resource{Process: process, Name: name}
		s.resources[[2]string{process, name}] = r
	}
	r.Max, r.End = max(r.Max, v), v
}

// memory is a process's resident memory in bytes.
func memory(pid int) int64 {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10
}

func (s *sampler) partitions(ctx context.Context) {
	partitions, err := s.e.Partitions(ctx, Topic)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, p := range partitions {
		if before, known := s.epochs[n]; known && p.Epoch > before {
			s.leaders += int64(p.Epoch - before)
		}
		s.epochs[n] = max(s.epochs[n], p.Epoch)
	}
}

// Base takes what is measured now as what the system uses at rest.
func (e *Estate) Base(ctx context.Context) {
	e.samples.services(ctx)
	e.samples.mu.Lock()
	defer e.samples.mu.Unlock()
	for _, r := range e.samples.resources {
		r.Base = r.End
	}
}

// Resources are the figures of all processes.
func (e *Estate) Resources() []Resource {
	e.samples.mu.Lock()
	defer e.samples.mu.Unlock()
	var all []Resource
	for _, key := range slices.SortedFunc(maps.Keys(e.samples.resources), func(a, b [2]string) int {
		return strings.Compare(a[0]+" "+a[1], b[0]+" "+b[1])
	}) {
		all = append(all, *e.samples.resources[key])
	}
	return all
}

// Counters are the services' counters over all instances and restarts, by series.
func (e *Estate) Counters(ctx context.Context) map[string]float64 {
	e.samples.services(ctx)
	e.samples.mu.Lock()
	defer e.samples.mu.Unlock()
	return maps.Clone(e.samples.counters)
}

// Gauge is what the services that run now measure under a name, of any labels, in sum.
func (e *Estate) Gauge(ctx context.Context, name string) float64 {
	e.samples.services(ctx)
	e.samples.mu.Lock()
	defer e.samples.mu.Unlock()
	var total float64
	for _, s := range e.Services() {
		if pid := s.Pid(); pid != 0 && e.samples.pids[s.Name] == pid {
			total += Sum(e.samples.last[s.Name], name)
		}
	}
	return total
}

// LeaderChanges is how often a partition of the deliveries got another leader, or the same one anew.
func (e *Estate) LeaderChanges() int64 {
	e.samples.mu.Lock()
	defer e.samples.mu.Unlock()
	return e.samples.leaders
}

// BrokersSaid counts the lines of the brokers' logs that hold one of the texts.
func (e *Estate) BrokersSaid(texts ...string) int64 {
	var n int
	for _, b := range e.Broker {
		n += b.Said(texts...)
	}
	return int64(n)
}
