package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/archive"
	"github.com/catchment-dev/catchment/archiver/internal/chain"
	"github.com/catchment-dev/catchment/archiver/internal/checkpoint"
	"github.com/catchment-dev/catchment/archiver/internal/layout"
	"github.com/catchment-dev/catchment/pkg/kafka"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// ErrNotOvertaken is wrapped by Overtaken's error when nothing of a partition is lost.
var ErrNotOvertaken = errors.New("Kafka still has what the archive wants next")

// errAdmitted ends a session: a gap was admitted, behind which a halted partition goes on.
var errAdmitted = errors.New("a gap in the archive was admitted")

// Loss is a run of offsets of one partition that the archive wants and Kafka has no longer.
type Loss struct {
	First, Last int64
	chain       *chain.Chain
	tip         chain.Tip
}

// Overtaken says what is lost of a partition of a topic. The error wraps ErrNotOvertaken when nothing is. A segment that
// was stored without its checkpoint gets it, as the archiver would do.
func Overtaken(ctx context.Context, cfg *settings.File, topic string, partition int32) (*Loss, error) {
	c, err := openChain(ctx, cfg)
	if err != nil {
		return nil, err
	}
	options, err := kafka.Options(cfg.Kafka, "catchment")
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	id, err := kafka.TopicID(ctx, client, topic)
	if err != nil {
		return nil, err
	}
	c.Partition = layout.Partition{Topic: topic, TopicID: id, Number: partition}
	if topic == cfg.Kafka.Results() {
		c.Kind = layout.Results
	}
	starts, err := kadm.NewClient(client).ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("ask for the log's start: %w", err)
	}
	start, ok := starts.Lookup(topic, partition)
	if !ok {
		return nil, fmt.Errorf("topic %s has no partition %d", topic, partition)
	}
	if start.Err != nil {
		return nil, fmt.Errorf("topic %s, partition %d: %w", topic, partition, start.Err)
	}
	return overtaken(ctx, c, start.Offset)
}

func openChain(ctx context.Context, cfg *settings.File) (*chain.Chain, error) {
	store, err := archive.Open(ctx, cfg.Archive)
	if err != nil {
		return nil, err
	}
	second, err := archive.OpenCopy(ctx, cfg.Archive)
	if err != nil {
		return nil, err
	}
	key, err := checkpoint.NewKey(cfg.Archive.CheckpointKey.Reveal())
	if err != nil {
		return nil, err
	}
	return &chain.Chain{Store: store, Copy: second, Key: key}, nil
}

func overtaken(ctx context.Context, c *chain.Chain, start int64) (*Loss, error) {
	tip, begun, err := c.Locate(ctx, -1)
	if err == nil && !begun {
		err = fmt.Errorf("%w: its chain has not begun, and will begin where Kafka does", ErrNotOvertaken)
	}
	if err == nil {
		tip, err = c.CatchUp(ctx, tip, start)
	}
	if err == nil && tip.Next >= start {
		err = fmt.Errorf("%w: the archive goes on at offset %d, Kafka begins at %d", ErrNotOvertaken, tip.Next, start)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Partition, err)
	}
	return &Loss{First: tip.Next, Last: start - 1, chain: c, tip: tip}, nil
}

// Partition is whose offsets are lost.
func (l *Loss) Partition() string { return l.chain.Partition.String() }

// Key is where the gap will stand.
func (l *Loss) Key() string { return l.chain.Partition.Checkpoint(l.First) }

// Signed says whether the gap will be signed.
func (l *Loss) Signed() bool { return l.chain.Key != nil }

// Admit writes the gap into the chain. The archiver goes on behind it. It returns the gap that stands there: another
// one may have been first.
func (l *Loss) Admit(ctx context.Context, actor, reason string) (*checkpoint.Gap, error) {
	for name, text := range map[string]string{"actor": actor, "reason": reason} {
		if err := checkpoint.CheckLine(text); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	gap, _, err := l.chain.Admit(ctx, l.tip, l.Last, actor, reason, time.Now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.Key(), err)
	}
	return gap, nil
}

// waitAdmitted returns true as soon as a halted partition's chain goes on behind where it stood, and false when ctx
// ends.
func (c *consumer) waitAdmitted(ctx context.Context) bool {
	for {
		for number, p := range c.stopped() {
			tip, ok, err := p.chain.Locate(ctx, p.tip.Next)
			if err == nil && ok && tip.Next > p.tip.Next {
				c.log.Info("a halted partition can go on: a gap was admitted", slog.Any("partition", number), slog.Any("next", tip.Next))
				return true
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(watchInterval):
		}
	}
}

// stopped are the halted partitions whose goroutines have ended: their tips do not change any more.
func (c *consumer) stopped() map[int32]*partition {
	c.guard.Lock()
	defer c.guard.Unlock()
	out := map[int32]*partition{}
	for number, p := range c.parts {
		if p.haltedBy() == nil {
			continue
		}
		select {
		case <-p.done:
			out[number] = p
		default:
		}
	}
	return out
}
