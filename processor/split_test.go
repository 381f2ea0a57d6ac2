package processor

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/catchment-dev/catchment/pkg/config"
	"github.com/catchment-dev/catchment/pkg/event"
	"github.com/catchment-dev/catchment/pkg/provider"
	"github.com/catchment-dev/catchment/pkg/settings"
)

// several is a delivery of mail with the elements as its events.
func several(key string, elements ...string) *event.Delivery {
	d := delivery("mail", key, "", "["+strings.Join(elements, ",\r\n ")+"]\n")
	d.Provider, d.Verdict = "sendgrid", event.NewVerdict(event.FlagVerified, event.FlagBatch)
	return d
}

func element(id, who string) string {
	return fmt.Sprintf(`{"sg_event_id":%q, "event":"open","timestamp":1794000000, "who":%q}`, id, who)
}

func newMail(t *testing.T) *world {
	w := newDatabase(t, ledgerSchema...)
	w.cfg.Sources["mail"] = settings.Source{Provider: "sendgrid"}
	w.cfg.Operations = []settings.Operation{ledger("mail")}
	return w
}

// A delivery with several events becomes those events, each with its own ID, bytes, repetitions and operations.
func TestSplitDelivery(t *testing.T) {
	w := newMail(t)
	eng := w.engine()
	first := several("k1", element("e1", "ann"), element("e2", "bob"), `{"event":"click","who":"ann"}`, `{"event":"click","who":"ann"}`)
	second := several("k2", element("e2", "bob"), element("e1", "eve"), element("e3", "bob"), element("e3", "bob"), element("e3", "mallory"), element("e3", "mallory"))
	for p := range int32(2) { // the second partition has the same records: nothing happens twice
		wk := w.take(eng, partition(p))
		wk.size = 3 // smaller than a delivery: a record is not divided
		require.NoError(t, wk.write(t.Context(), log(wk.part, first, second)))
	}
	require.Equal(t, "e1:0:open:processed e2:1:open:processed e3:2:open:processed k1/2:2:click:processed k1/3:3:click:processed",
		w.text(`SELECT string_agg(concat_ws(':', event_id, delivery_index, type, status), ' ' ORDER BY event_id COLLATE "C") FROM catchment.events`))
	require.Equal(t, element("e2", "bob"), w.text(`SELECT convert_from(body, 'UTF8') FROM catchment.events WHERE event_id = 'e2'`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.events WHERE event_id = 'e2' AND body_sha256 = sha256(body) AND event_time = to_timestamp(1794000000)`))
	require.Equal(t, 2, w.count(`SELECT count(DISTINCT delivery_id) FROM catchment.events`))
	require.Equal(t, 5, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 3, w.count(`SELECT n FROM counters WHERE entity = 'ann'`))
	require.Equal(t, 2, w.count(`SELECT n FROM counters WHERE entity = 'bob'`))
	// Partition 1 read a copy of both records: its repetitions have offsets of their own.
	require.Equal(t, "e2:0 e3:3", w.text(`SELECT string_agg(concat_ws(':', event_id, delivery_index), ' ' ORDER BY event_id, delivery_index) FROM catchment.duplicates WHERE partition = 0`))
	require.Equal(t, "e1:1:eve e3:4:mallory e3:5:mallory", w.text(`SELECT string_agg(concat_ws(':', event_id, delivery_index, convert_from(body, 'UTF8')::json->>'who'), ' '
		ORDER BY event_id, delivery_index) FROM catchment.conflicts WHERE partition = 0`))
	require.Equal(t, 1+3+3, w.count(`SELECT deliveries FROM catchment.events WHERE event_id = 'e3'`), "three repetitions in each of the two records")
}

// A record that is read again, as after a failover to a standby that lags, adds nothing.
func TestSplitReadAgain(t *testing.T) {
	w := newMail(t)
	eng := w.engine()
	p := partition(0)
	d := several("k1", element("e1", "ann"), element("e1", "ann"), element("e1", "eve"), element("e2", "ann"))
	for range 2 {
		wk := w.take(eng, p)
		require.NoError(t, wk.write(t.Context(), log(p, d)))
		w.exec(`UPDATE catchment.progress SET next_offset = 0`)
	}
	require.Equal(t, 2, w.count(`SELECT count(*) FROM ledger`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.duplicates`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM catchment.conflicts`))
}

// One event of a delivery that cannot be done does not touch the others.
func TestSplitOneFails(t *testing.T) {
	w := newMail(t)
	w.cfg.Operations[0].SQL = config.Strings{`INSERT INTO counters (entity, n) VALUES (@id, (@who::text)::int)`}
	wk := w.take(w.engine(), partition(0))
	require.NoError(t, wk.write(t.Context(), log(wk.part, several("k", element("e1", "1"), element("e2", "x"), element("e3", "3")))))
	require.Equal(t, "e1:processed e2:dead e3:processed", w.text(`SELECT string_agg(event_id || ':' || status, ' ' ORDER BY event_id) FROM catchment.events`))
	require.Equal(t, "e2", w.text(`SELECT event_id FROM catchment.dead_letters`))
}

// What cannot be taken apart is a dead letter with the whole record, and the partition goes on.
func TestSplitImpossible(t *testing.T) {
	w := newMail(t)
	wk := w.take(w.engine(), partition(0))
	broken := several("k1", `{"a":1`)
	object := several("k2", "")
	object.Body = []byte(`{"sg_event_id":"e1"}`)
	many := several("k3", strings.Split(strings.Repeat("{},", maxEvents)+"{}", ",")...)
	gone := several("k4", element("e1", "ann"))
	gone.Provider = "no-longer-there"
	require.NoError(t, wk.write(t.Context(), log(wk.part, broken, object, many, gone, several("k5", element("e5", "ann")))))
	require.Equal(t, "k1 k2 k3 k4", w.text(`SELECT string_agg(event_id, ' ' ORDER BY event_id) FROM catchment.dead_letters WHERE reason = 'unsplittable' AND key IS NOT NULL AND headers IS NOT NULL`))
	require.Contains(t, w.text(`SELECT error FROM catchment.dead_letters WHERE event_id = 'k3'`), "carries 20001 events: expected at most 20000")
	require.Equal(t, string(broken.Body), w.text(`SELECT convert_from(value, 'UTF8') FROM catchment.dead_letters WHERE event_id = 'k1'`))
	require.Equal(t, 1, w.count(`SELECT count(*) FROM ledger`))
}

// Every preset's deliveries are taken apart as the ingress names them, by the bytes of the element.
func TestSplitsAsTheIngress(t *testing.T) {
	tried := 0
	for _, p := range provider.All {
		if !p.Splits() || p.Name == "twilio" { // twilio's sample is a form, one event
			continue
		}
		tried++
		t.Run(p.Name, func(t *testing.T) {
			now := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
			creds := p.NewCredentials()
			cfg := provider.Config{Source: "mail", Provider: p.Name, Options: creds.Options, PublicURL: "https://example.com/webhooks/mail"}
			if creds.Secret != "" {
				cfg.Secrets = []provider.Secret{{ID: "s", Text: creds.Secret}}
			}
			if creds.Keys != nil {
				cfg.Keys = creds.Keys
			}
			src, err := provider.New(cfg)
			require.NoError(t, err)
			sample := p.Sample(rand.New(rand.NewPCG(1, 2)), provider.SampleInput{Seq: 1, Now: now})
			signed, err := p.Sign(&provider.SignInput{Secret: creds.Signer, Options: creds.Options, URL: cfg.PublicURL, Body: sample.Body, Now: now, Sample: sample})
			require.NoError(t, err)
			r := &provider.Request{Method: signed.Method, Path: "/webhooks/mail", Header: signed.Header, Body: signed.Body, Now: now}
			if r.Header == nil {
				r.Header = http.Header{}
			}
			v, err := src.Receive(context.Background(), r)
			require.NoError(t, err)
			d := &event.Delivery{Source: "mail", Provider: p.Name, ID: v.ID, Type: v.Type, Time: v.Time, Body: r.Body, ContentType: r.Header.Get("Content-Type"), Verdict: event.NewVerdict(event.FlagVerified)}
			for name, values := range r.Header {
				for _, value := range values {
					d.Headers = append(d.Headers, event.Header{Name: strings.ToLower(name), Value: value})
				}
			}
			want := []provider.Part{{Identity: v.Identity, Body: r.Body}}
			if v.Parts != nil {
				want, d.Verdict = v.Parts, d.Verdict.With(event.FlagBatch)
			}
			rd, errs := newReader(&settings.File{Sources: map[string]settings.Source{"mail": {Provider: p.Name}}})
			require.Empty(t, errs)
			events, err := rd.events(d, event.Position{})
			require.NoError(t, err)
			require.Len(t, events, len(want))
			for i, ev := range events {
				require.Equal(t, want[i].ID, ev.ID)
				require.Equal(t, want[i].Type, ev.Type)
				require.True(t, want[i].Time.Equal(ev.Time))
				require.True(t, bytes.Equal(want[i].Body, ev.Body) && bytes.Contains(r.Body, ev.Body), "an element's body is its exact bytes")
				require.Equal(t, i, ev.Index)
			}
		})
	}
	require.GreaterOrEqual(t, tried, 9)
}
