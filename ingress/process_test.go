package ingress

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/proctest"
)

// waiting is how many tests may run beside each other that say so. They mostly wait: for brokers that start and elect,
// or for the one cluster that may be broken.
const waiting = 10

func TestMain(m *testing.M) { proctest.Main(m, waiting) }

// process is the ingress as the program that is shipped, on a fixed port, so that it can be killed and started again.
type process struct {
	*proctest.Process
	t      testing.TB
	listen string
}

// build makes the program.
func build(t testing.TB) string {
	t.Helper()
	return proctest.Build(t, "./cmd/ingress")
}

// newProcess writes a configuration; more is YAML of the section ingress.
func newProcess(t testing.TB, program string, cluster *kafkatest.Cluster, topic, ackTimeout, more string) *process {
	t.Helper()
	listen, ops := proctest.FreeAddress(t), proctest.FreeAddress(t)
	text := fmt.Sprintf("kafka: {brokers: [%s], topic: %s, create_topic: false}\ningress: {listen: %q, ops_listen: %q%s}\n",
		`"`+strings.Join(cluster.Brokers, `", "`)+`"`, topic, listen, ops, patient(more)) + fmt.Sprintf(testSources, ackTimeout)
	return &process{proctest.New(t, program, ops, []byte(text)), t, listen}
}

// patient lets a connection wait for its first request. Go's client makes some that it has no use for at once, and may
// use one just when the server has given up on it.
func patient(ingress string) string {
	if strings.Contains(ingress, "read_header_timeout") {
		return ingress
	}
	return ingress + ", read_header_timeout: 60s"
}

func (p *process) url() string { return "http://" + p.listen }

// start starts the program and waits until it is ready.
func (p *process) start() {
	p.t.Helper()
	p.Start()
	p.WaitReady()
}

// rss is the program's memory in bytes.
func (p *process) rss() int64 {
	p.t.Helper()
	now, _ := p.Memory()
	return now
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
