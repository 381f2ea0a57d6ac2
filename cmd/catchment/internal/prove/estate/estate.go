// Package estate runs the whole system as real processes on this machine, for a trial. Programs and the text of sources
// and operations come in; three brokers, two Postgres servers, an S3 server, two ingresses, processors and archivers go
// out, each link between two of them led through one of package wire's. It never decides which fault to make, and leaves
// no process behind, also when it is killed itself.
package estate

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/wire"
)

// Instances is how many of each service there are, and Brokers how many brokers.
const (
	Instances = 2
	Brokers   = 3
)

// Options say what the estate is made of.
type Options struct {
	Dir      string // an empty or missing folder; other users must be able to enter it
	Programs Programs
	Sources  string        // YAML: sources and operations
	SQL      []string      // run in the database before anything starts: the users' tables
	Sessions time.Duration // session timeout of processors and archivers
	Segment  time.Duration // age at which a segment is closed
	Parts    int           // partitions of the topic of deliveries
	Env      []string      // of the services, NAME=VALUE
	Key      string        // signer key of the archive's checkpoints; empty: they are not signed
	Say      func(format string, args ...any)
}

// Programs are the paths of what the estate runs. Postgres is the folder of initdb, Kafka the folder of its jars.
type Programs struct {
	Ingress, Processor, Archiver string
	Postgres, Kafka, Java, S3    string
}

// Estate is the system, running.
type Estate struct {
	o      Options
	starts *starter

	Broker     [Brokers]*Broker
	Store      [Instances]*wire.Store // before the S3 server, one for each archiver
	StoreProc  *Process
	Ingress    [Instances]*Service
	Processor  [Instances]*Service
	Archiver   [Instances]*Service
	Postgres   *Postgres
	storePort  int
	clusterID  string
	admin      *admin
	links      []*wire.Link
	samples    *sampler
	closedOnce sync.Once

	linksMu sync.Mutex
	byName  map[string]*wire.Link
	ports   map[int]bool
}

// Topic and Results are the topics' names; Bucket is the bucket's.
const (
	Topic   = "catchment.events"
	Results = "catchment.results"
	Bucket  = "archive"

	// AccessKey and SecretKey open the S3 server.
	AccessKey = "catchment"
	SecretKey = "catchment-prove-secret" //nolint:gosec // of a server on loopback that lives as long as a run
)

// Start starts everything, and waits until it is ready. On an error nothing is left running.
func Start(ctx context.Context, o Options) (e *Estate, err error) {
	e = &Estate{o: o, starts: newStarter(), byName: map[string]*wire.Link{}, ports: map[int]bool{}}
	defer func() {
		if err != nil {
			e.Close(ctx)
		}
	}()
	for _, d := range []string{"", "data", "logs", "config"} {
		if err := os.MkdirAll(filepath.Join(o.Dir, d), 0o755); err != nil {
			return e, err
		}
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return e, err
	}
	e.clusterID = strings.NewReplacer("-", "A", "_", "B").Replace(base64.RawURLEncoding.EncodeToString(id)) // an argument may not begin with a dash
	if err := e.startParts(ctx); err != nil {
		return e, err
	}
	return e, e.startServices(ctx)
}

// startParts starts Kafka, Postgres and the store, beside one another.
func (e *Estate) startParts(ctx context.Context) error {
	starts := []func(context.Context) error{e.startKafka, e.startPostgres, e.startStore}
	errs := make(chan error, len(starts))
	for _, f := range starts {
		go func() { errs <- f(ctx) }()
	}
	var all error
	for range starts {
		all = errors.Join(all, <-errs)
	}
	return all
}

// Close ends every process and every link, also when ctx has ended.
func (e *Estate) Close(ctx context.Context) {
	e.closedOnce.Do(func() {
		if e.samples != nil {
			e.samples.stop()
		}
		for _, s := range e.Services() {
			s.Kill()
		}
		if e.Postgres != nil {
			e.Postgres.close(context.WithoutCancel(ctx))
		}
		if e.StoreProc != nil {
			e.StoreProc.Kill()
		}
		for _, b := range e.Broker {
			if b != nil {
				b.Kill()
			}
		}
		if e.admin != nil {
			e.admin.close()
		}
		for _, s := range e.Store {
			if s != nil {
				s.Close()
			}
		}
		e.linksMu.Lock()
		links := e.links
		e.linksMu.Unlock()
		for _, k := range links {
			k.Close()
		}
		close(e.starts.asked)
	})
}

// Services are the services' instances.
func (e *Estate) Services() []*Service {
	var all []*Service
	for _, group := range [][Instances]*Service{e.Ingress, e.Processor, e.Archiver} {
		for _, s := range group {
			if s != nil {
				all = append(all, s)
			}
		}
	}
	return all
}

// Heal ends what faults may have left: every link passes on, every process that should run does. It waits for them.
func (e *Estate) Heal(ctx context.Context) error {
	for _, s := range e.Store {
		s.Hook("", nil)
		s.Set(wire.None, "")
	}
	for _, k := range e.links {
		k.Set(wire.Mode{})
		k.Trap("", false, 0)
	}
	errs := []error{e.StoreProc.Start(), e.Postgres.ensure(ctx)}
	for _, b := range e.Broker {
		_ = b.Signal(cont)
		if !b.Running() {
			errs = append(errs, b.Start())
		}
	}
	for _, b := range e.Broker {
		errs = append(errs, b.WaitUp(ctx))
	}
	for _, s := range e.Services() {
		_ = s.Signal(cont)
		errs = append(errs, s.Start())
	}
	for _, s := range e.Services() {
		errs = append(errs, s.WaitReady(ctx))
	}
	return errors.Join(errs...)
}

// link makes a link and remembers it.
func (e *Estate) link(ctx context.Context, name, target string) (*wire.Link, error) {
	k, err := wire.New(ctx, name, target)
	if err != nil {
		return nil, err
	}
	e.linksMu.Lock()
	defer e.linksMu.Unlock()
	e.links = append(e.links, k)
	e.byName[name] = k
	return k, nil
}

// Link is the link of that name, "client→server"; it must be there.
func (e *Estate) Link(name string) *wire.Link {
	e.linksMu.Lock()
	defer e.linksMu.Unlock()
	return e.byName[name]
}

// Ingresses are the addresses at which providers reach the ingresses, as host:port.
func (e *Estate) Ingresses() []string {
	var all []string
	for _, s := range e.Ingress {
		all = append(all, e.Link("providers→"+s.Name).Address())
	}
	return all
}

func (e *Estate) logFile(name string) string { return filepath.Join(e.o.Dir, "logs", name+".log") }

func (e *Estate) data(name string) string { return filepath.Join(e.o.Dir, "data", name) }

// freePort finds a port below those that the system hands out by itself, so that it is still free after a restart, and that
// nothing else of the estate has.
func (e *Estate) freePort(ctx context.Context) (int, error) {
	for range 100 {
		n, err := rand.Int(rand.Reader, big.NewInt(12000))
		if err != nil {
			return 0, err
		}
		port := 20000 + int(n.Int64())
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", local(port))
		if err != nil {
			continue
		}
		_ = l.Close()
		e.linksMu.Lock()
		taken := e.ports[port]
		e.ports[port] = true
		e.linksMu.Unlock()
		if !taken {
			return port, nil
		}
	}
	return 0, errors.New("no free port on loopback")
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func reachable(address string) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		return c.Close()
	}
}

// startStore starts the S3 server, and the proxy before it.
func (e *Estate) startStore(ctx context.Context) error {
	port, err := e.freePort(ctx)
	if err != nil {
		return err
	}
	e.storePort = port
	root, meta := filepath.Join(e.data("store"), "buckets"), filepath.Join(e.data("store"), "meta")
	for _, d := range []string{root, meta} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(root, Bucket), 0o755); err != nil {
		return err
	}
	e.StoreProc = &Process{
		Name: "store", program: e.o.Programs.S3, starts: e.starts, log: e.logFile("store"), deathsig: kill,
		// A sidecar folder instead of extended attributes, which not every folder has.
		args: []string{"--quiet", "--port", local(port), "--access", AccessKey, "--secret", SecretKey, "posix", "--sidecar", meta, root},
	}
	if err := e.StoreProc.Start(); err != nil {
		return err
	}
	if err := Await(ctx, 20*time.Second, 50*time.Millisecond, "the S3 server", reachable(local(port))); err != nil {
		return fmt.Errorf("%w\n%s", err, e.StoreProc.logEnd())
	}
	for i := range e.Store {
		if e.Store[i], err = wire.NewStore(ctx, local(port)); err != nil {
			return err
		}
	}
	return nil
}

// ArchiveURL is the archive's, past all links; a user of it needs AccessKey and SecretKey.
func (e *Estate) ArchiveURL() string { return archiveURL(local(e.storePort)) }

func archiveURL(address string) string {
	return "s3://" + Bucket + "?region=us-east-1&path_style=true&endpoint=http://" + address
}
