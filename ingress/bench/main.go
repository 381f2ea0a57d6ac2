// Command bench measures what an accepted webhook costs: Catchment's ingress with its features on, a bare program
// that only verifies and writes to Kafka, and Bento on the same job, on the same three brokers, interleaved in random
// order. Paths of the programs come in; a table goes into docs/benchmarks.md, and one JSON line of ratios goes to
// standard output. It never compares figures of two runs.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/benchkit"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/settings"
)

const secret = "whsec_0123456789abcdef0123456789abcdef"

// sources is how many endpoints Catchment serves; the load goes to all of them.
const sources = 20

type options struct {
	root, ingress, bento, report string
	rounds                       int
	window, warm                 time.Duration
}

func main() { os.Exit(benchkit.Main("bench", command)) }

func command(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 4 && args[0] == "bare" {
		return serveBare(ctx, args[1], args[2], args[3])
	}
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.StringVar(&o.root, "root", ".", "the repository")
	fs.StringVar(&o.ingress, "ingress", "bin/catchment-ingress", "the ingress to measure")
	fs.StringVar(&o.bento, "bento", "", "Bento, built from ingress/bench/bento; empty: without it")
	fs.StringVar(&o.report, "report", "", "file whose table is replaced; empty: only print it")
	fs.IntVar(&o.rounds, "rounds", 4, "how often each contestant meets each load")
	fs.DurationVar(&o.window, "window", 4*time.Second, "time of one measurement")
	fs.DurationVar(&o.warm, "warm", time.Second, "load before it, not measured")
	if err := fs.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "catchment-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	c, err := startCluster(ctx, o.root, filepath.Join(dir, "kafka"))
	if err != nil {
		return err
	}
	defer func() { _ = c.run(context.WithoutCancel(ctx), "wipe") }()
	rows, err := measure(ctx, &o, c, dir)
	if err != nil {
		return err
	}
	table := markdown(rows, o.rounds, o.window)
	return benchkit.Report(out, o.report, "ingress", table, ratios(rows))
}

// contestant is a program that takes the load.
type contestant struct {
	name, topic, address string
	paths                []string
	env                  []string
	program              string
	args                 []string
}

// offered is one way to load a contestant.
type offered struct {
	name  string
	conns int
	rate  float64
}

var offers = []offered{{"64 connections", 64, 0}, {"256 connections", 256, 0}, {"1,000/s", 64, 1000}}

// row is one measurement.
type row struct {
	contestant, offer string
	*loaded
	server, brokers, client, foreign time.Duration // CPU
	memory                           int           // MiB
}

func measure(ctx context.Context, o *options, c *cluster, dir string) ([]row, error) {
	cs, err := contestants(ctx, o, c, dir)
	if err != nil {
		return nil, err
	}
	if err := makeTopics(ctx, c, cs); err != nil {
		return nil, err
	}
	type pair struct {
		c contestant
		o offered
	}
	var rows []row
	for round := range o.rounds {
		var pairs []pair
		for _, c := range cs {
			for _, o := range offers {
				pairs = append(pairs, pair{c, o})
			}
		}
		rand.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
		for _, p := range pairs {
			r, err := p.c.face(ctx, p.o, o, c, dir)
			if err != nil {
				return nil, fmt.Errorf("%s at %s: %w", p.c.name, p.o.name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d: %-9s %-15s %6.0f/s, %5.1f µs\n", round+1, r.contestant, r.offer, r.perSecond(), r.each(r.server))
			rows = append(rows, *r)
		}
	}
	return rows, alike(ctx, c, cs)
}

// alike looks at records of every contestant: each stands under its event's ID. Records without a key go
// wherever that is cheapest, and figures of them would say nothing.
func alike(ctx context.Context, c *cluster, cs []contestant) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, p := range cs {
		cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(c.brokers, ",")...), kgo.ConsumeTopics(p.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		if err != nil {
			return err
		}
		fs := cl.PollRecords(ctx, 1000)
		cl.Close()
		if fs.NumRecords() == 0 {
			return fmt.Errorf("%s has written no records: %w", p.name, fs.Err())
		}
		for _, r := range fs.Records() {
			if id := idOf(r.Value); !bytes.Equal(r.Key, id) {
				return fmt.Errorf("%s has written the event %q under the key %q", p.name, id, r.Key)
			}
		}
	}
	return nil
}

// face starts the contestant, warms it up, and measures one window.
func (p contestant) face(ctx context.Context, offer offered, o *options, c *cluster, dir string) (*row, error) {
	s, err := startServer(ctx, dir, p.name, p.address, p.env, p.program, p.args...)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	l := &load{address: p.address, paths: p.paths, conns: 1, run: rand.Uint32()}
	for deadline := time.Now().Add(time.Minute); ; {
		r, err := l.window(ctx, 20*time.Millisecond)
		if err == nil && r.accepted > 0 && r.refused == 0 {
			break
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("takes no webhook: %+v %w", r, err)
		}
	}
	l.conns, l.rate = offer.conns, offer.rate
	if _, err := l.window(ctx, o.warm); err != nil {
		return nil, err
	}
	before, err := look(s, c)
	if err != nil {
		return nil, err
	}
	res, err := l.window(ctx, o.window)
	if err != nil {
		return nil, err
	}
	after, err := look(s, c)
	if err != nil {
		return nil, err
	}
	if res.accepted == 0 || res.refused > 0 {
		return nil, fmt.Errorf("refused %d of %d: %s", res.refused, res.refused+res.accepted, res.firstRefusal)
	}
	r := &row{
		contestant: p.name, offer: offer.name, loaded: res, memory: benchkit.Memory(s.cmd.Process.Pid),
		server: after.server - before.server, brokers: after.brokers - before.brokers, client: after.client - before.client,
	}
	r.foreign = after.machine - before.machine - r.server - r.brokers - r.client
	return r, nil
}

type usage struct{ server, brokers, client, machine time.Duration }

func look(s *server, c *cluster) (u usage, err error) {
	var errs [4]error
	u.server, errs[0] = benchkit.CPU(s.cmd.Process.Pid)
	u.brokers, errs[1] = c.cpu()
	u.client, errs[2] = benchkit.CPU(os.Getpid())
	u.machine, errs[3] = benchkit.MachineCPU()
	return u, errors.Join(errs[:]...)
}

func contestants(ctx context.Context, o *options, c *cluster, dir string) ([]contestant, error) {
	ports, err := freePorts(ctx, 4)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "catchment.yaml")
	if err := os.WriteFile(config, catchmentYAML(c.brokers, ports[0], ports[1]), 0o600); err != nil {
		return nil, err
	}
	cs := []contestant{
		{name: "catchment", topic: "bench.catchment", address: ports[0], program: o.ingress, args: []string{"--config", config}},
		{name: "bare", topic: "bench.bare", address: ports[2], paths: []string{"/webhooks/stripe"}, program: self, args: []string{"bare", ports[2], c.brokers, "bench.bare"}},
	}
	for i := range sources {
		cs[0].paths = append(cs[0].paths, fmt.Sprintf("/webhooks/stripe-%02d", i))
	}
	if o.bento != "" {
		cs = append(cs, contestant{
			name: "bento", topic: "bench.bento", address: ports[3], paths: []string{"/webhooks/stripe"}, program: o.bento,
			args: []string{"-c", filepath.Join(o.root, "ingress", "bench", "bento", "bento.yaml")},
			env:  []string{"ADDRESS=" + ports[3], "SECRET=" + secret, "BROKERS=" + c.brokers, "TOPIC=bench.bento"},
		})
	}
	return cs, nil
}

func freePorts(ctx context.Context, n int) ([]string, error) {
	var addresses []string
	for range n {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// catchmentYAML turns every feature on that a request meets.
func catchmentYAML(brokers, listen, ops string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "kafka: {brokers: [%s], topic: bench.catchment}\ningress: {listen: %q, ops_listen: %q, limits: {rate: 1000000, requests_per_address: 10000}}\nsources:\n",
		strings.ReplaceAll(brokers, ",", ", "), listen, ops)
	for i := range sources {
		fmt.Fprintf(&b, "  stripe-%02d: {provider: stripe, quota: {rate: 100000}, secrets: [{id: new, value: %s}, {id: old, value: whsec_the_secret_before}]}\n", i, secret)
	}
	return []byte(b.String())
}

func makeTopics(ctx context.Context, c *cluster, cs []contestant) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(c.brokers, ",")...))
	if err != nil {
		return err
	}
	defer cl.Close()
	for _, p := range cs {
		cfg := settings.Kafka{Topic: p.topic, Partitions: 12, ReplicationFactor: 3, MinInsyncReplicas: 2, Retention: 7 * 24 * time.Hour}
		if err := kafka.EnsureTopic(ctx, cl, cfg, p.topic, 1<<20); err != nil {
			return err
		}
	}
	return nil
}
