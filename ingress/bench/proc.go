package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/catchment-dev/catchment/pkg/benchkit"
)

// cluster is three brokers, run by scripts/kafka-cluster.sh.
type cluster struct {
	script, dir string
	brokers     string
	pids        []int
}

func startCluster(ctx context.Context, root, dir string) (*cluster, error) {
	c := &cluster{script: filepath.Join(root, "scripts", "kafka-cluster.sh"), dir: dir}
	if err := c.run(ctx, "start"); err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(ctx, "bash", c.script, "brokers", dir).Output()
	if err != nil {
		return nil, fmt.Errorf("brokers: %w", err)
	}
	c.brokers = strings.TrimSpace(string(list))
	files, err := filepath.Glob(filepath.Join(dir, "b*", "pid"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("brokers' pid files: %w", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return nil, err
		}
		c.pids = append(c.pids, pid)
	}
	return c, nil
}

func (c *cluster) run(ctx context.Context, command string) error {
	log, err := os.Create(filepath.Join(filepath.Dir(c.dir), "cluster.log")) // a file: brokers may inherit it
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, "bash", c.script, command, c.dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("kafka-cluster.sh %s: %w\n%s", command, err, said)
	}
	return nil
}

func (c *cluster) cpu() (sum time.Duration, err error) {
	for _, pid := range c.pids {
		d, err := benchkit.CPU(pid)
		if err != nil {
			return 0, err
		}
		sum += d
	}
	return sum, nil
}

// server is one contestant's process.
type server struct {
	cmd *exec.Cmd
	log *os.File
}

// startServer starts a program and waits until it takes connections and answers one request.
func startServer(ctx context.Context, dir, name, address string, env []string, program string, args ...string) (*server, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = append(os.Environ(), env...), log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &server{cmd: cmd, log: log}
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return s, conn.Close()
		}
		<-time.After(50 * time.Millisecond)
	}
	s.stop()
	return nil, fmt.Errorf("%s does not listen on %s: see %s", name, address, log.Name())
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		_ = s.cmd.Process.Kill()
		<-ended
	}
	_ = s.log.Close()
}
