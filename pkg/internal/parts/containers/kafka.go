package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	mobycontainer "github.com/moby/moby/api/types/container"
	mobynetwork "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/network"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

const brokers = 3

// kafka is a cluster of three brokers that are controllers, too. A broker tells its clients the port under which the
// host reaches it, and that port must stay when the container is started again; so it is chosen here.
type kafka struct {
	host       string // where the engine publishes ports
	engine     *testcontainers.DockerProvider
	network    *testcontainers.DockerNetwork
	containers [brokers]*testcontainers.DockerContainer
	addresses  [brokers]string
}

func (k *kafka) start(ctx context.Context) (_ string, err error) {
	if k.network, err = network.New(ctx); err != nil {
		return "", err
	}
	if k.engine, err = testcontainers.NewDockerProvider(); err != nil {
		return "", err
	}
	if k.host, err = k.engine.DaemonHost(ctx); err != nil {
		return "", err
	}
	if k.host == "localhost" {
		k.host = "127.0.0.1"
	}
	var group sync.WaitGroup
	errs := make([]error, brokers)
	for i := range brokers {
		port, err := parts.FreePort()
		if err != nil {
			return "", err
		}
		k.addresses[i] = fmt.Sprintf("%s:%d", k.host, port)
		group.Go(func() { k.containers[i], errs[i] = k.broker(ctx, i, port) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	for i := range brokers {
		if err := k.serves(ctx, i); err != nil {
			return "", err
		}
	}
	return strings.Join(k.addresses[:], ","), nil
}

// command runs the image's own start script the first time. A container that is started again has its folder
// formatted already, which that script need not know: then only the server is run, on the configuration made before.
const command = `[ -f /tmp/kraft/meta.properties ] || exec /etc/kafka/docker/run
exec java $KAFKA_HEAP_OPTS -Dkafka.logs.dir=/tmp/logs -Dlog4j2.configurationFile=/opt/kafka/config/log4j2.yaml \
  -cp '/opt/kafka/libs/*' kafka.Kafka /opt/kafka/config/server.properties`

func name(i int) string { return fmt.Sprintf("kafka-%d", i+1) }

func (k *kafka) broker(ctx context.Context, i, port int) (*testcontainers.DockerContainer, error) {
	var voters []string
	for j := range brokers {
		voters = append(voters, fmt.Sprintf("%d@%s:9093", j+1, name(j)))
	}
	inside := mobynetwork.MustParsePort("9092/tcp")
	binding := mobynetwork.PortBinding{HostPort: fmt.Sprint(port)}
	if ip, err := netip.ParseAddr(k.host); err == nil && ip.IsLoopback() {
		binding.HostIP = ip
	}
	return testcontainers.Run(ctx, "apache/kafka:4.1.0",
		network.WithNetwork([]string{name(i)}, k.network),
		testcontainers.WithExposedPorts("9092/tcp"),
		testcontainers.WithEntrypoint("sh", "-c", command),
		testcontainers.WithHostConfigModifier(func(host *mobycontainer.HostConfig) {
			host.PortBindings = mobynetwork.PortMap{inside: {binding}}
		}),
		testcontainers.WithEnv(map[string]string{
			"CLUSTER_ID":                                     "Y2F0Y2htZW50LXRlc3RzMQ",
			"KAFKA_NODE_ID":                                  fmt.Sprint(i + 1),
			"KAFKA_PROCESS_ROLES":                            "broker,controller",
			"KAFKA_CONTROLLER_QUORUM_VOTERS":                 strings.Join(voters, ","),
			"KAFKA_CONTROLLER_LISTENER_NAMES":                "CONTROLLER",
			"KAFKA_LISTENERS":                                "PLAINTEXT://:9092,BROKER://:9094,CONTROLLER://:9093",
			"KAFKA_ADVERTISED_LISTENERS":                     fmt.Sprintf("PLAINTEXT://%s,BROKER://%s:9094", k.addresses[i], name(i)),
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP":           "PLAINTEXT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
			"KAFKA_INTER_BROKER_LISTENER_NAME":               "BROKER",
			"KAFKA_DEFAULT_REPLICATION_FACTOR":               "3",
			"KAFKA_MIN_INSYNC_REPLICAS":                      "2",
			"KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR":         "3",
			"KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS":             "8",
			"KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "3",
			"KAFKA_TRANSACTION_STATE_LOG_MIN_ISR":            "2",
			"KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS":         "0",
			"KAFKA_MESSAGE_MAX_BYTES":                        "26214400",
			"KAFKA_REPLICA_FETCH_MAX_BYTES":                  "26214400",
			"KAFKA_LOG_DIRS":                                 "/tmp/kraft",
			"KAFKA_HEAP_OPTS":                                "-Xms128M -Xmx384M",
		}))
}

// serves waits until broker i itself tells that it takes part in the cluster.
func (k *kafka) serves(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.addresses[i]), kgo.DialTimeout(2*time.Second))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		meta, err := kadm.NewClient(cl).BrokerMetadata(ctx)
		if err == nil && slices.Contains(meta.Brokers.NodeIDs(), int32(i+1)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("broker %s does not serve: %w: %s", name(i), errors.Join(ctx.Err(), err), k.lastLines(i))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// lastLines returns the end of broker i's log.
func (k *kafka) lastLines(i int) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	logs, err := k.containers[i].Logs(ctx)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = logs.Close() }()
	text, err := io.ReadAll(logs)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

func (k *kafka) do(ctx context.Context, what string, i int) error {
	if i < 0 || i >= brokers {
		return fmt.Errorf("no broker %d", i)
	}
	atOnce, politely := time.Duration(0), 30*time.Second
	switch what {
	case "kill":
		return k.containers[i].Stop(ctx, &atOnce)
	case "stop":
		return k.containers[i].Stop(ctx, &politely)
	case "start":
		if err := k.containers[i].Start(ctx); err != nil {
			return err
		}
		return k.serves(ctx, i)
	case "pause":
		_, err := k.engine.Client().ContainerPause(ctx, k.containers[i].GetContainerID(), client.ContainerPauseOptions{})
		return err
	case "resume":
		_, err := k.engine.Client().ContainerUnpause(ctx, k.containers[i].GetContainerID(), client.ContainerUnpauseOptions{})
		return err
	}
	return fmt.Errorf("this part knows no %q", what)
}

func (k *kafka) remove(ctx context.Context) error {
	var errs []error
	for _, c := range k.containers {
		if c != nil {
			errs = append(errs, c.Terminate(ctx, testcontainers.StopTimeout(0)))
		}
	}
	if k.network != nil {
		errs = append(errs, k.network.Remove(ctx))
	}
	return errors.Join(errs...)
}
