// Package sample makes records for benchmarks. The number of an event comes in, and the record goes out that the ingress
// publishes when `catchment send` sends that event. It must never be linked by a service.
package sample

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/catchment-dev/catchment/archiver/internal/row"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
)

// sources are those of most events, the others of one in three each.
var sources = []string{"stripe", "github", "shopify"}

// Records returns n records from offset first on, one a millisecond; that of offset 0 came at begin. The same first and begin
// give the same events, but for their signatures.
func Records(n, first int, begin time.Time) ([]*kgo.Record, error) {
	random := rand.New(rand.NewPCG(1, uint64(first))) //nolint:gosec // the same events each time
	makers := make([]*maker, len(sources))
	for i, name := range sources {
		p, ok := provider.ByName(name)
		if !ok {
			return nil, fmt.Errorf("there is no provider %s", name)
		}
		makers[i] = &maker{p, p.NewCredentials()}
	}
	records := make([]*kgo.Record, n)
	for i := range records {
		seq := first + i
		at := begin.Add(time.Duration(seq) * time.Millisecond)
		d, err := makers[seq%len(makers)].delivery(random, seq, at)
		if err != nil {
			return nil, err
		}
		records[i] = event.Encode(d)
		records[i].Offset, records[i].Timestamp = int64(seq), at
	}
	return records, nil
}

type maker struct {
	*provider.Provider
	credentials provider.Credentials
}

// delivery is an event as the ingress has taken it: with the headers of the request, and those that a client in Go adds.
func (m *maker) delivery(random *rand.Rand, seq int, at time.Time) (*event.Delivery, error) {
	sample := m.Sample(random, provider.SampleInput{Seq: seq, Now: at})
	to := "https://hooks.example.com/webhooks/" + m.Name
	signed, err := m.Sign(&provider.SignInput{
		Secret: m.credentials.Signer, Options: m.credentials.Options, URL: to, Body: sample.Body, Now: at, Sample: sample,
	})
	if err != nil {
		return nil, fmt.Errorf("sign for %s: %w", m.Name, err)
	}
	path, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	all := http.Header{"Host": {"hooks.example.com"}, "Accept-Encoding": {"gzip"}, "Content-Length": {fmt.Sprint(len(sample.Body))}}
	for _, h := range []http.Header{sample.Header, signed.Header} {
		for name, values := range h {
			all[name] = values
		}
	}
	d := &event.Delivery{
		Source: m.Name, Provider: m.Name, ID: sample.ID, Type: sample.Type, Time: at.Add(-time.Second).Truncate(time.Second), ReceivedAt: at.Add(time.Duration(random.IntN(1000)) * time.Microsecond),
		DeliveryID: uuid(at, random), SecretID: "k_" + fmt.Sprintf("%.12x", m.Name+"------"), RemoteAddr: fmt.Sprintf("198.51.100.%d", random.IntN(16)),
		Method: http.MethodPost, Path: path.Path, ContentType: all.Get("Content-Type"), Verdict: event.NewVerdict(event.FlagVerified), Body: sample.Body,
		TraceParent: fmt.Sprintf("00-%016x%016x-%016x-01", random.Uint64(), random.Uint64(), random.Uint64()),
	}
	for name, values := range all {
		for _, v := range values {
			d.Headers = append(d.Headers, event.Header{Name: strings.ToLower(name), Value: v})
		}
	}
	slices.SortFunc(d.Headers, func(a, b event.Header) int { return strings.Compare(a.Name, b.Name) })
	return d, nil
}

// uuid is one of version 7, as the ingress makes them.
func uuid(at time.Time, random *rand.Rand) string {
	ms := uint64(at.UnixMilli())
	return fmt.Sprintf("%08x-%04x-7%03x-%04x-%012x", ms>>16, ms&0xffff, random.IntN(1<<12), 0x8000|random.IntN(1<<14), random.Uint64()>>16)
}

// Line is a row as a line of JSON, with a body that is a text.
func Line(w *row.Row) ([]byte, error) {
	line, err := json.Marshal(struct {
		*row.Row
		Body, BodySHA256, TopicID string
	}{w, string(w.Body), hex.EncodeToString(w.BodySHA256[:]), hex.EncodeToString(w.TopicID[:])})
	return append(line, '\n'), err
}
