package estate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	kill = syscall.SIGKILL
	cont = syscall.SIGCONT

	brokerPatience = 120 * time.Second // a broker's start on a busy machine, with logs to recover
	brokerStop     = 30 * time.Second
)

// Broker is one of the brokers, which is a controller as well.
type Broker struct {
	*Process
	ID int

	direct int // port of the listener that no link is before
	listen map[string]int
}

// clients are those that have a listener of their own at each broker, so that each pair has a link of its own.
func clients() []string {
	var all []string
	for _, s := range []string{"ingress", "processor", "archiver"} {
		for i := range Instances {
			all = append(all, s+"-"+strconv.Itoa(i+1))
		}
	}
	return all
}

// brokerName is how links name a broker.
func brokerName(id int) string { return "broker-" + strconv.Itoa(id) }

// listener is the name of the listener for a client or for a broker.
func listener(client string) string {
	return strings.ToUpper(strings.ReplaceAll(client, "-", "_"))
}

// startKafka formats and starts the brokers.
func (e *Estate) startKafka(ctx context.Context) error {
	controllers := [Brokers]int{}
	for i := range Brokers {
		port, err := e.freePort(ctx)
		if err != nil {
			return err
		}
		controllers[i] = port
	}
	for i := range Brokers {
		b, err := e.newBroker(ctx, i+1, controllers)
		if err != nil {
			return err
		}
		e.Broker[i] = b
	}
	errs := make(chan error, Brokers)
	for _, b := range e.Broker {
		go func() { errs <- e.format(ctx, b) }()
	}
	for range Brokers {
		if err := <-errs; err != nil {
			return err
		}
	}
	for _, b := range e.Broker {
		if err := b.Start(); err != nil {
			return err
		}
	}
	for _, b := range e.Broker {
		if err := b.WaitUp(ctx); err != nil {
			return err
		}
	}
	var err error
	e.admin, err = newAdmin(e.brokersDirect())
	return err
}

// newBroker makes the links to one broker and its configuration.
func (e *Estate) newBroker(ctx context.Context, id int, controllers [Brokers]int) (*Broker, error) {
	b := &Broker{ID: id, listen: map[string]int{}}
	var listeners, advertised, protocols []string
	add := func(name string, linked string) error {
		port, err := e.freePort(ctx)
		if err != nil {
			return err
		}
		b.listen[name] = port
		listeners = append(listeners, name+"://"+local(port))
		protocols = append(protocols, name+":PLAINTEXT")
		address := local(port)
		if linked != "" {
			k, err := e.link(ctx, linked+"→"+brokerName(id), address)
			if err != nil {
				return err
			}
			address = k.Address()
		}
		advertised = append(advertised, name+"://"+address)
		return nil
	}
	for _, c := range clients() {
		if err := add(listener(c), c); err != nil {
			return nil, err
		}
	}
	for from := 1; from <= Brokers; from++ {
		linked := brokerName(from)
		if from == id {
			linked = ""
		}
		if err := add(listener(brokerName(from)), linked); err != nil {
			return nil, err
		}
	}
	if err := add("TOOL", ""); err != nil {
		return nil, err
	}
	b.direct = b.listen["TOOL"]
	voters, err := e.voters(ctx, id, controllers)
	if err != nil {
		return nil, err
	}
	listeners = append(listeners, "CONTROLLER://"+local(controllers[id-1]))
	protocols = append(protocols, "CONTROLLER:PLAINTEXT")
	dir := e.data(brokerName(id))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	properties := fmt.Sprintf(brokerProperties, id, voters, strings.Join(listeners, ","), strings.Join(advertised, ","),
		strings.Join(protocols, ","), listener(brokerName(id)), filepath.Join(dir, "log"))
	if err := os.WriteFile(filepath.Join(dir, "server.properties"), []byte(properties), 0o600); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "log4j2.properties"), []byte(brokerLogging), 0o600); err != nil {
		return nil, err
	}
	b.Process = &Process{
		Name: brokerName(id), program: e.o.Programs.Java, starts: e.starts, log: e.logFile(brokerName(id)), deathsig: kill,
		args: append(e.java(dir), "kafka.Kafka", filepath.Join(dir, "server.properties")),
	}
	return b, nil
}

// voters are the controllers as one of them reaches them: each other one through a link.
func (e *Estate) voters(ctx context.Context, id int, controllers [Brokers]int) (string, error) {
	var voters []string
	for to := 1; to <= Brokers; to++ {
		address := local(controllers[to-1])
		if to != id {
			k, err := e.link(ctx, "controller-"+strconv.Itoa(id)+"→controller-"+strconv.Itoa(to), address)
			if err != nil {
				return "", err
			}
			address = k.Address()
		}
		voters = append(voters, strconv.Itoa(to)+"@"+address)
	}
	return strings.Join(voters, ","), nil
}

// java are the JVM's arguments; an archive of classes beside the jars makes a start cost a quarter.
func (e *Estate) java(dir string) []string {
	args := []string{
		"-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true",
		"-Dlog4j2.configurationFile=" + filepath.Join(dir, "log4j2.properties"),
	}
	if found, _ := filepath.Glob(filepath.Join(filepath.Dir(e.o.Programs.Kafka), "classes-*.jsa")); len(found) > 0 {
		args = append(args, "-XX:SharedArchiveFile="+found[0], "-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")
	}
	return append(args, "-cp", filepath.Join(e.o.Programs.Kafka, "*"))
}

func (e *Estate) format(ctx context.Context, b *Broker) error {
	dir := e.data(b.Name)
	args := append(e.java(dir), "kafka.tools.StorageTool", "format", "-t", e.clusterID, "-c", filepath.Join(dir, "server.properties"))
	out, err := exec.CommandContext(ctx, e.o.Programs.Java, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("format %s: %w: %s", b.Name, err, bytes.TrimSpace(out))
	}
	return nil
}

// WaitUp waits until the broker takes records.
func (b *Broker) WaitUp(ctx context.Context) error {
	err := Await(ctx, brokerPatience, 100*time.Millisecond, b.Name, func(ctx context.Context) error {
		if !b.Running() {
			return errEnded
		}
		// 'Kafka Server started' comes after the broker was unfenced.
		if b.SaidNow("Kafka Server started") == 0 {
			return errors.New("it has not said that it is started")
		}
		return reachable(local(b.direct))(ctx)
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.logEnd())
	}
	return nil
}

// FillDisk lets every further write of the broker to its disk fail, until it is started again.
func (b *Broker) FillDisk(ctx context.Context) error { return fillDisk(ctx, b.Pid(), 0, 0) }

func (e *Estate) brokersDirect() []string {
	var all []string
	for _, b := range e.Broker {
		all = append(all, local(b.direct))
	}
	return all
}

// BrokersDirect are the brokers' addresses past all links, for those who look on.
func (e *Estate) BrokersDirect() []string { return e.brokersDirect() }

// BetweenBrokers are the links by which one broker reaches another: data, and the controllers' quorum.
func BetweenBrokers(from, to int) (data, quorum string) {
	return brokerName(from) + "→" + brokerName(to), "controller-" + strconv.Itoa(from) + "→controller-" + strconv.Itoa(to)
}

// brokerProperties keep the times short, so that what a fault sets off is seen within a run: a silent broker is missed
// after 6 s, as is a replica that lags.
const brokerProperties = `process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
listeners=%s
advertised.listeners=%s
listener.security.protocol.map=%s
controller.listener.names=CONTROLLER
inter.broker.listener.name=%s
log.dirs=%s
default.replication.factor=3
min.insync.replicas=2
unclean.leader.election.enable=false
auto.create.topics.enable=false
socket.receive.buffer.bytes=-1
socket.send.buffer.bytes=-1
replica.socket.receive.buffer.bytes=1048576
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
replica.lag.time.max.ms=6000
offsets.topic.replication.factor=3
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
num.network.threads=1
num.io.threads=4
num.recovery.threads.per.data.dir=1
message.max.bytes=26214400
replica.fetch.max.bytes=26214400
log.segment.bytes=134217728
log.index.size.max.bytes=1048576
log.cleaner.dedupe.buffer.size=16777216
`

const brokerLogging = `status=error
appender.c.type=Console
appender.c.name=C
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d{ISO8601} %p %m (%c)%n
rootLogger.level=INFO
rootLogger.appenderRef.c.ref=C
`
