package estate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const adminTimeout = 5 * time.Second

// admin asks the brokers past all links.
type admin struct {
	client *kgo.Client
	*kadm.Client
}

func newAdmin(brokers []string) (*admin, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ClientID("prove"), kgo.MetadataMinAge(100*time.Millisecond),
		kgo.DialTimeout(time.Second), kgo.RequestTimeoutOverhead(2*time.Second), kgo.RetryTimeout(adminTimeout))
	if err != nil {
		return nil, err
	}
	return &admin{client: cl, Client: kadm.NewClient(cl)}, nil
}

func (a *admin) close() { a.client.Close() }

// Admin asks Kafka about topics and groups.
func (e *Estate) Admin() *kadm.Client { return e.admin.Client }

// Partition is what is known of one partition of the topic of deliveries.
type Partition struct {
	Leader int
	Epoch  int32
	ISR    int
	End    int64 // what a consumer may read, and so what acks=all has acknowledged; -1: it does not answer
}

// Partitions says what is known of each partition of a topic now, by its number.
func (e *Estate) Partitions(ctx context.Context, topic string) ([]Partition, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	meta, err := e.admin.Metadata(ctx, topic)
	if err != nil {
		return nil, err
	}
	t, ok := meta.Topics[topic]
	if !ok || t.Err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, errors.Join(t.Err, errors.New("not there")))
	}
	all := make([]Partition, len(t.Partitions))
	for _, p := range t.Partitions.Sorted() {
		if int(p.Partition) < len(all) {
			all[p.Partition] = Partition{Leader: int(p.Leader), Epoch: p.LeaderEpoch, ISR: len(p.ISR), End: -1}
		}
	}
	ends, _ := e.admin.ListEndOffsets(ctx, topic) // what it does not know, its partition says
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err == nil && int(o.Partition) < len(all) {
			all[o.Partition].End = o.Offset
		}
	})
	return all, nil
}

// Observer asks how far everything is.
func (e *Estate) Observer() *Observer {
	return &Observer{Kafka: e.admin.Client, DatabaseURL: e.Postgres.DirectURL(), Topic: Topic}
}

// Holders says which member of a group holds each partition of a topic: the client's address; empty: nobody.
func (e *Estate) Holders(ctx context.Context, group string) (map[int32]string, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	described, err := e.admin.DescribeGroups(ctx, group)
	if err != nil {
		return nil, false, err
	}
	g := described[group]
	if g.Err != nil {
		return nil, false, g.Err
	}
	held := map[int32]string{}
	for _, m := range g.Members {
		assigned, ok := m.Assigned.AsConsumer()
		if !ok {
			continue
		}
		for _, t := range assigned.Topics {
			if t.Topic != Topic {
				continue
			}
			for _, p := range t.Partitions {
				held[p] = m.MemberID
			}
		}
	}
	return held, g.State == "Stable", nil
}

// Leads says which partitions of the deliveries a broker leads.
func (e *Estate) Leads(ctx context.Context, broker int) ([]int32, error) {
	all, err := e.Partitions(ctx, Topic)
	if err != nil {
		return nil, err
	}
	var led []int32
	for n, p := range all {
		if p.Leader == broker {
			led = append(led, int32(n))
		}
	}
	slices.Sort(led)
	return led, nil
}
