package kafkatest

import (
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/catchment-dev/catchment/pkg/internal/parts"
)

const (
	brokers   = 3
	minInsync = 2
)

func newFake(t testing.TB) *Cluster {
	t.Helper()
	parts.Report("kafka", "kfake")
	fake, err := kfake.NewCluster(kfake.NumBrokers(brokers), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "26214400"}))
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	t.Cleanup(fake.Close)
	list := fake.ListenAddrs()
	return &Cluster{Brokers: list, t: t, fake: fake, power: &fakePower{fake: fake, brokers: list, down: map[int]bool{}}}
}

// fakePower imitates what a quorum does when brokers are gone: kfake itself has none.
type fakePower struct {
	fake    *kfake.Cluster
	brokers []string

	mu      sync.Mutex
	down    map[int]bool
	refusal *kfake.FaultHandle
}

func (p *fakePower) stop(i int) error { return p.kill(i) }

func (p *fakePower) kill(i int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down[i] {
		return fmt.Errorf("is not running")
	}
	p.down[i] = true
	if len(p.brokers)-len(p.down) < minInsync && p.refusal == nil {
		p.refusal = p.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	}
	return p.fake.RemoveNode(int32(i))
}

func (p *fakePower) start(i int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.down[i] {
		return nil
	}
	// On another port: kfake leaves connections to a removed broker open, where they answer "not leader" for ever.
	_, port, err := p.fake.AddNode(int32(i), 0)
	if err != nil {
		return err
	}
	p.brokers[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	delete(p.down, i)
	if p.refusal != nil && len(p.brokers)-len(p.down) >= minInsync {
		p.refusal.Remove()
		p.refusal = nil
	}
	return nil
}
