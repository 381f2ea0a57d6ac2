package event_test

import (
	"encoding/json"
	"flag"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
)

var update = flag.Bool("update", false, "write the golden records of presets that have none yet")

const goldenDir = "../../schemas/golden"

// record is a Kafka record as schemas/golden keeps it: header values are UTF-8 there, the value may be any bytes.
type record struct {
	Key     string      `json:"key"`
	Headers [][2]string `json:"headers"`
	Value   []byte      `json:"value_base64"`
}

// TestGolden holds the format still: what was written once must be read for ever, and written the same way.
func TestGolden(t *testing.T) {
	for _, name := range []string{"github", "hmac", "shopify", "slack", "standard-webhooks", "stripe", "svix"} {
		p, ok := provider.ByName(name)
		require.True(t, ok)
		t.Run(p.Name, func(t *testing.T) {
			file := filepath.Join(goldenDir, p.Name+".record.json")
			if _, err := os.Stat(file); os.IsNotExist(err) && *update {
				write(t, file, p)
			}
			raw, err := os.ReadFile(file)
			require.NoError(t, err)
			var g record
			require.NoError(t, json.Unmarshal(raw, &g))
			r := &kgo.Record{Key: []byte(g.Key), Value: g.Value}
			for _, h := range g.Headers {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
			}
			d, err := event.Decode(r)
			require.NoError(t, err)
			again := event.Encode(d)
			require.Empty(t, cmp.Diff(r.Headers, again.Headers))
			require.Equal(t, g.Key, string(again.Key))
			require.Equal(t, g.Value, again.Value)
			require.Equal(t, p.Name, d.Provider)
			require.NotEmpty(t, d.Body)
		})
	}
}

// write makes a golden record from a sample of the preset, as the ingress would.
func write(t *testing.T, file string, p *provider.Provider) {
	t.Helper()
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	s := p.Sample(rand.New(rand.NewPCG(1, 2)), provider.SampleInput{Seq: 1, Now: at})
	in := &provider.SignInput{Secret: "whsec_Z29sZGVuIHJlY29yZHMgaGF2ZSBhIHNlY3JldA==", Method: http.MethodPost, URL: "https://hooks.example.com/webhooks/" + p.Name, Body: s.Body, Now: at, Sample: s}
	if p.Name == "hmac" {
		in.HMAC = &provider.HMAC{Header: "X-Signature", Algorithm: "sha256", Encoding: "hex", Prefix: "sha256=", Signed: "{body}"}
	}
	signed, err := p.Sign(in)
	require.NoError(t, err)
	d := &event.Delivery{
		Source: p.Name, Provider: p.Name, ID: s.ID, Type: s.Type, Time: at, ReceivedAt: at.Add(417 * time.Millisecond),
		DeliveryID: "019ab07c-5d61-7000-8000-00000000c0de", SecretID: "k_0123456789ab", RemoteAddr: "192.0.2.7",
		Method: in.Method, Path: "/webhooks/" + p.Name, Verdict: event.NewVerdict(event.FlagVerified),
		ContentType: signed.Header.Get("Content-Type"), Body: signed.Body,
	}
	for name, values := range signed.Header {
		for _, v := range values {
			d.Headers = append(d.Headers, event.Header{Name: strings.ToLower(name), Value: v})
		}
	}
	slices.SortFunc(d.Headers, func(a, b event.Header) int { return strings.Compare(a.Name, b.Name) })
	r := event.Encode(d)
	g := record{Key: string(r.Key), Value: r.Value}
	for _, h := range r.Headers {
		g.Headers = append(g.Headers, [2]string{h.Key, string(h.Value)})
	}
	raw, err := json.MarshalIndent(g, "", "  ")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, append(raw, '\n'), 0o644))
}
