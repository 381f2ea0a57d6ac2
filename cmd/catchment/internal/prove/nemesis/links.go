package nemesis

import (
	"context"
	"fmt"
	"time"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/estate"
	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/wire"
)

// linkKinds are what happens between a service and what it speaks with.
func linkKinds() []Kind {
	one := []string{
		"ingress-1→broker-1", "ingress-1→broker-2", "ingress-1→broker-3", "ingress-2→broker-1", "ingress-2→broker-2", "ingress-2→broker-3",
	}
	all := []Kind{
		{Name: "ingress-loses-a-broker", What: "an ingress and one broker do not reach each other", Needs: []string{ingress}, Targets: one, Min: 3 * second, Max: 7 * second, begin: linkMode(hole)},
		{Name: "ingress-loses-answers-of-a-broker", What: "a broker gets an ingress's records, and its answers do not come back", Needs: []string{ingress}, Targets: one, Min: 3 * second, Max: 7 * second, begin: linkMode(wire.Mode{HoldDown: true})},
		{Name: "ingress-slow-broker", What: "a broker is slow for an ingress", Needs: []string{ingress}, Targets: one, Min: 3 * second, Max: 6 * second, begin: linkMode(wire.Mode{Latency: 400 * time.Millisecond})},
		{Name: "postgres-slow", What: "Postgres is slow for a processor", Needs: []string{postgres}, Targets: []string{"processor-1→postgres", "processor-2→postgres"}, Min: 3 * second, Max: 6 * second, begin: linkMode(wire.Mode{Latency: 60 * time.Millisecond})},
		{Name: "postgres-answers-lost", What: "a processor's statements arrive, and the answers do not come back", Needs: []string{postgres, processor}, Targets: []string{"processor-1→postgres", "processor-2→postgres"}, Min: 3 * second, Max: 8 * second, begin: linkMode(wire.Mode{HoldDown: true})},
		{Name: "store-slow-link", What: "the store is slow for an archiver", Needs: []string{store}, Targets: []string{"archiver-1→store", "archiver-2→store"}, Min: 3 * second, Max: 6 * second, begin: linkMode(wire.Mode{Latency: 200 * time.Millisecond, Rate: 200 << 10})},
		{Name: "store-black-hole", What: "an archiver does not reach the store", Needs: []string{store, archiver}, Targets: []string{"archiver-1→store", "archiver-2→store"}, Min: 3 * second, Max: 8 * second, begin: linkMode(hole)},
		{Name: "processor-loses-postgres", What: "a processor reaches Kafka and not Postgres", Needs: []string{postgres, processor}, Targets: []string{"processor-1→postgres", "processor-2→postgres"}, Min: 3 * second, Max: 9 * second, begin: linkMode(hole)},
		{Name: "postgres-refuses", What: "Postgres takes no new connections of a processor, and those that stand are cut", Needs: []string{postgres, processor}, Targets: []string{"processor-1→postgres", "processor-2→postgres"}, Min: 2 * second, Max: 5 * second, begin: refuse},
	}
	for _, of := range []string{ingress, processor, archiver} {
		all = append(all,
			Kind{Name: of + "-loses-kafka", What: "no broker and this " + of + " reach each other", Needs: []string{of}, Targets: targets(of, estate.Instances), Min: 3 * second, Max: 10 * second, begin: allBrokers(hole)},
			Kind{Name: of + "-kafka-cut", What: "the connections of this " + of + " to all brokers are reset, again and again", Needs: []string{of}, Targets: targets(of, estate.Instances), Min: 1 * second, Max: 3 * second, begin: kafkaCut},
		)
	}
	return append(all,
		Kind{Name: "processor-kafka-one-way", What: "brokers hear a processor, and it does not hear them", Needs: []string{processor}, Targets: targets(processor, estate.Instances), Min: 3 * second, Max: 9 * second, begin: allBrokers(wire.Mode{HoldDown: true})},
		Kind{Name: "archiver-kafka-slow", What: "all brokers are slow for an archiver", Needs: []string{archiver}, Targets: targets(archiver, estate.Instances), Min: 3 * second, Max: 6 * second, begin: allBrokers(wire.Mode{Latency: 300 * time.Millisecond})},
	)
}

func linkMode(m wire.Mode) func(context.Context, *work) (func(context.Context) error, error) {
	return func(_ context.Context, w *work) (func(context.Context) error, error) {
		return set(m, w.Link(w.Target)), nil
	}
}

func refuse(_ context.Context, w *work) (func(context.Context) error, error) {
	k := w.Link(w.Target)
	end := set(wire.Mode{Refuse: true}, k)
	k.Cut()
	return end, nil
}

func toBrokers(w *work) []*wire.Link {
	var links []*wire.Link
	for id := 1; id <= estate.Brokers; id++ {
		links = append(links, w.Link(fmt.Sprintf("%s→broker-%d", w.Target, id)))
	}
	return links
}

func allBrokers(m wire.Mode) func(context.Context, *work) (func(context.Context) error, error) {
	return func(_ context.Context, w *work) (func(context.Context) error, error) {
		return set(m, toBrokers(w)...), nil
	}
}

func kafkaCut(_ context.Context, w *work) (func(context.Context) error, error) {
	w.hold = cutting(w, toBrokers(w)...)
	return nil, nil
}
