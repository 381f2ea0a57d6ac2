package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/pgtest"
)

// TestMain makes the test's own program the example when a test starts it as that.
func TestMain(m *testing.M) {
	if os.Getenv("EXAMPLE_MAIN") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// The program runs with its own configuration, makes each move once, waits for the one that must come before, and stops
// at a signal.
func TestExample(t *testing.T) {
	url, kc := pgtest.New(t), kafkatest.New(t)
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	schema, err := os.ReadFile("orders.sql")
	require.NoError(t, err)
	_, err = pool.Exec(t.Context(), string(schema))
	require.NoError(t, err)
	topic, published := kc.Topic(t, 2), kc.Topic(t, 2)
	text, err := os.ReadFile("catchment.yaml")
	require.NoError(t, err)
	config := filepath.Join(t.TempDir(), "catchment.yaml")
	require.NoError(t, os.WriteFile(config, []byte(strings.Replace(string(text), "topic: order-status", "topic: "+published, 1)), 0o600))

	out := &strings.Builder{}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "--config", config)
	cmd.Env = append(os.Environ(), "EXAMPLE_MAIN=1", "DATABASE_URL="+url, "CATCHMENT_KAFKA__BROKERS="+strings.Join(kc.Brokers, ","),
		"CATCHMENT_KAFKA__TOPIC="+topic, "CATCHMENT_KAFKA__RESULTS_TOPIC=off", "CATCHMENT_PROCESSOR__GROUP="+uuid.NewString())
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	cl := kc.Client(t, kgo.DefaultProduceTopic(topic))
	for _, move := range []string{"paid", "placed", "paid", "placed"} { // out of order, and each twice
		d := &event.Delivery{
			Source: "shop", Provider: "none", ID: "o1-" + move, Type: "order." + move, ReceivedAt: time.Now().UTC(), DeliveryID: uuid.Must(uuid.NewV7()).String(),
			Verdict: event.NewVerdict(event.FlagUnverified), ContentType: "application/json", Body: fmt.Appendf(nil, `{"order":"o1","status":%q}`, move),
		}
		require.NoError(t, cl.ProduceSync(t.Context(), event.Encode(d)).FirstErr())
	}
	require.Eventually(t, func() bool {
		var status string
		err := pool.QueryRow(context.Background(), `SELECT status FROM orders WHERE id = 'o1'`).Scan(&status)
		return err == nil && status == "paid"
	}, 90*time.Second, 50*time.Millisecond, "%s", out)
	var succeeded int
	require.NoError(t, pool.QueryRow(t.Context(), `SELECT count(*) FROM catchment.results WHERE outcome = 'succeeded' AND returned ? 'to'`).Scan(&succeeded))
	require.Equal(t, 2, succeeded)

	reader := kc.Client(t, kgo.ConsumeTopics(published), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()))
	var statuses []string
	for len(statuses) < 2 {
		fetches := reader.PollFetches(t.Context())
		require.NoError(t, fetches.Err0())
		fetches.EachRecord(func(r *kgo.Record) { statuses = append(statuses, string(r.Value)) })
	}
	require.Equal(t, []string{`{"order":"o1","status":"placed"}`, `{"order":"o1","status":"paid"}`}, statuses)

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	select {
	case err := <-ended:
		require.NoError(t, err, "%s", out)
	case <-time.After(60 * time.Second):
		require.Fail(t, "the program did not stop")
	}
}
