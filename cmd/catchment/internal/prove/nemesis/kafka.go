package nemesis

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/estate"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/wire"
)

const (
	brokerStop  = 30 * time.Second
	leaderBound = 20 * time.Second // from a leader's kill until each of its partitions takes records again
)

// kafkaKinds are what happens to brokers.
func kafkaKinds() []Kind {
	brokers := targets("broker", estate.Brokers)
	needs := []string{kafka}
	return []Kind{
		{Name: "broker-kill", What: "a broker is killed, and started again", Needs: needs, Targets: brokers, Min: 1 * second, Max: 6 * second, begin: brokerEnds(syscall.SIGKILL)},
		{Name: "broker-stop", What: "a broker is stopped in order, and started again", Needs: needs, Targets: brokers, Min: 1 * second, Max: 4 * second, begin: brokerEnds(syscall.SIGTERM)},
		{Name: "broker-pause", What: "a broker stands still, is missed, and goes on", Needs: needs, Targets: brokers, Min: 2 * second, Max: 10 * second, begin: brokerPause},
		{Name: "leader-kill", Vital: true, What: "the leader of a partition is killed", Needs: needs, Targets: targets("partition", 9), Min: 1 * second, Max: 2 * second, begin: leaderKill},
		{Name: "two-brokers-down", Vital: true, What: "two of three brokers are killed: no quorum, nothing may be acknowledged", Needs: needs, Targets: []string{"all-but-1", "all-but-2", "all-but-3"}, Min: 4 * second, Max: 8 * second, NoAck: true, begin: twoDown},
		{Name: "all-brokers-down", What: "all brokers are killed at once", Needs: needs, Min: 2 * second, Max: 5 * second, NoAck: true, begin: allDown},
		{Name: "brokers-rolling-restart", What: "one broker after the other is stopped and started", Needs: needs, Min: 1 * second, Max: 1 * second, begin: rolling},
		{Name: "broker-isolated", What: "a broker and the others do not reach each other", Needs: needs, Targets: brokers, Min: 4 * second, Max: 9 * second, begin: isolate(true, true)},
		{Name: "broker-isolated-inbound", What: "the others do not reach a broker, but it reaches them", Needs: needs, Targets: brokers, Min: 4 * second, Max: 9 * second, begin: isolate(true, false)},
		{Name: "broker-isolated-outbound", What: "a broker does not reach the others, but they reach it", Needs: needs, Targets: brokers, Min: 4 * second, Max: 9 * second, begin: isolate(false, true)},
		{Name: "replication-cut", Vital: true, What: "a broker leads on, but no follower gets its records: not enough replicas", Needs: needs, Targets: brokers, Min: 9 * second, Max: 12 * second, begin: replicationCut},
		{Name: "replication-slow", What: "what brokers send one another is late and slow", Needs: needs, Min: 3 * second, Max: 7 * second, begin: replicationSlow},
		{Name: "quorum-links-cut", What: "the controllers' connections are reset, again and again", Needs: needs, Min: 2 * second, Max: 4 * second, begin: quorumCut},
		{Name: "broker-disk-full", What: "a broker cannot write to its disk, and is started again", Needs: needs, Targets: brokers, Min: 3 * second, Max: 6 * second, begin: brokerDiskFull},
		{Name: "leaders-moved", What: "the preferred replicas take the lead", Needs: needs, Min: 1 * second, Max: 1 * second, begin: leadersMoved},
		{Name: "partitions-added", What: "the topic gets twice as many partitions", Needs: needs, Min: 1 * second, Max: 1 * second, Once: true, begin: partitionsAdded},
	}
}

// brokerAgain starts a broker and waits until it takes records.
func brokerAgain(b *estate.Broker) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := b.Start(); err != nil {
			return err
		}
		return b.WaitUp(ctx)
	}
}

func brokerEnds(way syscall.Signal) func(context.Context, *work) (func(context.Context) error, error) {
	return func(ctx context.Context, w *work) (func(context.Context) error, error) {
		b := w.Broker[w.number()]
		return brokerAgain(b), b.End(ctx, way, brokerStop)
	}
}

func brokerPause(_ context.Context, w *work) (func(context.Context) error, error) {
	b := w.Broker[w.number()]
	return func(context.Context) error { return b.Signal(syscall.SIGCONT) }, b.Signal(syscall.SIGSTOP)
}

// leaderKill kills the leader of a partition, and waits until each partition that it led has acknowledged something since.
func leaderKill(ctx context.Context, w *work) (func(context.Context) error, error) {
	if err := inSync(ctx, w); err != nil {
		return nil, err
	}
	partitions, err := w.Partitions(ctx, estate.Topic)
	if err != nil {
		return nil, err
	}
	id := partitions[w.number()%len(partitions)].Leader
	if id < 1 || id > estate.Brokers {
		return nil, fmt.Errorf("%s has no leader", w.Target)
	}
	b := w.Broker[id-1]
	b.Kill()
	killed := time.Now()
	w.hold = func(ctx context.Context) error {
		ends := map[int]int64{} // as its new leader said first
		err := estate.Await(ctx, leaderBound+10*time.Second, 100*time.Millisecond, "partitions of broker "+b.Name, func(ctx context.Context) error {
			now, err := w.Partitions(ctx, estate.Topic)
			if err != nil {
				return err
			}
			for n, p := range partitions {
				if p.Leader != id {
					continue
				}
				if now[n].Leader == id || now[n].End < 0 {
					return fmt.Errorf("partition %d has no new leader", n)
				}
				if first, seen := ends[n]; !seen {
					ends[n] = now[n].End
				} else if now[n].End > first {
					ends[n] = -1 // it is above this for ever
				}
			}
			for n, end := range ends {
				if end >= 0 {
					return fmt.Errorf("partition %d has taken nothing", n)
				}
			}
			return nil
		})
		if err != nil && !w.alone {
			return estate.Pause(ctx, w.Length) // something else is broken too
		}
		w.timing("leader killed, until each of its partitions acknowledged a record", killed, leaderBound)
		return err
	}
	return brokerAgain(b), nil
}

// inSync waits until each partition has all of its replicas, where nothing else is broken: one whose leader is the only replica
// in sync, as after all brokers were down, rightly has no leader without it.
func inSync(ctx context.Context, w *work) error {
	if !w.alone {
		return nil
	}
	return estate.Await(ctx, 45*time.Second, 100*time.Millisecond, "replicas in sync", func(ctx context.Context) error {
		now, err := w.Partitions(ctx, estate.Topic)
		if err != nil {
			return err
		}
		for n, p := range now {
			if p.ISR < estate.Brokers {
				return fmt.Errorf("partition %d has %d", n, p.ISR)
			}
		}
		return nil
	})
}

func twoDown(ctx context.Context, w *work) (func(context.Context) error, error) {
	var down []*estate.Broker
	for i, b := range w.Broker {
		if i != w.number() {
			down = append(down, b)
		}
	}
	return killTogether(ctx, down)
}

func allDown(ctx context.Context, w *work) (func(context.Context) error, error) {
	return killTogether(ctx, w.Broker[:])
}

func killTogether(_ context.Context, down []*estate.Broker) (func(context.Context) error, error) {
	var errs error
	for _, b := range down {
		errs = errors.Join(errs, b.Signal(syscall.SIGKILL))
	}
	for _, b := range down {
		b.Kill()
	}
	return func(ctx context.Context) error {
		var errs error
		for _, b := range down {
			errs = errors.Join(errs, b.Start())
		}
		for _, b := range down {
			errs = errors.Join(errs, b.WaitUp(ctx))
		}
		return errs
	}, errs
}

func rolling(_ context.Context, w *work) (func(context.Context) error, error) {
	w.hold = func(ctx context.Context) error {
		for _, b := range w.Broker {
			if err := b.End(ctx, syscall.SIGTERM, brokerStop); err != nil {
				return err
			}
			if err := brokerAgain(b)(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	return nil, nil
}

// set gives links a mode, and returns what ends that.
func set(m wire.Mode, links ...*wire.Link) func(context.Context) error {
	for _, k := range links {
		k.Set(m)
	}
	return func(context.Context) error {
		for _, k := range links {
			k.Set(wire.Mode{})
		}
		return nil
	}
}

var hole = wire.Mode{HoldUp: true, HoldDown: true}

// between are the links by which a broker is reached by the others (in), and reaches them (out).
func between(w *work, id int, in, out bool) []*wire.Link {
	var links []*wire.Link
	for other := 1; other <= estate.Brokers; other++ {
		if other == id {
			continue
		}
		if in {
			data, quorum := estate.BetweenBrokers(other, id)
			links = append(links, w.Link(data), w.Link(quorum))
		}
		if out {
			data, quorum := estate.BetweenBrokers(id, other)
			links = append(links, w.Link(data), w.Link(quorum))
		}
	}
	return links
}

func isolate(in, out bool) func(context.Context, *work) (func(context.Context) error, error) {
	return func(_ context.Context, w *work) (func(context.Context) error, error) {
		return set(hole, between(w, w.number()+1, in, out)...), nil
	}
}

func replicationCut(_ context.Context, w *work) (func(context.Context) error, error) {
	var links []*wire.Link
	for other := 1; other <= estate.Brokers; other++ {
		if other != w.number()+1 {
			data, _ := estate.BetweenBrokers(other, w.number()+1)
			links = append(links, w.Link(data))
		}
	}
	return set(hole, links...), nil
}

func replicationSlow(_ context.Context, w *work) (func(context.Context) error, error) {
	var links []*wire.Link
	for id := 1; id <= estate.Brokers; id++ {
		links = append(links, between(w, id, false, true)...)
	}
	return set(wire.Mode{Latency: 150 * time.Millisecond, Rate: 2 << 20}, links...), nil
}

func quorumCut(_ context.Context, w *work) (func(context.Context) error, error) {
	var links []*wire.Link
	for from := 1; from <= estate.Brokers; from++ {
		for to := 1; to <= estate.Brokers; to++ {
			if from != to {
				_, quorum := estate.BetweenBrokers(from, to)
				links = append(links, w.Link(quorum))
			}
		}
	}
	w.hold = cutting(w, links...)
	return nil, nil
}

// cutting resets the connections of links every 300 ms, as long as the fault lasts.
func cutting(w *work, links ...*wire.Link) func(context.Context) error {
	return func(ctx context.Context) error {
		for until := time.Now().Add(w.Length); time.Now().Before(until); {
			for _, k := range links {
				k.Cut()
			}
			if err := estate.Pause(ctx, 300*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}
}

func brokerDiskFull(ctx context.Context, w *work) (func(context.Context) error, error) {
	b := w.Broker[w.number()]
	return func(ctx context.Context) error {
		b.Kill() // it may have ended by itself
		return brokerAgain(b)(ctx)
	}, b.FillDisk(ctx)
}

func leadersMoved(ctx context.Context, w *work) (func(context.Context) error, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := w.Admin().ElectLeaders(ctx, kadm.ElectPreferredReplica, nil)
	return nil, err
}

func partitionsAdded(ctx context.Context, w *work) (func(context.Context) error, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	partitions, err := w.Partitions(ctx, estate.Topic)
	if err != nil {
		return nil, err
	}
	more, err := w.Admin().UpdatePartitions(ctx, 2*len(partitions), estate.Topic)
	if err != nil {
		return nil, err
	}
	return nil, more.Error()
}
