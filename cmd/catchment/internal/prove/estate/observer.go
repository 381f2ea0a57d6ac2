package estate

import (
	"context"
	_ "embed" // its SQL
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
)

// Observer asks Kafka and Postgres how far everything is, past all links.
type Observer struct {
	Kafka       *kadm.Client
	DatabaseURL string
	Topic       string   // of the deliveries
	Sources     []string // whose attempts count as pending; none: all
}

var (
	//go:embed position.sql
	positionSQL string
	//go:embed progress.sql
	progressSQL string
	//go:embed pending.sql
	pendingSQL string
	//go:embed ready.sql
	readySQL string
)

// Ends are the ends of all partitions of a topic; an error when one is not known.
func (o *Observer) Ends(ctx context.Context, topic string) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	listed, err := o.Kafka.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	if err := listed.Error(); err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	ends := map[int32]int64{}
	listed.Each(func(l kadm.ListedOffset) { ends[l.Partition] = l.Offset })
	return ends, nil
}

// Committed are the offsets that a group has committed for a topic, by partition.
func (o *Observer) Committed(ctx context.Context, group, topic string) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	offsets, err := o.Kafka.FetchOffsets(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("group %s: %w", group, err)
	}
	committed := map[int32]int64{}
	for _, at := range offsets.Offsets()[topic] {
		committed[at.Partition] = at.At
	}
	return committed, nil
}

// Position is how far the processors are, summed over all partitions of the deliveries.
func (o *Observer) Position(ctx context.Context) (n int64, err error) {
	err = o.query(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, positionSQL, o.Topic).Scan(&n) })
	return n, err
}

// Progress is how far the processors are with each partition of the deliveries.
func (o *Observer) Progress(ctx context.Context) (map[int32]int64, error) {
	next := map[int32]int64{}
	err := o.query(ctx, func(conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, progressSQL, o.Topic)
		if err != nil {
			return err
		}
		var partition int32
		var offset int64
		_, err = pgx.ForEachRow(rows, []any{&partition, &offset}, func() error { next[partition] = offset; return nil })
		return err
	})
	return next, err
}

// Pending is how many attempts are still to be made, and results to be published.
func (o *Observer) Pending(ctx context.Context) (n int64, err error) {
	err = o.query(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, pendingSQL, o.Sources).Scan(&n) })
	return n, err
}

// Tables says whether the database has the workload's tables.
func (o *Observer) Tables(ctx context.Context) (there bool, err error) {
	err = o.query(ctx, func(conn *pgx.Conn) error { return conn.QueryRow(ctx, readySQL).Scan(&there) })
	return there, err
}

func (o *Observer) query(ctx context.Context, ask func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, o.DatabaseURL)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return ask(conn)
}
