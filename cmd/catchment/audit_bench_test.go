package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
)

// BenchmarkAudit audits CATCHMENT_BENCH_DELIVERIES deliveries (20,000) of 1 KiB, one in ten of them a repetition, in a
// process of its own, and tells how much memory that takes. Kafka and the archive are real; the rows are written at once.
func BenchmarkAudit(b *testing.B) {
	n := 20_000
	if text := os.Getenv("CATCHMENT_BENCH_DELIVERIES"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(b, err)
	}
	o := fill(b, n)
	b.ResetTimer()
	for b.Loop() {
		cmd := exec.Command(os.Args[0], "audit", "--config", o.config)
		cmd.Env = append(os.Environ(), runMain+"=1")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		require.NoError(b, cmd.Start())
		most := make(chan float64)
		go func() { most <- highWater(cmd.Process.Pid) }()
		err := cmd.Wait()
		b.ReportMetric(<-most, "MiB-RSS")
		require.NoError(b, err, "%s", &out)
		b.Logf("%s", &out)
		b.ReportMetric((cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), "CPU-s")
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
}

// highWater is the most memory that a process had, in MiB, when it ended. What the system says afterwards includes what
// this process had when it began it.
func highWater(pid int) (most float64) {
	for {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		_, after, found := strings.Cut(string(text), "VmHWM:")
		if err != nil || !found {
			return most
		}
		var kib float64
		if _, err := fmt.Sscan(after, &kib); err == nil {
			most = max(most, kib/1024)
		}
		runtime.Gosched()
	}
}

// fill enqueues and archives deliveries, and writes what the processor would have stored.
func fill(b *testing.B, n int) *office {
	b.Helper()
	o := newOffice(b)
	o.eventually(1, `SELECT count(*)::int FROM catchment.progress`)
	o.stop()
	identities, repeats := make([][]any, 0, n), make([][]any, 0, n/10)
	body := make([]byte, 1000)
	now := time.Now().UTC()
	for i := range n {
		id, delivery := fmt.Sprintf("evt_%024x", uint64(i)*0x9e3779b97f4a7c15), uuid.Must(uuid.NewV7())
		repeat := i%10 == 9
		if repeat {
			id = fmt.Sprintf("evt_%024x", uint64(i-1)*0x9e3779b97f4a7c15)
		}
		d := &event.Delivery{
			Source: "shop", Provider: "stripe", ID: id, Type: "paid", ReceivedAt: now, DeliveryID: delivery.String(), SecretID: "k_1",
			Method: "POST", Path: "/webhooks/shop", ContentType: "application/json", Verdict: event.NewVerdict(event.FlagVerified),
			Body: append([]byte(id), body...),
		}
		o.cl.Produce(context.Background(), event.Encode(d), func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
		sum := sha256.Sum256(d.Body)
		if repeat {
			repeats = append(repeats, []any{"shop", id, delivery, now, o.topic, int64(i)})
		} else {
			identities = append(identities, []any{"shop", id, sum[:], now, delivery})
		}
	}
	require.NoError(b, o.cl.Flush(context.Background()))
	_, err := o.db.CopyFrom(context.Background(), pgx.Identifier{"catchment", "identities"}, []string{"source", "event_id", "body_sha256", "first_seen_at", "delivery_id"}, pgx.CopyFromRows(identities))
	require.NoError(b, err)
	o.exec(`CREATE TABLE few (source text, event_id text, delivery_id uuid, received_at timestamptz, topic text, "offset" bigint)`)
	_, err = o.db.CopyFrom(context.Background(), pgx.Identifier{"few"}, []string{"source", "event_id", "delivery_id", "received_at", "topic", "offset"}, pgx.CopyFromRows(repeats))
	require.NoError(b, err)
	o.exec(`INSERT INTO catchment.duplicates (source, event_id, delivery_id, received_at, topic, topic_id, partition, "offset")
		SELECT f.source, f.event_id, f.delivery_id, f.received_at, f.topic, p.topic_id, 0, f."offset" FROM few f, catchment.progress p`)
	o.exec(`UPDATE catchment.progress SET next_offset = $1`, n)
	o.exec(`ANALYZE`)
	o.archiveWithin(10*time.Minute, 10*time.Second, int64(n))
	return o
}
