package simtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver"
	"github.com/catchment-dev/catchment/ingress"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/run"
	"github.com/catchment-dev/catchment/pkg/settings"
	"github.com/catchment-dev/catchment/processor"
)

const (
	topic      = "events"
	partitions = 3
	brokers    = 3
	pgAddress  = "127.0.0.1:5432"
	pgName     = "postgres"

	settled = 3 * time.Minute // in which all must be through after the last fault
)

const configuration = `
kafka: {brokers: ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"], topic: events, results_topic: "off", partitions: 3}
postgres: {url: "postgres://sim@127.0.0.1:5432/sim?sslmode=disable", max_conns: 6}
archive: {url: "file:///nowhere"}
ingress: {listen: "127.0.0.1:1", clock_tolerance: 1000h, drain_timeout: 2s}
processor: {migrate: false, session_timeout: 6s, tx_timeout: 20s, batch: 20, stall_timeout: 10m}
archiver: {segment_age: 12s, session_timeout: 6s, drain_timeout: 2s}
sources:
  shop: {provider: hmac, event_id: body.id, event_type: body.kind, secrets: [whisper-of-the-shop], hmac: &h {header: X-Signature, algorithm: sha256, encoding: hex, prefix: "sha256=", signed: "{body}"}}
  bank: {provider: hmac, event_id: body.id, event_type: body.kind, secrets: [whisper-of-the-bank], hmac: *h}
operations:
  - &count
    name: count-shop
    on: {source: shop}
    entity: body.order
    sql:
      - INSERT INTO ledger (source, event_id) VALUES (@source, @id)
      - INSERT INTO counters (id, n) VALUES (@entity, 1) ON CONFLICT (id) DO UPDATE SET n = counters.n + 1
  - {<<: *count, name: count-bank, on: {source: bank}}
  - &state
    name: state-shop
    on: {source: shop}
    entity: body.order
    version: body.version
    guard: orders
    sql: INSERT INTO orders (id, version, event) VALUES (@entity, @n, @id) ON CONFLICT (id) DO UPDATE SET version = excluded.version, event = excluded.event
    params: {n: body.version}
  - {<<: *state, name: state-bank, on: {source: bank}}
`

// base is the configuration that all services of all seeds begin with.
var base = sync.OnceValues(func() (*settings.File, error) {
	return settings.Parse("simulation.yaml", []byte(configuration), settings.Everything...)
})

// world is one run.
type world struct {
	seed     uint64
	rng      *rand.Rand
	start    time.Time
	net      *Net
	kafka    *kfake.Cluster
	db       *DB
	dir      string
	log      io.Writer
	http     *http.Transport
	events   []sent
	provider *provider

	read    map[string]segment // of the archive, by path
	trimmed bool               // records were deleted from Kafka

	mu         sync.Mutex
	processes  map[string]*process
	lives      int
	wrong      []string
	faults     map[string]int
	story      []string
	background sync.WaitGroup
}

// process is one service, as one life of it.
type process struct {
	role, life string
	cancel     context.CancelFunc
	done       chan struct{}
	ready      func() error
	listener   net.Listener
}

// Verdict is what a run has shown.
type Verdict struct {
	Seed     uint64
	Wrong    []string // what was broken, sorted
	Story    []string // what failed when
	Faults   map[string]int
	Accepted int
	Unknown  int
	Halted   []string       // partitions that stand, and why
	Counts   map[string]int // what must have happened
}

func (v *Verdict) String() string {
	return fmt.Sprintf("seed %d: %d accepted, %d unknown, faults %v, %v\n  %s\n  faults:\n  %s", v.Seed, v.Accepted, v.Unknown, v.Faults, v.Counts,
		strings.Join(v.Wrong, "\n  "), strings.Join(v.Story, "\n  "))
}

// Scenario changes what a seed says. The zero value leaves it.
type Scenario struct {
	Events int     // 0: 24
	Calm   bool    // nothing fails
	Faults []Fault // instead of the seed's
	Order  func([]sent) []sent
	Log    io.Writer // of the services; nil: none
}

// inBubble runs one seed. It must be called in a bubble of testing/synctest.
func inBubble(seed uint64, dir string, sc Scenario) (*Verdict, error) {
	if _, err := base(); err != nil {
		return nil, err
	}
	// Midnight comes while something happens.
	midnight := time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	time.Sleep(time.Until(midnight.Add(-30 * time.Second))) //nolint:forbidigo // virtual
	w := &world{seed: seed, rng: rand.New(rand.NewPCG(seed, 1)), start: time.Now(), db: NewDB(), dir: dir, log: sc.Log, read: map[string]segment{}, processes: map[string]*process{}, faults: map[string]int{}}
	if w.log == nil {
		w.log = io.Discard
	}
	slow := time.Duration(w.rng.IntN(20)) * time.Millisecond
	w.net = NewNet(func(from, to string) time.Duration {
		if to == pgName { // pgx waits for COPY's answer with a mutex, which stops virtual time: it must come without any
			return 0
		}
		return time.Duration(len(from)*7+len(to)*3)%5*time.Millisecond/4 + slow/4
	})
	if err := w.begin(); err != nil {
		return nil, err
	}
	count := sc.Events
	if count == 0 {
		count = 24
	}
	w.events = story(w.rng, count)
	if sc.Order != nil {
		w.events = sc.Order(w.events)
	}
	faults := sc.Faults
	if faults == nil && !sc.Calm {
		faults = schedule(w.rng)
	}
	w.play(faults)
	return w.end(), nil
}

func (w *world) begin() error {
	var err error
	w.kafka, err = kfake.NewCluster(kfake.NumBrokers(brokers), kfake.Ports(9001, 9002, 9003), kfake.ListenFn(func(_, address string) (net.Listener, error) {
		return w.net.Listen("kafka", address)
	}))
	if err != nil {
		return err
	}
	l, err := w.net.Listen(pgName, pgAddress)
	if err != nil {
		return err
	}
	w.background.Go(func() { w.db.Serve(l) })
	w.http = &http.Transport{DialContext: w.net.Dialer("providers"), MaxIdleConnsPerHost: 4}
	w.provider = &provider{client: &http.Client{Transport: w.http, Timeout: 8 * time.Second}, urls: []string{"http://10.0.1.0:8080", "http://10.0.1.1:8080"}, giveUp: 3 * time.Minute}
	// The topic is there before any service, so that none makes it differently.
	cfg, _ := base()
	k := cfg.Kafka
	k.Dial = w.net.Dialer("judge")
	opts, err := kafka.Options(k, "judge")
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := kafka.EnsureTopic(context.Background(), cl, k, topic, 1<<20); err != nil {
		return err
	}
	for _, role := range roles {
		w.launch(role)
	}
	return nil
}

var roles = []string{"ingress0", "ingress1", "processor0", "processor1", "archiver0", "archiver1"}

// launch starts a service anew.
func (w *world) launch(role string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.processes[role] != nil {
		return
	}
	w.lives++
	p := &process{role: role, life: fmt.Sprintf("%s.%d", role, w.lives), done: make(chan struct{})}
	cfg, _ := base()
	c := *cfg
	c.Kafka.Dial, c.Postgres.Dial = w.net.Dialer(p.life), w.net.Dialer(p.life)
	c.Archive.URL = "file://" + filepath.Join(w.dir, "archive")
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With(slog.String("life", p.life))
	serve, err := w.service(p, &c, log)
	if err != nil {
		w.wrong = append(w.wrong, fmt.Sprintf("%s does not start: %v", role, err))
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	w.processes[role] = p
	w.background.Go(func() {
		defer close(p.done)
		if err := serve(ctx); err != nil && ctx.Err() == nil {
			w.blame("%s ended: %v", p.life, err)
		}
	})
}

func (w *world) service(p *process, c *settings.File, log *slog.Logger) (func(context.Context) error, error) {
	reg := prometheus.NewRegistry()
	switch {
	case strings.HasPrefix(p.role, "ingress"):
		l, err := w.net.Listen(p.life, "10.0.1."+p.role[len("ingress"):]+":8080")
		if err != nil {
			return nil, err
		}
		p.listener, c.Ingress.Listener = l, l
		s, err := ingress.New(c, log, reg)
		if err != nil {
			return nil, err
		}
		p.ready = s.Ready
		return s.Run, nil
	case strings.HasPrefix(p.role, "processor"):
		s, err := processor.New(c, log, reg)
		if err != nil {
			return nil, err
		}
		p.ready = s.Ready
		return s.Run, nil
	}
	s, err := archiver.New(c, log, reg)
	if err != nil {
		return nil, err
	}
	p.ready = s.Ready
	return s.Run, nil
}

// kill ends a service as SIGKILL does, as far as others see: nothing comes from it any more.
func (w *world) kill(role string) {
	w.mu.Lock()
	p := w.processes[role]
	delete(w.processes, role)
	w.mu.Unlock()
	if p == nil {
		return
	}
	if p.listener != nil {
		_ = p.listener.Close()
	}
	w.net.Unplug(p.life, "kafka", pgName, "providers")
	p.cancel()
}

// life is the name under which a service is known to the network now.
func (w *world) life(role string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := w.processes[role]; p != nil {
		return p.life
	}
	return ""
}

func (w *world) blame(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

// play lets the providers send and the faults happen, until all is through.
func (w *world) play(faults []Fault) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var senders, nemesis sync.WaitGroup
	for i := range w.events {
		e, rng := &w.events[i], rand.New(rand.NewPCG(w.seed, uint64(1000+i)))
		senders.Go(func() { w.provider.tell(ctx, e, rng) })
	}
	for _, f := range faults {
		nemesis.Go(func() { w.inflict(ctx, f) })
	}
	nemesis.Wait()
	for _, role := range roles {
		w.launch(role)
	}
	senders.Wait()
	w.drain(ctx)
}

// drain waits until everything that is in Kafka has reached the database and the archive.
func (w *world) drain(ctx context.Context) {
	for deadline := time.Now().Add(settled); ; {
		why := w.behind()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			w.blame("10 position: %s, %s after the last fault", why, settled)
			return
		}
		run.Pause(ctx, time.Second)
	}
}

// behind says what is not through yet.
func (w *world) behind() string {
	db := w.db.snapshot()
	for p := range int32(partitions) {
		end := w.kafka.PartitionInfo(topic, p).HighWatermark
		next := int64(0)
		for at, pr := range db.progress {
			if at.partition == p {
				next = pr.next
			}
		}
		if next != end {
			return fmt.Sprintf("partition %d is processed to %d of %d", p, next, end)
		}
		if n := w.archivedTo(p); n < end {
			return fmt.Sprintf("partition %d is archived to %d of %d", p, n, end)
		}
	}
	return ""
}

// end stops everything and judges.
func (w *world) end() *Verdict {
	w.mu.Lock()
	halted := map[string]string{}
	all := slices.Collect(maps.Values(w.processes))
	for _, p := range all {
		if err := p.ready(); err != nil && strings.Contains(err.Error(), "halted") {
			halted[p.role] = err.Error()
		}
	}
	w.mu.Unlock()
	for _, p := range all {
		p.cancel()
	}
	for _, p := range all {
		<-p.done
	}
	w.http.CloseIdleConnections()
	records, err := w.records()
	if err != nil {
		w.blame("Kafka cannot be read: %v", err)
	}
	w.kafka.Close()
	w.net.mu.Lock()
	pg := w.net.listeners[pgAddress]
	w.net.mu.Unlock()
	_ = pg.Close()
	w.net.End()
	w.background.Wait()
	j := &judge{world: w, db: w.db.snapshot(), records: records, halted: halted}
	j.judge()
	w.wrong = append(w.wrong, w.db.wrong...)
	slices.Sort(w.wrong)
	v := &Verdict{Seed: w.seed, Wrong: slices.Compact(w.wrong), Faults: w.faults, Story: w.story, Accepted: len(w.provider.accepted), Unknown: w.provider.unknown, Counts: w.db.counts, Halted: slices.Sorted(maps.Values(halted))}
	v.Counts["repetitions in Kafka"] = j.repeated
	return v
}

// record is one in Kafka.
type record struct {
	key
	delivery  string
	body      string
	partition int32
	offset    int64
	at        time.Time
}

// records reads all that is in Kafka, with a reader of its own.
func (w *world) records() ([]record, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.ListenAddrs()...), kgo.Dialer(w.net.Dialer("judge")), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	want := int64(0)
	for p := range int32(partitions) {
		info := w.kafka.PartitionInfo(topic, p)
		want += info.HighWatermark - info.LogStartOffset
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var list []record
	for int64(len(list)) < want && ctx.Err() == nil {
		cl.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			rec := record{body: string(r.Value), partition: r.Partition, offset: r.Offset, at: r.Timestamp}
			for _, h := range r.Headers {
				switch h.Key {
				case "ce_id":
					rec.id = string(h.Value)
				case "ce_source":
					rec.source = strings.TrimPrefix(string(h.Value), "/webhooks/")
				case "catchment_delivery_id":
					rec.delivery = string(h.Value)
				}
			}
			list = append(list, rec)
		})
	}
	if int64(len(list)) != want {
		return list, errors.Join(ctx.Err(), fmt.Errorf("%d records of %d", len(list), want))
	}
	return list, nil
}

// temporary makes a folder in memory, where there is one.
func temporary() (string, error) {
	root := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		root = "/dev/shm"
	}
	return os.MkdirTemp(root, "catchment-sim-")
}
