package audit

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// bounds are a partition's log: its first offset, and the one after its last.
type bounds struct{ start, end int64 }

// logs asks Kafka which of the topics there are, and for their bounds.
func logs(ctx context.Context, cl *kgo.Client, topics []string) (map[archive.Partition]bounds, error) {
	out := map[archive.Partition]bounds{}
	adm := kadm.NewClient(cl)
	for _, topic := range topics {
		id, err := kafka.TopicID(ctx, cl, topic)
		if errors.Is(err, kafka.ErrNoTopic) || errors.Is(err, kerr.UnknownTopicOrPartition) {
			continue
		}
		if err != nil {
			return nil, err
		}
		starts, ends, err := kafka.LogBounds(ctx, adm, topic)
		if err != nil {
			return nil, err
		}
		for number, end := range ends[topic] {
			start, ok := starts.Lookup(topic, number)
			if !ok {
				return nil, fmt.Errorf("offsets of topic %s, partition %d: no answer", topic, number)
			}
			if err := errors.Join(start.Err, end.Err); err != nil {
				return nil, fmt.Errorf("offsets of topic %s, partition %d: %w", topic, number, err)
			}
			out[archive.Partition{Topic: topic, TopicID: id, Number: number}] = bounds{start.Offset, end.Offset}
		}
	}
	return out, nil
}

const (
	fetchBytes   = 8 << 20
	fetchPatient = 30 * time.Second // how long nothing may come
)

// fetch yields the records of a partition's log from an offset on, before end.
func fetch(ctx context.Context, k settings.Kafka, p archive.Partition, from, end int64) iter.Seq2[*kgo.Record, error] {
	return func(yield func(*kgo.Record, error) bool) {
		opts, err := kafka.Options(k, "catchment-tool")
		if err != nil {
			yield(nil, err)
			return
		}
		cl, err := kgo.NewClient(append(opts, kgo.KeepControlRecords(), kgo.FetchMaxBytes(fetchBytes), kgo.FetchMaxPartitionBytes(fetchBytes),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{p.Topic: {p.Number: kgo.NewOffset().At(from)}}),
			kgo.ConsumeResetOffset(kgo.NoResetOffset()))...)
		if err != nil {
			yield(nil, fmt.Errorf("kafka: %w", err))
			return
		}
		defer cl.Close()
		for from < end {
			wait, cancel := context.WithTimeout(ctx, fetchPatient)
			fetches := cl.PollFetches(wait)
			cancel()
			for _, e := range fetches.Errors() {
				yield(nil, fmt.Errorf("read partition %d of topic %s from offset %d: %w", p.Number, p.Topic, from, e.Err))
				return
			}
			for _, r := range fetches.Records() {
				if r.Offset >= end || r.Offset < from {
					continue
				}
				from = r.Offset + 1
				if !yield(r, nil) {
					return
				}
			}
		}
	}
}
