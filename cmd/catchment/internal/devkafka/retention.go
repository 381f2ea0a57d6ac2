package devkafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// retentionInterval is how often old records are looked for.
const retentionInterval = time.Hour

// keepRetention removes old records in place of the broker's own retention, which is switched off: that forgets
// where the log ended when it has removed everything, so that a quiet week and a restart would give offsets out
// again; and it does not care whether a consumer still needs a record.
func keepRetention(ctx context.Context, admin *kadm.Client, retention time.Duration, log *slog.Logger) {
	if retention <= 0 {
		return
	}
	tick := time.NewTicker(retentionInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := trim(ctx, admin, time.Now().Add(-retention)); err != nil && ctx.Err() == nil {
			log.Warn("embedded Kafka: old records were not removed", slog.Any("error", err))
		}
	}
}

// trim removes the records before the time that every consumer group has committed, but never a partition's last.
func trim(ctx context.Context, admin *kadm.Client, before time.Time) error {
	aged, err := admin.ListOffsetsAfterMilli(ctx, before.UnixMilli())
	if err != nil {
		return fmt.Errorf("find old records: %w", err)
	}
	ends, err := admin.ListEndOffsets(ctx)
	if err != nil {
		return fmt.Errorf("find old records: %w", err)
	}
	committed, err := commits(ctx, admin)
	if err != nil {
		return err
	}
	upTo := kadm.Offsets{}
	aged.Each(func(o kadm.ListedOffset) {
		end, known := ends.Lookup(o.Topic, o.Partition)
		if o.Err != nil || !known || end.Err != nil {
			return
		}
		at := min(o.Offset, end.Offset-1)
		readers := 0
		for _, group := range committed {
			if len(group[o.Topic]) == 0 { // it reads other topics
				continue
			}
			readers++
			c, ok := group.Lookup(o.Topic, o.Partition)
			if !ok || c.Err != nil {
				at = 0 // it has not begun with this partition and may need it all
				break
			}
			at = min(at, c.At)
		}
		if at > 0 && readers > 0 {
			upTo.AddOffset(o.Topic, o.Partition, at, -1)
		}
	})
	if len(upTo) == 0 {
		return nil
	}
	deleted, err := admin.DeleteRecords(ctx, upTo)
	return errors.Join(err, deleted.Error())
}

// commits returns what each consumer group has committed.
func commits(ctx context.Context, admin *kadm.Client) ([]kadm.OffsetResponses, error) {
	groups, err := admin.ListGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("list consumer groups: %w", err)
	}
	var all []kadm.OffsetResponses
	for _, name := range groups.Groups() {
		offsets, err := admin.FetchOffsets(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("offsets of consumer group %s: %w", name, err)
		}
		all = append(all, offsets)
	}
	return all, nil
}
