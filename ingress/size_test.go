package ingress

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/kafka/kafkatest"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// TestLargestBody sends GitHub's largest payload, with as many headers as a request may have, and reads it out of
// Kafka byte for byte. One byte more is refused.
func TestLargestBody(t *testing.T) {
	cluster := kafkatest.New(t)
	h := startOn(t, cluster, "large."+fmt.Sprint(time.Now().UnixNano()), "30s", ", limits: {header_bytes: 48KiB}", ", partitions: 1") // as create_topic makes it
	h.ready()
	s := sampleOf("github", 1)
	const head, tail = `{"action":"opened","pad":"`, `"}`
	s.Body = append(append([]byte(head), bytes.Repeat([]byte("\xc3\xa9"), (25_000_000-len(head)-len(tail))/2)...), tail...)
	require.Len(t, s.Body, 25_000_000)
	send := func(s provider.Sample) (int, string) {
		req := h.signed("github", "github", githubSecret, time.Now(), s)
		for i := range 150 {
			req.Header.Set(fmt.Sprintf("X-Long-%d", i), string(bytes.Repeat([]byte("v"), 250)))
		}
		resp, body := h.call(req)
		return resp.StatusCode, body
	}
	require.Eventually(t, func() bool { // a new topic's partition may have no leader yet
		status, body := send(s)
		t.Logf("%d %s", status, body)
		return status == 200
	}, time.Minute, 100*time.Millisecond)
	ds := h.deliveries()["github "+s.ID]
	require.NotEmpty(t, ds)
	require.Equal(t, sha256.Sum256(s.Body), sha256.Sum256(ds[0].Body))
	require.Len(t, ds[0].HeaderMap()["x-long-149"], 1)
	s.Body = append(s.Body, ' ')
	status, _ := send(s)
	require.Equal(t, 413, status)
}
