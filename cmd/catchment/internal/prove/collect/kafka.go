package collect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/cmd/catchment/internal/prove/folder"
)

// kafka dumps the deliveries' topic, and how the partitions of both topics stand.
func kafka(ctx context.Context, o Options) error {
	cl, err := o.connect()
	if err != nil {
		return err
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	parts, err := partitions(ctx, adm, o)
	if err != nil {
		return err
	}
	ends, err := folder.Create(o.Dir, folder.PartitionsFile)
	if err != nil {
		return err
	}
	for _, p := range parts {
		err = errors.Join(err, ends.Write(p))
	}
	if err := errors.Join(err, ends.Close()); err != nil {
		return err
	}
	return records(ctx, o, parts)
}

func (o *Options) connect(more ...kgo.Opt) (*kgo.Client, error) {
	opts := append([]kgo.Opt{kgo.SeedBrokers(o.Brokers...)}, o.Kafka...)
	return kgo.NewClient(append(opts, more...)...)
}

// partitions asks for the logs' bounds and for the processor's commits.
func partitions(ctx context.Context, adm *kadm.Client, o Options) ([]folder.Partition, error) {
	topics := []string{o.Topic}
	if o.ResultsTopic != "" {
		topics = append(topics, o.ResultsTopic)
	}
	details, err := adm.ListTopics(ctx, topics...)
	if err != nil {
		return nil, err
	}
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	committed := kadm.OffsetResponses{}
	if o.ProcessorGroup != "" {
		if committed, err = adm.FetchOffsets(ctx, o.ProcessorGroup); err != nil {
			return nil, err
		}
	}
	var all []folder.Partition
	for _, topic := range topics {
		d := details[topic]
		if d.Err != nil {
			return nil, fmt.Errorf("topic %s: %w", topic, d.Err)
		}
		for _, p := range d.Partitions.Sorted() {
			start, okStart := starts.Lookup(topic, p.Partition)
			end, okEnd := ends.Lookup(topic, p.Partition)
			if err := errors.Join(start.Err, end.Err); err != nil || !okStart || !okEnd {
				return nil, fmt.Errorf("bounds of topic %s, partition %d: %w", topic, p.Partition, errors.Join(err, errAnswer(okStart && okEnd)))
			}
			one := folder.Partition{Topic: topic, TopicID: hex.EncodeToString(d.ID[:]), Partition: p.Partition, Start: start.Offset, End: end.Offset, Committed: -1}
			if c, ok := committed.Lookup(topic, p.Partition); ok && c.Err == nil {
				one.Committed = c.At
			}
			all = append(all, one)
		}
	}
	return all, nil
}

var errNoAnswer = errors.New("no answer")

func errAnswer(ok bool) error {
	if ok {
		return nil
	}
	return errNoAnswer
}

// records dumps every record of the deliveries' topic, from each log's start to its end.
func records(ctx context.Context, o Options, parts []folder.Partition) (err error) {
	out, err := folder.Create(o.Dir, folder.KafkaFile)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	from := map[int32]kgo.Offset{}
	left := map[int32]folder.Partition{}
	for _, p := range parts {
		if p.Topic == o.Topic && p.Start < p.End {
			from[p.Partition], left[p.Partition] = kgo.NewOffset().At(p.Start), p
		}
	}
	if len(left) == 0 {
		return nil
	}
	cl, err := o.connect(kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.KeepControlRecords(),
		kgo.FetchMaxBytes(16<<20), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{o.Topic: from}))
	if err != nil {
		return err
	}
	defer cl.Close()
	for len(left) > 0 {
		wait, cancel := context.WithTimeout(ctx, o.Patience)
		fetches := cl.PollFetches(wait)
		cancel()
		for _, e := range fetches.Errors() {
			return fmt.Errorf("partition %d: %w", e.Partition, e.Err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			p, ok := left[r.Partition]
			if !ok {
				continue
			}
			if one := recordOf(r, p.TopicID); o.ours(one.Source) {
				if err := out.Write(one); err != nil {
					return err
				}
			}
			if r.Offset >= p.End-1 {
				delete(left, r.Partition)
			}
		}
	}
	return nil
}

// recordOf reads a record's headers by the published format, schemas/record.v1.md.
func recordOf(r *kgo.Record, topicID string) folder.Record {
	sum := sha256.Sum256(r.Value)
	out := folder.Record{
		ID: string(r.Key), TopicID: topicID, Partition: r.Partition, Offset: r.Offset, SHA256: hex.EncodeToString(sum[:]), Size: len(r.Value),
	}
	if r.Attrs.IsControl() {
		out.Odd = "a control record"
		return out
	}
	headers := map[string][]string{}
	once := map[string]string{}
	for _, h := range r.Headers {
		if name, ok := strings.CutPrefix(h.Key, "http_"); ok {
			headers[name] = append(headers[name], string(h.Value))
			continue
		}
		if _, ok := once[h.Key]; ok {
			out.Odd = "header " + h.Key + " is there twice"
		}
		once[h.Key] = string(h.Value)
	}
	out.Source, out.Delivery = strings.TrimPrefix(once["ce_source"], "/webhooks/"), once["catchment_delivery_id"]
	if once["ce_id"] != out.ID {
		out.Odd = "the key is not ce_id"
	}
	out.Headers, out.Attempt = folder.HeaderDigest(headers), attemptOf(headers)
	return out
}

// attemptOf is what the request said of itself.
func attemptOf(headers map[string][]string) uint64 {
	values := headers[strings.ToLower(folder.AttemptHeader)]
	if len(values) != 1 {
		return 0
	}
	n, _ := strconv.ParseUint(values[0], 10, 64)
	return n
}
