package kafkatest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

// newScripted runs the breakable cluster of scripts/kafka-cluster.sh in dir: one for all test processes, which take
// turns by a lock. It is left running for the next test; who owns dir ends it.
func newScripted(t testing.TB, dir string) *Cluster {
	t.Helper()
	root, err := parts.Root()
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	unlock, err := parts.Lock(filepath.Join(dir, "breakable.lock"))
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	t.Cleanup(unlock)
	script := &scripted{program: filepath.Join(root, "scripts", "kafka-cluster.sh"), dir: filepath.Join(dir, "breakable")}
	if _, err := script.run("start"); err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	list, err := script.run("brokers")
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	parts.Report("kafka", "breakable")
	return &Cluster{Brokers: strings.Split(list, ","), Real: true, t: t, power: script}
}

// scripted is the power switch of a cluster that the script runs; it counts brokers from 1.
type scripted struct {
	program, dir string
	env          []string // more of the script's settings
}

func (s *scripted) stop(i int) error { return s.switched("stopone", i) }

func (s *scripted) kill(i int) error { return s.switched("kill", i) }

func (s *scripted) start(i int) error { return s.switched("restart", i) }

func (s *scripted) pause(i int) error { return s.switched("pause", i) }

func (s *scripted) resume(i int) error { return s.switched("resume", i) }

func (s *scripted) fill(i int) error { return s.switched("fill", i) }

func (s *scripted) switched(command string, i int) error {
	_, err := s.run(command, strconv.Itoa(i+1))
	return err
}

func (s *scripted) run(command string, more ...string) (string, error) {
	cmd := exec.Command("bash", append([]string{s.program, command, s.dir}, more...)...)
	cmd.Env = append(append(os.Environ(), "QUICK=1"), s.env...) // counts when the cluster is made, and is kept
	log, err := os.CreateTemp("", "kafka-cluster-")             // a file: brokers may inherit it, and a pipe would never end
	if err != nil {
		return "", err
	}
	defer func() { _ = log.Close(); _ = os.Remove(log.Name()) }()
	cmd.Stdout, cmd.Stderr = log, log
	runErr := cmd.Run()
	said, err := os.ReadFile(log.Name())
	if runErr != nil {
		return "", fmt.Errorf("kafka-cluster.sh %s: %w\n%s", command, runErr, said)
	}
	return strings.TrimSpace(string(said)), err
}

// newContained starts three containers for this test.
func newContained(t testing.TB) *Cluster {
	t.Helper()
	set, err := parts.StartContainers("kafka")
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	t.Cleanup(set.Close)
	parts.Report("kafka", "breakable containers apache/kafka")
	return &Cluster{Brokers: strings.Split(set.Address, ","), Real: true, t: t, power: contained{set}}
}

// contained is the power switch of containers.
type contained struct{ set *parts.ContainerSet }

func (c contained) stop(i int) error { return c.set.Do("stop", i) }

func (c contained) kill(i int) error { return c.set.Do("kill", i) }

func (c contained) start(i int) error { return c.set.Do("start", i) }

func (c contained) pause(i int) error { return c.set.Do("pause", i) }

func (c contained) resume(i int) error { return c.set.Do("resume", i) }

// fill kills: a container's disk cannot be made full from here, and a broker with a full one ends.
func (c contained) fill(i int) error { return c.kill(i) }
