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

func newFake(t testing.TB, more ...kfake.Opt) *Cluster {
	t.Helper()
	parts.Report("kafka", "kfake")
	w := newWire()
	fake, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(brokers), kfake.ListenFn(w.listen), kfake.BrokerConfigs(map[string]string{"message.max.bytes": "26214400"}),
	}, more...)...)
	if err != nil {
		t.Fatalf("kafkatest: %v", err)
	}
	t.Cleanup(fake.Close)
	t.Cleanup(w.heal)
	list := fake.ListenAddrs()
	power := &fakePower{fake: fake, brokers: list, wire: w, down: map[int]bool{}, paused: map[int]string{}, member: map[int]bool{}}
	return &Cluster{Brokers: list, t: t, fake: fake, wire: w, power: power}
}

// fakePower imitates what a quorum does when brokers are gone: kfake itself has none.
type fakePower struct {
	fake    *kfake.Cluster
	brokers []string
	wire    *wire

	mu      sync.Mutex
	down    map[int]bool
	paused  map[int]string // by broker: the address that it had
	refusal *kfake.FaultHandle
	member  map[int]bool // is down and yet a member of kfake's cluster, which must have one
}

func (p *fakePower) stop(i int) error { return p.kill(i) }

func (p *fakePower) kill(i int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.leave(i)
}

// leave takes a broker out of the cluster. The last one stays a member that cannot be reached.
func (p *fakePower) leave(i int) error {
	if p.down[i] {
		return fmt.Errorf("is not running")
	}
	p.down[i] = true
	if len(p.brokers)-len(p.down) < minInsync && p.refusal == nil {
		p.refusal = p.fake.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: -1})
	}
	if len(p.down) == len(p.brokers) {
		p.member[i] = true
		p.wire.set(p.brokers[i], Refused)
		return nil
	}
	return p.fake.RemoveNode(int32(i))
}

func (p *fakePower) start(i int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.down[i] {
		return nil
	}
	return p.join(i)
}

func (p *fakePower) join(i int) error {
	if !p.member[i] {
		// On another port: kfake leaves connections to a removed broker open, where they answer "not leader" for ever.
		_, port, err := p.fake.AddNode(int32(i), 0)
		if err != nil {
			return err
		}
		p.brokers[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	delete(p.member, i)
	p.wire.set(p.brokers[i], Open)
	delete(p.down, i)
	if p.refusal != nil && len(p.brokers)-len(p.down) >= minInsync {
		p.refusal.Remove()
		p.refusal = nil
	}
	return nil
}

// pause leaves the connections standing, and nobody answers on them: the others take the partitions over.
func (p *fakePower) pause(i int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wire.set(p.brokers[i], BlackHole)
	p.paused[i] = p.brokers[i]
	return p.leave(i)
}

// resume lets the broker answer what it had been asked, which it does as one that leads nothing any more.
func (p *fakePower) resume(i int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	address, ok := p.paused[i]
	if !ok {
		return nil
	}
	delete(p.paused, i)
	p.wire.set(address, Open)
	return p.join(i)
}

// fill shows of a full disk what others see of it: the broker ends.
func (p *fakePower) fill(i int) error { return p.kill(i) }
