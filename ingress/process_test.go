package ingress

import (
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
)

// process is the ingress as the program that is shipped, on a fixed port, so that it can be killed and started again.
type process struct {
	t           testing.TB
	program     string
	config      string
	log         string
	listen, ops string
	cmd         *exec.Cmd
	exited      chan struct{}
}

// built is the folder of the program; "" before a test has asked for it.
var built string

func TestMain(m *testing.M) {
	flag.Parse()
	// Those that are parallel mostly wait: for brokers that start and elect, or for the one cluster that may be broken.
	if err := flag.Set("test.parallel", "10"); err != nil {
		panic(err)
	}
	m.Run()
	if built != "" {
		_ = os.RemoveAll(built)
	}
}

// build makes the program, once for all tests.
func build(t testing.TB) string {
	t.Helper()
	program, err := buildOnce()
	require.NoError(t, err)
	return program
}

var buildOnce = sync.OnceValues(func() (string, error) {
	var err error
	if built, err = os.MkdirTemp("", "catchment-ingress-"); err != nil {
		return "", err
	}
	program := filepath.Join(built, "ingress")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/ingress").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the ingress: %w: %s", err, out)
	}
	return program, nil
})

// newProcess writes a configuration; more is YAML of the section ingress.
func newProcess(t testing.TB, program string, cluster *kafkatest.Cluster, topic, ackTimeout, more string) *process {
	t.Helper()
	dir := t.TempDir()
	p := &process{t: t, program: program, config: filepath.Join(dir, "catchment.yaml"), log: filepath.Join(dir, "log"), listen: freeAddress(t), ops: freeAddress(t)}
	text := fmt.Sprintf("kafka: {brokers: [%s], topic: %s, create_topic: false}\ningress: {listen: %q, ops_listen: %q%s}\n",
		`"`+strings.Join(cluster.Brokers, `", "`)+`"`, topic, p.listen, p.ops, patient(more)) + fmt.Sprintf(testSources, ackTimeout)
	require.NoError(t, os.WriteFile(p.config, []byte(text), 0o600))
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			t.Logf("end of the ingress' log:\n%s", text[max(0, len(text)-4000):])
		}
	})
	return p
}

// patient lets a connection wait for its first request. Go's client makes some that it has no use for at once, and may
// use one just when the server has given up on it.
func patient(ingress string) string {
	if strings.Contains(ingress, "read_header_timeout") {
		return ingress
	}
	return ingress + ", read_header_timeout: 60s"
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().String()
}

func (p *process) url() string { return "http://" + p.listen }

// start starts the program and waits until it is ready.
func (p *process) start() {
	p.t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(p.t, err)
	defer func() { require.NoError(p.t, log.Close()) }()
	p.cmd = exec.Command(p.program, "--config", p.config)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	require.NoError(p.t, p.cmd.Start())
	cmd, exited := p.cmd, make(chan struct{})
	p.exited = exited
	go func() { _ = cmd.Wait(); close(exited) }()
	require.Eventually(p.t, p.ready, 30*time.Second, 10*time.Millisecond, "the ingress is not ready")
}

func (p *process) ready() bool {
	resp, err := http.Get("http://" + p.ops + "/readyz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

func (p *process) kill() {
	p.t.Helper()
	_ = p.cmd.Process.Kill()
	<-p.exited
	p.cmd = nil
}

// stop asks the program to end and waits until it has, with exit code 0.
func (p *process) stop() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		require.Fail(p.t, "the ingress does not end")
	}
	require.Equal(p.t, 0, p.cmd.ProcessState.ExitCode())
	p.cmd = nil
}

// metric adds up the samples of a metric of the program; 0 when it cannot be asked.
func (p *process) metric(name string) float64 {
	resp, err := http.Get("http://" + p.ops + "/metrics")
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	require.NoError(p.t, err)
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series == name || strings.HasPrefix(series, name+"{") {
			n, err := strconv.ParseFloat(value, 64)
			require.NoError(p.t, err)
			sum += n
		}
	}
	return sum
}

// rss is the program's memory in bytes.
func (p *process) rss() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	_, rest, found := strings.Cut(string(status), "VmRSS:")
	require.True(p.t, found)
	kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	require.NoError(p.t, err)
	return kib << 10
}

// sender is one connection to the ingress on which a test writes and reads as much as it wants to.
type sender struct {
	t    testing.TB
	conn net.Conn
	text []byte // the request
}

func (p *process) connect(seq int) *sender {
	p.t.Helper()
	req, err := stripeRequest(p.url(), sampleOf("stripe", seq))
	require.NoError(p.t, err)
	var text strings.Builder
	require.NoError(p.t, req.Write(&text))
	conn, err := net.Dial("tcp", p.listen)
	require.NoError(p.t, err)
	s := &sender{t: p.t, conn: conn, text: []byte(text.String())}
	p.t.Cleanup(sync.OnceFunc(func() { _ = conn.Close() }))
	return s
}

// write sends the request but for its last bytes.
func (s *sender) write(without int) {
	s.t.Helper()
	_, err := s.conn.Write(s.text[:len(s.text)-without])
	require.NoError(s.t, err)
}

// read returns the first n bytes of the answer, or fewer when the connection ends.
func (s *sender) read(n int) string {
	buf := make([]byte, n)
	_ = s.conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	n, _ = io.ReadFull(s.conn, buf)
	return string(buf[:n])
}
